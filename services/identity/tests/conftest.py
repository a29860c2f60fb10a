"""Identity for tests: its rules on a migrated database, and a running process that is called as its peers call it.

Audit rows can't be taken away after a test, so every test works on a platform of its own.
"""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc.aio
import psycopg
import pytest
from google.rpc import error_details_pb2, status_pb2

from aarokya.audit.v1.audit_log_pb2 import AuditLog as AuditLogEntry
from aarokya.audit.v1.audit_log_service_pb2 import ListAuditLogsRequest
from aarokya.audit.v1.audit_log_service_pb2_grpc import AuditLogServiceStub
from aarokya.identity.v1.api_key_pb2 import ApiKey, ApiKeyStatus
from aarokya.identity.v1.auth_service_pb2 import IssueTokenRequest
from aarokya.identity.v1.auth_service_pb2_grpc import AuthServiceStub
from aarokya.identity.v1.live_state_service_pb2_grpc import LiveStateServiceStub
from aarokya.identity.v1.platform_pb2 import Platform
from aarokya.identity.v1.platform_service_pb2 import CreateApiKeyRequest, CreatePlatformRequest
from aarokya.identity.v1.platform_service_pb2_grpc import PlatformServiceStub
from aarokya.identity.v1.refusal_service_pb2_grpc import RefusalServiceStub
from aarokya.identity.v1.user_pb2 import Gender, User
from aarokya.identity.v1.user_service_pb2_grpc import UserServiceStub
from aarokya.records.v1 import user_event_service_pb2_grpc
from aarokya.records.v1.user_event_service_pb2 import ApplyUserEventRequest, ApplyUserEventResponse
from identity.auth.service import AuthService, IssuedToken
from identity.live_state.repository import PRESENTED_HASH
from identity.live_state.service import find_key_state
from identity.models import SERVICE, audit_chain, audit_log, data_keys, outbox
from identity.platforms.repository import ApiKeyRepository, PlatformRepository
from identity.platforms.service import ApiKeyService, PlatformService
from identity.settings import IdentitySettings
from identity.users.repository import StoredUser, UserRepository
from identity.users.service import UserService
from servicekit.audit import AuditLog
from servicekit.caller import METADATA_KEY, Call, Caller, CallerType, Idempotency, system_call
from servicekit.crypto import KeyRing, LookupHash, generate_key
from servicekit.data_keys import DataKeys
from servicekit.database import Database, Transaction
from servicekit.outbox import Event, Outbox
from servicekit.server import REPLAYED_KEY
from servicekit.tls import CertificateFiles, prepare_certificates, server_credentials
from tests.database_server import DatabaseServer, Logins, migrated_database
from tests.service_process import ServiceProcess, new_key, service_process

PATIENCE_S = 30
ADMIN = Call(Caller(CallerType.ADMIN, "asha"), request_id="r-1", source_address="192.0.2.7", user_agent="tests")
GATEWAY = system_call("gateway")
JWT_KEY = "a secret of these tests of 32 bytes or more"
PROFILE: dict[str, Any] = {"first_name": "Ravi", "gender": Gender.GENDER_MALE, "date_of_birth": "1990-05-17"}
Metadata = tuple[tuple[str, bytes], ...]
_numbers = itertools.count(10_000)


def said_by(call: Call) -> Metadata:
    """Return the metadata by which a peer says who asks."""
    return ((METADATA_KEY, call.to_bytes()),)


def partner_of(platform: Platform) -> Call:
    """Return a call of the platform's partner."""
    return Call(Caller(CallerType.PARTNER, "key-1", UUID(platform.id)))


def user_of(user: User) -> Call:
    """Return a call of a user."""
    return Call(Caller(CallerType.USER, user.id, UUID(user.platform_id)))


