"""LiveStateService over gRPC: opens the transaction, translates, decides nothing."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import grpc
import structlog

from aarokya.identity.v1 import live_state_service_pb2 as pb
from aarokya.identity.v1.live_state_service_pb2_grpc import LiveStateServiceServicer
from identity.live_state.changes import LiveStateChanges
from identity.live_state.repository import PRESENTED_HASH
from identity.live_state.service import find_key_state, find_user_state, find_user_states, note_key_use
from identity.models import SERVICE
from identity.platforms.service import ApiKeyService
from servicekit.caller import system_call
from servicekit.database import Database
from servicekit.errors import Refusal
from servicekit.server import GATEWAY, allow_peers

Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger()


class LiveStateRpc(LiveStateServiceServicer):
    """Answers LiveStateService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["LiveStateService"]

    def __init__(
        self, database: Database, key_database: Database, changes: LiveStateChanges, keys: ApiKeyService
    ) -> None:
        self._database = database
        self._key_database = key_database
        self._changes = changes
        self._keys = keys

    @allow_peers(GATEWAY, "records")
    async def GetUserState(self, request: pb.GetUserStateRequest, context: Context) -> pb.GetUserStateResponse:
        seen_at = self._changes.now()
        async with self._database.reading(system_call(SERVICE)) as reader:
            state = await find_user_state(reader, UUID(request.user_id))
        return pb.GetUserStateResponse(state=state, seen_at=seen_at)

    @allow_peers(GATEWAY, "records")
    async def BatchGetUserStates(
        self, request: pb.BatchGetUserStatesRequest, context: Context
    ) -> pb.BatchGetUserStatesResponse:
        seen_at = self._changes.now()
        async with self._database.reading(system_call(SERVICE)) as reader:
            states = await find_user_states(reader, [UUID(user_id) for user_id in request.user_ids])
        return pb.BatchGetUserStatesResponse(states=states, seen_at=seen_at)

    @allow_peers(GATEWAY)
    async def ResolveApiKey(self, request: pb.ResolveApiKeyRequest, context: Context) -> pb.ResolveApiKeyResponse:
        seen_at = self._changes.now()
        secret_hash = self._keys.hash_secret(request.secret)
        # Nobody is known yet, so the policies open just the rows of the presented secret.
        presented = {PRESENTED_HASH: secret_hash.hex()}
        async with self._key_database.transaction(system_call(SERVICE), presented=presented) as tx:
            found = await find_key_state(tx, secret_hash)
        if found is None:
            return pb.ResolveApiKeyResponse(seen_at=seen_at)
        if found.needs_noting:
            try:
                async with self._key_database.transaction(system_call(SERVICE)) as tx:
                    await note_key_use(tx, UUID(found.state.key_id))
            except Refusal as refusal:
                # When a key was used last is worth less than that it works.
                log.warning("use of a key is not noted", key_id=found.state.key_id, code=refusal.code)
        return pb.ResolveApiKeyResponse(state=found.state, seen_at=seen_at)

    @allow_peers(GATEWAY, "records")
    async def WatchLiveState(
        self, request: pb.WatchLiveStateRequest, context: Context
    ) -> AsyncIterator[pb.WatchLiveStateResponse]:
        async with aclosing(self._changes.watch()) as messages:
            async for message in messages:
                yield message
