"""Live state as other processes see it: over mutual TLS, from identity's own process."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest

from aarokya.identity.v1.api_key_pb2 import ApiKeyStatus
from aarokya.identity.v1.live_state_service_pb2 import (
    ApiKeyState,
    BatchGetUserStatesRequest,
    GetUserStateRequest,
    ResolveApiKeyRequest,
    UserState,
    WatchLiveStateRequest,
    WatchLiveStateResponse,
)
from aarokya.identity.v1.platform_pb2 import PlatformStatus
from aarokya.identity.v1.platform_service_pb2 import (
    RevokeApiKeyRequest,
    RotateApiKeyRequest,
    SuspendPlatformRequest,
)
from aarokya.identity.v1.user_pb2 import UserStatus
from aarokya.identity.v1.user_service_pb2 import DeactivateUserRequest, ReactivateUserRequest
from servicekit.caller import Call, Caller, CallerType, system_call
from servicekit.errors import ServiceAway
from servicekit.leased_cache import Lease, LeasedCache, Watch, read_as_of, read_is_ending
from servicekit.questions import Questions
from servicekit.remote_clock import RemoteClocks

ADMIN = Call(Caller(CallerType.ADMIN, "asha"), request_id="r-1")
GATEWAY = system_call("gateway")
ACTIVE_KEY = ApiKeyStatus.API_KEY_STATUS_ACTIVE
BOUND_S = 1.0


def said_by(call: Call) -> tuple[tuple[str, bytes], ...]:
    return (("aarokya-call-bin", call.to_bytes()),)


async def user_state(identity: Any, user_id: str) -> UserState | None:
    response = await identity.live_state.GetUserState(
        GetUserStateRequest(user_id=user_id), metadata=said_by(GATEWAY), timeout=5
    )
    return response.state if response.HasField("state") else None


async def key_state(identity: Any, secret: str) -> ApiKeyState | None:
    response = await identity.live_state.ResolveApiKey(
        ResolveApiKeyRequest(secret=secret), metadata=said_by(GATEWAY), timeout=5
    )
    return response.state if response.HasField("state") else None


async def suspend(identity: Any, platform_id: str) -> None:
    request = SuspendPlatformRequest(platform_id=platform_id, reason="a test")
    await identity.platforms.SuspendPlatform(request, metadata=said_by(ADMIN))


async def deactivate(identity: Any, user_id: str) -> None:
    await identity.users.DeactivateUser(DeactivateUserRequest(user_id=user_id), metadata=said_by(ADMIN))


class TestGetUserState:
    async def test_tells_what_decides_on_rights(self, identity: Any) -> None:
        platform = await identity.create_platform(max_dependants=3)
        user = await identity.create_user(platform)
        assert await user_state(identity, user.id) == UserState(
            user_id=user.id,
            platform_id=platform.id,
            status=UserStatus.USER_STATUS_ONBOARDING,
            token_generation=0,
            platform_status=PlatformStatus.PLATFORM_STATUS_ACTIVE,
            max_dependants=3,
        )

    async def test_counts_deactivations(self, identity: Any) -> None:
        user = await identity.create_user(await identity.create_platform())
        await deactivate(identity, user.id)
        request = ReactivateUserRequest(user_id=user.id, reason="a test")
        await identity.users.ReactivateUser(request, metadata=said_by(ADMIN))
        state = await user_state(identity, user.id)
        assert state is not None
        assert (state.status, state.token_generation) == (UserStatus.USER_STATUS_ONBOARDING, 1)

    async def test_knows_no_stranger(self, identity: Any) -> None:
        assert await user_state(identity, str(uuid4())) is None

    async def test_is_told_to_gateway_and_records_only(self, identity_server: Any) -> None:
        for peer, expected in (("records", grpc.StatusCode.OK), ("catalogue", grpc.StatusCode.PERMISSION_DENIED)):
            async with identity_server.channel(peer) as channel:
                get_state = channel.unary_unary("/aarokya.identity.v1.LiveStateService/GetUserState")
                call = get_state(
                    GetUserStateRequest(user_id=str(uuid4())).SerializeToString(),
                    metadata=said_by(system_call(peer)),
                    timeout=5,
                )
                assert await call.code() == expected


class TestBatchGetUserStates:
    async def test_tells_of_each_what_is_told_of_one(self, identity: Any) -> None:
        platforms = [await identity.create_platform(max_dependants=count) for count in (3, 5)]
        users = [await identity.create_user(platform) for platform in (*platforms, *platforms)]
        await deactivate(identity, users[0].id)
        request = BatchGetUserStatesRequest(user_ids=[*(user.id for user in users), str(uuid4())])
        response = await identity.live_state.BatchGetUserStates(request, metadata=said_by(GATEWAY), timeout=5)
        told = {state.user_id: state for state in response.states}
        assert told == {user.id: await user_state(identity, user.id) for user in users}
        assert response.HasField("seen_at")

    @pytest.mark.parametrize(
        ("peer", "expected"),
        [
            ("gateway", grpc.StatusCode.OK),
            ("records", grpc.StatusCode.OK),
            ("catalogue", grpc.StatusCode.PERMISSION_DENIED),
        ],
    )
    async def test_is_told_to_gateway_and_records_only(self, identity_server: Any, peer: str, expected: Any) -> None:
        async with identity_server.channel(peer) as channel:
            get_states = channel.unary_unary("/aarokya.identity.v1.LiveStateService/BatchGetUserStates")
            request = BatchGetUserStatesRequest(user_ids=[str(uuid4())]).SerializeToString()
            call = get_states(request, metadata=said_by(system_call(peer)), timeout=5)
            assert await call.code() == expected


class TestResolveApiKey:
    async def test_finds_the_key_of_a_secret(self, identity: Any) -> None:
        platform = await identity.create_platform()
        key = await identity.create_key(platform)
        assert await key_state(identity, key.secret) == ApiKeyState(
            key_id=key.id,
            platform_id=platform.id,
            status=ACTIVE_KEY,
            platform_status=PlatformStatus.PLATFORM_STATUS_ACTIVE,
        )

    @pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: s + "a", lambda s: s.swapcase(), lambda s: ""])
    async def test_knows_no_other_secret(self, identity: Any, change: Any) -> None:
        key = await identity.create_key(await identity.create_platform())
        assert await key_state(identity, change(key.secret)) is None

    async def test_tells_of_a_suspended_platform(self, identity: Any) -> None:
        platform = await identity.create_platform()
        key = await identity.create_key(platform)
        await suspend(identity, platform.id)
        state = await key_state(identity, key.secret)
        assert state is not None
        assert (state.status, state.platform_status) == (ACTIVE_KEY, PlatformStatus.PLATFORM_STATUS_SUSPENDED)

    async def test_tells_of_a_revoked_key(self, identity: Any) -> None:
        platform = await identity.create_platform()
        key = await identity.create_key(platform)
        request = RevokeApiKeyRequest(platform_id=platform.id, key_id=key.id)
        await identity.platforms.RevokeApiKey(request, metadata=said_by(ADMIN))
        state = await key_state(identity, key.secret)
        assert state is not None
        assert state.status == ApiKeyStatus.API_KEY_STATUS_REVOKED

    async def test_both_secrets_hold_for_the_overlap(self, identity: Any) -> None:
        platform = await identity.create_platform()
        old = await identity.create_key(platform)
        new = await self.rotate(identity, platform.id, old.id, overlap_seconds=60)
        states = [await key_state(identity, secret) for secret in (old.secret, new.secret)]
        assert [state is not None and state.status for state in states] == [ACTIVE_KEY] * 2
        assert states[0] is not None
        assert states[1] is not None
        remaining = states[0].expires_at.ToDatetime(UTC) - datetime.now(UTC)
        assert timedelta(seconds=50) < remaining <= timedelta(seconds=60)
        assert not states[1].HasField("expires_at")

    async def test_the_old_secret_expires_after_the_overlap(self, identity: Any) -> None:
        platform = await identity.create_platform()
        old = await identity.create_key(platform)
        new = await self.rotate(identity, platform.id, old.id, overlap_seconds=0)
        states = [await key_state(identity, secret) for secret in (old.secret, new.secret)]
        assert [state is not None and state.status for state in states] == [
            ApiKeyStatus.API_KEY_STATUS_EXPIRED,
            ACTIVE_KEY,
        ]

    @staticmethod
    async def rotate(identity: Any, platform_id: str, key_id: str, *, overlap_seconds: int) -> Any:
        request = RotateApiKeyRequest(platform_id=platform_id, key_id=key_id, overlap_seconds=overlap_seconds)
        return (await identity.platforms.RotateApiKey(request, metadata=said_by(ADMIN))).api_key

    async def test_is_told_to_the_gateway_only(self, identity_server: Any) -> None:
        async with identity_server.channel("records") as channel:
            resolve = channel.unary_unary("/aarokya.identity.v1.LiveStateService/ResolveApiKey")
            call = resolve(b"", metadata=said_by(system_call("records")), timeout=5)
            assert await call.code() == grpc.StatusCode.PERMISSION_DENIED


class TestNoteKeyUse:
    @staticmethod
    def last_used_at(identity_database: Any, key_id: str) -> datetime | None:
        with identity_database.superuser() as connection:
            return connection.execute("SELECT last_used_at FROM api_keys WHERE id = %s", (key_id,)).fetchone()[0]

    @staticmethod
    def let_pass(identity_database: Any, key_id: str, seconds: int) -> None:
        with identity_database.superuser() as connection:
            connection.execute(
                "UPDATE api_keys SET last_used_at = last_used_at - make_interval(secs => %s) WHERE id = %s",
                (seconds, key_id),
            )

    async def test_notes_the_first_use(self, identity: Any, identity_database: Any) -> None:
        key = await identity.create_key(await identity.create_platform())
        assert self.last_used_at(identity_database, key.id) is None
        await key_state(identity, key.secret)
        used_at = self.last_used_at(identity_database, key.id)
        assert used_at is not None
        assert abs(used_at - datetime.now(UTC)) < timedelta(seconds=5)

    @pytest.mark.parametrize(("seconds", "is_noted"), [(20, False), (31, True)])
    async def test_notes_use_every_half_minute(
        self, identity: Any, identity_database: Any, seconds: int, is_noted: bool
    ) -> None:
        key = await identity.create_key(await identity.create_platform())
        await key_state(identity, key.secret)
        self.let_pass(identity_database, key.id, seconds)
        before = self.last_used_at(identity_database, key.id)
        await key_state(identity, key.secret)
        assert (self.last_used_at(identity_database, key.id) != before) is is_noted

    @pytest.mark.parametrize("lock", ["SELECT FROM api_keys FOR UPDATE", "LOCK TABLE api_keys IN EXCLUSIVE MODE"])
    async def test_a_use_that_cannot_be_noted_is_no_reason_to_refuse(
        self, identity: Any, identity_database: Any, lock: str
    ) -> None:
        key = await identity.create_key(await identity.create_platform())
        with identity_database.superuser() as connection, connection.transaction():
            connection.execute(lock)
            state = await key_state(identity, key.secret)
        assert state is not None
        assert state.status == ACTIVE_KEY
        assert self.last_used_at(identity_database, key.id) is None

    async def test_a_refused_key_is_not_used(self, identity: Any, identity_database: Any) -> None:
        platform = await identity.create_platform()
        key = await identity.create_key(platform)
        await suspend(identity, platform.id)
        await key_state(identity, key.secret)
        assert self.last_used_at(identity_database, key.id) is None


class Watched:
    """User states as another process remembers them, with the changes that it heard."""

    def __init__(self, identity: Any) -> None:
        self.identity = identity
        self.heard: list[WatchLiveStateResponse] = []
        self.asked = 0
        self.replica_id = ""
        self.lease = Lease()
        self.users: LeasedCache[str, UserState] = LeasedCache(
            self.lease, self._fetch, tags_of=lambda state: (state.platform_id,), max_entries=100, max_age_s=60.0
        )
        self.clocks = RemoteClocks()
        self.questions = Questions(self.clocks)
        self.watch = Watch(
            self._open,
            self._hear,
            [self.users],
            self.lease,
            as_of=read_as_of,
            is_ending=read_is_ending,
            clocks=self.clocks,
            ask=self._ask,
        )

    async def _fetch(self, user_id: str) -> UserState | None:
        self.asked += 1
        request = GetUserStateRequest(user_id=user_id)
        response = await self.questions.ask(self.identity.live_state.GetUserState, request, GATEWAY)
        return response.state if response.HasField("state") else None

    async def _ask(self) -> None:
        await self._fetch(str(UUID(int=0)))

    def _open(self) -> Any:
        return self.identity.live_state.WatchLiveState(WatchLiveStateRequest(), metadata=said_by(GATEWAY))

    def _hear(self, message: WatchLiveStateResponse) -> None:
        told = WatchLiveStateResponse()
        told.CopyFrom(message)
        told.ClearField("as_of_us")
        told.ClearField("as_of")
        self.replica_id = message.as_of.replica_id
        self.heard.append(told)
        match message.WhichOneof("changed"):
            case "user_id":
                self.users.invalidate(message.user_id)
            case "platform_id":
                self.users.invalidate_tag(message.platform_id)
            case "everything":
                self.users.invalidate_everything()

    async def until_valid(self, is_valid: bool = True) -> None:
        async with asyncio.timeout(5):
            while self.lease.is_valid is not is_valid:  # noqa: ASYNC110  # nothing announces the end of a lease
                await asyncio.sleep(0.01)

    async def until_not(self, state: UserState) -> float:
        """Return after how many seconds the user's state is another one."""
        began = time.monotonic()
        async with asyncio.timeout(5):
            while await self.users.get(state.user_id) == state:  # noqa: ASYNC110  # what is measured is the answer
                await asyncio.sleep(0.001)
        return time.monotonic() - began


