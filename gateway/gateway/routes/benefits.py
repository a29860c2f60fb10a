"""Benefits: what users can use."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from aarokya.catalogue.v1 import benefit_service_pb2 as pb
from aarokya.catalogue.v1.benefit_pb2 import Benefit as BenefitMessage
from gateway.guards import ADMIN, ADMIN_OR_USER
from gateway.messages import mask_of, to_message
from gateway.schemas.catalogue import Benefit, BenefitList, CreateBenefitBody, ListBenefitsQuery, UpdateBenefitBody
from gateway.server_wrap import ExchangeOf, ServiceRouter

routes = ServiceRouter("catalogue", "Benefits", "What users and their families can use.")


@routes.post(
    "/benefits",
    guard=ADMIN,
    status_code=201,
    summary="Add a benefit.",
    answer=Benefit,
    codes=("BE-702", "BE-703", "BP-602"),
)
async def create_benefit(exchange: ExchangeOf, body: CreateBenefitBody) -> Response:
    request = pb.CreateBenefitRequest(benefit=to_message(body, BenefitMessage))
    benefit = (await exchange.ask(exchange.stubs.benefits.CreateBenefit, request)).benefit
    return exchange.created(f"/benefits/{benefit.id}", benefit)


@routes.get(
    "/benefits",
    guard=ADMIN_OR_USER,
    summary="List benefits; users see those that they can use.",
    answer=BenefitList,
    codes=("RQ-113",),
)
async def list_benefits(exchange: ExchangeOf, query: Annotated[ListBenefitsQuery, Query()]) -> Response:
    answer = await exchange.ask(exchange.stubs.benefits.ListBenefits, to_message(query, pb.ListBenefitsRequest))
    return exchange.page(answer.benefits, answer.next_page_token)


@routes.get("/benefits/{benefit_id}", guard=ADMIN_OR_USER, summary="Read a benefit.", answer=Benefit, codes=("BE-701",))
async def get_benefit(exchange: ExchangeOf, benefit_id: str) -> Response:
    answer = await exchange.ask(exchange.stubs.benefits.GetBenefit, pb.GetBenefitRequest(benefit_id=benefit_id))
    return exchange.ok(answer.benefit)


@routes.patch(
    "/benefits/{benefit_id}",
    guard=ADMIN,
    summary="Change a benefit.",
    answer=Benefit,
    codes=("BE-701", "BE-702", "BE-703", "RQ-110"),
)
async def update_benefit(exchange: ExchangeOf, benefit_id: str, body: UpdateBenefitBody) -> Response:
    request = pb.UpdateBenefitRequest(
        benefit_id=benefit_id,
        benefit=to_message(body, BenefitMessage),
        update_mask=mask_of(body),
        expected_version=exchange.if_match,
    )
    return exchange.ok((await exchange.ask(exchange.stubs.benefits.UpdateBenefit, request)).benefit)


@routes.delete("/benefits/{benefit_id}", guard=ADMIN, summary="Archive a benefit.", codes=("BE-701", "RQ-110"))
async def delete_benefit(exchange: ExchangeOf, benefit_id: str) -> Response:
    request = pb.DeleteBenefitRequest(benefit_id=benefit_id, expected_version=exchange.if_match)
    await exchange.ask(exchange.stubs.benefits.DeleteBenefit, request)
    return exchange.no_content()