def with_key(call: Call) -> Call:
    """Return the call with an Idempotency-Key that no other test uses."""
    return replace(call, idempotency=Idempotency(secrets.token_bytes(32), secrets.token_bytes(32)))


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the code with which a service refused, as it crosses the wire."""
    packed = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(packed).details[0].Unpack(info)
    return str(info.reason)


async def was_replayed(call: Any) -> bool:
    """Return whether an answer is that of an earlier call."""
    return any(key == REPLAYED_KEY for key, _ in await call.trailing_metadata())


def new_number() -> str:
    """Return national digits that no other test uses."""
    return f"98765{next(_numbers)}"


@dataclass
class RecordsStandIn(user_event_service_pb2_grpc.UserEventServiceServicer):
    """Takes events as records does, unless it is away."""

    port: int = 0
    is_away: bool = False
    applied: list[ApplyUserEventRequest] = field(default_factory=list)

    async def ApplyUserEvent(self, request: ApplyUserEventRequest, context: Any) -> ApplyUserEventResponse:
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        self.applied.append(request)
        return ApplyUserEventResponse()

    def events_of(self, user_id: str) -> list[ApplyUserEventRequest]:
        """Return what records heard of a user, oldest first."""
        return [event for event in self.applied if event.user_id == user_id]

    async def wait_for(self, user_id: str) -> None:
        """Return when records has heard of a user."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.events_of(user_id):  # noqa: ASYNC110  # the event comes from another process
                await asyncio.sleep(0.01)


class Stubs:
    """All of identity's services on one channel, and the steps with which most tests begin."""

    admin = ADMIN
    gateway = GATEWAY
    jwt_key = JWT_KEY
    profile = PROFILE
    said_by = staticmethod(said_by)
    with_key = staticmethod(with_key)
    partner_of = staticmethod(partner_of)
    user_of = staticmethod(user_of)
    reason_of = staticmethod(reason_of)
    was_replayed = staticmethod(was_replayed)
    new_number = staticmethod(new_number)

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.platforms = PlatformServiceStub(channel)
        self.users = UserServiceStub(channel)
        self.auth = AuthServiceStub(channel)
        self.live_state = LiveStateServiceStub(channel)
        self.refusals = RefusalServiceStub(channel)
        self.audit_logs = AuditLogServiceStub(channel)

    async def create_platform(self, **settings: Any) -> Platform:
        """Create a platform with a name of its own."""
        wanted = Platform(**{"name": f"Platform {secrets.token_hex(4)}", **settings})
        response = await self.platforms.CreatePlatform(CreatePlatformRequest(platform=wanted), metadata=said_by(ADMIN))
        return response.platform

    async def create_key(self, platform: Platform, **fields: Any) -> ApiKey:
        """Create a partner key, with its secret."""
        wanted = ApiKey(**{"name": "server", **fields})
        request = CreateApiKeyRequest(platform_id=platform.id, api_key=wanted)
        return (await self.platforms.CreateApiKey(request, metadata=said_by(ADMIN))).api_key

    async def create_user(self, platform: Platform) -> User:
        """Register an onboarding user with a phone number of its own."""
        request = IssueTokenRequest(phone_number=f"+919{secrets.randbelow(10**9):09}")
        return (await self.auth.IssueToken(request, metadata=said_by(partner_of(platform)))).user


