"""What callers see of a replica that stops."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from aarokya.identity.v1 import auth_service_pb2 as pb
from aarokya.identity.v1.auth_service_pb2_grpc import (
    AuthServiceServicer,
    AuthServiceStub,
    add_AuthServiceServicer_to_server,
)
from servicekit.caller import METADATA_KEY, system_call
from servicekit.channel import open_channel
from servicekit.server import BALANCER_WAIT_S, _Guard, allow_peers, declared_peers
from servicekit.tls import channel_credentials, prepare_certificates, server_credentials

CALLERS = 12
STOPS = 4
WRITES = pb.DESCRIPTOR.services_by_name["AuthService"]
METADATA = ((METADATA_KEY, system_call("gateway").to_bytes()),)


class Auth(AuthServiceServicer):
    """Issues nothing, quickly. gRPC repeats no such call: its name is not a reading verb."""

    DESCRIPTOR = WRITES

    @allow_peers("gateway")
    async def IssueToken(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(0.001)
        return pb.IssueTokenResponse()


class Replica:
    """A server that says whether it serves."""

    def __init__(self, files: Any) -> None:
        self._server = grpc.aio.server(interceptors=[_Guard(declared_peers([Auth()]), asyncio.Event())])
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_AuthServiceServicer_to_server(Auth(), self._server)
        self.port = self._server.add_secure_port(
            "127.0.0.1:0", server_credentials(files.ca, files.certificate, files.key)
        )

    async def start(self) -> None:
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Stop as `serve` does."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(BALANCER_WAIT_S)
        await self._server.stop(10)


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[tuple[AuthServiceStub, list[Replica]]]:
    files = prepare_certificates(tmp_path, ("identity", "gateway"))
    replicas = [Replica(files["identity"]) for _ in range(STOPS + 1)]
    for replica in replicas:
        await replica.start()
    peer = files["gateway"]
    addresses = "ipv4:" + ",".join(f"127.0.0.1:{replica.port}" for replica in replicas)
    credentials = channel_credentials(peer.ca, peer.certificate, peer.key)
    channel = open_channel("identity", addresses, credentials, [WRITES])
    yield AuthServiceStub(channel), replicas
    await channel.close()
    await replicas[-1].drain()


async def test_no_call_is_lost_that_nothing_repeats(replicas: tuple[AuthServiceStub, list[Replica]]) -> None:
    stub, started = replicas
    is_over = False
    answered = 0

    async def ask_on() -> None:
        nonlocal answered
        while not is_over:
            await stub.IssueToken(pb.IssueTokenRequest(), timeout=10, metadata=METADATA)
            answered += 1

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(ask_on())
        for replica in started[:-1]:
            await replica.drain()
        is_over = True
    assert answered > CALLERS
