"""Records for tests: the rules on a database, and a running process between stand-ins for identity and catalogue.

Families are append-only and can't be emptied after a test, so every test works on users of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest

from aarokya.audit.v1.audit_log_pb2 import AuditLog as AuditLogEntry
from aarokya.audit.v1.audit_log_service_pb2 import ListAuditLogsRequest
from aarokya.catalogue.v1.benefit_provider_service_pb2 import CheckMrnProviderResponse
from aarokya.catalogue.v1.benefit_provider_service_pb2_grpc import (
    BenefitProviderServiceServicer,
    add_BenefitProviderServiceServicer_to_server,
)
from aarokya.identity.v1.live_state_service_pb2 import (
    BatchGetUserStatesResponse,
    GetUserStateResponse,
    UserState,
    WatchLiveStateResponse,
)
from aarokya.identity.v1.live_state_service_pb2_grpc import (
    LiveStateServiceServicer,
    add_LiveStateServiceServicer_to_server,
)
from aarokya.identity.v1.user_pb2 import UserStatus
from aarokya.records.v1.account_service_pb2_grpc import AccountServiceStub
from aarokya.records.v1.dependant_pb2 import Dependant, Gender, Relationship
from aarokya.records.v1.dependant_service_pb2_grpc import DependantServiceStub
from aarokya.records.v1.mrn_service_pb2_grpc import MrnServiceStub
from aarokya.records.v1.user_event_service_pb2 import ApplyUserEventRequest, SelfProfile
from aarokya.records.v1.user_event_service_pb2_grpc import UserEventServiceStub
from records.dependants.repository import DependantRepository
from records.dependants.service import DependantService
from records.models import SERVICE, audit_chain, audit_log, data_keys, inbox
from records.user_events.service import UserEventService
from records.users.repository import UserRepository
from servicekit.audit import AuditLog
from servicekit.caller import METADATA_KEY, Call, Caller, CallerType, system_call
from servicekit.crypto import KeyRing, LookupHash, generate_key
from servicekit.data_keys import DataKeys
from servicekit.database import Database
from servicekit.outbox import Inbox
from servicekit.tls import CertificateFiles, prepare_certificates, server_credentials
from tests.database_server import DatabaseServer, migrated_database
from tests.service_process import ServiceProcess, service_process

PLATFORM_ID = uuid4()
PROFILE = {
    "first_name": "Ravi",
    "last_name": "Kumar",
    "gender": Gender.GENDER_MALE,
    "date_of_birth": "1990-05-17",
    "phone_number": "+919876543210",
}
MEMBER = {
    "relationship": Relationship.RELATIONSHIP_SPOUSE,
    "first_name": "Meena",
    "last_name": "Kumar",
    "gender": Gender.GENDER_FEMALE,
    "date_of_birth": "1992-01-31",
}


class Telling:
    """What callers and identity say, and who says it."""

    platform_id = PLATFORM_ID
    admin = Call(Caller(CallerType.ADMIN, "asha"), request_id="r-1", source_address="192.0.2.7", user_agent="tests")
    partner = Call(Caller(CallerType.PARTNER, str(uuid4()), PLATFORM_ID))
    partner_elsewhere = Call(Caller(CallerType.PARTNER, str(uuid4()), uuid4()))
    identity = system_call("identity")

    @staticmethod
    def user(state: UserState) -> Call:
        """Return a call of the user's own."""
        return Call(Caller(CallerType.USER, state.user_id, UUID(state.platform_id)), request_id="r-2")

    @staticmethod
    def state(**fields: Any) -> UserState:
        """Return what identity says of an active user."""
        return UserState(
            **{
                "user_id": str(uuid4()),
                "platform_id": str(PLATFORM_ID),
                "status": UserStatus.USER_STATUS_ACTIVE,
                "max_dependants": 8,
                **fields,
            }
        )

    @staticmethod
    def member(**fields: Any) -> Dependant:
        """Return what a caller sends to add somebody to a family."""
        return Dependant(**{**MEMBER, **fields})

    @staticmethod
    def profile_event(state: UserState, version: int = 2, **profile: Any) -> ApplyUserEventRequest:
        """Return what identity sends when a user was onboarded or changed the profile."""
        return ApplyUserEventRequest(
            event_id=str(uuid4()),
            user_id=state.user_id,
            platform_id=state.platform_id,
            user_version=version,
            profile=SelfProfile(**{**PROFILE, **profile}),
        )

    @staticmethod
    def erased_event(state: UserState, version: int = 9) -> ApplyUserEventRequest:
        """Return what identity sends when a user was erased."""
        return ApplyUserEventRequest(
            event_id=str(uuid4()),
            user_id=state.user_id,
            platform_id=state.platform_id,
            user_version=version,
            erased=True,
        )


