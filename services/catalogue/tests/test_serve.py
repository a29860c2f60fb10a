"""The catalogue's process as a whole."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


async def test_serves_when_its_database_is_there_and_not_before(early: Any) -> None:
    catalogue, make_database = early
    # A channel as services open it sends nothing to who does not serve, not even this question.
    options = (("grpc.ssl_target_name_override", "catalogue"),)
    async with grpc.aio.secure_channel(catalogue.address, catalogue.credentials(), options) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        async def is_serving() -> bool:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=30, wait_for_ready=True)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        assert not await is_serving()
        await asyncio.to_thread(make_database)
        async with asyncio.timeout(30):
            while not await is_serving():  # noqa: ASYNC110  # what is asked is the answer
                await asyncio.sleep(0.1)
