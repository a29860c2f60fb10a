"""Users: profile, onboarding, leaving."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from aarokya.identity.v1 import user_service_pb2 as pb
from aarokya.identity.v1.user_pb2 import User as UserMessage
from gateway.guards import ADMIN, ADMIN_OR_ONBOARDING_USER, ADMIN_OR_USER
from gateway.messages import mask_of, to_message
from gateway.schemas.identity import (
    EraseUserBody,
    ListUsersQuery,
    ReactivateUserBody,
    ReleasePhoneBody,
    UpdateUserBody,
    User,
    UserList,
)
from gateway.server_wrap import ExchangeOf, ServiceRouter

routes = ServiceRouter("identity", "Users", "The workers of the platforms.")


@routes.get("/users", guard=ADMIN, summary="List users.", answer=UserList, codes=("US-402", "RQ-113"))
async def list_users(exchange: ExchangeOf, query: Annotated[ListUsersQuery, Query()]) -> Response:
    answer = await exchange.ask(exchange.stubs.users.ListUsers, to_message(query, pb.ListUsersRequest))
    return exchange.page(answer.users, answer.next_page_token)


@routes.get("/users/{user_id}", guard=ADMIN_OR_USER, summary="Read a user.", answer=User, codes=("US-401",))
async def get_user(exchange: ExchangeOf, user_id: str) -> Response:
    return exchange.ok(await exchange.own_reads.user(exchange, user_id))


@routes.patch(
    "/users/{user_id}",
    guard=ADMIN_OR_ONBOARDING_USER,
    summary="Change a user's profile.",
    answer=User,
    codes=("US-401", "US-402", "US-403", "US-404", "RQ-110"),
)
async def update_user(exchange: ExchangeOf, user_id: str, body: UpdateUserBody) -> Response:
    request = pb.UpdateUserRequest(
        user_id=user_id,
        user=to_message(body, UserMessage),
        update_mask=mask_of(body),
        expected_version=exchange.if_match,
    )
    return exchange.ok((await exchange.ask(exchange.stubs.users.UpdateUser, request)).user)


@routes.post(
    "/users/{user_id}/complete_onboarding",
    guard=ADMIN_OR_ONBOARDING_USER,
    summary="Make a user active, perhaps with the last profile fields.",
    answer=User,
    codes=("US-401", "US-402", "US-403", "US-404", "US-405"),
)
async def complete_onboarding(exchange: ExchangeOf, user_id: str, body: UpdateUserBody) -> Response:
    request = pb.CompleteOnboardingRequest(
        user_id=user_id, user=to_message(body, UserMessage), update_mask=mask_of(body)
    )
    answer = await exchange.ask(exchange.stubs.users.CompleteOnboarding, request)
    exchange.live_state.invalidate_user(user_id)
    return exchange.ok(answer.user)


@routes.delete(
    "/users/{user_id}",
    guard=ADMIN_OR_USER,
    summary="Deactivate a user; the user's tokens die at once.",
    codes=("US-401", "RQ-110"),
)
async def delete_user(exchange: ExchangeOf, user_id: str) -> Response:
    request = pb.DeactivateUserRequest(user_id=user_id, expected_version=exchange.if_match)
    await exchange.ask(exchange.stubs.users.DeactivateUser, request)
    exchange.live_state.invalidate_user(user_id)
    return exchange.no_content()


@routes.post(
    "/users/{user_id}/reactivate",
    guard=ADMIN,
    summary="Put a deactivated user back to the status before.",
    answer=User,
    codes=("US-401", "US-403", "US-404", "PL-306"),
)
async def reactivate_user(exchange: ExchangeOf, user_id: str, body: ReactivateUserBody) -> Response:
    request = pb.ReactivateUserRequest(user_id=user_id, reason=body.reason)
    answer = await exchange.ask(exchange.stubs.users.ReactivateUser, request)
    exchange.live_state.invalidate_user(user_id)
    return exchange.ok(answer.user)


@routes.post(
    "/users/{user_id}/release_phone",
    guard=ADMIN,
    summary="Free a deactivated user's phone number for a new user.",
    answer=User,
    codes=("US-401", "US-404"),
)
async def release_phone(exchange: ExchangeOf, user_id: str, body: ReleasePhoneBody) -> Response:
    request = pb.ReleasePhoneRequest(user_id=user_id, reason=body.reason)
    return exchange.ok((await exchange.ask(exchange.stubs.users.ReleasePhone, request)).user)


@routes.post(
    "/users/{user_id}/erase",
    guard=ADMIN,
    summary="Destroy a deactivated user's personal data in every service.",
    answer=User,
    codes=("US-401", "US-404"),
)
async def erase_user(exchange: ExchangeOf, user_id: str, body: EraseUserBody) -> Response:
    request = pb.EraseUserRequest(user_id=user_id, reason=body.reason)
    answer = await exchange.ask(exchange.stubs.users.EraseUser, request)
    exchange.live_state.invalidate_user(user_id)
    return exchange.ok(answer.user)
