"""A service is asked twice, then given up; while it is silent, it is asked little."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty

from servicekit.caller import system_call
from servicekit.errors import ServiceAway
from servicekit.questions import HANDLING_S, LATELY_S, PROBE_EVERY_S, QUESTION_S, SILENT_S, Questions
from servicekit.remote_clock import Moment, RemoteClocks

CALL = system_call("gateway")


class State:
    """An answer."""

    seen_at = Moment("identity-1", 0)

    def HasField(self, field_name: str) -> bool:
        return field_name == "seen_at"


class Service:
    """Answers at once, or with an error, or not in time; on a clock that stands still in between."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0
        self.error: grpc.StatusCode | None = None
        self.takes_s = 0.0
        self.questions = Questions(RemoteClocks(lambda: self.now))

    async def rpc(self, request: Empty, **options: Any) -> State:
        self.asked += 1
        assert options["timeout"] == QUESTION_S
        # All that come together have asked before one is answered.
        await asyncio.sleep(0)
        self.now += self.takes_s
        if self.error is not None:
            raise grpc.aio.AioRpcError(self.error, grpc.aio.Metadata(), grpc.aio.Metadata())
        return State()

    def is_away(self) -> None:
        self.error, self.takes_s = grpc.StatusCode.UNAVAILABLE, 0.0

    def stands_still(self) -> None:
        self.error, self.takes_s = grpc.StatusCode.DEADLINE_EXCEEDED, QUESTION_S

    def goes_on(self) -> None:
        self.error, self.takes_s = None, 0.0

    async def ask(self) -> bool:
        """Return whether there was an answer."""
        try:
            await self.questions.ask(self.rpc, Empty(), CALL)
        except ServiceAway:
            return False
        return True

    async def ask_for(self, seconds: float, every_s: float) -> int:
        """Ask again and again, and return how many questions reached the service."""
        asked, ends_at = self.asked, self.now + seconds
        while self.now < ends_at:
            assert not await self.ask()
            self.now += every_s
        return self.asked - asked


@pytest.fixture
def service() -> Service:
    return Service()


class TestAnswers:
    async def test_are_returned(self, service: Service) -> None:
        assert await service.ask()
        assert service.asked == 1

    async def test_that_do_not_come_are_asked_for_twice(self, service: Service) -> None:
        service.stands_still()
        assert not await service.ask()
        assert service.asked == 2

    async def test_that_come_from_nobody_are_not_asked_for_again(self, service: Service) -> None:
        service.is_away()
        assert not await service.ask()
        assert service.asked == 1

    async def test_that_lay_there_for_long_are_of_no_use(self, service: Service) -> None:
        service.takes_s = QUESTION_S + 2 * HANDLING_S
        assert not await service.ask()
        assert service.asked == 2


class TestCircuitBreaker:
    @pytest.mark.parametrize("silence", [Service.is_away, Service.stands_still])
    async def test_has_the_service_asked_little(self, service: Service, silence: Callable[[Service], None]) -> None:
        silence(service)
        await service.ask_for(SILENT_S, every_s=0.001)
        service.takes_s = 0.0
        assert await service.ask_for(10 * PROBE_EVERY_S, every_s=0.001) in range(9, 12)

    async def test_ends_with_an_answer(self, service: Service) -> None:
        service.is_away()
        await service.ask_for(2 * SILENT_S, every_s=0.01)
        service.goes_on()
        service.now += PROBE_EVERY_S
        assert [await service.ask() for _ in range(5)] == [True] * 5

    async def test_ends_when_the_service_says_something_by_itself(self, service: Service) -> None:
        service.is_away()
        await service.ask_for(2 * SILENT_S, every_s=0.01)
        service.goes_on()
        assert not await service.ask()
        service.questions.note_sign_of_life()
        assert await service.ask()

    @pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED])
    async def test_is_not_what_an_error_of_the_service_is(self, service: Service, code: grpc.StatusCode) -> None:
        service.error = code
        asked = await service.ask_for(2 * SILENT_S, every_s=0.01)
        assert asked >= 2 * SILENT_S / 0.01 - 1

    async def test_does_not_begin_while_some_are_answered(self, service: Service) -> None:
        for _ in range(100):
            service.is_away()
            assert not await service.ask()
            service.goes_on()
            assert await service.ask()
            service.now += 0.1

    async def test_of_long_ago_refuses_nobody(self, service: Service) -> None:
        service.is_away()
        await service.ask_for(2 * SILENT_S, every_s=0.01)
        service.goes_on()
        service.now += LATELY_S
        assert await asyncio.gather(*(service.ask() for _ in range(5))) == [True] * 5

    async def test_does_not_begin_with_one_failure_after_another_of_long_ago(self, service: Service) -> None:
        service.is_away()
        assert not await service.ask()
        service.now += 60
        assert not await service.ask()
        service.goes_on()
        assert await asyncio.gather(*(service.ask() for _ in range(5))) == [True] * 5

    async def test_is_not_what_stood_still_here(self, service: Service) -> None:
        asking = [asyncio.create_task(service.ask()) for _ in range(5)]
        await asyncio.sleep(0)
        # All their deadlines are over when this process goes on, and the second questions are answered.
        service.now += 30
        service.error = grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.sleep(0)
        service.goes_on()
        assert await asyncio.gather(*asking) == [True] * 5
        assert service.asked == 10
