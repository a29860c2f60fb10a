"""Audit rows: what they tell, who sees them and how they are found."""

import json
from datetime import timedelta

import grpc
import psycopg
import pytest
from sqlalchemy import text
from uuid6 import uuid7

from aarokya.audit.v1.audit_log_pb2 import ActorType
from aarokya.audit.v1.audit_log_service_pb2 import AuditLogPlace, ListAuditLogsRequest, VerifyAuditLogsRequest
from aarokya.catalogue.v1.benefit_pb2 import Benefit, BenefitTranslation
from aarokya.identity.v1.platform_pb2 import Platform
from servicekit.audit import changes_between
from servicekit.audit_rpc import AuditLogRpc, OperatorsOnly
from servicekit.caller import METADATA_KEY, Call, Caller, CallerType
from servicekit.errors import InvalidField
from servicekit.server import declared_peers


async def record(kit, by, *args, **more):
    async with kit.database.transaction(by) as tx:
        await kit.audit_log.record(tx, *args, **more)


async def rows_of(kit, **filters):
    filters.setdefault("limit", 50)
    async with kit.database.transaction(kit.admin) as tx:
        return await kit.audit_log.list(tx, ListAuditLogsRequest(**filters))


class TestRecord:
    async def test_tells_who_did_what_to_what_from_where_and_why(self, kit):
        user_id = uuid7()
        await record(
            kit,
            kit.admin,
            "user.deactivate",
            "user",
            user_id,
            user_id=user_id,
            platform_id=kit.platform_id,
            changes={"status": ("active", "deactivated"), "first_name": None},
            reason="asked by Ravi",
        )
        (row,) = await rows_of(kit)
        assert row.service == "kit"
        assert not row.HasField("sequence")
        assert (row.actor.type, row.actor.id) == (ActorType.ACTOR_TYPE_ADMIN, "asha")
        assert (row.action, row.entity_type, row.entity_id) == ("user.deactivate", "user", str(user_id))
        assert (row.user_id, row.platform_id) == (str(user_id), str(kit.platform_id))
        assert json.loads(row.changes) == {"status": ["active", "deactivated"], "first_name": None}
        assert (row.reason, row.count) == ("asked by Ravi", 1)
        assert (row.request_id, row.source_address, row.user_agent) == ("r-1", "192.0.2.7", "tests")

    async def test_goes_with_its_transaction(self, kit):
        async def fail():
            async with kit.database.transaction(kit.admin) as tx:
                await kit.audit_log.record(tx, "note.change", "note", "1")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert await rows_of(kit) == []

    async def test_is_of_the_callers_platform(self, kit):
        await record(kit, kit.partner, "note.change", "note", "1")
        (row,) = await rows_of(kit)
        assert row.platform_id == str(kit.platform_id)
        async with kit.database.transaction(kit.other_partner) as tx:
            assert await kit.audit_log.list(tx, ListAuditLogsRequest(limit=9)) == []

    async def test_cannot_be_written_for_another_platform(self, kit):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await record(kit, kit.partner, "note.change", "note", "1", platform_id=kit.other_platform_id)

    async def test_seals_a_reason_about_nobody_for_the_service(self, kit):
        await record(kit, kit.admin, "setting.change", "setting", None, reason="it was late")
        (row,) = await rows_of(kit)
        assert row.reason == "it was late"
        assert not row.HasField("entity_id")
        with kit.superuser() as connection:
            (stored,) = connection.execute("SELECT audit_log::text FROM audit_log").fetchone()
        assert "late" not in stored
        assert b"late".hex() not in stored

    async def test_forgets_the_reason_of_an_erased_owner(self, kit):
        user_id = uuid7()
        await record(kit, kit.admin, "user.erase", "user", user_id, user_id=user_id, reason="before")
        async with kit.database.transaction(kit.admin) as tx:
            await kit.data_keys.destroy(tx, user_id)
        await record(kit, kit.admin, "user.read", "user", user_id, user_id=user_id, reason="after")
        assert [row.HasField("reason") for row in await rows_of(kit)] == [False, False]

    async def test_tells_of_another_caller_and_time(self, kit):
        moment = (await _now(kit)) - timedelta(minutes=3)
        call = Call(Caller(CallerType.SYSTEM, "gateway"), source_address="192.0.2.9")
        await record(kit, kit.worker, "auth.refuse", "route", "GET /x", count=17, call=call, occurred_at=moment)
        (row,) = await rows_of(kit)
        assert (row.actor.id, row.source_address, row.count) == ("gateway", "192.0.2.9", 17)
        assert row.occurred_at.ToDatetime(moment.tzinfo) == moment

    async def test_a_tampered_reason_does_not_hide_the_log(self, kit):
        await record(kit, kit.admin, "setting.change", "setting", "1", reason="it was late")
        with kit.superuser() as connection:
            connection.execute("ALTER TABLE audit_log DISABLE TRIGGER ALL")
            connection.execute("UPDATE audit_log SET sealed = set_byte(sealed, 30, get_byte(sealed, 30) # 1)")
        (row,) = await rows_of(kit)
        assert not row.HasField("reason")

    async def test_a_key_that_cannot_be_unwrapped_does_not_hide_the_log(self, kit):
        await record(kit, kit.admin, "setting.change", "setting", "1", reason="it was late")
        with kit.superuser() as connection:
            connection.execute("UPDATE data_keys SET master_key_id = 'lost'")
        (row,) = await rows_of(kit)
        assert not row.HasField("reason")


