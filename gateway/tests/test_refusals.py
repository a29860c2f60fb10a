"""How refusals are counted, when they are sent, and that nothing is lost or delayed while identity is away."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from aarokya.identity.v1.refusal_service_pb2 import RecordRefusalsRequest, RecordRefusalsResponse, Refusal
from aarokya.identity.v1.refusal_service_pb2_grpc import (
    RefusalServiceServicer,
    add_RefusalServiceServicer_to_server,
)
from gateway import refusals as refusals_module
from gateway.refusals import DROPPED, Refusals
from servicekit.caller import METADATA_KEY, Call, CallerType

MINUTE = 1_800_000_000.0  # the first second of a minute
ROUTE = "GET /users/{user_id}"


class Clock:
    def __init__(self) -> None:
        self.now = MINUTE

    def __call__(self) -> float:
        return self.now


class Identity(RefusalServiceServicer):
    """Keeps what it is told, or fails as the test says."""

    def __init__(self) -> None:
        self.kept: list[Refusal] = []
        self.batches: list[int] = []
        self.callers: list[Call] = []
        self.failure: grpc.StatusCode | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def RecordRefusals(
        self, request: RecordRefusalsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> RecordRefusalsResponse:
        await self.answers.wait()
        if self.failure is not None:
            await context.abort(self.failure)
        self.callers += [Call.from_bytes(value) for key, value in context.invocation_metadata() if key == METADATA_KEY]
        self.batches.append(len(request.refusals))
        self.kept += request.refusals
        return RecordRefusalsResponse()

    @property
    def counts(self) -> list[int]:
        return [refusal.count for refusal in self.kept]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def identity() -> Identity:
    return Identity()


@pytest.fixture
async def refusals(identity: Identity, clock: Clock) -> AsyncIterator[Refusals]:
    server = grpc.aio.server()
    add_RefusalServiceServicer_to_server(identity, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Refusals(channel, clock=clock)
    await server.stop(None)


@pytest.fixture
async def running(refusals: Refusals, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Refusals]:
    monkeypatch.setattr(refusals_module, "LOOKED_AT_EVERY_S", 0.01)
    task = asyncio.create_task(refusals.run())
    yield refusals
    task.cancel()
    await asyncio.wait([task])


def note(
    refusals: Refusals,
    times: int = 1,
    *,
    code: str = "AU-202",
    address: str = "192.0.2.7",
    route: str = ROUTE,
    request_id: str = "r-1",
    user_agent: str | None = "okhttp/5",
) -> None:
    for _ in range(times):
        refusals.note(code, address, route, request_id, user_agent)


async def looked_at() -> None:
    """Wait until `run` has surely looked at what is due."""
    await asyncio.sleep(0.15)


def dropped() -> float:
    return DROPPED._value.get()


class TestNote:
    async def test_counts_by_code_address_route_and_minute(
        self, refusals: Refusals, identity: Identity, clock: Clock
    ) -> None:
        note(refusals, 3)
        note(refusals, code="AU-208")
        note(refusals, address="192.0.2.8")
        note(refusals, route="GET /benefits")
        clock.now += 60
        note(refusals, 2)
        await refusals.flush()
        assert [(it.code, it.source_address, it.route, it.count) for it in identity.kept] == [
            ("AU-202", "192.0.2.7", ROUTE, 3),
            ("AU-208", "192.0.2.7", ROUTE, 1),
            ("AU-202", "192.0.2.8", ROUTE, 1),
            ("AU-202", "192.0.2.7", "GET /benefits", 1),
            ("AU-202", "192.0.2.7", ROUTE, 2),
        ]

    async def test_tells_of_the_first_refusal(self, refusals: Refusals, identity: Identity, clock: Clock) -> None:
        clock.now += 7.25
        note(refusals, request_id="first", user_agent="one")
        clock.now += 1
        note(refusals, request_id="second", user_agent="two")
        await refusals.flush()
        (kept,) = identity.kept
        assert (kept.request_id, kept.user_agent) == ("first", "one")
        assert kept.first_at.ToMicroseconds() == int((MINUTE + 7.25) * 1_000_000)

    async def test_takes_any_user_agent(self, refusals: Refusals, identity: Identity) -> None:
        note(refusals, user_agent="caf\xe9\x00\t\x9b31m" + "x" * 9000, address="192.0.2.1")
        note(refusals, user_agent=None, address="192.0.2.2")
        await refusals.flush()
        assert identity.kept[0].user_agent.startswith("caf\xe931mxxx")
        assert len(identity.kept[0].user_agent) <= 200
        assert identity.kept[1].user_agent == ""

    async def test_drops_and_counts_what_is_too_much(
        self, refusals: Refusals, identity: Identity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(refusals_module, "MOST_ROWS", 2)
        before = dropped()
        for number in range(5):
            note(refusals, address=f"192.0.2.{number}")
        note(refusals, 4, address="192.0.2.0")
        await refusals.flush()
        assert identity.counts == [5, 1]
        assert dropped() == before + 3

    async def test_costs_next_to_nothing(self, refusals: Refusals) -> None:
        began = time.perf_counter()
        note(refusals, 10_000)
        assert (time.perf_counter() - began) / 10_000 < 50e-6


class TestRun:
    async def test_makes_a_burst_one_row(self, running: Refusals, identity: Identity, clock: Clock) -> None:
        note(running, 40)
        clock.now += 1.9
        note(running, 2)
        await looked_at()
        assert identity.kept == []
        clock.now += 0.2
        await looked_at()
        assert identity.counts == [42]

    async def test_a_minute_has_three_rows_at_most(self, running: Refusals, identity: Identity, clock: Clock) -> None:
        for _ in range(59):
            note(running)
            await asyncio.sleep(0.02)
            clock.now += 1
        await looked_at()
        assert len(identity.kept) == 2
        clock.now += 1
        await looked_at()
        assert len(identity.kept) == 3
        assert sum(identity.counts) == 59

    async def test_waits_no_longer_than_the_minute(self, running: Refusals, identity: Identity, clock: Clock) -> None:
        clock.now += 59.5
        note(running)
        clock.now += 0.6
        await looked_at()
        assert identity.counts == [1]

    async def test_forgets_minutes_that_are_over(self, running: Refusals, clock: Clock) -> None:
        note(running, 5)
        clock.now += 61
        await looked_at()
        assert running._rows == {}

    async def test_speaks_in_the_gateways_name(self, refusals: Refusals, identity: Identity) -> None:
        note(refusals)
        await refusals.flush()
        assert [(it.caller.type, it.caller.id) for it in identity.callers] == [(CallerType.SYSTEM, "gateway")]

    async def test_sends_many_in_batches(
        self, refusals: Refusals, identity: Identity, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(refusals_module, "ROWS_AT_ONCE", 2)
        for number in range(5):
            note(refusals, address=f"192.0.2.{number}")
        await refusals.flush()
        assert identity.batches == [2, 2, 1]


class TestIdentityAway:
    @pytest.mark.parametrize("failure", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED])
    async def test_keeps_what_it_has_no_time_for(
        self, running: Refusals, identity: Identity, clock: Clock, failure: grpc.StatusCode
    ) -> None:
        identity.failure = failure
        note(running, 3)
        clock.now += 3
        await looked_at()
        identity.failure = None
        await looked_at()
        assert identity.counts == [3]

    async def test_goes_on_counting_whatever_fails(
        self, running: Refusals, identity: Identity, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = dropped()
        with monkeypatch.context() as patch:
            patch.setattr(refusals_module, "_message", lambda row, waiting: [][0])
            note(running, 3)
            clock.now += 3
            await looked_at()
        assert dropped() == before + 3
        note(running, 2)
        clock.now += 60
        await looked_at()
        assert identity.counts == [2]

    async def test_keeps_counting_and_sends_when_it_is_back(
        self, running: Refusals, identity: Identity, clock: Clock
    ) -> None:
        identity.failure = grpc.StatusCode.UNAVAILABLE
        note(running, 3, request_id="first")
        clock.now += 3
        await looked_at()
        note(running, 2, request_id="later")
        await looked_at()
        identity.failure = None
        clock.now += 60
        await looked_at()
        assert [(it.count, it.request_id) for it in identity.kept] == [(5, "first")]

    async def test_drops_what_it_refuses(self, running: Refusals, identity: Identity, clock: Clock) -> None:
        before = dropped()
        identity.failure = grpc.StatusCode.INTERNAL
        note(running, 3)
        clock.now += 3
        await looked_at()
        identity.failure = None
        note(running, 2)
        await running.flush()
        assert identity.counts == [2]
        assert dropped() == before + 3

    async def test_loses_nothing_when_stopped_while_sending(
        self, refusals: Refusals, identity: Identity, clock: Clock
    ) -> None:
        identity.answers.clear()
        note(refusals, 3)
        sending = asyncio.create_task(refusals.flush())
        await asyncio.sleep(0.05)
        sending.cancel()
        await asyncio.wait([sending])
        identity.answers.set()
        await refusals.flush()
        assert identity.counts[-1] == 3
