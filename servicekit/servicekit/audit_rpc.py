"""The RPCs by which the gateway reads and verifies a service's own part of the audit log."""

from typing import Any
from uuid import UUID

import grpc.aio

from aarokya.audit.v1 import audit_log_service_pb2 as messages
from aarokya.audit.v1.audit_log_service_pb2_grpc import AuditLogServiceServicer
from servicekit.audit import AuditLog
from servicekit.audit_chain import AuditChain
from servicekit.caller import Call
from servicekit.database import Database
from servicekit.errors import Detail, InvalidField, NotAllowed
from servicekit.server import GATEWAY, allow_peers, call_of

LARGEST_LIMIT = 1000


class OperatorsOnly(NotAllowed):
    """Only operators may read the audit log."""

    code = "AU-204"
    message = "This kind of credential is not accepted here."


class AuditLogRpc(AuditLogServiceServicer):
    """Answers for one service's part of the audit log."""

    DESCRIPTOR = messages.DESCRIPTOR.services_by_name["AuditLogService"]

    def __init__(self, database: Database, audit_log: AuditLog, audit_chain: AuditChain) -> None:
        self._database = database
        self._audit_log = audit_log
        self._audit_chain = audit_chain

    @allow_peers(GATEWAY)
    async def ListAuditLogs(
        self, request: messages.ListAuditLogsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> messages.ListAuditLogsResponse:
        call = _operator(context)
        _require_uuids(request)
        request.limit = min(max(request.limit, 1), LARGEST_LIMIT)
        async with self._database.transaction(call) as tx:
            return messages.ListAuditLogsResponse(audit_logs=await self._audit_log.list(tx, request))

    @allow_peers(GATEWAY)
    async def VerifyAuditLogs(
        self, request: messages.VerifyAuditLogsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> messages.VerifyAuditLogsResponse:
        async with self._database.transaction(_operator(context)) as tx:
            verification = await self._audit_chain.verify(tx, request.from_sequence)
            return messages.VerifyAuditLogsResponse(verification=verification)


def _operator(context: grpc.aio.ServicerContext[Any, Any]) -> Call:
    call = call_of(context)
    if not call.caller.is_admin:
        raise OperatorsOnly
    return call


def _require_uuids(request: messages.ListAuditLogsRequest) -> None:
    for name in ("user_id", "platform_id"):
        try:
            UUID(getattr(request, name) or str(UUID(int=0)))
        except ValueError:
            raise InvalidField(Detail(name, "Must be a UUID.")) from None
