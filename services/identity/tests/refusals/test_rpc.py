"""What gateways counted, as the audit log tells it."""

from typing import Any
from uuid import uuid4

import grpc
import pytest

from aarokya.identity.v1.refusal_service_pb2 import RecordRefusalsRequest, Refusal
from servicekit.caller import METADATA_KEY, Call, system_call

FIRST_AT_S = 1_795_000_000


def said_by(call: Call) -> tuple[tuple[str, bytes], ...]:
    return ((METADATA_KEY, call.to_bytes()),)


def refusal(**fields: Any) -> Refusal:
    """Return a refusal on a route that no other test uses."""
    values = {"code": "AU-202", "source_address": "192.0.2.7", "route": f"GET /{uuid4()}", "count": 1, **fields}
    made = Refusal(**values)
    made.first_at.FromSeconds(FIRST_AT_S)
    return made


def rows_of(identity_database: Any, route: str) -> list[Any]:
    query = (
        "SELECT action, entity_type, actor_type, actor_id, changes, count, source_address, request_id, user_agent,"
        " extract(epoch FROM occurred_at)::bigint FROM audit_log WHERE changes #>> '{route,1}' = %s"
    )
    with identity_database.superuser() as connection:
        return connection.execute(query, (route,)).fetchall()


class TestRecordRefusals:
    async def test_writes_a_row_for_each(self, identity: Any, identity_database: Any) -> None:
        refusals = [refusal(count=3, request_id="r-1", user_agent="okhttp/5"), refusal(code="AU-208", count=1)]
        await identity.refusals.RecordRefusals(
            RecordRefusalsRequest(refusals=refusals), metadata=said_by(system_call("gateway"))
        )
        first, second = refusals
        told = ("request.refuse", "route", "SYSTEM", "gateway")
        changes = [{"code": [None, it.code], "route": [None, it.route]} for it in refusals]
        assert rows_of(identity_database, first.route) == [
            (*told, changes[0], 3, "192.0.2.7", "r-1", "okhttp/5", FIRST_AT_S)
        ]
        assert rows_of(identity_database, second.route) == [(*told, changes[1], 1, "192.0.2.7", None, None, FIRST_AT_S)]

    @pytest.mark.parametrize("peer", ["records", "catalogue"])
    async def test_is_open_to_gateways_only(self, identity_server: Any, peer: str) -> None:
        async with identity_server.channel(peer) as channel:
            record = channel.unary_unary("/aarokya.identity.v1.RefusalService/RecordRefusals")
            call = record(b"", metadata=said_by(system_call(peer)), timeout=5)
            assert await call.code() == grpc.StatusCode.PERMISSION_DENIED
