"""What the databases themselves refuse, tried with the services' own logins."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.e2e.conftest import System, World, made

SERVICES = ("identity", "catalogue", "records")
APPEND_ONLY = [
    *((service, table) for service in SERVICES for table in ("audit_log", "audit_chain")),
    ("records", "dependants"),
]
# Whose rows belong to a platform, and by which column.
TENANT_TABLES = [
    ("identity", "platforms", "id"),
    *(
        ("identity", table, "platform_id")
        for table in ("users", "data_keys", "idempotency_keys", "outbox", "audit_log")
    ),
    *(
        ("records", table, "platform_id")
        for table in ("dependants", "accounts", "mrns", "data_keys", "idempotency_keys", "audit_log")
    ),
]
# Tables without row-level security, and why nobody's data can be told from them.
OPEN_TABLES = {
    "alembic_version": "the schema's own",
    "audit_chain": "numbers and hashes",
    "inbox": "ids of events",
    "benefit_providers": "the same for all platforms",
}


def dsn(system: System, service: str, login: str = "runtime_dsn") -> str:
    return str(system.runtime["databases"][service][login])


@contextmanager
def as_superuser(system: System, service: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A transaction of the server's superuser that is rolled back at the end."""
    data = Path(system.runtime["admin_api_key_file"]).parent
    password = json.loads((data / "secrets.json").read_text())["superuser_password"]
    parts = urlsplit(dsn(system, service))
    with psycopg.connect(f"postgresql://postgres:{quote(password)}@{parts.hostname}:{parts.port}{parts.path}") as it:
        yield it
        it.rollback()


def platforms_seen(connection: psycopg.Connection[tuple[object, ...]], table: str, column: str) -> set[str]:
    query = sql.SQL("SELECT DISTINCT {} FROM {}").format(sql.Identifier(column), sql.Identifier(table))
    return {str(row[0]) for row in connection.execute(query)}


@pytest.fixture(scope="module")
def two_platforms(world: World) -> tuple[str, str]:
    """Two platforms, each with a row in every tenant table."""
    ids = []
    provider = world.provider()
    for _ in range(2):
        platform = world.platform()
        user = world.user(platform)
        key = {"headers": {"idempotency-key": world.unique("key")}}
        asha = made(
            user.caller.post(
                f"{user.path}/dependants",
                {"relationship": "SPOUSE", "first_name": "Asha", "gender": "FEMALE", "date_of_birth": "1992-11-03"},
                **key,
            ),
            201,
        )
        made(user.caller.post(f"{user.path}/accounts", {"type": "UPI", "account_number": "ravi@okbank"}), 201)
        link = {"dependant_id": asha["id"], "benefit_provider_id": provider["id"], "mrn": "MRN-1"}
        made(platform.partner.post("/mrns", link), 201)
        other = world.user(platform, is_active=False)
        profile = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1990-05-17"}
        made(other.caller.post(f"{other.path}/complete_onboarding", profile, **key), 200)
        ids.append(platform.id)
    return ids[0], ids[1]


