"""How many calls a gateway has open to one service, so that a sick one takes nothing away from the others.

Calls that a service does not answer pile up until their deadlines. Beyond a bound there is no point in waiting with
them: further calls are refused at once, and what needs other services goes on.
A crowd that comes all at once looks the same, but is soon answered. So there is room for one on top of the bound, which
comes back while there are fewer calls than the bound, in the course of `REFILL_S` (a token bucket): while an overload
lasts, a wave whenever the service has caught up for a moment would make everybody late again and again.
"""

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, cast

import grpc.aio

from gateway.errors import Refused

MOST_CALLS = 64
# So many may come on top at once.
CROWD = 160
REFILL_S = 5.0


def least_room(bulkheads: Iterable["Bulkhead"], *, but_for: int) -> int:
    """Return how many more calls the bulkhead that will be full first takes; without end if all are full already.

    A sick service is full all the time, which nobody need foresee, and takes no room away from the others. So those
    that take fewer calls than `but_for` do not count.
    """
    rooms = [bulkhead.room for bulkhead in bulkheads]
    return min((room for room in rooms if room >= but_for), default=sys.maxsize)


def bounded(channel: grpc.aio.Channel) -> grpc.aio.Channel:
    """Return what stubs are made of in the channel's place, so that not too many of their calls are open."""
    return Bulkhead(channel).channel


class Bulkhead:
    """Stands in for a channel where stubs are made, and counts the calls that are open."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        most_calls: int = MOST_CALLS,
        crowd: int = CROWD,
        on_full: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the bound.

        Args:
            channel: the channel to the service.
            most_calls: how many calls may be open all the time.
            crowd: how many may come on top at once.
            on_full: is told when calls are refused, once until there is room again.
            clock: counts seconds.
        """
        self._channel = channel
        self._most_calls = most_calls
        self._crowd = crowd
        self._on_full = on_full
        self._clock = clock
        self._open = 0
        self._room_on_top = float(crowd)
        self._has_told = False
        self._counted_at = clock()

    @property
    def channel(self) -> grpc.aio.Channel:
        """This, as what stubs are made of."""
        return cast(grpc.aio.Channel, self)

    @property
    def is_full(self) -> bool:
        """Whether a call would be refused."""
        return not self.room

    @property
    def room(self) -> int:
        """How many more calls would be taken at this moment."""
        self._count(0)
        return max(0, self._most_calls - self._open) + int(self._room_on_top)

    def unary_unary(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return what calls an RPC, or raises Refused (RQ-111) when too many calls are open."""
        rpc = self._channel.unary_unary(*arguments, **options)

        def call(*arguments: Any, **options: Any) -> Any:
            if self.is_full:
                self.refuse()
            started = rpc(*arguments, **options)
            if self._open >= self._most_calls:
                self._room_on_top -= 1
            self._count(1)
            started.add_done_callback(self._end)
            return started

        return call

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """Return what opens a stream; streams are few and always open, so they do not count."""
        return self._channel.unary_stream(*arguments, **options)

    def refuse(self) -> NoReturn:
        """Refuse a call."""
        if not self._has_told:
            self._has_told = True
            self._on_full()
        raise Refused("RQ-111")

    def _count(self, more: int) -> None:
        now = self._clock()
        if self._open < self._most_calls:
            refilled = self._crowd * (now - self._counted_at) / REFILL_S
            self._room_on_top = min(self._crowd, self._room_on_top + refilled)
        self._counted_at = now
        self._open += more
        if self._open < self._most_calls:
            self._has_told = False

    def _end(self, _: object) -> None:
        self._count(-1)
