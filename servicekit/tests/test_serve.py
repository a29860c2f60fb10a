"""When a server says that it serves, and how it ends what runs beside it."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.ports import pick_ports
from servicekit.errors import ServiceAway
from servicekit.server import serve
from servicekit.tls import CertificateFiles, channel_credentials, prepare_certificates, server_credentials

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Service:
    """A service without RPCs, in the test's own loop, that can work when the test says so."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        [port] = pick_ports(1)
        self._address = f"127.0.0.1:{port}"
        self.can_work = False
        self.asked = asyncio.Event()

    async def get_ready(self) -> None:
        self.asked.set()
        if not self.can_work:
            raise ServiceAway

    async def run(
        self, *tasks: Callable[[], Awaitable[None]], hand_over: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        files = self._files
        credentials = server_credentials(files.ca, files.certificate, files.key)
        await serve(
            self._address,
            credentials,
            (),
            lambda server: None,
            get_ready=self.get_ready,
            tasks=tasks,
            hand_over=hand_over,
        )

    async def health(self) -> Any:
        files = self._files
        credentials = channel_credentials(files.ca, files.certificate, files.key)
        options = (("grpc.ssl_target_name_override", "kit"),)
        async with grpc.aio.secure_channel(self._address, credentials, options=options) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True
            )
        return answer.status


@pytest.fixture
async def service(tmp_path: Path) -> Service:
    return Service(prepare_certificates(tmp_path, ("kit",))["kit"])


async def test_serves_once_it_can_work_and_from_then_on(service: Service) -> None:
    running = asyncio.create_task(service.run())
    await asyncio.wait_for(service.asked.wait(), 5)
    assert await service.health() == NOT_SERVING
    service.can_work = True
    async with asyncio.timeout(5):
        while await service.health() != SERVING:  # noqa: ASYNC110  # what is asked is the answer
            await asyncio.sleep(0.05)
    service.can_work = False
    assert await service.health() == SERVING
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 10)


async def test_serves_until_its_streams_are_handed_over(service: Service) -> None:
    service.can_work = True
    is_asked, may_end = asyncio.Event(), asyncio.Event()

    async def hand_over() -> None:
        is_asked.set()
        await may_end.wait()

    running = asyncio.create_task(service.run(hand_over=hand_over))
    await asyncio.wait_for(service.asked.wait(), 5)
    async with asyncio.timeout(5):
        while await service.health() != SERVING:  # noqa: ASYNC110  # what is asked is the answer
            await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(is_asked.wait(), 5)
    assert await service.health() == SERVING
    may_end.set()
    await asyncio.wait_for(running, 10)


async def test_ends_before_it_ever_could_work(service: Service) -> None:
    running = asyncio.create_task(service.run())
    await asyncio.wait_for(service.asked.wait(), 5)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 10)


async def test_waits_for_what_its_tasks_leave_in_order(service: Service) -> None:
    has_left = asyncio.Event()

    async def task() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            has_left.set()

    running = asyncio.create_task(service.run(task))
    await asyncio.wait_for(service.asked.wait(), 5)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 10)
    assert has_left.is_set()
