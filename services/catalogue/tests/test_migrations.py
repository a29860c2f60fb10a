"""The database by itself: it matches the models, and its logins can do no more than they must."""

from typing import Any, LiteralString

import psycopg
import pytest
from alembic import command
from psycopg.errors import InsufficientPrivilege

from catalogue.models import SERVICE
from servicekit import migrations

WRITES: list[LiteralString] = [
    "INSERT INTO benefit_providers (id) VALUES (gen_random_uuid())",
    "UPDATE benefit_providers SET status = 'active'",
    "DELETE FROM benefit_providers",
    "INSERT INTO benefits (id) VALUES (gen_random_uuid())",
    "UPDATE benefits SET status = 'active'",
    "DELETE FROM benefits",
]


def test_matches_the_models(kit: Any) -> None:
    engine = migrations.owner_engine(kit.owner_dsn)
    with engine.connect() as connection:
        command.check(migrations.config(SERVICE, connection))
    engine.dispose()


@pytest.mark.parametrize("statement", WRITES)
@pytest.mark.parametrize("role", ["runtime", "worker"])
def test_only_operators_write(kit: Any, role: LiteralString, statement: LiteralString) -> None:
    with psycopg.connect(kit.runtime_dsn, autocommit=True) as connection:
        if role != "runtime":
            connection.execute(f"SET ROLE catalogue_{role}")
        with pytest.raises(InsufficientPrivilege):
            connection.execute(statement)


def test_operators_remove_no_benefit(kit: Any) -> None:
    with psycopg.connect(kit.runtime_dsn, autocommit=True) as connection:
        connection.execute("SET ROLE catalogue_admin")
        with pytest.raises(InsufficientPrivilege):
            connection.execute("DELETE FROM benefits")


async def test_a_forgotten_condition_shows_a_platform_nothing_of_another(kit: Any) -> None:
    await kit.add_benefit(code="all")
    await kit.add_benefit(code="mine", platform_ids=[str(kit.platform_id)])
    await kit.add_benefit(code="foreign", platform_ids=[str(kit.user_elsewhere.caller.platform_id)])
    await kit.add_benefit(code="draft", status=1)
    with psycopg.connect(kit.runtime_dsn, autocommit=True) as connection:
        assert _codes(connection) == ["all"]
        connection.execute("SELECT set_config('app.platform_id', %s, false)", [str(kit.platform_id)])
        assert _codes(connection) == ["all", "mine"]
        connection.execute("SET ROLE catalogue_worker")
        assert _codes(connection) == ["all", "draft", "foreign", "mine"]


async def test_the_runtime_login_sees_only_the_summary_of_a_provider(kit: Any) -> None:
    await kit.add_provider()
    with psycopg.connect(kit.runtime_dsn, autocommit=True) as connection:
        assert connection.execute("SELECT display_name FROM benefit_providers").fetchall() == [("Apollo",)]
        with pytest.raises(InsufficientPrivilege):
            connection.execute("SELECT metadata FROM benefit_providers")


def _codes(connection: psycopg.Connection[tuple[object, ...]]) -> list[object]:
    return [code for (code,) in connection.execute("SELECT code FROM benefits ORDER BY code")]
