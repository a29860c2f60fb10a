"""Without its audit row nothing happens, and who tampers with the rows is found out through the API."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import psycopg
import pytest

from servicekit.audit_heads import HeadFile
from tests.e2e.canaries import Canaries, log_files, person, profile
from tests.e2e.conftest import Caller, World, made
from tests.e2e.contract import OPERATIONS
from tests.e2e.running import SERVICES, OwnSystem, System

REASON = {"reason": "Asked for by the partner."}
SEAL_S = 5
# What changes by itself, without anybody's request.
UNWATCHED = {"audit_log", "audit_chain", "alembic_version"}
UNWATCHED_COLUMNS = ["last_used_at", "leased_until", "delivered_at", "attempts"]

Send = Callable[[], httpx.Response]


def all_changes(world: World, canaries: Canaries) -> dict[str, Send]:
    """Return every change that the API offers, and the reads that leave a note, each on something of its own."""
    admin, platform = world.admin, world.platform()
    user, gone, new = world.user(platform), world.user(platform), world.user(platform, is_active=False)
    for leaving in (gone, left := world.user(platform), last := world.user(platform)):
        assert leaving.caller.delete(leaving.path).status_code == 204
    suspended, empty, other_key = world.platform(), world.platform(), world.platform()
    made(admin.post(f"/platforms/{suspended.id}/suspend", REASON), 200)
    provider, unused = world.provider(), world.provider()
    benefit, old_benefit = world.benefit(provider), world.benefit(provider)
    dependant, removed = world.dependant(user), world.dependant(user)
    account = {"type": "BANK", "account_number": canaries.digits(17), "ifsc": "HDFC0001234"}
    upi = {"type": "UPI", "account_number": f"{canaries.tag}@okbank", "holder_name": canaries.tag}
    stored, to_go = (
        made(user.caller.post(f"{user.path}/accounts", {**account, "account_number": canaries.digits(17)}), 201)
        for _ in range(2)
    )
    link = {"dependant_id": dependant["id"], "benefit_provider_id": provider["id"], "mrn": f"MRN-{canaries.tag}"}
    linked = made(user.caller.post("/mrns", {**link, "dependant_id": removed["id"], "mrn": "MRN-1"}), 201)
    member = {"relationship": "SON", **person(canaries, 2001)}
    token = {"phone_number": canaries.digits(10), "platform_id": platform.id, "first_name": canaries.tag}
    new_provider = {"code": world.unique("p"), "legal_name": "Apollo", "display_name": "Apollo", "type": "CLINIC"}
    new_benefit = {
        "benefit_provider_id": provider["id"],
        "code": world.unique("b"),
        "name": "Consultation",
        "type": "CONSULTATION",
        "price_paise": 0,
    }
    families, accounts = "/users/{user_id}/dependants", "/users/{user_id}/accounts"
    return {
        "POST /auth/token": partial(platform.partner.post, "/auth/token", token),
        "POST /platforms": partial(admin.post, "/platforms", {"name": world.unique("Rides")}),
        "PATCH /platforms/{platform_id}": partial(
            admin.patch, f"/platforms/{platform.id}", {"contact_email": f"{canaries.tag}@example.org"}
        ),
        "DELETE /platforms/{platform_id}": partial(admin.delete, f"/platforms/{empty.id}"),
        "POST /platforms/{platform_id}/suspend": partial(admin.post, f"/platforms/{other_key.id}/suspend", REASON),
        "POST /platforms/{platform_id}/activate": partial(admin.post, f"/platforms/{suspended.id}/activate", REASON),
        "POST /platforms/{platform_id}/api_keys": partial(
            admin.post, f"/platforms/{platform.id}/api_keys", {"name": "more"}
        ),
        "POST /platforms/{platform_id}/api_keys/{key_id}/rotate": partial(
            admin.post, f"/platforms/{platform.id}/api_keys/{platform.key_id}/rotate", {"overlap_seconds": 600}
        ),
        "DELETE /platforms/{platform_id}/api_keys/{key_id}": partial(
            admin.delete, f"/platforms/{other_key.id}/api_keys/{other_key.key_id}"
        ),
        "GET /users": partial(admin.get, "/users", params={"platform_id": platform.id}),
        "GET /users/{user_id}": partial(admin.get, user.path),
        "PATCH /users/{user_id}": partial(user.caller.patch, user.path, profile(canaries)),
        "POST /users/{user_id}/complete_onboarding": partial(
            new.caller.post, f"{new.path}/complete_onboarding", profile(canaries)
        ),
        "DELETE /users/{user_id}": partial(admin.delete, world.user(platform).path),
        "POST /users/{user_id}/reactivate": partial(admin.post, f"{gone.path}/reactivate", REASON),
        "POST /users/{user_id}/release_phone": partial(admin.post, f"{left.path}/release_phone", REASON),
        "POST /users/{user_id}/erase": partial(admin.post, f"{last.path}/erase", REASON),
        f"GET {families}": partial(admin.get, f"{user.path}/dependants"),
        f"GET {families}/{{dependant_id}}": partial(admin.get, f"{user.path}/dependants/{dependant['id']}"),
        f"GET {families}/{{dependant_id}}/versions": partial(
            admin.get, f"{user.path}/dependants/{dependant['id']}/versions"
        ),
        f"POST {families}": partial(user.caller.post, f"{user.path}/dependants", member),
        f"PATCH {families}/{{dependant_id}}": partial(
            user.caller.patch, f"{user.path}/dependants/{dependant['id']}", {"last_name": canaries.tag}
        ),
        f"DELETE {families}/{{dependant_id}}": partial(user.caller.delete, f"{user.path}/dependants/{removed['id']}"),
        "POST /benefit_providers": partial(admin.post, "/benefit_providers", new_provider),
        "PATCH /benefit_providers/{benefit_provider_id}": partial(
            admin.patch, f"/benefit_providers/{provider['id']}", {"display_name": "Apollo Clinics"}
        ),
        "DELETE /benefit_providers/{benefit_provider_id}": partial(admin.delete, f"/benefit_providers/{unused['id']}"),
        "POST /benefits": partial(admin.post, "/benefits", new_benefit),
        "PATCH /benefits/{benefit_id}": partial(admin.patch, f"/benefits/{benefit['id']}", {"price_paise": 100}),
        "DELETE /benefits/{benefit_id}": partial(admin.delete, f"/benefits/{old_benefit['id']}"),
        f"POST {accounts}": partial(user.caller.post, f"{user.path}/accounts", upi),
        f"PATCH {accounts}/{{account_id}}": partial(
            user.caller.patch, f"{user.path}/accounts/{stored['id']}", {"holder_name": canaries.tag}
        ),
        f"DELETE {accounts}/{{account_id}}": partial(user.caller.delete, f"{user.path}/accounts/{to_go['id']}"),
        "POST /mrns": partial(platform.partner.post, "/mrns", link),
        "DELETE /mrns/{mrn_id}": partial(
            admin.delete, f"/mrns/{linked['id']}", params={"reason": f"not {canaries.tag}"}
        ),
    }


def stored(system: System) -> dict[str, list[str]]:
    """Return all that the services have stored, by table."""
    tables = {}
    for service in SERVICES:
        with system.superuser(service) as connection:
            names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for (name,) in names:
                if name not in UNWATCHED:
                    rows = connection.execute(
                        f'SELECT (to_jsonb(t) - %s::text[])::text FROM "{name}" t ORDER BY 1', (UNWATCHED_COLUMNS,)
                    )
                    tables[f"{service}.{name}"] = [row[0] for row in rows]
    return tables


@contextmanager
def audit_rows_refused(system: System) -> Iterator[None]:
    """Take from the services the right to write audit rows."""
    for verb, preposition in (("REVOKE", "FROM"), ("GRANT", "TO")):
        for service in SERVICES:
            with system.superuser(service) as connection:
                roles = ", ".join(f"{service}_{role}" for role in ("runtime", "admin", "worker"))
                connection.execute(f"{verb} INSERT ON audit_log {preposition} {roles}")
        if verb == "REVOKE":
            yield


@pytest.fixture(scope="module")
def outcome(breakable: OwnSystem, breakable_world: World) -> dict[str, Any]:
    """What became of all changes while no audit row could be written, and after that."""
    canaries = Canaries()
    changes = all_changes(breakable_world, canaries)
    before = stored(breakable.system)
    with audit_rows_refused(breakable.system):
        refused = {name: send() for name, send in changes.items()}
        after = stored(breakable.system)
    done = {name: send() for name, send in changes.items()}
    return {"before": before, "refused": refused, "after": after, "done": done, "canaries": canaries}


class TestNothingHappensUnrecorded:
    def test_covers_every_change(self, outcome: dict[str, Any]) -> None:
        changes = {str(operation) for operation in OPERATIONS if operation.method != "GET"}
        assert changes <= set(outcome["refused"])

    def test_fails_every_change(self, outcome: dict[str, Any]) -> None:
        answered = {
            name: (response.status_code, response.json()["error"]["code"])
            for name, response in outcome["refused"].items()
            if response.status_code < 500
        }
        assert answered == {}

    def test_changes_nothing(self, outcome: dict[str, Any]) -> None:
        changed = [table for table, rows in outcome["before"].items() if outcome["after"][table] != rows]
        assert changed == []

    def test_tells_nobody_what_was_sent(self, breakable: OwnSystem, outcome: dict[str, Any]) -> None:
        """The log has the failures, but nothing of the persons."""
        contents = dict(log_files(breakable.system))
        assert b"InsufficientPrivilege" in contents["records.log"]
        assert {name for name, content in contents.items() if outcome["canaries"].found_in(content)} == set()

    def test_lets_every_change_happen_once_rows_can_be_written(self, outcome: dict[str, Any]) -> None:
        failed = {name: response.text for name, response in outcome["done"].items() if not response.is_success}
        assert failed == {}


def verified(admin: Caller, service: str) -> dict[str, Any]:
    """Return what recomputing a service's chain shows."""
    answer = made(admin.get("/audit_logs/verify", params={"service": service}), 200)
    (item,) = answer["items"]
    return dict(item)


