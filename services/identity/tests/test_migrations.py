"""Whether the migrations lead to the tables that the code works with."""

from typing import Any

import pytest
from alembic import command
from psycopg.errors import CheckViolation

from servicekit import migrations


class TestMigrations:
    def test_lead_to_the_models(self, identity_database: Any) -> None:
        engine = migrations.owner_engine(identity_database.owner_dsn)
        with engine.connect() as connection:
            command.check(migrations.config("identity", connection))
        engine.dispose()

    @pytest.mark.parametrize(("table", "status"), [("users", "erased"), ("platforms", "deleted")])
    async def test_refuse_states_that_nobody_knows(self, rules: Any, table: str, status: str) -> None:
        await rules.add_user()
        with rules.superuser() as connection, pytest.raises(CheckViolation):
            connection.execute(f"UPDATE {table} SET status = %s", (status,))
