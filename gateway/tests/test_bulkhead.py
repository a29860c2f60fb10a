"""That a service that does not answer costs no more than its share of the gateway."""

from typing import Any, cast

import grpc.aio

from gateway.bulkhead import FEW_CALLS, Bulkhead
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


def is_refused(call: Any) -> bool:
    """Whether a call is refused at once."""
    try:
        call("r", timeout=1)
    except Refused as refusal:
        return refusal.code == "RQ-111"
    return False


def bulkhead_of(*bounds: int, **options: Any) -> Any:
    return Bulkhead(cast(grpc.aio.Channel, Channel()), *bounds, **options)


def test_further_calls_are_refused_at_once_while_too_many_are_open():
    channel: Any = bulkhead_of(2, crowd=0)
    read, write = channel.unary_unary("/Read"), channel.unary_unary("/Write")
    first = read("r", timeout=1)
    write("w", timeout=1)
    assert is_refused(read)

    first.end()

    assert not is_refused(read)


def test_a_crowd_is_let_in_once_until_the_service_has_caught_up():
    most_calls, crowd = FEW_CALLS + 10, 5
    channel: Any = bulkhead_of(most_calls, crowd)
    read = channel.unary_unary("/Read")
    calls = [read("r", timeout=1) for _ in range(most_calls + crowd)]
    assert is_refused(read)
    for _ in range(crowd):
        calls.pop().end()
    assert is_refused(read)

    while len(calls) > FEW_CALLS:
        calls.pop().end()

    assert not any(is_refused(read) for _ in range(most_calls + crowd - len(calls)))
    assert is_refused(read)


def test_streams_do_not_count():
    channel: Any = bulkhead_of(1, crowd=0)
    assert [channel.unary_stream("/Watch")("r") for _ in range(3)] == ["/Watch"] * 3


def test_tells_of_each_call_that_it_refuses():
    told: list[bool] = []
    call = bulkhead_of(most_calls=1, crowd=0, on_full=lambda: told.append(True)).unary_unary("/a")
    call("r", timeout=1)
    assert told == []
    assert is_refused(call)
    assert told == [True]


def test_says_beforehand_that_it_would_refuse():
    bulkhead = bulkhead_of(most_calls=1, crowd=1)
    call = bulkhead.unary_unary("/a")
    said = []
    for _ in range(3):
        said.append(bulkhead.is_full)
        assert is_refused(call) == said[-1]
    assert said == [False, False, True]