def wait_until_sealed(system: System, service: str) -> int:
    """Return the chain's length once all rows are in it."""
    deadline = time.monotonic() + SEAL_S
    while time.monotonic() < deadline:
        with system.superuser(service) as connection:
            query = "SELECT (SELECT count(*) FROM audit_log), (SELECT count(*) FROM audit_chain)"
            rows, links = connection.execute(query).fetchone() or (0, -1)
        if rows == links:
            return int(rows)
        time.sleep(0.1)
    pytest.fail(f"{rows - links} rows of {service} are not sealed")


@contextmanager
def tampering(system: System, service: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Let a superuser do what triggers refuse everybody else."""
    with system.superuser(service) as connection:
        for table in ("audit_log", "audit_chain"):
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        yield connection
        for table in ("audit_log", "audit_chain"):
            connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_refuses_change")
            connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_refuses_truncate")


class TestTampering:
    @pytest.fixture(autouse=True)
    def rows(self, breakable_world: World) -> None:
        """Rows in every service's audit log."""
        breakable_world.benefit(breakable_world.provider())
        breakable_world.dependant(breakable_world.user())

    @pytest.mark.parametrize("service", SERVICES)
    def test_is_not_seen_where_there_is_none(self, breakable: OwnSystem, breakable_world: World, service: str) -> None:
        length = wait_until_sealed(breakable.system, service)
        verification = verified(breakable_world.admin, service)
        assert (verification["intact"], verification["first_broken_sequence"]) == (True, None)
        assert verification["rows"] == length

    @pytest.mark.parametrize("service", SERVICES)
    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE audit_log SET actor_id = actor_id || 'x' WHERE id = %s",
            "UPDATE audit_log SET changes = '{\"status\": null}' WHERE id = %s",
            "UPDATE audit_log SET occurred_at = occurred_at - interval '1 s' WHERE id = %s",
            "DELETE FROM audit_log WHERE id = %s",
        ],
        ids=["actor", "changes", "time", "deleted"],
    )
    def test_is_found_at_its_place(
        self, breakable: OwnSystem, breakable_world: World, service: str, change: str
    ) -> None:
        system, admin = breakable.system, breakable_world.admin
        length = wait_until_sealed(system, service)
        place = length // 2 + 1
        with tampering(system, service) as connection:
            row = connection.execute("SELECT audit_id FROM audit_chain WHERE sequence = %s", (place,)).fetchone()
            assert row is not None
            connection.execute("CREATE TABLE kept AS SELECT * FROM audit_log WHERE id = %s", row)
            connection.execute(change, row)  # type: ignore[call-overload]
            broken = verified(admin, service)
            connection.execute("DELETE FROM audit_log WHERE id = %s", row)
            connection.execute("INSERT INTO audit_log SELECT * FROM kept")
            connection.execute("DROP TABLE kept")
        assert (broken["intact"], broken["first_broken_sequence"]) == (False, place)
        assert verified(admin, service)["intact"] is True

    def test_is_found_when_everything_is_truncated(self, breakable: OwnSystem, breakable_world: World) -> None:
        """The heads outside the database remember the chain, also when a new one grows."""
        system, service = breakable.system, "catalogue"
        file = system.data / "audit_heads" / service
        wait_until_sealed(system, service)
        assert verified(breakable_world.admin, service)["intact"] is True
        heads = file.read_bytes()
        newest = HeadFile(file).last()
        with tampering(system, service) as connection:
            for table in ("audit_log", "audit_chain"):
                connection.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")
            connection.execute("TRUNCATE audit_log, audit_chain")
        broken = verified(breakable_world.admin, service)
        breakable_world.provider()
        wait_until_sealed(system, service)
        still_broken = verified(breakable_world.admin, service)
        with tampering(system, service) as connection:
            connection.execute("TRUNCATE audit_log, audit_chain")
            for table in ("audit_log", "audit_chain"):
                connection.execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")
                connection.execute(f"DROP TABLE kept_{table}")
        # Once the process has found the old head again, an operator may take away what it wrote of the loss.
        deadline = time.monotonic() + SEAL_S
        while HeadFile(file).last() != newest and time.monotonic() < deadline:
            time.sleep(0.1)
        file.write_bytes(heads)
        assert (broken["intact"], broken["first_broken_sequence"]) == (False, 1)
        assert still_broken["intact"] is False
        assert verified(breakable_world.admin, service)["intact"] is True
