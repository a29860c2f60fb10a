"""That a service that does not answer costs no more than its share of the gateway."""

import contextlib
from typing import Any, cast

import grpc.aio
import pytest

from gateway.bulkhead import REFILL_S, Bulkhead, least_room
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


class TestCrowd:
    MOST_CALLS = 10
    CROWD = 20

    @pytest.fixture
    def read(self, clock: Any) -> Any:
        return bulkhead_of(self.MOST_CALLS, self.CROWD, clock=clock).unary_unary("/Read")

    def let_in(self, read: Any, number: int) -> list[Call]:
        """Return the calls that are let in of so many."""
        calls = []
        for _ in range(number):
            with contextlib.suppress(Refused):
                calls.append(read("r", timeout=1))
        return calls

    def test_is_let_in_on_top_of_the_bound(self, read: Any):
        assert len(self.let_in(read, 100)) == self.MOST_CALLS + self.CROWD

    def test_is_not_let_in_again_when_the_service_catches_up_for_a_moment(self, read: Any):
        for call in self.let_in(read, 100):
            call.end()
        assert len(self.let_in(read, 100)) == self.MOST_CALLS

    def test_is_let_in_again_by_and_by_while_others_are_refused(self, read: Any, clock: Any):
        for call in self.let_in(read, 100):
            call.end()
        came = []
        for _ in range(4):
            clock.now += REFILL_S / 4
            calls = self.let_in(read, 100)
            came.append(len(calls))
            for call in calls:
                call.end()
        assert came == [self.MOST_CALLS + self.CROWD // 4] * 4

    def test_is_not_let_into_a_service_that_stands_still(self, read: Any, clock: Any):
        calls = self.let_in(read, 100)
        for _ in range(3):
            clock.now += 2 * REFILL_S
            assert not self.let_in(read, 100)
            # Their deadlines are over.
            for call in calls:
                call.end()
            calls = self.let_in(read, 100)
            assert len(calls) == self.MOST_CALLS


def test_streams_do_not_count():
    channel: Any = bulkhead_of(1, crowd=0)
    assert [channel.unary_stream("/Watch")("r") for _ in range(3)] == ["/Watch"] * 3


def test_tells_once_that_it_refuses_until_there_is_room_again():
    told: list[bool] = []
    call = bulkhead_of(most_calls=1, crowd=0, on_full=lambda: told.append(True)).unary_unary("/a")
    first = call("r", timeout=1)
    assert told == []
    assert is_refused(call)
    assert is_refused(call)
    assert told == [True]
    first.end()
    assert not is_refused(call)
    assert is_refused(call)
    assert told == [True] * 2


def test_the_least_room_is_that_of_who_is_not_full_yet():
    full, nearly_full, empty = (bulkhead_of(most_calls=20, crowd=0) for _ in range(3))
    for bulkhead, calls in ((full, 19), (nearly_full, 10)):
        call = bulkhead.unary_unary("/a")
        for _ in range(calls):
            call("r", timeout=1)
    assert least_room([full, nearly_full, empty], but_for=10) == 10
    assert least_room([full, empty], but_for=10) == 20
    assert least_room([full], but_for=10) > 1000


def test_says_beforehand_that_it_would_refuse():
    bulkhead = bulkhead_of(most_calls=2, crowd=1)
    call = bulkhead.unary_unary("/a")
    said, room = [], []
    for _ in range(4):
        said.append(bulkhead.is_full)
        room.append(bulkhead.room)
        assert is_refused(call) == said[-1]
    assert said == [False, False, False, True]
    assert room == [3, 2, 1, 0]
