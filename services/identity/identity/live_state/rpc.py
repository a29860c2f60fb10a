"""LiveStateService over gRPC: opens the transaction, translates, decides nothing."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import grpc

from aarokya.identity.v1 import live_state_service_pb2 as pb
from aarokya.identity.v1.api_key_pb2 import ApiKeyStatus
from aarokya.identity.v1.live_state_service_pb2_grpc import LiveStateServiceServicer
from identity.live_state.changes import LiveStateChanges
from identity.live_state.repository import PRESENTED_HASH, find_platform_status
from identity.live_state.service import find_key_state, find_user_state
from identity.models import SERVICE
from identity.platforms.repository import ApiKeyRepository
from identity.platforms.service import ApiKeyService
from servicekit.caller import system_call
from servicekit.database import Database
from servicekit.server import GATEWAY, allow_peers

Context = grpc.aio.ServicerContext[Any, Any]


class LiveStateRpc(LiveStateServiceServicer):
    """Answers LiveStateService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["LiveStateService"]

    def __init__(
        self, database: Database, changes: LiveStateChanges, keys: ApiKeyService, key_rows: ApiKeyRepository
    ) -> None:
        self._database = database
        self._changes = changes
        self._keys = keys
        self._key_rows = key_rows

    @allow_peers(GATEWAY, "records")
    async def GetUserState(self, request: pb.GetUserStateRequest, context: Context) -> pb.GetUserStateResponse:
        async with self._database.transaction(system_call(SERVICE)) as tx:
            return pb.GetUserStateResponse(state=await find_user_state(tx, UUID(request.user_id)))

    @allow_peers(GATEWAY)
    async def ResolveApiKey(self, request: pb.ResolveApiKeyRequest, context: Context) -> pb.ResolveApiKeyResponse:
        secret_hash = self._keys.hash_secret(request.secret)
        # Nobody is known yet, so the policies open just the rows of the presented secret.
        presented = {PRESENTED_HASH: secret_hash.hex()}
        async with self._database.transaction(system_call(SERVICE), presented=presented) as tx:
            state = await find_key_state(tx, secret_hash)
        if state is None:
            return pb.ResolveApiKeyResponse()
        async with self._database.transaction(system_call(SERVICE)) as tx:
            state.platform_status = await find_platform_status(tx, UUID(state.platform_id))
            if state.status == ApiKeyStatus.API_KEY_STATUS_ACTIVE:
                await self._key_rows.touch(tx, UUID(state.key_id))
        return pb.ResolveApiKeyResponse(state=state)

    @allow_peers(GATEWAY, "records")
    async def WatchLiveState(
        self, request: pb.WatchLiveStateRequest, context: Context
    ) -> AsyncIterator[pb.WatchLiveStateResponse]:
        async for message in self._changes.watch():
            yield message
