"""Whoever is erased is unreadable everywhere, in backups too, and everything that held the person still answers."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from deploy.postgres import Cluster
from tests.e2e.canaries import Canaries, Life, live, unsealed
from tests.e2e.conftest import World, assert_refused, made
from tests.e2e.running import OwnSystem, System

HOLDING = ("identity", "records")
LISTED_S = 10
PERSONAL_OF_USER = {
    *("phone_number", "first_name", "middle_name", "last_name", "gender", "date_of_birth", "email"),
    *("preferred_language", "address_line", "city", "state_code", "pincode", "id_proof_type", "id_proof_masked"),
    *("abha_number", "abha_address", "metadata"),
}
PERSONAL_OF_DEPENDANT = {
    *("first_name", "middle_name", "last_name", "gender", "date_of_birth", "phone_number"),
    *("abha_number", "abha_address", "blood_group", "status_reason"),
}
PERSONAL_OF_ACCOUNT = {"account_number_masked", "ifsc", "holder_name", "provider_name", "verification_reference"}


@dataclass
class Outcome:
    """Two persons, of whom one was erased, and what was there before."""

    erased: Life
    of_erased: Canaries
    spared: Life
    of_spared: Canaries
    answer: dict[str, Any]
    before: dict[str, int]
    was_readable: dict[str, bool]
    living_at: str
    dumps: Path


@pytest.fixture(scope="module")
def outcome(breakable: OwnSystem, breakable_world: World, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Two persons live, a backup is made, and one of them is erased."""
    world, system = breakable_world, breakable.system
    of_erased, of_spared = Canaries(), Canaries()
    erased, spared = live(world, of_erased, of_platform=Canaries()), live(world, of_spared)
    dumps = tmp_path_factory.mktemp("dumps")
    assert erased.user.caller.delete(erased.user.path).status_code == 204
    back_up(system, dumps)
    living_at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    before = rows_of(system, erased)
    was_readable = {service: bool(of_erased.found_in(unsealed(system, service))) for service in HOLDING}
    answer = made(world.admin.post(f"{erased.user.path}/erase", {"reason": "Ticket 4711."}), 200)
    return Outcome(erased, of_erased, spared, of_spared, answer, before, was_readable, living_at, dumps)


def rows_of(system: System, life: Life) -> dict[str, int]:
    """Return how many rows there are of a person in each table, but for the rows that tell of the erasure."""
    counts = {}
    for service, table, column in (
        ("identity", "users", "id"),
        ("identity", "audit_log", "user_id"),
        ("records", "dependants", "user_id"),
        ("records", "accounts", "user_id"),
        ("records", "mrns", "user_id"),
        ("records", "audit_log", "user_id"),
    ):
        condition = " AND action NOT IN ('user.erase', 'user.read')" if table == "audit_log" else ""
        with system.superuser(service) as connection:
            row = connection.execute(
                f"SELECT count(*) FROM {table} WHERE {column} = %s{condition}", (life.user.id,)
            ).fetchone()
        assert row is not None
        counts[f"{service}.{table}"] = row[0]
    return counts