class TestSeenAt:
    async def test_is_told_with_every_answer(self, identity: Any) -> None:
        key = await identity.create_key(await identity.create_platform())
        stub = identity.live_state
        asked = [
            (stub.GetUserState, GetUserStateRequest(user_id=str(uuid4()))),
            (stub.ResolveApiKey, ResolveApiKeyRequest(secret=key.secret)),
            (stub.ResolveApiKey, ResolveApiKeyRequest(secret=key.secret[:-1])),
        ]
        told = [(await rpc(request, metadata=said_by(GATEWAY), timeout=5)).seen_at for rpc, request in asked]
        assert len({moment.replica_id for moment in told}) == 1
        assert told[0].replica_id
        assert told[0].clock_us < told[1].clock_us < told[2].clock_us

    async def test_is_by_the_clock_of_the_stream(self, identity: Any) -> None:
        watched = Watched(identity)
        running = asyncio.create_task(watched.watch.run())
        await watched.until_valid()
        asked_at = time.monotonic()
        assert watched.clocks.age(watched.replica_id) > 0
        await watched.users.get(str(uuid4()))
        assert watched.clocks.age(watched.replica_id) < time.monotonic() - asked_at
        running.cancel()
        await asyncio.wait([running])


class TestWatchLiveState:
    @pytest.fixture
    async def watched(self, identity: Any) -> AsyncIterator[Watched]:
        watched = Watched(identity)
        running = asyncio.create_task(watched.watch.run())
        await watched.until_valid()
        yield watched
        running.cancel()
        await asyncio.wait([running])

    async def test_hears_of_every_change_of_rights(self, identity: Any, watched: Watched) -> None:
        platform = await identity.create_platform()
        user, key = await identity.create_user(platform), await identity.create_key(platform)
        rotate = RotateApiKeyRequest(platform_id=platform.id, key_id=key.id, overlap_seconds=5)
        revoke = RevokeApiKeyRequest(platform_id=platform.id, key_id=key.id)
        await identity.platforms.RotateApiKey(rotate, metadata=said_by(ADMIN))
        await identity.platforms.RevokeApiKey(revoke, metadata=said_by(ADMIN))
        await deactivate(identity, user.id)
        await suspend(identity, platform.id)
        await asyncio.sleep(0.3)
        told = [message for message in watched.heard if message.WhichOneof("changed")]
        assert told[-4:] == [
            WatchLiveStateResponse(key_id=key.id),
            WatchLiveStateResponse(key_id=key.id),
            WatchLiveStateResponse(user_id=user.id),
            WatchLiveStateResponse(platform_id=platform.id),
        ]

    async def test_remembers_until_it_hears_of_a_change(self, identity: Any, watched: Watched) -> None:
        user = await identity.create_user(await identity.create_platform())
        state = await watched.users.get(user.id)
        assert state is not None
        await watched.users.get(user.id)
        assert watched.asked == 1
        await deactivate(identity, user.id)
        assert await watched.until_not(state) < BOUND_S

    async def test_hears_of_a_change_whoever_makes_it(
        self, identity: Any, identity_database: Any, watched: Watched
    ) -> None:
        platform = await identity.create_platform()
        user = await identity.create_user(platform)
        state = await watched.users.get(user.id)
        assert state is not None
        with identity_database.superuser() as connection, connection.transaction():
            # What another replica of identity does.
            connection.execute("UPDATE platforms SET status = 'suspended' WHERE id = %s", (UUID(platform.id),))
            connection.execute("SELECT pg_notify('live_state', %s)", (f"platform:{platform.id}",))
        assert await watched.until_not(state) < BOUND_S

    async def test_trusts_nothing_while_identity_is_frozen(
        self, identity: Any, identity_server: Any, watched: Watched
    ) -> None:
        user = await identity.create_user(await identity.create_platform())
        await watched.users.get(user.id)
        identity_server.freeze()
        try:
            began = time.monotonic()
            await watched.until_valid(False)
            assert time.monotonic() - began < BOUND_S
            with pytest.raises(ServiceAway):
                await watched.users.get(user.id)
        finally:
            identity_server.thaw()
        await watched.until_valid()
        assert await watched.users.get(user.id) is not None

    async def test_trusts_nothing_while_the_database_is_not_heard(
        self, identity: Any, identity_database: Any, watched: Watched
    ) -> None:
        user = await identity.create_user(await identity.create_platform())
        await watched.users.get(user.id)
        with identity_database.superuser() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'identity live state'"
            )
        async with asyncio.timeout(5):
            while len(watched.users):  # noqa: ASYNC110  # the cache tells nobody that it was emptied
                await asyncio.sleep(0.01)
        await watched.until_valid()
        assert WatchLiveStateResponse(everything=True) in watched.heard

    async def test_is_open_to_gateway_and_records_only(self, identity_server: Any) -> None:
        for peer, may in (("records", True), ("catalogue", False)):
            async with identity_server.channel(peer) as channel:
                watch = channel.unary_stream("/aarokya.identity.v1.LiveStateService/WatchLiveState")
                call = watch(b"", metadata=said_by(system_call(peer)), timeout=5)
                if may:
                    assert not WatchLiveStateResponse.FromString(await call.read()).WhichOneof("changed")
                    call.cancel()
                else:
                    assert await call.code() == grpc.StatusCode.PERMISSION_DENIED
