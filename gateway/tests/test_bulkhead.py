"""That a service that does not answer costs no more than its share of the gateway."""

from typing import Any

import pytest

from gateway.bulkhead import PATIENCE_S, bounded
from gateway.errors import Refused


class Call:
    """A call that is open until the test ends it."""

    def __init__(self) -> None:
        self._callbacks: list[Any] = []

    def add_done_callback(self, callback: Any) -> None:
        self._callbacks.append(callback)

    def end(self) -> None:
        for callback in self._callbacks:
            callback(self)


class Channel:
    """A channel of grpc's, as far as stubs know it."""

    def unary_unary(self, path: str, **options: Any) -> Any:
        return lambda request, timeout: Call()

    def unary_stream(self, path: str, **options: Any) -> Any:
        return lambda request: path


def test_further_calls_are_refused_at_once_while_too_many_are_open():
    channel: Any = bounded(Channel(), 2, crowd=2)  # type: ignore[arg-type]
    read, write = channel.unary_unary("/Read"), channel.unary_unary("/Write")
    first = read("r", timeout=1)
    write("w", timeout=1)
    with pytest.raises(Refused) as refused:
        read("r", timeout=1)
    assert refused.value.code == "RQ-111"

    first.end()

    assert isinstance(read("r", timeout=1), Call)


def test_a_crowd_is_let_in_when_it_does_not_stay():
    now = 0.0
    channel: Any = bounded(Channel(), 2, crowd=4, clock=lambda: now)  # type: ignore[arg-type]
    read = channel.unary_unary("/Read")
    crowd = [read("r", timeout=1) for _ in range(4)]
    with pytest.raises(Refused):
        read("r", timeout=1)

    crowd.pop().end()
    now += PATIENCE_S
    crowd.append(read("r", timeout=1))
    crowd.pop().end()
    now += 0.1
    with pytest.raises(Refused):
        read("r", timeout=1)

    for call in crowd[1:]:
        call.end()
    assert all(read("r", timeout=1) for _ in range(3))


def test_streams_do_not_count():
    channel: Any = bounded(Channel(), 0, crowd=0)  # type: ignore[arg-type]
    assert channel.unary_stream("/Watch")("r") == "/Watch"
