"""What the database itself lets a platform see and do, whatever a statement says."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.errors import InsufficientPrivilege
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import ProgrammingError

from identity.models import api_key_secrets, api_keys, audit_log, data_keys, outbox, platforms, users

TENANT_TABLES = [platforms, users, data_keys, outbox, audit_log]


async def count(tx: Any, table: Any) -> int:
    number: int = (await tx.execute(select(func.count()).select_from(table))).scalar_one()
    return number


class TestPartnersTransaction:
    @pytest.mark.parametrize("table", TENANT_TABLES, ids=lambda table: table.name)
    async def test_sees_its_own_rows_only_without_any_condition(self, rules: Any, table: Any) -> None:
        mine, theirs = await rules.add_platform(), await rules.add_platform()
        for platform in (mine, theirs):
            await rules.add_active_user(platform)
        column = table.c.id if table is platforms else table.c.platform_id
        async with rules.database.transaction(rules.partner_of(mine)) as tx:
            seen = {row[0] for row in await tx.execute(select(column))}
        assert seen == {UUID(mine.id)}

    @pytest.mark.parametrize("table", [api_keys, api_key_secrets], ids=lambda table: table.name)
    async def test_sees_no_keys_not_even_its_own(self, rules: Any, table: Any) -> None:
        platform = await rules.add_platform()
        await rules.add_key(platform)
        async with rules.database.transaction(rules.partner_of(platform)) as tx:
            assert await count(tx, table) == 0

    async def test_changes_nobody_elses_rows(self, rules: Any) -> None:
        mine, theirs = await rules.add_platform(), await rules.add_user()
        async with rules.database.transaction(rules.partner_of(mine)) as tx:
            changed = await tx.execute(update(users).values(status="active"))
        assert changed.rowcount == 0
        assert await rules.find_user(theirs.id) == theirs

    async def test_can_add_no_row_to_another_platform(self, rules: Any) -> None:
        mine, theirs = await rules.add_platform(), await rules.add_platform()
        with pytest.raises(ProgrammingError) as refused:
            async with rules.database.transaction(rules.partner_of(mine)) as tx:
                await tx.execute(
                    insert(users).values(
                        id=uuid4(),
                        platform_id=UUID(theirs.id),
                        status="active",
                        token_generation=0,
                        version=1,
                        created_at=tx.now,
                        updated_at=tx.now,
                        sealed=b"",
                    )
                )
        assert isinstance(refused.value.orig, InsufficientPrivilege)

    async def test_does_not_outlive_its_transaction(self, rules: Any) -> None:
        platform = await rules.add_platform()
        async with rules.database.transaction(rules.partner_of(platform)) as tx:
            assert await count(tx, platforms) == 1
        async with rules.database.transaction(rules.gateway, presented={"app.api_key_hash": ""}) as tx:
            assert await count(tx, platforms) == 0
            assert await count(tx, users) == 0


class TestPresentedSecret:
    async def test_opens_its_own_key_only(self, rules: Any) -> None:
        platform = await rules.add_platform()
        key = await rules.add_key(platform)
        await rules.add_key(platform)
        presented = {"app.api_key_hash": rules.keys.hash_secret(key.secret).hex()}
        async with rules.database.transaction(rules.gateway, presented=presented) as tx:
            assert (await tx.execute(select(api_keys.c.id))).scalars().all() == [UUID(key.id)]
            assert await count(tx, api_key_secrets) == 1
            assert await count(tx, users) == 0


class TestRuntimeLogin:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit_log SET action = 'x'",
            "DELETE FROM audit_log",
            "TRUNCATE audit_log",
            "UPDATE audit_chain SET hash = ''",
            "DELETE FROM users",
            "DELETE FROM platforms",
            "DELETE FROM data_keys",
            "CREATE TABLE mine (id int)",
            "ALTER TABLE users DISABLE ROW LEVEL SECURITY",
        ],
    )
    async def test_may_not(self, rules: Any, statement: str) -> None:
        for call in (rules.admin, rules.gateway):
            with pytest.raises(ProgrammingError) as refused:
                async with rules.database.transaction(call) as tx:
                    await tx.execute(text(statement))
            assert isinstance(refused.value.orig, InsufficientPrivilege)