@dataclass
class RecordsKit(Telling):
    """A migrated database and the rules that work on it."""

    database: Database
    superuser_dsn: str
    owner_dsn: str
    runtime_dsn: str
    keys: DataKeys
    hashes: LookupHash
    audit: AuditLog
    dependant_rows: DependantRepository
    dependants: DependantService
    user_events: UserEventService

    def superuser(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection that sees every row."""
        return psycopg.connect(self.superuser_dsn, autocommit=True)

    async def apply(self, event: ApplyUserEventRequest) -> None:
        async with self.database.transaction(self.identity) as tx:
            await self.user_events.apply(tx, event)

    async def onboard(self, *, state: UserState | None = None, **profile: Any) -> UserState:
        """Let identity tell of a user who was onboarded, and return what it says of that user."""
        state = state or self.state()
        await self.apply(self.profile_event(state, **profile))
        return state

    async def add(self, state: UserState, *, call: Call | None = None, **fields: Any) -> Dependant:
        async with self.database.transaction(call or self.user(state)) as tx:
            return await self.dependants.create_dependant(tx, state, self.member(**fields))

    async def update(
        self, dependant: Dependant, *, expected_version: int | None = None, call: Call | None = None, **fields: Any
    ) -> Dependant:
        """Patch a dependant as its own user; a field given as None is cleared."""
        call = call or Call(Caller(CallerType.USER, dependant.user_id, UUID(dependant.platform_id)))
        wanted = Dependant(**{name: value for name, value in fields.items() if value is not None})
        async with self.database.transaction(call) as tx:
            return await self.dependants.update_dependant(
                tx, None, UUID(dependant.user_id), UUID(dependant.id), wanted, list(fields), expected_version
            )

    async def remove(self, dependant: Dependant, *, expected_version: int | None = None) -> None:
        call = Call(Caller(CallerType.USER, dependant.user_id, UUID(dependant.platform_id)))
        async with self.database.transaction(call) as tx:
            await self.dependants.delete_dependant(
                tx, None, UUID(dependant.user_id), UUID(dependant.id), expected_version
            )

    async def find(self, state: UserState, dependant_id: str, *, call: Call | None = None) -> Dependant:
        async with self.database.transaction(call or self.user(state)) as tx:
            return await self.dependants.get_dependant(tx, UUID(state.user_id), UUID(dependant_id))

    async def family(self, state: UserState, *, call: Call | None = None, **asked: Any) -> list[Dependant]:
        """Return a user's family, newest member first."""
        wanted = {"as_of": None, "include_removed": False, "cursor": None, "page_size": 200, **asked}
        async with self.database.transaction(call or self.user(state)) as tx:
            rows = await self.dependants.list_dependants(tx, UUID(state.user_id), **wanted)
        return [self.dependant_rows.to_dependant(row) for row in rows]

    async def self_of(self, state: UserState) -> Dependant:
        """Return the user's SELF."""
        (found,) = [one for one in await self.family(state) if one.relationship == Relationship.RELATIONSHIP_SELF]
        return found

    async def versions(self, dependant: Dependant, *, call: Call = Telling.admin) -> list[Dependant]:
        """Return a dependant's history, newest version first."""
        async with self.database.transaction(call) as tx:
            rows = await self.dependants.list_versions(tx, UUID(dependant.user_id), UUID(dependant.id), None, 200)
        return [self.dependant_rows.to_dependant(row) for row in rows]

    async def history(self, entity_id: str) -> list[AuditLogEntry]:
        """Return what the audit log tells of a thing, oldest first."""
        async with self.database.transaction(self.admin) as tx:
            return (await self.audit.list(tx, ListAuditLogsRequest(entity_id=entity_id, limit=100)))[::-1]


@pytest.fixture(scope="session")
async def kit(cluster: DatabaseServer) -> AsyncIterator[RecordsKit]:
    dsns = migrated_database(cluster, SERVICE, "records_rules")
    database = Database(dsns.runtime_dsn, SERVICE)
    keys = DataKeys(data_keys, KeyRing({"first": generate_key()}))
    audit = AuditLog(SERVICE, audit_log, audit_chain, keys)
    rows = DependantRepository(keys)
    dependants = DependantService(rows, audit, "Asia/Kolkata")
    yield RecordsKit(
        database,
        dsns.superuser_dsn,
        dsns.owner_dsn,
        dsns.runtime_dsn,
        keys,
        LookupHash(generate_key()),
        audit,
        rows,
        dependants,
        UserEventService(Inbox(inbox), UserRepository(keys), dependants, rows, audit),
    )
    await database.close()


@dataclass
class FakeIdentity(LiveStateServiceServicer):
    """Stands in for identity: answers what a test says of users, and remembers who was asked about."""

    states: dict[str, UserState] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    news: asyncio.Queue[WatchLiveStateResponse] = field(default_factory=asyncio.Queue)
    opened: int = 0
    is_away: bool = False
    is_silent: bool = False
    delay_s: float = 0

    async def GetUserState(self, request: Any, context: Any) -> GetUserStateResponse:
        self.asked.append(request.user_id)
        await asyncio.sleep(self.delay_s)
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return GetUserStateResponse(state=self.states.get(request.user_id))

    async def BatchGetUserStates(self, request: Any, context: Any) -> BatchGetUserStatesResponse:
        self.asked += request.user_ids
        await asyncio.sleep(self.delay_s)
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        known = [self.states[user_id] for user_id in request.user_ids if user_id in self.states]
        return BatchGetUserStatesResponse(states=known)

    async def WatchLiveState(self, request: Any, context: Any) -> AsyncIterator[WatchLiveStateResponse]:
        """Tell every stream everything, and for the rest what tests put into `news`: one test, one listener."""
        self.opened += 1
        yield WatchLiveStateResponse(everything=True)
        while True:
            await asyncio.sleep(0.05)
            if not self.is_silent:
                yield WatchLiveStateResponse() if self.news.empty() else self.news.get_nowait()


@dataclass
class FakeCatalogue(BenefitProviderServiceServicer):
    """Stands in for the catalogue: answers what a test says of providers, by id, and remembers who was asked about."""

    providers: dict[str, CheckMrnProviderResponse] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_away: bool = False

    async def CheckMrnProvider(self, request: Any, context: Any) -> CheckMrnProviderResponse:
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        self.asked.append(request.benefit_provider_id)
        return self.providers.get(request.benefit_provider_id, CheckMrnProviderResponse())


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CertificateFiles]:
    folder = tmp_path_factory.mktemp("tls")
    return prepare_certificates(folder, (SERVICE, "gateway", "identity", "catalogue"))


