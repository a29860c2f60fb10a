"""How many calls a gateway has open to one service, so that a sick one takes nothing away from the others.

Calls that a service does not answer pile up until their deadlines. Beyond a bound there is no point in waiting with
them: further calls are refused at once, and what needs other services goes on.
A crowd that comes all at once is no sign of sickness: it is let in, as long as it gets smaller soon.
"""

import time
from collections.abc import Callable
from typing import Any, cast

import grpc.aio

from gateway.errors import Refused

MOST_CALLS = 200
CROWD = 400
PATIENCE_S = 2.0


def bounded(
    channel: grpc.aio.Channel,
    most_calls: int = MOST_CALLS,
    crowd: int = CROWD,
    clock: Callable[[], float] = time.monotonic,
) -> grpc.aio.Channel:
    """Return what stubs are made of in the channel's place, so that its open calls are bounded.

    Args:
        channel: the channel to the service.
        most_calls: how many calls may be open for long.
        crowd: how many calls may be open at any moment.
        clock: counts seconds.
    """
    return cast(grpc.aio.Channel, _Bulkhead(channel, most_calls, crowd, clock))


class _Bulkhead:
    """Stands in for a channel where stubs are made, and counts the calls that are open."""

    def __init__(self, channel: grpc.aio.Channel, most_calls: int, crowd: int, clock: Callable[[], float]) -> None:
        self._channel = channel
        self._most_calls = most_calls
        self._crowd = crowd
        self._clock = clock
        self._open = 0
        # Since when there have been more calls than there may be for long.
        self._crowded_since = 0.0

    def unary_unary(self, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return what calls an RPC, or raises Refused (RQ-111) when too many calls are open."""
        rpc = self._channel.unary_unary(*arguments, **options)

        def call(*arguments: Any, **options: Any) -> Any:
            self._require_room()
            started = rpc(*arguments, **options)
            self._open += 1
            started.add_done_callback(self._end)
            return started

        return call

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """Return what opens a stream; streams are few and always open, so they do not count."""
        return self._channel.unary_stream(*arguments, **options)

    def _require_room(self) -> None:
        if self._open < self._most_calls:
            return
        now = self._clock()
        if self._open == self._most_calls:
            self._crowded_since = now
        if self._open >= self._crowd or now - self._crowded_since > PATIENCE_S:
            raise Refused("RQ-111")

    def _end(self, _: object) -> None:
        self._open -= 1