class TestLogins:
    @pytest.mark.parametrize("service", SERVICES)
    @pytest.mark.parametrize("login", ["runtime_dsn", "owner_dsn"])
    def test_reach_no_other_services_database(self, system: System, service: str, login: str) -> None:
        for other in set(SERVICES) - {service}:
            parts = urlsplit(dsn(system, service, login))
            foreign = parts._replace(path=urlsplit(dsn(system, other)).path).geturl()
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                psycopg.connect(foreign)

    @pytest.mark.parametrize("service", SERVICES)
    def test_runtime_login_owns_and_makes_nothing(self, system: System, service: str) -> None:
        with psycopg.connect(dsn(system, service), autocommit=True) as connection:
            owned = connection.execute(
                "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) = current_user"
            ).fetchall()
            assert owned == []
            for statement in ("CREATE TABLE t (a int)", "CREATE TEMP TABLE t (a int)", "CREATE SCHEMA s"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)

    @pytest.mark.parametrize("service", SERVICES)
    def test_runtime_login_cannot_become_the_owner(self, system: System, service: str) -> None:
        with psycopg.connect(dsn(system, service), autocommit=True) as connection:
            for role in (f"{service}_owner", "postgres"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize(("service", "table"), APPEND_ONLY)
class TestAppendOnlyTables:
    @pytest.mark.parametrize("role", ["runtime", "admin", "worker"])
    def test_refuse_change(self, system: System, service: str, table: str, role: str) -> None:
        statements = (
            "UPDATE {} SET sequence = 0" if table == "audit_chain" else "UPDATE {} SET platform_id = NULL",
            "DELETE FROM {}",
            "TRUNCATE {}",
            "ALTER TABLE {} DISABLE TRIGGER ALL",
            "ALTER TABLE {} ADD COLUMN a int",
            "DROP TABLE {}",
            "SELECT * FROM {} FOR UPDATE",
        )
        with psycopg.connect(dsn(system, service), autocommit=True) as connection:
            if role != "runtime":
                connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(f"{service}_{role}")))
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(sql.SQL(statement).format(sql.Identifier(table)))  # type: ignore[arg-type]

    def test_stop_mistakes_of_the_owner(self, world: World, system: System, service: str, table: str) -> None:
        world.user()  # so that there is a row to change
        world.provider()
        with psycopg.connect(dsn(system, service, "owner_dsn"), autocommit=True) as connection:
            for statement in ("DELETE FROM {}", "TRUNCATE {}"):
                with pytest.raises(psycopg.errors.RestrictViolation):
                    connection.execute(sql.SQL(statement).format(sql.Identifier(table)))  # type: ignore[arg-type]


class TestTenants:
    @pytest.mark.parametrize(("service", "table", "column"), TENANT_TABLES)
    def test_see_only_their_own_rows_without_any_where(
        self, system: System, two_platforms: tuple[str, str], service: str, table: str, column: str
    ) -> None:
        with psycopg.connect(dsn(system, service)) as connection:
            assert platforms_seen(connection, table, column) == set()
            for platform_id in two_platforms:
                connection.execute("SELECT set_config('app.platform_id', %s, true)", (platform_id,))
                assert platforms_seen(connection, table, column) == {platform_id}

    @pytest.mark.parametrize(("service", "table", "column"), TENANT_TABLES)
    def test_would_see_more_if_the_policy_were_broken(
        self, system: System, two_platforms: tuple[str, str], service: str, table: str, column: str
    ) -> None:
        """The test above can fail: with the policy broken, it would."""
        with as_superuser(system, service) as connection:
            policies = connection.execute(
                "SELECT policyname FROM pg_policies WHERE tablename = %s AND %s = ANY (roles)",
                (table, f"{service}_runtime"),
            ).fetchall()
        assert policies
        for (policy,) in policies:
            with as_superuser(system, service) as connection:
                broken = sql.SQL("ALTER POLICY {} ON {} USING (true)")
                connection.execute(broken.format(sql.Identifier(str(policy)), sql.Identifier(table)))
                connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(f"{service}_runtime")))
                connection.execute("SELECT set_config('app.platform_id', %s, true)", (two_platforms[0],))
                assert set(two_platforms) <= platforms_seen(connection, table, column)

    @pytest.mark.parametrize("service", SERVICES)
    def test_every_table_is_defended_or_named_as_open(self, system: System, service: str) -> None:
        with psycopg.connect(dsn(system, service)) as connection:
            undefended = connection.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
                " AND NOT (relrowsecurity AND relforcerowsecurity)"
            ).fetchall()
        assert {str(name) for (name,) in undefended} <= set(OPEN_TABLES)

    @pytest.mark.parametrize("table", ["api_keys", "api_key_secrets"])
    def test_keys_open_only_to_who_presents_the_secret(self, world: World, system: System, table: str) -> None:
        world.platform()
        with psycopg.connect(dsn(system, "identity")) as connection:
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            connection.execute("SELECT set_config('app.platform_id', %s, true)", (world.platform().id,))
            assert connection.execute(query).fetchone() == (0,)
            connection.execute("SELECT set_config('app.api_key_hash', %s, true)", ("00" * 32,))
            assert connection.execute(query).fetchone() == (0,)
