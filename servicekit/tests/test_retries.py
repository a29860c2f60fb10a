"""Which refusals gRPC asks again by itself, and which it does not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from aarokya.audit.v1 import audit_log_service_pb2 as pb
from aarokya.audit.v1.audit_log_service_pb2_grpc import (
    AuditLogServiceServicer,
    AuditLogServiceStub,
    add_AuditLogServiceServicer_to_server,
)
from servicekit import server as server_module
from servicekit.caller import METADATA_KEY, system_call
from servicekit.channel import open_channel
from servicekit.errors import ServiceAway
from servicekit.server import _Guard, allow_peers, declared_peers
from servicekit.tls import channel_credentials, prepare_certificates, server_credentials

SERVICE = pb.DESCRIPTOR.services_by_name["AuditLogService"]


class Audit(AuditLogServiceServicer):
    """Is away, after as long as the test says."""

    DESCRIPTOR = SERVICE

    def __init__(self) -> None:
        self.asked = 0
        self.takes_s = 0.0

    @allow_peers("gateway")
    async def ListAuditLogs(self, request: Any, context: Any) -> Any:
        self.asked += 1
        await asyncio.sleep(self.takes_s)
        raise ServiceAway

    @allow_peers("gateway")
    async def VerifyAuditLogs(self, request: Any, context: Any) -> Any:
        raise ServiceAway


@pytest.fixture
def audit() -> Audit:
    return Audit()


@pytest.fixture
async def ask(audit: Audit, tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    files = prepare_certificates(tmp_path, ("identity", "gateway"))
    own, peer = files["identity"], files["gateway"]
    server = grpc.aio.server(interceptors=[_Guard(declared_peers([audit]), asyncio.Event())])
    add_AuditLogServiceServicer_to_server(audit, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(own.ca, own.certificate, own.key))
    await server.start()
    credentials = channel_credentials(peer.ca, peer.certificate, peer.key)
    channel = open_channel("identity", f"127.0.0.1:{port}", credentials, [SERVICE])
    metadata = ((METADATA_KEY, system_call("gateway").to_bytes()),)
    stub = AuditLogServiceStub(channel)
    yield lambda: stub.ListAuditLogs(pb.ListAuditLogsRequest(), timeout=5, metadata=metadata)
    await channel.close()
    await server.stop(0)


async def test_what_is_away_at_once_is_asked_again(audit: Audit, ask: Callable[[], Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await ask()
    assert audit.asked == 5


async def test_what_took_long_to_refuse_is_not(
    audit: Audit, ask: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "WORTH_ANOTHER_TRY_S", 0.05)
    audit.takes_s = 0.1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert audit.asked == 1
