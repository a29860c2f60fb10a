"""An HTTP/1.1 client that tells apart what was certainly not sent from what nobody knows.

The usual clients retry or hide that difference, and here everything hangs on it.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CONNECT_S = 5.0


class NotSent(Exception):
    """No connection could be made: the request has certainly not happened."""


class NoAnswer(Exception):
    """The request was sent and no whole answer came back: it may have happened."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, and how long it took."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code, empty for a success."""
        try:
            return str(self.json["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return ""

    @property
    def label(self) -> str:
        """Status, code and what is missing that the contract promises with every answer, as answers are tallied."""
        parts = [str(self.status), *([self.code] if self.status >= 300 else [])]
        missing = [f"without {what}" for what in self._missing()]
        return " ".join(part for part in (*parts, *missing) if part)

    def _missing(self) -> Iterator[str]:
        request_id = self.headers.get("x-request-id", "")
        if not request_id:
            yield "X-Request-Id"
        if self.status >= 300 and not self._is_envelope(request_id):
            yield "envelope"
        is_to_be_repeated = self.status == 503 or (self.status == 409 and self.code == "RQ-109")
        if is_to_be_repeated and not self.headers.get("retry-after", "").isdigit():
            yield "Retry-After"

    def _is_envelope(self, request_id: str) -> bool:
        try:
            error = self.json["error"]
            texts = [error["code"], error["message"], error["request_id"]]
            return all(isinstance(text, str) and text for text in texts) and (
                error["request_id"] == request_id and isinstance(error["details"], list)
            )
        except (ValueError, KeyError, TypeError):
            return False


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HttpClient:
    """Requests to one port of this machine, over connections that are kept and reused."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: list[_Streams] = []

    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: object = None, timeout_s: float = 10.0
    ) -> Answer:
        """Send one request.

        Raises:
            NotSent, NoAnswer: there is no answer.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {text}" for name, text in headers.items())]
        content = b""
        if body is not None:
            content = json.dumps(body).encode()
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        reader, writer = await self._connection()
        is_whole = False
        try:
            async with asyncio.timeout(timeout_s):
                writer.write("\r\n".join((*lines, "", "")).encode() + content)
                status, answered, text = await _read(reader)
            is_whole = True
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            raise NoAnswer(type(error).__name__) from error
        finally:
            if is_whole and answered.get("connection") != "close":
                self._idle.append((reader, writer))
            else:
                writer.transport.abort()
        return Answer(status, answered, text, loop.time() - began)

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _connection(self) -> _Streams:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        try:
            async with asyncio.timeout(CONNECT_S):
                return await asyncio.open_connection("127.0.0.1", self.port)
        except (OSError, TimeoutError) as error:
            raise NotSent(type(error).__name__) from error


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in head[1:-2]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", "0")))
