"""Load: so many connections, each of which sends the next request when the last one was answered."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import psutil

CONNECTIONS = 32
# So long one waits for the last answers, and then for what the servers still do of what they were asked.
PATIENCE_S = 30.0
SETTLE_S = 1.5
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

# Makes the next request, as it goes over the wire.
Next = Callable[[], bytes]


@dataclass
class Measured:
    """What was measured of one kind of request.

    Attributes:
        seconds: how long each answer took.
        statuses: how often each status came.
        cpu_s: what the servers' processes used together, PostgreSQL not counted.
        lasted_s: how long the load lasted.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    cpu_s: float = 0.0
    lasted_s: float = 0.0

    def __iadd__(self, other: "Measured") -> "Measured":
        self.seconds += other.seconds
        self.statuses += other.statuses
        self.cpu_s += other.cpu_s
        self.lasted_s += other.lasted_s
        return self

    @property
    def cpu_us(self) -> float:
        """CPU of all processes for one request, in microseconds."""
        return 1e6 * self.cpu_s / max(1, len(self.seconds))

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.lasted_s

    def percentile_ms(self, share: float) -> float:
        """Return within how many milliseconds this share of the answers came."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def put_load(port: int, pids: Sequence[int], following: Next, seconds: float, most: int) -> Measured:
    """Send requests for some time, and measure what that took.

    Args:
        port: where to, on this machine.
        pids: the processes whose CPU counts.
        following: makes the requests.
        seconds: how long; what was begun by then is waited for.
        most: how many requests at most.

    Raises:
        TimeoutError: answers do not come.
    """
    loop = asyncio.get_running_loop()
    measured = Measured()
    before, began = _cpu_s(pids), time.perf_counter()
    until = began + seconds
    left = iter(range(most))

    def next_or_none() -> bytes | None:
        is_over = time.perf_counter() >= until or next(left, None) is None
        return None if is_over else following()

    connections = [
        (await loop.create_connection(lambda: _Connection(next_or_none, measured), "127.0.0.1", port))[1]
        for _ in range(CONNECTIONS)
    ]
    async with asyncio.timeout(seconds + PATIENCE_S):
        await asyncio.gather(*(connection.ended for connection in connections))
    measured.lasted_s = time.perf_counter() - began
    await asyncio.sleep(SETTLE_S)
    measured.cpu_s = _cpu_s(pids) - before
    return measured


def _cpu_s(pids: Sequence[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(each.user + each.system for each in times))


class _Connection(asyncio.Protocol):
    """One kept connection."""

    def __init__(self, following: Callable[[], bytes | None], measured: Measured) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._following = following
        self._measured = measured
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        request = self._following()
        if request is None:
            self.ended.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(_HEAD_END)
        length = _LENGTH.search(head)
        if not found or len(body) < int(length[1] if length else 0):
            return
        now = time.perf_counter()
        self._received = b""
        self._measured.seconds.append(now - self._sent_at)
        self._measured.statuses[int(head[9:12])] += 1
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or EOFError("the server closed a connection"))
