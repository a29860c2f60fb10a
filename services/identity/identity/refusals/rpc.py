"""RefusalService over gRPC: writes what gateways counted into the audit log."""

from dataclasses import replace
from datetime import UTC
from typing import Any

import grpc

from aarokya.identity.v1 import refusal_service_pb2 as pb
from aarokya.identity.v1.refusal_service_pb2_grpc import RefusalServiceServicer
from servicekit.audit import AuditLog
from servicekit.database import Database
from servicekit.server import GATEWAY, allow_peers, call_of

Context = grpc.aio.ServicerContext[Any, Any]


class RefusalRpc(RefusalServiceServicer):
    """Answers RefusalService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["RefusalService"]

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database = database
        self._audit = audit

    @allow_peers(GATEWAY)
    async def RecordRefusals(self, request: pb.RecordRefusalsRequest, context: Context) -> pb.RecordRefusalsResponse:
        async with self._database.transaction(call_of(context)) as tx:
            for refusal in request.refusals:
                # Nobody is known to have made the refused call, so the gateway that refused it stands for it.
                await self._audit.record(
                    tx,
                    "request.refuse",
                    "route",
                    None,
                    changes={"code": (None, refusal.code), "route": (None, refusal.route)},
                    count=refusal.count,
                    call=replace(
                        tx.call,
                        request_id=refusal.request_id or None,
                        source_address=refusal.source_address or None,
                        user_agent=refusal.user_agent or None,
                    ),
                    occurred_at=refusal.first_at.ToDatetime(UTC),
                )
        return pb.RecordRefusalsResponse()