class TestErase:
    @pytest.mark.parametrize("service", HOLDING)
    def test_leaves_nothing_that_opens(self, breakable: OwnSystem, outcome: Outcome, service: str) -> None:
        left = unsealed(breakable.system, service)
        assert outcome.was_readable[service]
        assert outcome.of_erased.found_in(left) == []
        assert outcome.of_spared.found_in(left)

    def test_takes_away_what_numbers_are_found_by(self, breakable: OwnSystem, outcome: Outcome) -> None:
        for service, table, column, owner in (
            ("identity", "users", "phone_hash", "id"),
            ("records", "accounts", "number_hash", "user_id"),
            ("records", "mrns", "mrn_hash", "user_id"),
        ):
            with breakable.system.superuser(service) as connection:
                query = f"SELECT DISTINCT {column} FROM {table} WHERE {owner} = %s"
                assert connection.execute(query, (outcome.erased.user.id,)).fetchall() == [(None,)]
                assert connection.execute(query, (outcome.spared.user.id,)).fetchall() != [(None,)]

    def test_answers_the_user_without_anything_personal(self, breakable_world: World, outcome: Outcome) -> None:
        user = made(breakable_world.admin.get(outcome.erased.user.path), 200)
        assert user == outcome.answer
        assert {name for name in PERSONAL_OF_USER if user[name] is not None} == set()
        assert user["status"] == "deactivated"
        assert user["erased_at"] is not None

    def test_keeps_every_row(self, breakable: OwnSystem, outcome: Outcome) -> None:
        assert rows_of(breakable.system, outcome.erased) == outcome.before
        assert all(outcome.before.values())

    def test_lets_every_list_answer(self, breakable_world: World, outcome: Outcome) -> None:
        admin, life = breakable_world.admin, outcome.erased
        partner = life.user.platform.partner
        family, accounts = f"{life.user.path}/dependants", f"{life.user.path}/accounts"
        mrns = {"user_id": life.user.id}
        for caller, path, parameters, personal, count in (
            (admin, "/users", {"platform_id": life.user.platform.id}, PERSONAL_OF_USER, 1),
            (admin, "/users", {"status": "deactivated", "platform_id": life.user.platform.id}, PERSONAL_OF_USER, 1),
            (admin, family, {}, PERSONAL_OF_DEPENDANT, 2),
            (admin, family, {"include_removed": "true"}, PERSONAL_OF_DEPENDANT, 2),
            (admin, family, {"as_of": outcome.living_at}, PERSONAL_OF_DEPENDANT, 2),
            (admin, f"{life.dependant_path}/versions", {}, PERSONAL_OF_DEPENDANT, 3),
            (partner, accounts, {}, PERSONAL_OF_ACCOUNT, 2),
            (partner, "/mrns", mrns, {"mrn"}, 1),
            (partner, "/mrns", {"dependant_id": life.dependant["id"]}, {"mrn"}, 1),
            (partner, "/mrns", {"benefit_provider_id": life.provider["id"], **mrns}, {"mrn"}, 1),
            (partner, "/mrns", {"mrn": life.mrn["mrn"], **mrns}, {"mrn"}, 0),
            (admin, "/users", {"phone_number": life.user.phone_number}, PERSONAL_OF_USER, 0),
        ):
            items = made(caller.get(path, params=parameters), 200)["items"]
            assert len(items) == count, path
            assert {name for item in items for name in personal if item[name] is not None} == set(), path

    def test_lets_every_single_one_answer(self, breakable_world: World, outcome: Outcome) -> None:
        life = outcome.erased
        partner = life.user.platform.partner
        for caller, path in (
            (breakable_world.admin, life.dependant_path),
            (partner, f"{life.user.path}/accounts/{life.account['id']}"),
            (partner, f"/mrns/{life.mrn['id']}"),
        ):
            answer = caller.get(path)
            assert answer.status_code == 200, answer.text
            assert outcome.of_erased.found_in(answer.content) == [], path

    def test_keeps_the_audit_log_whole_and_silent(self, breakable_world: World, outcome: Outcome) -> None:
        admin, life = breakable_world.admin, outcome.erased
        rows = made(admin.get("/audit_logs", params={"user_id": life.user.id, "page_size": 200}), 200)["items"]
        assert outcome.of_erased.found_in(str(rows).encode()) == []
        assert {row["reason"] for row in rows} == {None, "Ticket 4711."}
        assert {row["service"] for row in rows if row["action"] == "user.erase"} == set(HOLDING)
        for service in HOLDING:
            (verification,) = made(admin.get("/audit_logs/verify", params={"service": service}), 200)["items"]
            assert verification["intact"] is True, service

    def test_keeps_uniqueness(self, breakable: OwnSystem, outcome: Outcome) -> None:
        mrn, family = outcome.erased.mrn, outcome.erased.user.id
        with breakable.system.superuser("records") as connection:
            columns = "benefit_provider_id, user_id, platform_id, source, mrn_hash, version, created_at, sealed"
            with pytest.raises(psycopg.errors.UniqueViolation, match="uq_mrns_pair"):
                connection.execute(
                    f"INSERT INTO mrns (id, dependant_id, {columns}) SELECT gen_random_uuid(), dependant_id, {columns}"
                    " FROM mrns WHERE id = %s",
                    (mrn["id"],),
                )
            with pytest.raises(psycopg.errors.UniqueViolation, match="uq_dependants_self"):
                connection.execute(
                    "INSERT INTO dependants SELECT gen_random_uuid(), version, user_id, platform_id, relationship,"
                    " status, created_at, first_created_at, created_by_type, created_by_id, sealed FROM dependants"
                    " WHERE user_id = %s AND relationship = 'SELF' AND version = 1",
                    (family,),
                )

    def test_frees_the_phone(self, breakable_world: World, outcome: Outcome) -> None:
        user = outcome.erased.user
        answers = [breakable_world.token(user.platform, user.phone_number) for _ in range(2)]
        assert [answer["is_new_user"] for answer in answers] == [True, False]
        assert answers[0]["user"]["id"] == answers[1]["user"]["id"] != user.id
        # So that the lists of the platform stay as the other tests know them.
        new = breakable_world.caller({"authorization": f"Bearer {answers[0]['access_token']}"})
        assert_refused(new.get(f"/users/{user.id}"), 403, "AU-207")

    def test_is_for_good(self, breakable_world: World, outcome: Outcome) -> None:
        admin, path = breakable_world.admin, outcome.erased.user.path
        reason = {"reason": "Asked for by the partner."}
        assert made(admin.post(f"{path}/erase", reason), 200) == outcome.answer
        assert_refused(admin.post(f"{path}/reactivate", reason), 409, "US-404")
        assert_refused(admin.patch(path, {"first_name": "Ravi"}), 409, "US-404")
        member = {"relationship": "SON", "first_name": "Arun", "gender": "MALE", "date_of_birth": "2015-08-15"}
        assert_refused(admin.post(f"{path}/dependants", member), 409, "US-404")


