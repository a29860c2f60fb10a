"""What the database itself refuses, whatever a service tries."""

import asyncio

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from uuid6 import uuid7

from servicekit.caller import Call, Caller, CallerType
from servicekit.table_protection import grants

INSERT = """
    INSERT INTO dependants (id, version, user_id, platform_id, relationship, status, created_at, sealed)
    VALUES (:id, 1, :user, :platform, 'SON', 'active', now(), '\\x00')
"""


async def insert_row(kit, platform_id, call):
    async with kit.database.transaction(call) as tx:
        await tx.connection.execute(text(INSERT), {"id": uuid7(), "user": uuid7(), "platform": platform_id})


async def run(kit, call, statements):
    async with kit.database.transaction(call) as tx:
        for statement in statements.splitlines():
            await tx.connection.execute(text(statement))


async def count_rows(kit, call):
    async with kit.database.transaction(call) as tx:
        return (await tx.connection.execute(text("SELECT count(*) FROM dependants"))).scalar_one()


@pytest.mark.parametrize("call", ["admin", "worker", "partner"])
async def test_the_runtime_login_may_only_read_and_insert(kit, call):
    await insert_row(kit, kit.platform_id, kit.partner)
    for statement in (
        "UPDATE dependants SET status = 'x'",
        "DELETE FROM dependants",
        "TRUNCATE dependants",
        "SELECT * FROM dependants FOR UPDATE",
        "ALTER TABLE dependants DISABLE TRIGGER ALL",
        "ALTER TABLE dependants DISABLE ROW LEVEL SECURITY",
        "DROP TRIGGER dependants_refuses_change ON dependants",
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "DROP TABLE dependants",
        "CREATE TABLE mine (id int)",
        "SET LOCAL session_replication_role = replica",
        "SET LOCAL ROLE kit_owner",
        "SET LOCAL row_security = off\nSELECT * FROM dependants WHERE platform_id IS NULL",
    ):
        with pytest.raises(DBAPIError) as refusal:
            await run(kit, getattr(kit, call), statement)
        assert refusal.value.orig.sqlstate == "42501", statement


@pytest.mark.parametrize("role", ["owner", "superuser", "superuser as a replica"])
async def test_triggers_stop_the_mighty_too(kit, role):
    await insert_row(kit, kit.platform_id, kit.partner)
    with psycopg.connect(kit.owner_dsn if role == "owner" else kit.superuser_dsn, autocommit=True) as connection:
        if role == "superuser as a replica":
            connection.execute("SET session_replication_role = replica")
        for statement in ("UPDATE dependants SET status = 'x'", "DELETE FROM dependants", "TRUNCATE dependants"):
            with pytest.raises(psycopg.errors.RestrictViolation):
                connection.execute(statement)


async def test_a_platform_sees_its_own_rows_without_a_where(kit):
    await insert_row(kit, kit.platform_id, kit.partner)
    await insert_row(kit, kit.other_platform_id, kit.other_partner)
    assert await count_rows(kit, kit.partner) == 1
    assert await count_rows(kit, Call(Caller(CallerType.USER, "u", uuid7()))) == 0
    assert await count_rows(kit, kit.admin) == 2
    assert await count_rows(kit, kit.worker) == 2


async def test_without_a_platform_there_is_nothing(kit):
    await insert_row(kit, kit.platform_id, kit.partner)
    with psycopg.connect(kit.runtime_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM dependants").fetchone() == (0,)


async def test_a_platform_cannot_write_for_another(kit):
    with pytest.raises(DBAPIError, match="row-level security"):
        await insert_row(kit, kit.other_platform_id, kit.partner)


async def test_a_scope_ends_with_its_transaction(kit):
    await insert_row(kit, kit.platform_id, kit.partner)
    calls = [kit.admin, kit.partner, kit.other_partner, kit.worker] * 25
    assert await asyncio.gather(*(count_rows(kit, call) for call in calls)) == [1, 1, 0, 1] * 25


async def test_the_policy_leaves_the_index_usable(kit):
    async with kit.database.transaction(kit.partner) as tx:
        await tx.connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = (await tx.connection.execute(text("EXPLAIN SELECT * FROM dependants"))).scalars().all()
    assert any("ix_dependants_platform_id" in line for line in plan)


def test_grants_are_the_least():
    granted = {line for line in grants("t", "kit", append_only=True) if line.startswith("GRANT")}
    assert granted == {"GRANT SELECT, INSERT ON t TO kit_runtime, kit_admin, kit_worker"}
    with pytest.raises(ValueError):
        grants("t", "kit", append_only=True, delete=True)
