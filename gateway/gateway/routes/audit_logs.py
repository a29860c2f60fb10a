"""The audit log of all services as one."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from aarokya.audit.v1 import audit_log_service_pb2 as pb
from gateway.errors import Refused
from gateway.fields import Answer
from gateway.guards import ADMIN
from gateway.messages import to_message
from gateway.schemas.audit import AuditLogList, AuditLogVerification, ListAuditLogsQuery, VerifyAuditLogsQuery
from gateway.server_wrap import ExchangeOf, ServiceRouter
from servicekit.caller import Call
from servicekit.errors import BadPageToken

routes = ServiceRouter("gateway", "Audit log", "Who did what, in all services.")


class VerifyQuery(VerifyAuditLogsQuery):
    """Which chains to recompute, and from where."""

    service: Literal["identity", "catalogue", "records"] | None = Field(
        default=None, description="Only this service's chain."
    )


class AuditLogVerificationList(Answer):
    """What recomputing showed, for each service."""

    items: list[AuditLogVerification] = Field(description="One entry for each service.")


@routes.get("/audit_logs", guard=ADMIN, summary="List the audit log.", answer=AuditLogList, codes=("RQ-113",))
async def list_audit_logs(exchange: ExchangeOf, query: Annotated[ListAuditLogsQuery, Query()]) -> Response:
    filters = to_message(query, pb.ListAuditLogsRequest)
    call = Call(exchange.caller)
    request = pb.ListAuditLogsRequest()
    request.CopyFrom(filters)
    try:
        cursor = exchange.pages.read(call, filters, query.page_token or "")
    except BadPageToken as error:
        raise Refused("RQ-113") from error
    if cursor is not None:
        request.after.occurred_at.FromDatetime(datetime.fromisoformat(cursor[0]))
        request.after.id = cursor[1]
    request.limit = query.page_size + 1
    answers = await asyncio.gather(
        *(exchange.ask(stub.ListAuditLogs, request) for stub in exchange.stubs.audit_logs.values())
    )
    rows = sorted(
        (row for answer in answers for row in answer.audit_logs),
        key=lambda row: (row.occurred_at.ToDatetime(UTC), row.id),
        reverse=True,
    )
    page, token = rows[: query.page_size], ""
    if len(rows) > query.page_size:
        last = page[-1]
        token = exchange.pages.make(call, filters, [last.occurred_at.ToDatetime(UTC).isoformat(), last.id])
    return exchange.page(page, token)


@routes.get(
    "/audit_logs/verify",
    guard=ADMIN,
    summary="Recompute the chains and say whether they hold.",
    answer=AuditLogVerificationList,
)
async def verify_audit_logs(exchange: ExchangeOf, query: Annotated[VerifyQuery, Query()]) -> Response:
    request = pb.VerifyAuditLogsRequest(from_sequence=query.from_sequence or 1)
    stubs = exchange.stubs.audit_logs
    chosen = [stubs[query.service]] if query.service else list(stubs.values())
    answers = await asyncio.gather(*(exchange.ask(stub.VerifyAuditLogs, request) for stub in chosen))
    return exchange.items(answer.verification for answer in answers)