def back_up(system: System, folder: Path) -> None:
    """Dump the databases as docs/keys.md says: the data keys apart from everything else."""
    for service in HOLDING:
        dump(system, service, folder / f"{service}.dump", "--exclude-table-data=data_keys")
        dump_keys(system, service, folder / f"{service}.keys")


def dump_keys(system: System, service: str, file: Path) -> None:
    dump(system, service, file, "--data-only", "--table=data_keys")


def dump(system: System, service: str, file: Path, *options: str) -> None:
    run_tool(system, "pg_dump", "--format=custom", f"--file={file}", *options, system.superuser_dsn(service))


def run_tool(system: System, tool: str, *arguments: str) -> None:
    cluster = Cluster(system.data / "postgres", "", port=0, log=system.data / "logs" / "tools.log")
    subprocess.run([cluster.binaries.folder / tool, *arguments], check=True, capture_output=True)


@contextmanager
def restored(system: System, service: str, *dumps: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Bring dumps back as another database; yield its name, and the settings of a process that works on it."""
    name = f"{service}_restored"
    settings = system.settings(service)
    for login in ("OWNER", "RUNTIME"):
        variable = f"AAROKYA_DATABASE_{login}_DSN"
        settings[variable] = urlsplit(settings[variable])._replace(path=f"/{name}").geturl()
    settings["AAROKYA_AUDIT_HEAD_FILE"] = str(dumps[0].parent / f"{service}.heads")
    settings["AAROKYA_DATABASE_SUPERUSER_DSN"] = system.superuser_dsn("postgres")
    try:
        command(service, settings, "provision")
        for file in dumps:
            run_tool(system, "pg_restore", "--exit-on-error", f"--dbname={system.superuser_dsn(name)}", str(file))
        yield name, settings
    finally:
        with system.superuser("postgres") as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[call-overload]


def command(service: str, settings: dict[str, str], *arguments: str) -> str:
    """Run a service's command and return what it said."""
    return subprocess.run(
        [sys.executable, "-P", "-m", service, *arguments],
        env=settings,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


def erasure_list(system: System, life: Life) -> Path:
    """Return identity's list of erasures once it names a person."""
    file = system.data / "audit_heads" / "identity.erasures"
    deadline = time.monotonic() + LISTED_S
    while not (file.exists() and life.user.id in file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return file


@pytest.mark.parametrize("service", HOLDING)
class TestRestore:
    """A backup of before the erasure is brought back."""

    def test_needs_no_more_than_the_newest_keys(
        self, breakable: OwnSystem, outcome: Outcome, service: str, tmp_path: Path
    ) -> None:
        system = breakable.system
        dump_keys(system, service, tmp_path / "newest.keys")
        with restored(system, service, outcome.dumps / f"{service}.dump", tmp_path / "newest.keys") as (name, _):
            opened = unsealed(system, service, name)
        assert outcome.of_erased.found_in(opened) == []
        assert outcome.of_spared.found_in(opened)

    @pytest.mark.parametrize("keys", ["old", "newest"])
    def test_replays_the_erasures_since(
        self, breakable: OwnSystem, outcome: Outcome, service: str, keys: str, tmp_path: Path
    ) -> None:
        system, user_id = breakable.system, outcome.erased.user.id
        file = erasure_list(system, outcome.erased)
        key_dump = outcome.dumps / f"{service}.keys"
        if keys == "newest":
            key_dump = tmp_path / "newest.keys"
            dump_keys(system, service, key_dump)
        with restored(system, service, outcome.dumps / f"{service}.dump", key_dump) as (name, settings):
            # With the keys of then, whoever was erased since is back.
            assert bool(outcome.of_erased.found_in(unsealed(system, service, name))) == (keys == "old")
            said = command(service, settings, "replay-erasures", str(file))
            assert "done: 1 of " in said
            assert "done: 0 of " in command(service, settings, "replay-erasures", str(file))
            opened = unsealed(system, service, name)
            with system.superuser(name) as connection:
                tables = {"identity": ("users", "id", "phone_hash"), "records": ("mrns", "user_id", "mrn_hash")}
                table, owner, found_by = tables[service]
                hashes = connection.execute(f"SELECT {found_by} FROM {table} WHERE {owner} = %s", (user_id,)).fetchall()
                erased = connection.execute("SELECT erased_at IS NULL FROM users WHERE id = %s", (user_id,)).fetchall()
        assert outcome.of_erased.found_in(opened) == []
        assert outcome.of_spared.found_in(opened)
        assert (hashes, erased) == ([(None,)], [(False,)])
