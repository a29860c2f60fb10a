"""Platforms and their partner keys."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from aarokya.identity.v1 import platform_service_pb2 as pb
from aarokya.identity.v1.api_key_pb2 import ApiKey as ApiKeyMessage
from aarokya.identity.v1.platform_pb2 import Platform as PlatformMessage
from gateway.guards import ADMIN
from gateway.messages import mask_of, to_message
from gateway.schemas.identity import (
    ActivatePlatformBody,
    ApiKey,
    ApiKeyList,
    CreateApiKeyBody,
    CreatePlatformBody,
    ListApiKeysQuery,
    ListPlatformsQuery,
    Platform,
    PlatformList,
    RotateApiKeyBody,
    SuspendPlatformBody,
    UpdatePlatformBody,
)
from gateway.server_wrap import ExchangeOf, ServiceRouter

routes = ServiceRouter("identity", "Platforms", "Businesses whose workers get benefits, and their partner keys.")


@routes.post(
    "/platforms",
    guard=ADMIN,
    status_code=201,
    summary="Add a platform.",
    answer=Platform,
    codes=("PL-302", "PL-303"),
)
async def create_platform(exchange: ExchangeOf, body: CreatePlatformBody) -> Response:
    request = pb.CreatePlatformRequest(platform=to_message(body, PlatformMessage))
    platform = (await exchange.ask(exchange.stubs.platforms.CreatePlatform, request)).platform
    return exchange.created(f"/platforms/{platform.id}", platform)


@routes.get("/platforms", guard=ADMIN, summary="List platforms.", answer=PlatformList, codes=("RQ-113",))
async def list_platforms(exchange: ExchangeOf, query: Annotated[ListPlatformsQuery, Query()]) -> Response:
    answer = await exchange.ask(exchange.stubs.platforms.ListPlatforms, to_message(query, pb.ListPlatformsRequest))
    return exchange.page(answer.platforms, answer.next_page_token)


@routes.get("/platforms/{platform_id}", guard=ADMIN, summary="Read a platform.", answer=Platform, codes=("PL-301",))
async def get_platform(exchange: ExchangeOf, platform_id: str) -> Response:
    request = pb.GetPlatformRequest(platform_id=platform_id)
    return exchange.ok((await exchange.ask(exchange.stubs.platforms.GetPlatform, request)).platform)


@routes.patch(
    "/platforms/{platform_id}",
    guard=ADMIN,
    summary="Change a platform's settings.",
    answer=Platform,
    codes=("PL-301", "PL-302", "PL-303", "PL-306", "RQ-110"),
)
async def update_platform(exchange: ExchangeOf, platform_id: str, body: UpdatePlatformBody) -> Response:
    request = pb.UpdatePlatformRequest(
        platform_id=platform_id,
        platform=to_message(body, PlatformMessage),
        update_mask=mask_of(body),
        expected_version=exchange.if_match,
    )
    answer = await exchange.ask(exchange.stubs.platforms.UpdatePlatform, request)
    exchange.live_state.invalidate_platform(platform_id)
    return exchange.ok(answer.platform)


@routes.delete(
    "/platforms/{platform_id}",
    guard=ADMIN,
    summary="Archive a platform that has no users left.",
    codes=("PL-301", "PL-304", "RQ-110"),
)
async def delete_platform(exchange: ExchangeOf, platform_id: str) -> Response:
    request = pb.DeletePlatformRequest(platform_id=platform_id, expected_version=exchange.if_match)
    await exchange.ask(exchange.stubs.platforms.DeletePlatform, request)
    exchange.live_state.invalidate_platform(platform_id)
    return exchange.no_content()


@routes.post(
    "/platforms/{platform_id}/suspend",
    guard=ADMIN,
    summary="Stop all credentials of a platform at once.",
    answer=Platform,
    codes=("PL-301", "PL-306"),
)
async def suspend_platform(exchange: ExchangeOf, platform_id: str, body: SuspendPlatformBody) -> Response:
    request = pb.SuspendPlatformRequest(platform_id=platform_id, reason=body.reason)
    answer = await exchange.ask(exchange.stubs.platforms.SuspendPlatform, request)
    exchange.live_state.invalidate_platform(platform_id)
    return exchange.ok(answer.platform)


@routes.post(
    "/platforms/{platform_id}/activate",
    guard=ADMIN,
    summary="Let a suspended platform's credentials work again.",
    answer=Platform,
    codes=("PL-301", "PL-306"),
)
async def activate_platform(exchange: ExchangeOf, platform_id: str, body: ActivatePlatformBody) -> Response:
    request = pb.ActivatePlatformRequest(platform_id=platform_id, reason=body.reason)
    answer = await exchange.ask(exchange.stubs.platforms.ActivatePlatform, request)
    exchange.live_state.invalidate_platform(platform_id)
    return exchange.ok(answer.platform)


@routes.post(
    "/platforms/{platform_id}/api_keys",
    guard=ADMIN,
    status_code=201,
    summary="Issue a partner key; its secret is shown this once.",
    answer=ApiKey,
    codes=("PL-301", "PL-302", "PL-306", "PL-307"),
)
async def create_api_key(exchange: ExchangeOf, platform_id: str, body: CreateApiKeyBody) -> Response:
    request = pb.CreateApiKeyRequest(platform_id=platform_id, api_key=to_message(body, ApiKeyMessage))
    key = (await exchange.ask(exchange.stubs.platforms.CreateApiKey, request)).api_key
    return exchange.created(f"/platforms/{platform_id}/api_keys/{key.id}", key)


@routes.get(
    "/platforms/{platform_id}/api_keys",
    guard=ADMIN,
    summary="List a platform's partner keys.",
    answer=ApiKeyList,
    codes=("PL-301", "RQ-113"),
)
async def list_api_keys(
    exchange: ExchangeOf, platform_id: str, query: Annotated[ListApiKeysQuery, Query()]
) -> Response:
    request = to_message(query, pb.ListApiKeysRequest)
    request.platform_id = platform_id
    answer = await exchange.ask(exchange.stubs.platforms.ListApiKeys, request)
    return exchange.page(answer.api_keys, answer.next_page_token)


@routes.post(
    "/platforms/{platform_id}/api_keys/{key_id}/rotate",
    guard=ADMIN,
    summary="Give a partner key a new secret; the old one lives on for the overlap.",
    answer=ApiKey,
    codes=("PL-301", "PL-305", "PL-306"),
)
async def rotate_api_key(exchange: ExchangeOf, platform_id: str, key_id: str, body: RotateApiKeyBody) -> Response:
    request = pb.RotateApiKeyRequest(platform_id=platform_id, key_id=key_id, overlap_seconds=body.overlap_seconds)
    answer = await exchange.ask(exchange.stubs.platforms.RotateApiKey, request)
    exchange.live_state.invalidate_key(key_id)
    return exchange.ok(answer.api_key)


@routes.delete(
    "/platforms/{platform_id}/api_keys/{key_id}",
    guard=ADMIN,
    summary="Stop a partner key at once.",
    codes=("PL-301", "PL-305", "PL-306"),
)
async def revoke_api_key(exchange: ExchangeOf, platform_id: str, key_id: str) -> Response:
    request = pb.RevokeApiKeyRequest(platform_id=platform_id, key_id=key_id)
    await exchange.ask(exchange.stubs.platforms.RevokeApiKey, request)
    exchange.live_state.invalidate_key(key_id)
    return exchange.no_content()
