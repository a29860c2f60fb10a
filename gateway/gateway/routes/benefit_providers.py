"""Benefit providers: insurers, clinics, laboratories."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from aarokya.catalogue.v1 import benefit_provider_service_pb2 as pb
from aarokya.catalogue.v1.benefit_provider_pb2 import BenefitProvider as BenefitProviderMessage
from gateway.guards import ADMIN
from gateway.messages import mask_of, to_message
from gateway.schemas.catalogue import (
    BenefitProvider,
    BenefitProviderList,
    CreateBenefitProviderBody,
    ListBenefitProvidersQuery,
    UpdateBenefitProviderBody,
)
from gateway.server_wrap import ExchangeOf, ServiceRouter

routes = ServiceRouter("catalogue", "Benefit providers", "Businesses that give benefits.")


@routes.post(
    "/benefit_providers",
    guard=ADMIN,
    status_code=201,
    summary="Add a benefit provider.",
    answer=BenefitProvider,
    codes=("BP-603", "BP-605"),
)
async def create_benefit_provider(exchange: ExchangeOf, body: CreateBenefitProviderBody) -> Response:
    request = pb.CreateBenefitProviderRequest(benefit_provider=to_message(body, BenefitProviderMessage))
    answer = await exchange.ask(exchange.stubs.benefit_providers.CreateBenefitProvider, request)
    return exchange.created(f"/benefit_providers/{answer.benefit_provider.id}", answer.benefit_provider)


@routes.get(
    "/benefit_providers",
    guard=ADMIN,
    summary="List benefit providers.",
    answer=BenefitProviderList,
    codes=("RQ-113",),
)
async def list_benefit_providers(
    exchange: ExchangeOf, query: Annotated[ListBenefitProvidersQuery, Query()]
) -> Response:
    request = to_message(query, pb.ListBenefitProvidersRequest)
    answer = await exchange.ask(exchange.stubs.benefit_providers.ListBenefitProviders, request)
    return exchange.page(answer.benefit_providers, answer.next_page_token)


@routes.get(
    "/benefit_providers/{benefit_provider_id}",
    guard=ADMIN,
    summary="Read a benefit provider.",
    answer=BenefitProvider,
    codes=("BP-601",),
)
async def get_benefit_provider(exchange: ExchangeOf, benefit_provider_id: str) -> Response:
    request = pb.GetBenefitProviderRequest(benefit_provider_id=benefit_provider_id)
    answer = await exchange.ask(exchange.stubs.benefit_providers.GetBenefitProvider, request)
    return exchange.ok(answer.benefit_provider)


@routes.patch(
    "/benefit_providers/{benefit_provider_id}",
    guard=ADMIN,
    summary="Change a benefit provider.",
    answer=BenefitProvider,
    codes=("BP-601", "BP-603", "BP-605", "RQ-110"),
)
async def update_benefit_provider(
    exchange: ExchangeOf, benefit_provider_id: str, body: UpdateBenefitProviderBody
) -> Response:
    request = pb.UpdateBenefitProviderRequest(
        benefit_provider_id=benefit_provider_id,
        benefit_provider=to_message(body, BenefitProviderMessage),
        update_mask=mask_of(body),
        expected_version=exchange.if_match,
    )
    answer = await exchange.ask(exchange.stubs.benefit_providers.UpdateBenefitProvider, request)
    return exchange.ok(answer.benefit_provider)


@routes.delete(
    "/benefit_providers/{benefit_provider_id}",
    guard=ADMIN,
    summary="Remove a benefit provider that nothing has ever referred to.",
    codes=("BP-601", "BP-604", "RQ-110"),
)
async def delete_benefit_provider(exchange: ExchangeOf, benefit_provider_id: str) -> Response:
    request = pb.DeleteBenefitProviderRequest(
        benefit_provider_id=benefit_provider_id, expected_version=exchange.if_match
    )
    await exchange.ask(exchange.stubs.benefit_providers.DeleteBenefitProvider, request)
    return exchange.no_content()
