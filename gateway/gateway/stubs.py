"""Typed stubs of the three services, on one channel each."""

from collections.abc import Callable

import grpc.aio
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

from aarokya.audit.v1 import audit_log_service_pb2, audit_log_service_pb2_grpc
from aarokya.catalogue.v1 import (
    benefit_provider_service_pb2,
    benefit_provider_service_pb2_grpc,
    benefit_service_pb2,
    benefit_service_pb2_grpc,
)
from aarokya.identity.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    live_state_service_pb2,
    platform_service_pb2,
    platform_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from aarokya.records.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    dependant_service_pb2,
    dependant_service_pb2_grpc,
    mrn_service_pb2,
    mrn_service_pb2_grpc,
)
from gateway.bulkhead import Bulkhead, least_room
from gateway.load_shedding import LONG_LINE
from gateway.settings import GatewaySettings
from servicekit.channel import open_channel
from servicekit.tls import channel_credentials


class Stubs:
    """What routes ask."""

    def __init__(self, settings: GatewaySettings, on_full: Callable[[], None]) -> None:
        """`on_full` is told when there was no room for a call."""
        credentials = channel_credentials(settings.tls_ca, settings.tls_certificate, settings.tls_key)
        audit = audit_log_service_pb2.DESCRIPTOR
        self.identity = open_channel(
            "identity",
            settings.identity_address,
            credentials,
            _services(
                audit,
                auth_service_pb2.DESCRIPTOR,
                live_state_service_pb2.DESCRIPTOR,
                platform_service_pb2.DESCRIPTOR,
                user_service_pb2.DESCRIPTOR,
            ),
        )
        self.catalogue = open_channel(
            "catalogue",
            settings.catalogue_address,
            credentials,
            _services(audit, benefit_provider_service_pb2.DESCRIPTOR, benefit_service_pb2.DESCRIPTOR),
        )
        self.records = open_channel(
            "records",
            settings.records_address,
            credentials,
            _services(
                audit, account_service_pb2.DESCRIPTOR, dependant_service_pb2.DESCRIPTOR, mrn_service_pb2.DESCRIPTOR
            ),
        )
        self._bulkheads = {name: Bulkhead(channel, on_full=on_full) for name, channel in self.channels.items()}
        identity, catalogue, records = (bulkhead.channel for bulkhead in self._bulkheads.values())
        self.auth: auth_service_pb2_grpc.AuthServiceAsyncStub = auth_service_pb2_grpc.AuthServiceStub(identity)
        self.platforms: platform_service_pb2_grpc.PlatformServiceAsyncStub = (
            platform_service_pb2_grpc.PlatformServiceStub(identity)
        )
        self.users: user_service_pb2_grpc.UserServiceAsyncStub = user_service_pb2_grpc.UserServiceStub(identity)
        self.benefit_providers: benefit_provider_service_pb2_grpc.BenefitProviderServiceAsyncStub = (
            benefit_provider_service_pb2_grpc.BenefitProviderServiceStub(catalogue)
        )
        self.benefits: benefit_service_pb2_grpc.BenefitServiceAsyncStub = benefit_service_pb2_grpc.BenefitServiceStub(
            catalogue
        )
        self.dependants: dependant_service_pb2_grpc.DependantServiceAsyncStub = (
            dependant_service_pb2_grpc.DependantServiceStub(records)
        )
        self.accounts: account_service_pb2_grpc.AccountServiceAsyncStub = account_service_pb2_grpc.AccountServiceStub(
            records
        )
        self.mrns: mrn_service_pb2_grpc.MrnServiceAsyncStub = mrn_service_pb2_grpc.MrnServiceStub(records)
        self.audit_logs: dict[str, audit_log_service_pb2_grpc.AuditLogServiceAsyncStub] = {
            name: audit_log_service_pb2_grpc.AuditLogServiceStub(Bulkhead(channel, on_full=on_full).channel)
            for name, channel in self.channels.items()
        }

    @property
    def channels(self) -> dict[str, grpc.aio.Channel]:
        """The channels by service."""
        return {"identity": self.identity, "catalogue": self.catalogue, "records": self.records}

    def require_room(self, service: str) -> None:
        """Refuse what would be refused anyway once its service is called, before it costs anything.

        Raises:
            Refused: RQ-111, there are too many calls open to the service.
        """
        bulkhead = self._bulkheads.get(service)
        if bulkhead is not None and bulkhead.is_full:
            bulkhead.refuse()

    @property
    def room(self) -> int:
        """How many more calls the service that will be full first would be sent."""
        return least_room(self._bulkheads.values(), but_for=LONG_LINE)

    async def close(self) -> None:
        """Close all channels."""
        for channel in self.channels.values():
            await channel.close()


def _services(*files: FileDescriptor) -> list[ServiceDescriptor]:
    return [service for file in files for service in file.services_by_name.values()]
