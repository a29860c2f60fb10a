"""PlatformService over gRPC: opens the transaction, translates, decides nothing."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc

from aarokya.identity.v1 import platform_service_pb2 as pb
from aarokya.identity.v1.api_key_pb2 import ApiKey
from aarokya.identity.v1.platform_pb2 import PlatformStatus
from aarokya.identity.v1.platform_service_pb2_grpc import PlatformServiceServicer
from identity.platforms.repository import ApiKeyRepository, PlatformRepository, to_api_key
from identity.platforms.service import ApiKeyService, PlatformService
from servicekit.database import Database
from servicekit.idempotency import OnceOnly
from servicekit.page_tokens import PageTokens
from servicekit.server import GATEWAY, allow_peers, call_of

Context = grpc.aio.ServicerContext[Any, Any]


class PlatformRpc(PlatformServiceServicer):
    """Answers PlatformService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["PlatformService"]

    def __init__(
        self,
        database: Database,
        once: OnceOnly,
        pages: PageTokens,
        platforms: PlatformService,
        platform_rows: PlatformRepository,
        keys: ApiKeyService,
        key_rows: ApiKeyRepository,
    ) -> None:
        self._database = database
        self._once = once
        self._pages = pages
        self._platforms = platforms
        self._platform_rows = platform_rows
        self._keys = keys
        self._key_rows = key_rows

    @allow_peers(GATEWAY)
    async def CreatePlatform(self, request: pb.CreatePlatformRequest, context: Context) -> pb.CreatePlatformResponse:
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.CreatePlatformResponse:
                platform = await self._platforms.create_platform(tx, request.platform)
                return pb.CreatePlatformResponse(platform=platform)

            return await self._once.once(
                tx, effect, pb.CreatePlatformResponse, owner=lambda response: UUID(response.platform.id)
            )

    @allow_peers(GATEWAY)
    async def GetPlatform(self, request: pb.GetPlatformRequest, context: Context) -> pb.GetPlatformResponse:
        async with self._database.transaction(call_of(context)) as tx:
            platform = await self._platforms.get_platform(tx, UUID(request.platform_id))
            return pb.GetPlatformResponse(platform=platform)

    @allow_peers(GATEWAY)
    async def ListPlatforms(self, request: pb.ListPlatformsRequest, context: Context) -> pb.ListPlatformsResponse:
        call = call_of(context)
        cursor = self._pages.open(call, request)
        async with self._database.transaction(call) as tx:
            rows = await self._platform_rows.list_newest(tx, cursor, request.page_size)
        page, token = self._pages.cut(call, request, rows)
        return pb.ListPlatformsResponse(
            platforms=[self._platform_rows.rows.message(row) for row in page], next_page_token=token
        )

    @allow_peers(GATEWAY)
    async def UpdatePlatform(self, request: pb.UpdatePlatformRequest, context: Context) -> pb.UpdatePlatformResponse:
        expected = request.expected_version if request.HasField("expected_version") else None
        async with self._database.transaction(call_of(context)) as tx:
            platform = await self._platforms.update_platform(
                tx, UUID(request.platform_id), request.platform, request.update_mask.paths, expected
            )
            return pb.UpdatePlatformResponse(platform=platform)

    @allow_peers(GATEWAY)
    async def DeletePlatform(self, request: pb.DeletePlatformRequest, context: Context) -> pb.DeletePlatformResponse:
        expected = request.expected_version if request.HasField("expected_version") else None
        async with self._database.transaction(call_of(context)) as tx:
            await self._platforms.archive_platform(tx, UUID(request.platform_id), expected)
            return pb.DeletePlatformResponse()

    @allow_peers(GATEWAY)
    async def SuspendPlatform(self, request: pb.SuspendPlatformRequest, context: Context) -> pb.SuspendPlatformResponse:
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.SuspendPlatformResponse:
                platform = await self._platforms.set_status(
                    tx, UUID(request.platform_id), PlatformStatus.PLATFORM_STATUS_SUSPENDED, request.reason
                )
                return pb.SuspendPlatformResponse(platform=platform)

            return await self._once.once(
                tx, effect, pb.SuspendPlatformResponse, owner=lambda response: UUID(response.platform.id)
            )

    @allow_peers(GATEWAY)
    async def ActivatePlatform(
        self, request: pb.ActivatePlatformRequest, context: Context
    ) -> pb.ActivatePlatformResponse:
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.ActivatePlatformResponse:
                platform = await self._platforms.set_status(
                    tx, UUID(request.platform_id), PlatformStatus.PLATFORM_STATUS_ACTIVE, request.reason
                )
                return pb.ActivatePlatformResponse(platform=platform)

            return await self._once.once(
                tx, effect, pb.ActivatePlatformResponse, owner=lambda response: UUID(response.platform.id)
            )

    @allow_peers(GATEWAY)
    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.CreateApiKeyResponse:
                key = await self._keys.create_key(tx, UUID(request.platform_id), request.api_key)
                return pb.CreateApiKeyResponse(api_key=key)

            return await self._once.once(
                tx,
                effect,
                pb.CreateApiKeyResponse,
                owner=lambda response: UUID(response.api_key.platform_id),
                kept=lambda response: pb.CreateApiKeyResponse(api_key=_without_secret(response.api_key)),
            )

    @allow_peers(GATEWAY)
    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        call = call_of(context)
        cursor = self._pages.open(call, request)
        platform_id = UUID(request.platform_id)
        async with self._database.transaction(call) as tx:
            await self._platforms.get_platform(tx, platform_id)
            rows = await self._key_rows.list_newest(tx, platform_id, cursor, request.page_size)
        page, token = self._pages.cut(call, request, rows)
        return pb.ListApiKeysResponse(api_keys=[to_api_key(row, tx.now) for row in page], next_page_token=token)

    @allow_peers(GATEWAY)
    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, context: Context) -> pb.RotateApiKeyResponse:
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.RotateApiKeyResponse:
                overlap = timedelta(seconds=request.overlap_seconds)
                key = await self._keys.rotate_key(tx, UUID(request.platform_id), UUID(request.key_id), overlap)
                return pb.RotateApiKeyResponse(api_key=key)

            return await self._once.once(
                tx,
                effect,
                pb.RotateApiKeyResponse,
                owner=lambda response: UUID(response.api_key.platform_id),
                kept=lambda response: pb.RotateApiKeyResponse(api_key=_without_secret(response.api_key)),
            )

    @allow_peers(GATEWAY)
    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.RevokeApiKeyResponse:
        async with self._database.transaction(call_of(context)) as tx:
            await self._keys.revoke_key(tx, UUID(request.platform_id), UUID(request.key_id))
            return pb.RevokeApiKeyResponse()


def _without_secret(key: ApiKey) -> ApiKey:
    kept = ApiKey()
    kept.CopyFrom(key)
    kept.ClearField("secret")
    return kept