async def _now(kit):
    async with kit.database.transaction(kit.admin) as tx:
        return tx.now


class TestList:
    async def test_filters(self, kit):
        user_id, other = uuid7(), uuid7()
        await record(kit, kit.admin, "user.read", "user", user_id, user_id=user_id, platform_id=kit.platform_id)
        between = await _now(kit)
        await record(kit, kit.partner, "account.create", "account", "a-1", user_id=other)
        for filters, actions in [
            ({"entity_type": "user"}, ["user.read"]),
            ({"entity_type": "account", "entity_id": "a-1"}, ["account.create"]),
            ({"entity_type": "user", "entity_id": "a-1"}, []),
            ({"user_id": str(user_id)}, ["user.read"]),
            ({"actor_id": "key-1"}, ["account.create"]),
            ({"platform_id": str(kit.platform_id)}, ["account.create", "user.read"]),
            ({"platform_id": str(kit.other_platform_id)}, []),
            ({"action": "user.read"}, ["user.read"]),
            ({"from": between}, ["account.create"]),
            ({"to": between}, ["user.read"]),
            ({"from": between, "to": between}, []),
        ]:
            assert [row.action for row in await rows_of(kit, **filters)] == actions, filters

    async def test_pages_without_skips_and_repeats(self, kit):
        moment = await _now(kit)
        for number in range(12):
            # Rows of the same moment are told apart by their ids.
            await record(kit, kit.worker, "n", "n", str(number), occurred_at=moment + timedelta(seconds=number // 4))
        seen, place = [], {}
        while page := await rows_of(kit, limit=5, **place):
            seen += page
            place = {"after": AuditLogPlace(occurred_at=page[-1].occurred_at, id=page[-1].id)}
        assert len({row.id for row in seen}) == len(seen) == 12
        order = [(row.occurred_at.ToMicroseconds(), row.id) for row in seen]
        assert order == sorted(order, reverse=True)

    async def test_every_filter_has_an_index_in_the_lists_order(self, kit):
        with kit.superuser() as connection:
            connection.execute(
                "INSERT INTO audit_log SELECT gen_random_uuid(), now() - n * '1 s'::interval, 'ADMIN', n::text,"
                " n::text, 'n', n::text, gen_random_uuid(), gen_random_uuid(), '{}', null, null, null, null, 1"
                " FROM generate_series(1, 5000) n"
            )
            connection.execute("ANALYZE audit_log")
        for index, condition in {
            "newest": "true",
            "entity": "entity_type = 'n' AND entity_id = 'x'",
            "user": f"user_id = '{uuid7()}'",
            "actor": "actor_id = 'x'",
            "platform": f"platform_id = '{uuid7()}'",
            "action": "action = 'x'",
        }.items():
            async with kit.database.transaction(kit.admin) as tx:
                listing = f"SELECT * FROM audit_log WHERE {condition} ORDER BY occurred_at DESC, id DESC LIMIT 50"
                plan = "\n".join((await tx.connection.execute(text("EXPLAIN " + listing))).scalars())
            assert f"ix_audit_log_{index}" in plan
            assert "Seq Scan" not in plan

    async def test_tells_the_place_in_the_chain(self, kit):
        await kit.record(3)
        await kit.seal_all()
        assert [row.sequence for row in await rows_of(kit)] == [3, 2, 1]


class TestChangesBetween:
    before = Platform(name="a", status="PLATFORM_STATUS_ACTIVE", contact_email="x@y", version=1, min_user_age=18)
    clear = frozenset({"name", "status", "min_user_age", "required_profile_fields", "id", "created_at"})

    def test_tells_values_of_clear_fields_only(self):
        after = Platform(
            name="b",
            status="PLATFORM_STATUS_SUSPENDED",
            contact_email="z@y",
            version=2,
            required_profile_fields=["city"],
        )
        assert changes_between(self.before, after, self.clear) == {
            "name": ("a", "b"),
            "status": ("active", "suspended"),
            "min_user_age": (18, None),
            "required_profile_fields": ([], ["city"]),
            "contact_email": None,
        }

    def test_tells_what_is_new_and_what_is_gone(self):
        assert changes_between(None, self.before, self.clear) == {
            "name": (None, "a"),
            "status": (None, "active"),
            "min_user_age": (None, 18),
            "contact_email": None,
        }
        assert changes_between(self.before, None, {"name"})["name"] == ("a", None)
        assert changes_between(None, None, self.clear) == {}

    def test_tells_times_as_the_api_does(self):
        after = Platform()
        after.updated_at.FromJsonString("2026-11-20T09:30:00Z")
        after.created_at.FromJsonString("2026-11-20T09:30:00Z")
        assert changes_between(None, after, {"updated_at", "created_at"}) == {}

    def test_tells_maps_that_were_empty(self):
        after = Benefit(translations={"hi": BenefitTranslation(name="a")})
        before = Benefit()
        assert changes_between(before, after, {"translations"}) == {"translations": ({}, {"hi": {"name": "a"}})}
        assert changes_between(after, before, {"translations"}) == {"translations": ({"hi": {"name": "a"}}, {})}


class _Context:
    """A call's context, as far as the servicer looks."""

    def __init__(self, call):
        self._call = call

    def invocation_metadata(self):
        return [(METADATA_KEY, self._call.to_bytes())]


class TestRpc:
    @pytest.fixture
    def rpc(self, kit):
        return AuditLogRpc(kit.database, kit.audit_log, kit.chain)

    async def test_lists_and_verifies_for_operators(self, kit, rpc):
        await kit.record(3)
        await kit.seal_all()
        listed = await rpc.ListAuditLogs(ListAuditLogsRequest(limit=2), _Context(kit.admin))
        assert [row.entity_id for row in listed.audit_logs] == ["n-2", "n-1"]
        answer = await rpc.VerifyAuditLogs(VerifyAuditLogsRequest(from_sequence=1), _Context(kit.admin))
        assert answer.verification.intact
        assert answer.verification.rows == 3

    @pytest.mark.parametrize("caller", ["partner", "worker"])
    async def test_rejects_others(self, kit, rpc, caller):
        context = _Context(getattr(kit, caller))
        with pytest.raises(OperatorsOnly) as refusal:
            await rpc.ListAuditLogs(ListAuditLogsRequest(), context)
        assert refusal.value.status is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(OperatorsOnly):
            await rpc.VerifyAuditLogs(VerifyAuditLogsRequest(), context)

    async def test_rejects_ids_that_are_none(self, kit, rpc):
        with pytest.raises(InvalidField):
            await rpc.ListAuditLogs(ListAuditLogsRequest(user_id="x"), _Context(kit.admin))

    def test_is_declared_for_the_gateway_only(self, rpc):
        assert set(declared_peers([rpc]).values()) == {frozenset({"gateway"})}
