"""Callers that cost little, for experiments that ask as much as a machine can answer."""

import asyncio
import random
import re
from collections.abc import Sequence
from typing import NamedTuple, cast

from chaos.workload import Operation

LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)", re.IGNORECASE)
END_OF_HEAD = b"\r\n\r\n"
PATIENCE_S = 10.0
GOOD, REFUSED = b"200", b"503"


class Told(NamedTuple):
    """What is kept of an answer."""

    status: int
    seconds: float
    # Whether it is an answer that was asked for, or says as the contract does that there is too much to do.
    is_fitting: bool = True


class Callers:
    """Makes the same few requests again and again, each on a connection of its own, which is kept for a next one."""

    def __init__(self, port: int, operations: Sequence[Operation], rng: random.Random) -> None:
        """Describe the requests.

        Args:
            port: on this machine.
            operations: what is asked, each without a body.
            rng: chooses among them.
        """
        self._port = port
        self._rng = rng
        self._requests = [_spell(operation) for operation in operations]
        self._idle: list[_Caller] = []

    async def ask(self) -> Told:
        """Make one request.

        Raises:
            OSError, TimeoutError: there is no answer.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        caller = None
        while self._idle and (caller is None or caller.is_closed):
            caller = self._idle.pop()
        try:
            async with asyncio.timeout(PATIENCE_S):
                if caller is None or caller.is_closed:
                    _, caller = await loop.create_connection(_Caller, "127.0.0.1", self._port)
                status, is_fitting = await caller.ask(self._rng.choice(self._requests))
        except TimeoutError:
            if caller is not None:
                caller.close()
            raise
        if not caller.is_closed:
            self._idle.append(caller)
        return Told(status, loop.time() - began, is_fitting)

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().close()


class _Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.is_closed = False
        self._read = b""
        self._answer: asyncio.Future[tuple[int, bool]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("no answer"))

    def data_received(self, data: bytes) -> None:
        self._read += data
        end = self._read.find(END_OF_HEAD)
        if end < 0:
            return
        length = LENGTH.search(self._read, 0, end)
        if len(self._read) < end + len(END_OF_HEAD) + (int(length[1]) if length else 0):
            return
        if b"\r\nconnection: close" in self._read[:end].lower():
            self.is_closed = True
            self._transport.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(self._read[9:12]), is_fitting(self._read)))

    async def ask(self, request: bytes) -> tuple[int, bool]:
        self._read = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self._transport.close()


def is_fitting(answer: bytes) -> bool:
    """Return whether a whole answer is a success, or tells that there is too much to do and when to come again."""
    status = answer[9:12]
    if status != REFUSED:
        return status == GOOD
    head, _, body = answer.partition(END_OF_HEAD)
    return b"\r\nretry-after: " in head.lower() and b'"RQ-111"' in body


def _spell(operation: Operation) -> bytes:
    lines = [
        f"{operation.method} {operation.path} HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {text}" for name, text in operation.headers.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode()
