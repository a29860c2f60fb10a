"""When balancers may send requests, and that it costs the services little to find out."""

import asyncio
from types import SimpleNamespace
from typing import cast

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from gateway.live_state import LiveState
from gateway.readiness import Readiness
from gateway.stubs import Stubs

SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
NOT_SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)


class Service:
    """Stands in for a channel to a service, of which only the health is asked."""

    def __init__(self) -> None:
        self.answer: health_pb2.HealthCheckResponse | None = SERVING
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def unary_unary(self, path, **_):
        return self._check

    def unary_stream(self, path, **_):
        return None

    async def _check(self, request, **_):
        self.asked += 1
        await self.may_answer.wait()
        if self.answer is None:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        return self.answer


class Rig:
    def __init__(self) -> None:
        self.services = {name: Service() for name in ("identity", "records")}
        self.is_heard = True
        self.draining = asyncio.Event()
        stubs = cast(Stubs, SimpleNamespace(channels=self.services))
        live_state = cast(LiveState, SimpleNamespace(is_heard=lambda: self.is_heard))
        self.readiness = Readiness(stubs, live_state, self.draining)

    async def is_ready(self) -> bool:
        return await self.readiness.is_ready()


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_is_ready_once_each_service_has_answered_and_stays_so(rig):
    rig.services["records"].answer = NOT_SERVING
    assert not await rig.is_ready()
    rig.services["records"].answer = None
    assert not await rig.is_ready()
    rig.services["records"].answer = SERVING
    assert await rig.is_ready()
    rig.services["records"].answer = None
    assert await rig.is_ready()


async def test_is_not_ready_without_identity_or_while_it_drains(rig):
    assert await rig.is_ready()
    rig.is_heard = False
    assert not await rig.is_ready()
    rig.is_heard = True
    assert await rig.is_ready()
    rig.draining.set()
    assert not await rig.is_ready()


async def test_asks_each_service_once_however_many_want_to_know(rig):
    records = rig.services["records"]
    records.may_answer.clear()
    asking = [asyncio.create_task(rig.is_ready()) for _ in range(20)]
    await asyncio.sleep(0.01)
    asking[0].cancel()
    records.may_answer.set()
    assert await asyncio.gather(*asking[1:]) == [True] * 19
    assert records.asked == 1