@pytest.fixture(scope="session")
async def standing_in(
    certificates: dict[str, CertificateFiles],
) -> AsyncIterator[tuple[FakeIdentity, FakeCatalogue, dict[str, str]]]:
    """Serve the stand-ins; the addresses are those of `identity` and `catalogue`."""
    identity, catalogue = FakeIdentity(), FakeCatalogue()
    servers, addresses = [], {}
    for name in ("identity", "catalogue"):
        server = grpc.aio.server()
        files = certificates[name]
        port = server.add_secure_port("127.0.0.1:0", server_credentials(files.ca, files.certificate, files.key))
        addresses[name] = f"127.0.0.1:{port}"
        servers.append(server)
    add_LiveStateServiceServicer_to_server(identity, servers[0])
    add_BenefitProviderServiceServicer_to_server(catalogue, servers[1])
    for server in servers:
        await server.start()
    yield identity, catalogue, addresses
    for server in servers:
        await server.stop(None)


@pytest.fixture
def fake_identity(standing_in: tuple[FakeIdentity, FakeCatalogue, dict[str, str]]) -> Iterator[FakeIdentity]:
    yield standing_in[0]
    standing_in[0].is_away = False
    standing_in[0].is_silent = False
    standing_in[0].delay_s = 0


@pytest.fixture
def fake_catalogue(standing_in: tuple[FakeIdentity, FakeCatalogue, dict[str, str]]) -> Iterator[FakeCatalogue]:
    yield standing_in[1]
    standing_in[1].is_away = False


@pytest.fixture(scope="session")
async def running(
    cluster: DatabaseServer,
    certificates: dict[str, CertificateFiles],
    standing_in: tuple[FakeIdentity, FakeCatalogue, dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ServiceProcess]:
    dsns = migrated_database(cluster, SERVICE, SERVICE)
    addresses = {f"{name.upper()}_ADDRESS": address for name, address in standing_in[2].items()}
    folder = tmp_path_factory.mktemp("records")
    async with service_process(SERVICE, folder, dsns.runtime_dsn, certificates, **addresses) as records:
        await records.wait_until_serving()
        yield records


@dataclass
class Peer(Telling):
    """One peer's stubs, and what it says of who asks."""

    dependants: DependantServiceStub
    accounts: AccountServiceStub
    mrns: MrnServiceStub
    user_events: UserEventServiceStub

    @classmethod
    def on(cls, channel: grpc.aio.Channel) -> "Peer":
        return cls(
            DependantServiceStub(channel),
            AccountServiceStub(channel),
            MrnServiceStub(channel),
            UserEventServiceStub(channel),
        )

    @staticmethod
    def asking(call: Call) -> tuple[tuple[str, bytes], ...]:
        return ((METADATA_KEY, call.to_bytes()),)


@pytest.fixture
async def gateway(running: ServiceProcess) -> AsyncIterator[Peer]:
    async with running.channel("gateway") as channel:
        yield Peer.on(channel)


@pytest.fixture
async def identity(running: ServiceProcess) -> AsyncIterator[Peer]:
    async with running.channel("identity") as channel:
        yield Peer.on(channel)