@dataclass
class IdentityRules:
    """A migrated database, the rules that work on it, and what left by the outbox."""

    runtime_dsn: str
    superuser_dsn: str
    database: Database
    audit: AuditLog
    outbox: Outbox
    platforms: PlatformService
    keys: ApiKeyService
    users: UserService
    user_rows: UserRepository
    auth: AuthService
    delivered: list[Event]

    admin = ADMIN
    gateway = GATEWAY
    jwt_key = JWT_KEY
    profile = PROFILE
    partner_of = staticmethod(partner_of)
    user_of = staticmethod(user_of)
    new_number = staticmethod(new_number)

    def as_admin(self) -> AbstractAsyncContextManager[Transaction]:
        return self.database.transaction(ADMIN)

    def superuser(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection that may do anything and sees every row."""
        return psycopg.connect(self.superuser_dsn, autocommit=True)

    async def wait_until_blocked(self) -> None:
        """Return when one of the database's sessions waits for a lock of another."""
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        with self.superuser() as connection:
            while connection.execute(waiting).fetchone() == (0,):  # noqa: ASYNC110  # the database has no event for it
                await asyncio.sleep(0.01)

    async def history(self, entity_id: str) -> list[AuditLogEntry]:
        """Return what the audit log tells of a thing, oldest first."""
        async with self.as_admin() as tx:
            return (await self.audit.list(tx, ListAuditLogsRequest(entity_id=entity_id, limit=100)))[::-1]

    async def add_platform(self, **settings: Any) -> Platform:
        async with self.as_admin() as tx:
            return await self.platforms.create_platform(tx, Platform(**{"name": f"Platform {uuid4()}", **settings}))

    async def find_platform(self, platform_id: str) -> Platform:
        async with self.as_admin() as tx:
            return await self.platforms.get_platform(tx, UUID(platform_id))

    async def update_platform(self, platform_id: str, expected_version: int | None = None, **fields: Any) -> Platform:
        """Change the named fields; those that are None are cleared."""
        async with self.as_admin() as tx:
            return await self.platforms.update_platform(
                tx, UUID(platform_id), Platform(**fields), list(fields), expected_version
            )

    async def archive_platform(self, platform_id: str, expected_version: int | None = None) -> None:
        async with self.as_admin() as tx:
            await self.platforms.archive_platform(tx, UUID(platform_id), expected_version)

    async def set_platform_status(self, platform_id: str, status: Any, reason: str = "Asked for.") -> Platform:
        async with self.as_admin() as tx:
            return await self.platforms.set_status(tx, UUID(platform_id), status, reason)

    async def add_key(self, platform: Platform, **fields: Any) -> ApiKey:
        async with self.as_admin() as tx:
            return await self.keys.create_key(tx, UUID(platform.id), ApiKey(**{"name": "server", **fields}))

    async def status_of_secret(self, secret: str) -> ApiKeyStatus.ValueType | None:
        """Return whether a partner with this secret is let in, as the gateway learns it."""
        secret_hash = self.keys.hash_secret(secret)
        async with self.database.transaction(GATEWAY, presented={PRESENTED_HASH: secret_hash.hex()}) as tx:
            found = await find_key_state(tx, secret_hash)
        return None if found is None else found.state.status

    def let_expire(self, key_id: str) -> None:
        """Move a key's expiry into the past."""
        with self.superuser() as connection:
            connection.execute("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = %s", (key_id,))

    def let_overlap_end(self, key_id: str) -> None:
        """Move the end of a key's older secrets into the past."""
        with self.superuser() as connection:
            connection.execute(
                "UPDATE api_key_secrets SET expires_at = now() - interval '1 s' "
                "WHERE key_id = %s AND expires_at IS NOT NULL",
                (key_id,),
            )

    async def issue_token(
        self, platform: Platform, phone_number: str, country_code: str = "", **prefill: Any
    ) -> IssuedToken:
        async with self.database.transaction(partner_of(platform)) as tx:
            return await self.auth.issue_token(tx, UUID(platform.id), phone_number, country_code, User(**prefill))

    async def add_user(self, platform: Platform | None = None, **prefill: Any) -> User:
        """Register an onboarding user."""
        issued = await self.issue_token(platform or await self.add_platform(), self.new_number(), **prefill)
        return issued.stored.user

    async def add_active_user(self, platform: Platform | None = None, **profile: Any) -> User:
        return await self.complete_onboarding(await self.add_user(platform), **{**PROFILE, **profile})

    async def add_deactivated_user(self, platform: Platform | None = None, **profile: Any) -> User:
        user = await self.add_active_user(platform, **profile)
        await self.deactivate(user)
        return await self.find_user(user.id)

    async def find_user(self, user_id: str) -> User:
        """Return a user as it is stored, without the note that an operator's look leaves."""
        async with self.database.transaction(GATEWAY) as tx:
            stored = await self.user_rows.find(tx, UUID(user_id))
        assert stored is not None
        return stored.user

    async def list_users(self, **filters: Any) -> list[str]:
        """Return the ids of what an operator sees, newest first."""
        asked = {"platform_id": None, "status": None, "phone_number": None, **filters}
        async with self.as_admin() as tx:
            rows = await self.users.list_users(tx, cursor=None, page_size=50, **asked)
        return [str(row.id) for row in rows]

    async def update_user(
        self, user: User, by: Call | None = None, expected_version: int | None = None, **fields: Any
    ) -> User:
        """Change the named fields, as the user or another caller; those that are None are cleared."""
        async with self.database.transaction(by or user_of(user)) as tx:
            stored = await self.users.update_user(tx, UUID(user.id), User(**fields), list(fields), expected_version)
        return stored.user

    async def complete_onboarding(self, user: User, by: Call | None = None, **fields: Any) -> User:
        async with self.database.transaction(by or user_of(user)) as tx:
            stored = await self.users.complete_onboarding(tx, UUID(user.id), User(**fields), list(fields))
        return stored.user

    async def deactivate(self, user: User, by: Call | None = None, expected_version: int | None = None) -> None:
        async with self.database.transaction(by or user_of(user)) as tx:
            await self.users.deactivate_user(tx, UUID(user.id), expected_version)

    async def reactivate(self, user: User, reason: str = "Asked for.") -> User:
        async with self.as_admin() as tx:
            return (await self.users.reactivate_user(tx, UUID(user.id), reason)).user

    async def release_phone(self, user: User, reason: str = "Asked for.") -> StoredUser:
        async with self.as_admin() as tx:
            return await self.users.release_phone(tx, UUID(user.id), reason)

    async def erase(self, user: User, reason: str = "Asked for.") -> User:
        async with self.as_admin() as tx:
            return (await self.users.erase_user(tx, UUID(user.id), reason)).user

    async def events_of(self, user: User) -> list[ApplyUserEventRequest | None]:
        """Return what records was not told of a user before, oldest first; None for what became unreadable."""
        self.delivered.clear()
        await self.outbox.deliver_soon(UUID(user.id), PATIENCE_S)
        return [
            None if event.payload is None else ApplyUserEventRequest.FromString(event.payload)
            for event in self.delivered
        ]


@pytest.fixture(scope="session")
def identity_database(cluster: DatabaseServer) -> Logins:
    return migrated_database(cluster, SERVICE, SERVICE)


@pytest.fixture(scope="session")
async def rules(cluster: DatabaseServer) -> AsyncIterator[IdentityRules]:
    # The process's keys would not open these rows, so they have a database to themselves.
    database_of_rules = migrated_database(cluster, SERVICE, f"{SERVICE}_rules")
    settings = IdentitySettings(
        listen="",
        database_runtime_dsn=database_of_rules.runtime_dsn,
        master_keys=f"first:{new_key()}",
        lookup_key=new_key(),
        audit_key=new_key(),
        page_token_key=new_key(),
        audit_head_file=Path(),
        jwt_keys=f"new:{JWT_KEY},old:{JWT_KEY[::-1]}",
        records_address="",
        tls_ca=Path(),
        tls_certificate=Path(),
        tls_key=Path(),
    )
    database = Database(database_of_rules.runtime_dsn, SERVICE, pool_size=50)
    owners_keys = DataKeys(data_keys, KeyRing.parse(settings.master_keys.get_secret_value()))
    hashes = LookupHash(generate_key())
    audit = AuditLog(SERVICE, audit_log, audit_chain, owners_keys)
    delivered: list[Event] = []

    async def deliver(event: Event) -> None:
        delivered.append(event)

    events = Outbox(outbox, database, owners_keys, SERVICE, deliver)
    user_rows = UserRepository(owners_keys, hashes)
    platforms = PlatformService(PlatformRepository(owners_keys), audit)
    yield IdentityRules(
        runtime_dsn=database_of_rules.runtime_dsn,
        superuser_dsn=database_of_rules.superuser_dsn,
        database=database,
        audit=audit,
        outbox=events,
        platforms=platforms,
        keys=ApiKeyService(platforms, ApiKeyRepository(), audit, hashes),
        users=UserService(user_rows, platforms, audit, events, settings.timezone),
        user_rows=user_rows,
        auth=AuthService(user_rows, platforms, audit, settings),
        delivered=delivered,
    )
    await database.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CertificateFiles]:
    return prepare_certificates(tmp_path_factory.mktemp("tls"), (SERVICE, "gateway", "catalogue", "records"))


@pytest.fixture(scope="session")
async def records(certificates: dict[str, CertificateFiles]) -> AsyncIterator[RecordsStandIn]:
    server, stand_in, files = grpc.aio.server(), RecordsStandIn(), certificates["records"]
    user_event_service_pb2_grpc.add_UserEventServiceServicer_to_server(stand_in, server)
    credentials = server_credentials(files.ca, files.certificate, files.key)
    stand_in.port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield stand_in
    await server.stop(None)


@pytest.fixture(scope="session")
async def identity_server(
    identity_database: Logins,
    certificates: dict[str, CertificateFiles],
    records: RecordsStandIn,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ServiceProcess]:
    settings = {"JWT_KEYS": f"first:{JWT_KEY}", "RECORDS_ADDRESS": f"127.0.0.1:{records.port}"}
    folder = tmp_path_factory.mktemp("identity")
    async with service_process(SERVICE, folder, identity_database.runtime_dsn, certificates, **settings) as identity:
        await identity.wait_until_serving()
        yield identity


@pytest.fixture
async def identity(identity_server: ServiceProcess) -> AsyncIterator[Stubs]:
    """Identity as the gateway calls it."""
    async with identity_server.channel() as channel:
        yield Stubs(channel)
