"""Dependants: the families of users, with their history."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from aarokya.records.v1 import dependant_service_pb2 as pb
from aarokya.records.v1.dependant_pb2 import Dependant as DependantMessage
from gateway.guards import ADMIN_OR_USER
from gateway.messages import mask_of, to_message
from gateway.schemas.records import (
    CreateDependantBody,
    Dependant,
    DependantList,
    ListDependantsQuery,
    ListDependantVersionsQuery,
    UpdateDependantBody,
)
from gateway.server_wrap import ExchangeOf, ServiceRouter

routes = ServiceRouter("records", "Dependants", "The families of users, as append-only histories.")


@routes.get(
    "/users/{user_id}/dependants",
    guard=ADMIN_OR_USER,
    summary="List a user's family, now or as it was.",
    answer=DependantList,
    codes=("US-401", "RQ-113"),
)
async def list_dependants(
    exchange: ExchangeOf, user_id: str, query: Annotated[ListDependantsQuery, Query()]
) -> Response:
    request = to_message(query, pb.ListDependantsRequest)
    request.user_id = user_id
    answer = await exchange.own_reads.family(exchange, request)
    return exchange.page(answer.dependants, answer.next_page_token)


@routes.post(
    "/users/{user_id}/dependants",
    guard=ADMIN_OR_USER,
    status_code=201,
    summary="Add a member to a user's family.",
    answer=Dependant,
    codes=("US-401", "US-404", "DE-502", "DE-503", "DE-504", "DE-505"),
)
async def create_dependant(exchange: ExchangeOf, user_id: str, body: CreateDependantBody) -> Response:
    request = pb.CreateDependantRequest(user_id=user_id, dependant=to_message(body, DependantMessage))
    dependant = (await exchange.ask(exchange.stubs.dependants.CreateDependant, request)).dependant
    return exchange.created(f"/users/{user_id}/dependants/{dependant.id}", dependant)


@routes.get(
    "/users/{user_id}/dependants/{dependant_id}",
    guard=ADMIN_OR_USER,
    summary="Read the newest version of a family member.",
    answer=Dependant,
    codes=("US-401", "DE-501"),
)
async def get_dependant(exchange: ExchangeOf, user_id: str, dependant_id: str) -> Response:
    return exchange.ok(await exchange.own_reads.dependant(exchange, user_id, dependant_id))


@routes.patch(
    "/users/{user_id}/dependants/{dependant_id}",
    guard=ADMIN_OR_USER,
    summary="Change a family member by appending a version.",
    answer=Dependant,
    codes=("US-401", "US-404", "DE-501", "DE-502", "DE-503", "DE-504", "DE-506", "RQ-110"),
)
async def update_dependant(
    exchange: ExchangeOf, user_id: str, dependant_id: str, body: UpdateDependantBody
) -> Response:
    request = pb.UpdateDependantRequest(
        user_id=user_id,
        dependant_id=dependant_id,
        dependant=to_message(body, DependantMessage),
        update_mask=mask_of(body),
        expected_version=exchange.if_match,
    )
    return exchange.ok((await exchange.ask(exchange.stubs.dependants.UpdateDependant, request)).dependant)


@routes.delete(
    "/users/{user_id}/dependants/{dependant_id}",
    guard=ADMIN_OR_USER,
    summary="Take a member out of the family; the history stays.",
    codes=("US-401", "US-404", "DE-501", "DE-504", "DE-506", "RQ-110"),
)
async def delete_dependant(exchange: ExchangeOf, user_id: str, dependant_id: str) -> Response:
    request = pb.DeleteDependantRequest(user_id=user_id, dependant_id=dependant_id, expected_version=exchange.if_match)
    await exchange.ask(exchange.stubs.dependants.DeleteDependant, request)
    return exchange.no_content()


@routes.get(
    "/users/{user_id}/dependants/{dependant_id}/versions",
    guard=ADMIN_OR_USER,
    summary="Read the whole history of a family member.",
    answer=DependantList,
    codes=("US-401", "DE-501", "RQ-113"),
)
async def list_dependant_versions(
    exchange: ExchangeOf, user_id: str, dependant_id: str, query: Annotated[ListDependantVersionsQuery, Query()]
) -> Response:
    request = to_message(query, pb.ListDependantVersionsRequest)
    request.user_id, request.dependant_id = user_id, dependant_id
    answer = await exchange.ask(exchange.stubs.dependants.ListDependantVersions, request)
    return exchange.page(answer.dependants, answer.next_page_token)
