"""TCP proxies that stand on every edge of the system and spoil it when told to.

A proxy passes bytes on as they come until its `Faults` say otherwise. Every fault that really hit a connection is
counted: an experiment whose faults never fired has shown nothing.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Faults:
    """What a proxy does to what passes.

    Attributes:
        delay_s: how much later everything arrives, each way.
        delay_answers_s: how much later still answers arrive.
        reset_requests: the share of what the caller sends that is answered by a reset instead of being passed on.
        reset_answers: the share of answers that are thrown away, with a reset: the effect has happened, and nobody
            hears of it.
        is_black_hole: whether everything is swallowed, and nobody told.
    """

    delay_s: float = 0.0
    delay_answers_s: float = 0.0
    reset_requests: float = 0.0
    reset_answers: float = 0.0
    is_black_hole: bool = False


class Proxy:
    """Listens on one port for one server."""

    def __init__(self, name: str, host_port: int, rng: random.Random) -> None:
        """Describe the proxy.

        Args:
            name: the edge, such as ``gateway-records``.
            host_port: the port on this machine that it passes connections on to.
            rng: decides which of many are hit.
        """
        self.name = name
        self.target = host_port
        self.faults = Faults()
        self.fired: Counter[str] = Counter()
        self.port = 0
        self._rng = rng
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> None:
        """Listen on a port, or on any free one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Caller(self), "127.0.0.1", port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.reset()

    def heal(self) -> None:
        """Behave from now on; connections that have lost something in the black hole are reset."""
        self.faults = Faults()
        for link in [link for link in self._links if link.has_lost]:
            link.reset()

    def reset_all(self) -> None:
        """Reset every open connection."""
        for link in list(self._links):
            self.fired["reset"] += 1
            link.reset()

    def hits(self, share: float) -> bool:
        """Decide whether something is hit that is to be hit with this probability."""
        return share > 0 and self._rng.random() < share


class _Link:
    """One connection through a proxy: its two ends, and what is on its way between them."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.ends: list[asyncio.Transport] = []
        self.has_lost = False
        self._last_due = {True: 0.0, False: 0.0}
        self._delayed: dict[bool, deque[Callable[[], None]]] = {True: deque(), False: deque()}
        proxy._links.add(self)

    def carry(self, data: bytes, to: asyncio.Transport, *, is_answer: bool) -> None:
        """Pass bytes on, or do to them what the faults say."""
        faults, fired = self.proxy.faults, self.proxy.fired
        if faults.is_black_hole:
            fired["swallowed"] += 1
            self.has_lost = True
        elif self.proxy.hits(faults.reset_answers if is_answer else faults.reset_requests):
            fired["cut answer" if is_answer else "reset"] += 1
            self.reset()
        else:
            self._later(partial(_write, to, data), is_answer)

    def end(self, to: asyncio.Transport, *, is_answer: bool) -> None:
        """Close the other end, once it has got what is still on its way to it."""
        if not self.proxy.faults.is_black_hole:
            self._later(to.close, is_answer)
        self.proxy._links.discard(self)

    def _later(self, action: Callable[[], None], is_answer: bool) -> None:
        loop, faults = asyncio.get_running_loop(), self.proxy.faults
        delay = faults.delay_s + (faults.delay_answers_s if is_answer else 0.0)
        delayed = self._delayed[is_answer]
        if not delay and not delayed:
            action()
            return
        if delay:
            self.proxy.fired["delayed"] += 1
        # Nothing overtakes what was delayed before it, in whatever order a loop that counts milliseconds calls.
        delayed.append(action)
        due = self._last_due[is_answer] = max(loop.time() + delay, self._last_due[is_answer])
        loop.call_at(due, lambda: delayed.popleft()())

    def reset(self) -> None:
        """Break the connection off, so that both ends get a reset."""
        self.proxy._links.discard(self)
        for end in self.ends:
            raw = end.get_extra_info("socket")
            if raw is not None and not end.is_closing():
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            end.abort()


def _write(to: asyncio.Transport, data: bytes) -> None:
    if not to.is_closing():
        to.write(data)


class _Caller(asyncio.Protocol):
    """The end at which the caller is."""

    def __init__(self, proxy: Proxy) -> None:
        self._link = _Link(proxy)
        self._waiting: list[bytes] = []
        self._server: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        self._link.ends.append(transport)
        self._transport = transport
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: _Server(self._link, self._transport), "127.0.0.1", self._link.proxy.target
            )
        except OSError:
            # Nobody listens there: for the caller that is a connection that ends at once.
            self._link.reset()
            return
        self._server = transport
        self._link.ends.append(transport)
        if self._transport.is_closing():
            transport.close()
        for data in self._waiting:
            self._link.carry(data, transport, is_answer=False)

    def data_received(self, data: bytes) -> None:
        if self._server is None:
            self._waiting.append(data)
        else:
            self._link.carry(data, self._server, is_answer=False)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._server is not None:
            self._link.end(self._server, is_answer=False)


class _Server(asyncio.Protocol):
    """The end at which the server is."""

    def __init__(self, link: _Link, caller: asyncio.Transport) -> None:
        self._link = link
        self._caller = caller

    def data_received(self, data: bytes) -> None:
        self._link.carry(data, self._caller, is_answer=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.end(self._caller, is_answer=True)
