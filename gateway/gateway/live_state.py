"""Who may do what at this moment, as identity says; remembered only as long as identity is heard."""

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

import grpc.aio

from aarokya.identity.v1 import live_state_service_pb2_grpc as pb_grpc
from aarokya.identity.v1.live_state_service_pb2 import (
    ApiKeyState,
    BatchGetUserStatesRequest,
    GetUserStateRequest,
    ResolveApiKeyRequest,
    UserState,
    WatchLiveStateRequest,
    WatchLiveStateResponse,
)
from gateway.errors import Refused
from servicekit.caller import METADATA_KEY, system_call
from servicekit.data_loader import DataLoader
from servicekit.errors import ServiceAway
from servicekit.leased_cache import Lease, LeasedCache, Watch, read_as_of, read_is_ending
from servicekit.questions import Questions
from servicekit.remote_clock import RemoteClocks

MOST_USERS = 50_000
MOST_KEYS = 10_000
# Identity notes the use of a key when it is asked, at most every 30 s; so it knows of each use within a minute.
KEYS_USED_FOR_S = 30.0
# What is heard narrows rights at once. This bounds how long anything else about a user may be out of date.
USERS_USED_FOR_S = 60.0
CALL = system_call("gateway")
# Is nobody's id; an answer about it is as good as any to learn of identity's clock.
NOBODY = str(UUID(int=0))

# The secrets that a key can have; what is no secret need not be looked for.
_SECRET = re.compile(r"[\x20-\x7e]{32,256}")


class LiveState:
    """The states of users and partner keys."""

    def __init__(self, identity: grpc.aio.Channel, *, keys: grpc.aio.Channel | None = None) -> None:
        """Ask identity, about keys by a channel of their own if there is one."""
        self._stub: pb_grpc.LiveStateServiceAsyncStub = pb_grpc.LiveStateServiceStub(identity)
        self._key_stub: pb_grpc.LiveStateServiceAsyncStub = pb_grpc.LiveStateServiceStub(keys or identity)
        self._lease = Lease()
        self._clocks = RemoteClocks()
        # Made-up keys take no room away from users while identity is silent, either.
        self._user_questions = Questions(self._clocks)
        self._key_questions = Questions(self._clocks)
        self._users: LeasedCache[str, UserState] = LeasedCache(
            self._lease,
            DataLoader(self._fetch_user, self._fetch_users).load,
            tags_of=lambda state: (state.platform_id,),
            max_entries=MOST_USERS,
            max_age_s=USERS_USED_FOR_S,
        )
        self._hash_key = os.urandom(32)
        self._keys: LeasedCache[str, ApiKeyState] = LeasedCache(
            self._lease,
            self._fetch_key,
            key_of=self._hash,
            tags_of=lambda state: (state.key_id, state.platform_id),
            max_entries=MOST_KEYS,
            max_age_s=KEYS_USED_FOR_S,
        )
        self._watch = Watch(
            self._open_stream,
            self._hear,
            (self._users, self._keys),
            self._lease,
            as_of=read_as_of,
            is_ending=read_is_ending,
            clocks=self._clocks,
            ask=self._ask_anything,
        )

    async def run(self) -> None:
        """Listen to identity until cancelled. Before and without it, identity is asked for every request."""
        await self._watch.run()

    def is_heard(self) -> bool:
        """Return whether identity is heard at this moment."""
        return self._lease.is_valid

    async def user_state(self, user_id: str, *, fresh: bool = False) -> UserState | None:
        """Return a user's state, None when there is no such user. It is shared, so it must not be changed.

        Args:
            user_id: the user's id, in lower case.
            fresh: ask identity whatever is remembered.

        Raises:
            Refused: RQ-111, identity does not answer.
        """
        try:
            return await self._users.get(user_id, fresh=fresh)
        except ServiceAway as away:
            raise Refused(away.code) from away

    async def key_state(self, secret: str, *, fresh: bool = False) -> ApiKeyState | None:
        """Return the state of a partner's key, None when there is none with this secret. It must not be changed.

        Args:
            secret: as the partner presented it, whatever it holds.
            fresh: ask identity whatever is remembered.

        Raises:
            Refused: RQ-111, identity does not answer.
        """
        if not _SECRET.fullmatch(secret):
            return None
        try:
            return await self._keys.get(secret, fresh=fresh)
        except ServiceAway as away:
            raise Refused(away.code) from away

    def invalidate_user(self, user_id: str | UUID) -> None:
        """Forget a user whom this process has just had changed: its next request must not wait for the news."""
        self._users.invalidate(str(user_id))

    def invalidate_key(self, key_id: str | UUID) -> None:
        """Forget a key that this process has just had changed."""
        self._keys.invalidate_tag(str(key_id))

    def invalidate_platform(self, platform_id: str | UUID) -> None:
        """Forget a platform that this process has just had changed, with its users and keys."""
        self._users.invalidate_tag(str(platform_id))
        self._keys.invalidate_tag(str(platform_id))

    def _hash(self, secret: str) -> bytes:
        """Return what stands for a secret in memory; of the secret itself nothing stays."""
        return hashlib.blake2b(secret.encode(), key=self._hash_key, digest_size=16).digest()

    async def _fetch_user(self, user_id: str) -> UserState | None:
        request = GetUserStateRequest(user_id=user_id)
        response = await self._user_questions.ask(self._stub.GetUserState, request, CALL)
        return response.state if response.HasField("state") else None

    async def _fetch_users(self, user_ids: Sequence[str]) -> dict[str, UserState]:
        request = BatchGetUserStatesRequest(user_ids=user_ids)
        response = await self._user_questions.ask_about_many(self._stub.BatchGetUserStates, request, CALL)
        return {state.user_id: state for state in response.states}

    async def _ask_anything(self) -> None:
        # Who is refused for all the questions that are open learns from their answers.
        with suppress(Refused):
            await self._fetch_user(NOBODY)

    async def _fetch_key(self, secret: str) -> ApiKeyState | None:
        request = ResolveApiKeyRequest(secret=secret)
        response = await self._key_questions.ask(self._key_stub.ResolveApiKey, request, CALL)
        return response.state if response.HasField("state") else None

    def _open_stream(self) -> grpc.aio.UnaryStreamCall[WatchLiveStateRequest, WatchLiveStateResponse]:
        return self._stub.WatchLiveState(WatchLiveStateRequest(), metadata=((METADATA_KEY, CALL.to_bytes()),))

    def _hear(self, message: WatchLiveStateResponse) -> None:
        self._user_questions.note_sign_of_life()
        self._key_questions.note_sign_of_life()
        match message.WhichOneof("changed"):
            case "user_id":
                self.invalidate_user(message.user_id)
            case "key_id":
                self.invalidate_key(message.key_id)
            case "platform_id":
                self.invalidate_platform(message.platform_id)
            case "everything":
                self._watch.invalidate_everything()
