"""MRNs: dependants linked to benefit providers by medical record number."""

from typing import Annotated

from fastapi import Query
from starlette.responses import Response

from aarokya.records.v1 import mrn_service_pb2 as pb
from aarokya.records.v1.mrn_pb2 import Mrn as MrnMessage
from gateway.errors import Refused
from gateway.guards import ADMIN, PARTNER_OR_USER
from gateway.messages import to_message
from gateway.schemas.records import CreateMrnBody, ListMrnsQuery, Mrn, MrnList, UnlinkMrnQuery
from gateway.server_wrap import ExchangeOf, ServiceRouter

routes = ServiceRouter("records", "MRNs", "Family members linked to providers by medical record number.")


@routes.post(
    "/mrns",
    guard=PARTNER_OR_USER,
    status_code=201,
    summary="Link a family member to a provider.",
    answer=Mrn,
    codes=("US-404", "DE-501", "DE-506", "MR-902", "MR-903", "MR-904", "MR-905"),
)
async def link_mrn(exchange: ExchangeOf, body: CreateMrnBody) -> Response:
    request = pb.LinkMrnRequest(mrn=to_message(body, MrnMessage))
    mrn = (await exchange.ask(exchange.stubs.mrns.LinkMrn, request)).mrn
    return exchange.created(f"/mrns/{mrn.id}", mrn)


@routes.get(
    "/mrns",
    guard=PARTNER_OR_USER,
    summary="List the links that match.",
    answer=MrnList,
    codes=("AU-206", "US-401", "RQ-113"),
)
async def list_mrns(exchange: ExchangeOf, query: Annotated[ListMrnsQuery, Query()]) -> Response:
    if exchange.caller.is_user and query.user_id not in (None, exchange.caller.id):
        raise Refused("AU-206")
    answer = await exchange.ask(exchange.stubs.mrns.ListMrns, to_message(query, pb.ListMrnsRequest))
    return exchange.page(answer.mrns, answer.next_page_token)


@routes.get("/mrns/{mrn_id}", guard=PARTNER_OR_USER, summary="Read a link.", answer=Mrn, codes=("MR-901",))
async def get_mrn(exchange: ExchangeOf, mrn_id: str) -> Response:
    return exchange.ok((await exchange.ask(exchange.stubs.mrns.GetMrn, pb.GetMrnRequest(mrn_id=mrn_id))).mrn)


@routes.delete(
    "/mrns/{mrn_id}",
    guard=ADMIN,
    summary="Take a link away; the pair can then be linked again.",
    codes=("MR-901",),
)
async def unlink_mrn(exchange: ExchangeOf, mrn_id: str, query: Annotated[UnlinkMrnQuery, Query()]) -> Response:
    request = to_message(query, pb.UnlinkMrnRequest)
    request.mrn_id = mrn_id
    await exchange.ask(exchange.stubs.mrns.UnlinkMrn, request)
    return exchange.no_content()
