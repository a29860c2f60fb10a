"""Who may call which RPC: tried for every RPC of every service, with and without certificates."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from aarokya.audit.v1 import audit_log_service_pb2
from aarokya.catalogue.v1 import benefit_provider_service_pb2, benefit_service_pb2
from aarokya.identity.v1 import (
    auth_service_pb2,
    live_state_service_pb2,
    platform_service_pb2,
    refusal_service_pb2,
    user_service_pb2,
)
from aarokya.identity.v1.platform_pb2 import Platform
from aarokya.records.v1 import account_service_pb2, dependant_service_pb2, mrn_service_pb2, user_event_service_pb2
from servicekit.caller import METADATA_KEY, Call, Caller, CallerType, system_call
from servicekit.tls import channel_credentials, prepare_certificates
from tests.e2e.conftest import System

PROCESSES = ("gateway", "identity", "catalogue", "records")
SERVED = {
    "identity": (
        auth_service_pb2,
        live_state_service_pb2,
        platform_service_pb2,
        refusal_service_pb2,
        user_service_pb2,
        audit_log_service_pb2,
    ),
    "catalogue": (benefit_provider_service_pb2, benefit_service_pb2, audit_log_service_pb2),
    "records": (
        account_service_pb2,
        dependant_service_pb2,
        mrn_service_pb2,
        user_event_service_pb2,
        audit_log_service_pb2,
    ),
}
# Everything else is the gateway's alone.
ALLOWED = {
    "GetUserState": {"gateway", "records"},
    "BatchGetUserStates": {"gateway", "records"},
    "WatchLiveState": {"gateway", "records"},
    "CheckMrnProvider": {"records"},
    "ApplyUserEvent": {"identity"},
}
# An empty request is refused by every RPC but this one, which would leave a platform without a name behind.
REQUESTS = {"CreatePlatform": platform_service_pb2.CreatePlatformRequest(platform=Platform(name="Peers"))}
TIMEOUT_S = 5


@dataclass(frozen=True)
class Rpc:
    """One RPC of one service."""

    service: str
    path: str
    name: str
    request: bytes
    is_stream: bool

    @property
    def allowed(self) -> set[str]:
        return ALLOWED.get(self.name, {"gateway"})


def all_rpcs() -> Iterator[Rpc]:
    for service, modules in SERVED.items():
        for module in modules:
            for described in module.DESCRIPTOR.services_by_name.values():
                for method in described.methods:
                    request = REQUESTS.get(method.name) or GetMessageClass(method.input_type)()
                    path = f"/{described.full_name}/{method.name}"
                    yield Rpc(service, path, method.name, request.SerializeToString(), method.server_streaming)


RPCS = list(all_rpcs())


def status_of(system: System, rpc: Rpc, credentials: grpc.ChannelCredentials | None, call: Call) -> grpc.StatusCode:
    """Call an RPC and return the status that comes back."""
    address = system.runtime["services"][rpc.service]["address"]
    options = (("grpc.ssl_target_name_override", rpc.service), ("grpc.enable_retries", 0))
    channel = (
        grpc.insecure_channel(address, options)
        if credentials is None
        else grpc.secure_channel(address, credentials, options)
    )
    metadata = ((METADATA_KEY, call.to_bytes()),)
    with channel:
        try:
            if rpc.is_stream:
                next(channel.unary_stream(rpc.path)(rpc.request, timeout=TIMEOUT_S, metadata=metadata))
            else:
                channel.unary_unary(rpc.path)(rpc.request, timeout=TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def certificates(system: System) -> dict[str, grpc.ChannelCredentials]:
    """Every process's own certificate."""
    folder = Path(system.runtime["tls"]["ca"]).parent
    return {
        name: channel_credentials(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
        for name in PROCESSES
    }


@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: f"{rpc.service}{rpc.path}")
class TestPeers:
    def test_refuses_who_shows_no_certificate(self, system: System, rpc: Rpc) -> None:
        ca = Path(system.runtime["tls"]["ca"]).read_bytes()
        call = system_call("gateway")
        assert status_of(system, rpc, grpc.ssl_channel_credentials(ca), call) is grpc.StatusCode.UNAVAILABLE
        assert status_of(system, rpc, None, call) is grpc.StatusCode.UNAVAILABLE

    def test_refuses_a_certificate_of_another_authority(
        self, system: System, rpc: Rpc, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        forged = prepare_certificates(tmp_path_factory.mktemp("forged"), ["gateway"])["gateway"]
        right_ca = Path(system.runtime["tls"]["ca"])
        credentials = channel_credentials(right_ca, forged.certificate, forged.key)
        assert status_of(system, rpc, credentials, system_call("gateway")) is grpc.StatusCode.UNAVAILABLE

    def test_refuses_other_peers(
        self, system: System, rpc: Rpc, certificates: dict[str, grpc.ChannelCredentials]
    ) -> None:
        for name in set(PROCESSES) - rpc.allowed:
            status = status_of(system, rpc, certificates[name], system_call(name))
            assert status is grpc.StatusCode.PERMISSION_DENIED, name

    def test_lets_its_peers_in(
        self, system: System, rpc: Rpc, certificates: dict[str, grpc.ChannelCredentials]
    ) -> None:
        for name in rpc.allowed:
            # The audit log answers nobody but operators.
            is_audit = "AuditLogService" in rpc.path
            call = Call(Caller(CallerType.ADMIN, "operator")) if is_audit else system_call(name)
            status = status_of(system, rpc, certificates[name], call)
            assert status not in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED), name

    def test_lets_only_the_gateway_speak_for_a_caller(
        self, system: System, rpc: Rpc, certificates: dict[str, grpc.ChannelCredentials]
    ) -> None:
        asserted = Call(Caller(CallerType.ADMIN, "mallory"))
        for name in set(PROCESSES) - {"gateway"}:
            status = status_of(system, rpc, certificates[name], asserted)
            assert status is grpc.StatusCode.PERMISSION_DENIED, name
