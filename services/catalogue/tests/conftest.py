"""Catalogues for tests: the rules on a database that is emptied after each, and a running process for the RPCs."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from aarokya.audit.v1.audit_log_pb2 import AuditLog as AuditLogEntry
from aarokya.audit.v1.audit_log_service_pb2 import ListAuditLogsRequest
from aarokya.audit.v1.audit_log_service_pb2_grpc import AuditLogServiceStub
from aarokya.catalogue.v1.benefit_pb2 import Benefit, BenefitStatus, BenefitType
from aarokya.catalogue.v1.benefit_provider_pb2 import BenefitProvider, BenefitProviderType
from aarokya.catalogue.v1.benefit_provider_service_pb2_grpc import BenefitProviderServiceStub
from aarokya.catalogue.v1.benefit_service_pb2_grpc import BenefitServiceStub
from catalogue.benefit_providers.repository import BenefitProviderRepository
from catalogue.benefit_providers.service import BenefitProviderService
from catalogue.benefits.repository import BenefitRepository
from catalogue.benefits.service import BenefitService
from catalogue.models import SERVICE, audit_chain, audit_log, data_keys
from servicekit.audit import AuditLog
from servicekit.caller import METADATA_KEY, Call, Caller, CallerType, system_call
from servicekit.crypto import KeyRing, generate_key
from servicekit.data_keys import DataKeys
from servicekit.database import Database, Transaction
from servicekit.tls import CertificateFiles, prepare_certificates
from tests.database_server import DatabaseServer, migrated_database
from tests.service_process import ServiceProcess, service_process


class Callers:
    """Who calls in the tests."""

    platform_id = uuid4()
    admin = Call(Caller(CallerType.ADMIN, "asha"), request_id="r-1", source_address="192.0.2.7", user_agent="tests")
    user = Call(Caller(CallerType.USER, str(uuid4()), platform_id))
    user_elsewhere = Call(Caller(CallerType.USER, str(uuid4()), uuid4()))
    records = system_call("records")


@dataclass
class CatalogueKit(Callers):
    """A migrated database, the rules that work on it, and callers."""

    database: Database
    superuser_dsn: str
    owner_dsn: str
    runtime_dsn: str
    audit: AuditLog
    providers: BenefitProviderService
    benefit_rows: BenefitRepository
    benefits: BenefitService

    def as_admin(self) -> AbstractAsyncContextManager[Transaction]:
        return self.database.transaction(self.admin)

    async def add_provider(self, **fields: Any) -> BenefitProvider:
        wanted = {
            "code": f"p{secrets.token_hex(4)}",
            "legal_name": "Apollo Clinics Ltd",
            "display_name": "Apollo",
            "type": BenefitProviderType.BENEFIT_PROVIDER_TYPE_CLINIC,
            **fields,
        }
        async with self.as_admin() as tx:
            return await self.providers.create_provider(tx, BenefitProvider(**wanted))

    async def add_benefit(self, provider: BenefitProvider | None = None, **fields: Any) -> Benefit:
        """Add a benefit that every user sees unless the fields say otherwise."""
        wanted = {
            "benefit_provider_id": (provider or await self.add_provider()).id,
            "code": secrets.token_hex(4),
            "name": "Annual health check",
            "type": BenefitType.BENEFIT_TYPE_DIAGNOSTICS,
            "status": BenefitStatus.BENEFIT_STATUS_ACTIVE,
            "price_paise": 49_900,
            **fields,
        }
        async with self.as_admin() as tx:
            return await self.benefits.create_benefit(tx, Benefit(**wanted))

    async def update_provider(
        self, provider_id: str, expected_version: int | None = None, **fields: Any
    ) -> BenefitProvider:
        async with self.as_admin() as tx:
            return await self.providers.update_provider(
                tx, UUID(provider_id), BenefitProvider(**fields), list(fields), expected_version
            )

    async def update_benefit(self, benefit_id: str, expected_version: int | None = None, **fields: Any) -> Benefit:
        async with self.as_admin() as tx:
            return await self.benefits.update_benefit(
                tx, UUID(benefit_id), Benefit(**fields), list(fields), expected_version
            )

    async def delete_provider(self, provider_id: str, expected_version: int | None = None) -> None:
        async with self.as_admin() as tx:
            await self.providers.delete_provider(tx, UUID(provider_id), expected_version)

    async def archive_benefit(self, benefit_id: str, expected_version: int | None = None) -> None:
        async with self.as_admin() as tx:
            await self.benefits.archive_benefit(tx, UUID(benefit_id), expected_version)

    async def check_mrn(self, provider_id: str) -> BenefitProvider | None:
        async with self.database.transaction(self.records) as tx:
            return await self.providers.check_mrn_provider(tx, UUID(provider_id))

    async def find_benefit(self, benefit_id: str, call: Call = Callers.admin) -> Benefit:
        async with self.database.transaction(call) as tx:
            return await self.benefits.get_benefit(tx, UUID(benefit_id))

    async def list_benefits(self, call: Call = Callers.admin, **filters: Any) -> list[str]:
        """Return the ids of what a caller sees, newest first."""
        asked = {"kind": None, "provider_id": None, "part_of_name": None, **filters}
        async with self.database.transaction(call) as tx:
            rows = await self.benefits.list_benefits(tx, cursor=None, page_size=200, **asked)
        return [str(row.id) for row in rows]

    async def history(self, entity_id: str) -> list[AuditLogEntry]:
        """Return what the audit log tells of a thing, oldest first."""
        async with self.as_admin() as tx:
            return (await self.audit.list(tx, ListAuditLogsRequest(entity_id=entity_id, limit=100)))[::-1]


@pytest.fixture(scope="session")
async def shared_kit(cluster: DatabaseServer) -> AsyncIterator[CatalogueKit]:
    dsns = migrated_database(cluster, SERVICE, "catalogue_rules")
    database = Database(dsns.runtime_dsn, SERVICE)
    audit = AuditLog(SERVICE, audit_log, audit_chain, DataKeys(data_keys, KeyRing({"first": generate_key()})))
    provider_rows, benefit_rows = BenefitProviderRepository(), BenefitRepository()
    yield CatalogueKit(
        database,
        dsns.superuser_dsn,
        dsns.owner_dsn,
        dsns.runtime_dsn,
        audit,
        BenefitProviderService(provider_rows, audit),
        benefit_rows,
        BenefitService(benefit_rows, audit, "Asia/Kolkata"),
    )
    await database.close()


@pytest.fixture
def kit(shared_kit: CatalogueKit) -> Iterator[CatalogueKit]:
    yield shared_kit
    with psycopg.connect(shared_kit.owner_dsn) as connection:
        connection.execute("TRUNCATE benefit_providers, benefits")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CertificateFiles]:
    return prepare_certificates(tmp_path_factory.mktemp("tls"), (SERVICE, "gateway", "records", "identity"))


@pytest.fixture(scope="session")
async def running(
    cluster: DatabaseServer, certificates: dict[str, CertificateFiles], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    dsns = migrated_database(cluster, SERVICE, SERVICE)
    folder = tmp_path_factory.mktemp("catalogue")
    async with service_process(SERVICE, folder, dsns.runtime_dsn, certificates) as catalogue:
        await catalogue.wait_until_serving()
        yield catalogue


@pytest.fixture
async def early(
    cluster: DatabaseServer, certificates: dict[str, CertificateFiles], tmp_path: Path
) -> AsyncIterator[tuple[ServiceProcess, Callable[[], object]]]:
    """The catalogue, started before its database is there, and what makes the database."""
    name = f"{SERVICE}_early"
    dsn = cluster.dsn_of(f"{SERVICE}_runtime", name)
    async with service_process(SERVICE, tmp_path, dsn, certificates) as catalogue:
        yield catalogue, lambda: migrated_database(cluster, SERVICE, name)


@dataclass
class Peer(Callers):
    """One peer's stubs, and what it says of who asks."""

    providers: BenefitProviderServiceStub
    benefits: BenefitServiceStub
    audit_logs: AuditLogServiceStub

    @classmethod
    def on(cls, channel: grpc.aio.Channel) -> "Peer":
        return cls(BenefitProviderServiceStub(channel), BenefitServiceStub(channel), AuditLogServiceStub(channel))

    @staticmethod
    def asking(call: Call) -> tuple[tuple[str, bytes], ...]:
        return ((METADATA_KEY, call.to_bytes()),)

    @staticmethod
    async def refusal(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, list[str]]:
        """Return a refused call's status, its public code and the fields that it names."""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in rpc_status.from_call(refused.value).details:
            assert detail.Unpack(info) or detail.Unpack(violations)
        return refused.value.code(), info.reason, [violation.field for violation in violations.field_violations]


@pytest.fixture
async def gateway(running: ServiceProcess) -> AsyncIterator[Peer]:
    async with running.channel("gateway") as channel:
        yield Peer.on(channel)


@pytest.fixture
async def records(running: ServiceProcess) -> AsyncIterator[Peer]:
    async with running.channel("records") as channel:
        yield Peer.on(channel)
