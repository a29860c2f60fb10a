"""Keeps the event loop on time, however much comes at once: lets requests in by turns, and tells when it is too much.

How many requests are open says little about the load: hundreds that wait for a service cost nothing, while those that
want the processor all at once make everybody wait, and the stream with them that keeps remembered states alive. So a
timer measures how much later than asked for it is called. Each turn of the loop begins a few requests only, and looks
at everything else in between; the others wait in a line.

When to refuse is CoDel's rule (RFC 8289). A crowd makes the loop late and the line long, but is soon through, and
nobody is refused for it. When one of the two was later than `TARGET_S` all the time for `INTERVAL_S`, and the line was
never empty, the gateway does not catch up by itself: from then on it sheds load, for `SHEDDING_S` and longer while that
happens to many. (One that is late and has nobody waiting is kept from the processor by others; to refuse requests would
not give it any.) Refused is
whoever comes while it is late, or when the line is long, who would be late at its end. It also begins to when a service
had no room for somebody who was let in, then those in line have waited in vain, too, and when a service will have none
for those at the end of a long line, who need not wait to learn that.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from prometheus_client import Counter

from gateway.errors import Refused
from gateway.retry_after import RetryAfter

SHED = Counter("aarokya_http_requests_shed_total", "Requests refused because there was too much to do.")

TICK_S = 0.01
TARGET_S = 0.04
INTERVAL_S = 0.5
SHEDDING_S = 5.0
# While more than so many of a second's requests, and more than this share of them, are refused, in so many of its
# tenths that these are no bursts, the overload lasts.
LASTING = 10
LASTING_SHARE = 0.1
LASTING_TENTHS = 6
WINDOW_S = 1.0
NEVER = float("-inf")
# To begin one takes somewhat less than a millisecond, and nothing that comes is seen before a turn ends.
BEGUN_IN_A_TURN = 8
# That is two turns, and in an overload, with all that goes on in between, 15 to 30 ms: who comes behind would be late.
LONG_LINE = 16
# For so long without a request nothing is measured any more.
IDLE_S = 1.0


class OverloadDetector:
    """The rule, for whoever measures."""

    def __init__(self) -> None:
        self._late_since: float | None = None
        self._noted_at = NEVER
        self._shedding_until = NEVER
        # How many requests came in this window, how many of them were refused, in which tenths of it, and when the next
        # one begins.
        self._came = 0
        self._refused = 0
        self._refused_in: set[int] = set()
        self._window_ends = NEVER

    def note(self, lateness: float, now: float, line: int) -> None:
        """Take in how late everything is at a time, and how many wait for their turn."""
        is_measured = now - self._noted_at < INTERVAL_S
        self._noted_at = now
        if lateness <= TARGET_S or line == 0:
            self._late_since = None
        elif self._late_since is None or not is_measured:
            self._late_since = now
        elif now - self._late_since >= INTERVAL_S:
            self.start_shedding(now)

    def is_one_too_many(self, lateness: float, now: float, line: int) -> bool:
        """Whether a request that comes at such a time, when so many wait for their turn, is to be refused."""
        return self.is_shedding(now) and (lateness > TARGET_S or line >= LONG_LINE)

    def should_shed(self, lateness: float, now: float, line: int) -> bool:
        """Take in how late everything is when a request comes, and return whether that is one too many.

        Args:
            lateness: how late.
            now: when.
            line: how many others wait for their turn. Without them, not what is asked makes the gateway late.
        """
        self.note(lateness, now, line)
        is_one_too_many = self.is_one_too_many(lateness, now, line)
        if now >= self._window_ends:
            # What makes every process late now and then must not keep this one at it for ever.
            lasts = len(self._refused_in) >= LASTING_TENTHS
            if lasts and self._refused > max(LASTING, LASTING_SHARE * self._came):
                self.start_shedding(self._window_ends)
            self._came = self._refused = 0
            self._refused_in.clear()
            self._window_ends = now + WINDOW_S
        self._came += 1
        if is_one_too_many and line > 0:
            self._refused += 1
            self._refused_in.add(min(9, int((self._window_ends - now) / WINDOW_S * 10)))
        return is_one_too_many

    def is_shedding(self, now: float) -> bool:
        """Whether it has begun to shed load."""
        return now < self._shedding_until

    def start_shedding(self, now: float) -> None:
        """Shed load for the next `SHEDDING_S` seconds, at least."""
        self._shedding_until = max(self._shedding_until, now + SHEDDING_S)


class AdmissionQueue:
    """Lets requests in by turns of the running event loop, and measures how late it is as long as there are any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.retry_after = RetryAfter(clock)
        self._overload = OverloadDetector()
        self._loop: asyncio.AbstractEventLoop | None = None
        # When the next tick is due, how late the last one was, and when it was last of use.
        self._due = 0.0
        self._lateness = 0.0
        self._asked_at = 0.0
        # How many have come and not asked yet, how many have begun in this turn, and who waits for one, since when.
        self._expected = 0
        self._begun = 0
        self._line: deque[tuple[asyncio.Future[None], float]] = deque()
        self._room: Callable[[], int] | None = None

    def limit_by(self, room: Callable[[], int]) -> None:
        """Set what returns how many more calls the services can take.

        That counts calls to services. Who has begun and waits for something else, as a body, is not seen there yet, so
        at worst a line finds out itself that there is no room.
        """
        self._room = room

    def is_overloaded(self) -> bool:
        """Whether the request that asks is one too many."""
        if self._expected:
            # The others who are expected came later.
            self._expected -= 1
        return self._is_one_too_many(0)

    def _is_one_too_many(self, expected: int) -> bool:
        now = self._asked_at = self._clock()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._lateness = 0.0
            self._expected = 0
            self._begun = 0
            self._line.clear()
            self._wait(now)
        line = len(self._line) + expected
        if (
            line >= LONG_LINE
            and not self._overload.is_shedding(now)
            and self._room is not None
            and line >= self._room()
        ):
            self._overload.start_shedding(now)
        return self._overload.should_shed(self._late(now), now, line)

    def should_shed_early(self) -> bool:
        """Whether the request that comes is one too many, asked where it costs least to refuse it.

        Whoever is not turned away is expected to ask `is_overloaded`.
        """
        now = self._clock()
        line = len(self._line) + self._expected
        # Without a loop nothing has been measured.
        return (
            self._loop is not None
            and self._overload.is_one_too_many(self._late(now), now, line)
            and self._is_one_too_many(self._expected)
        )

    def note_arrival(self) -> None:
        """Take in that a request has come that will ask `is_overloaded` as soon as it can: it stands in line, too."""
        self._expected += 1

    def start_shedding(self) -> None:
        """Take in that a service had no room for a request that was let in, and refuse who has waited for long.

        When nobody waits, it is the service that hangs, which is no reason to refuse who needs another.
        """
        now = self._clock()
        if self._line or self._late(now) > TARGET_S:
            self._overload.start_shedding(now)
        while self._line and now - self._line[0][1] > TARGET_S:
            turn, _ = self._line.popleft()
            if not turn.done():
                turn.set_exception(Refused("RQ-111"))

    async def enter(self) -> None:
        """Wait until it is the request's turn; `is_overloaded` has been asked before.

        Raises:
            Refused: RQ-111, meanwhile a service turned out to be full.
        """
        assert self._loop is not None
        if self._begun < BEGUN_IN_A_TURN and not self._line:
            if not self._begun:
                self._loop.call_soon(self._next_turn)
            self._begun += 1
            return
        turn = self._loop.create_future()
        self._line.append((turn, self._clock()))
        await turn

    def _late(self, now: float) -> float:
        # A tick that is overdue tells as much as one that came late.
        late = max(self._lateness, now - self._due)
        return max(late, now - self._line[0][1]) if self._line else late

    def _next_turn(self) -> None:
        self._begun = 0
        while self._line and self._begun < BEGUN_IN_A_TURN:
            turn, _ = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            assert self._loop is not None
            self._loop.call_soon(self._next_turn)

    def _wait(self, now: float) -> None:
        assert self._loop is not None
        self._due = now + TICK_S
        self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now = self._clock()
        self._lateness = now - self._due
        self._overload.note(self._late(now), now, len(self._line))
        if now - self._asked_at < IDLE_S or self._line:
            self._wait(now)
        else:
            self._loop = None
