"""The rules about families, on a real database."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from aarokya.identity.v1.user_pb2 import UserStatus
from aarokya.records.v1.dependant_pb2 import ActorType, BloodGroup, Dependant, DependantStatus, Relationship
from records.dependants import service
from records.dependants.errors import (
    DependantDuplicate,
    DependantRemoved,
    DependantRuleBroken,
    DependantUnknown,
    FamilyFull,
    SelfIsManaged,
)
from records.models import SERVICE
from records.users.errors import WrongUserStatus
from servicekit.caller import Call, Caller, CallerType
from servicekit.database import Database
from servicekit.errors import ServiceAway, VersionMismatch
from servicekit.rows import to_datetime
from tests.database_server import waits_for_standby, without_standby

SELF, SPOUSE = Relationship.RELATIONSHIP_SELF, Relationship.RELATIONSHIP_SPOUSE
SON, DAUGHTER = Relationship.RELATIONSHIP_SON, Relationship.RELATIONSHIP_DAUGHTER
FATHER, MOTHER = Relationship.RELATIONSHIP_FATHER, Relationship.RELATIONSHIP_MOTHER
BROTHER = Relationship.RELATIONSHIP_BROTHER
ACTIVE, INACTIVE = DependantStatus.DEPENDANT_STATUS_ACTIVE, DependantStatus.DEPENDANT_STATUS_INACTIVE
DECEASED, REMOVED = DependantStatus.DEPENDANT_STATUS_DECEASED, DependantStatus.DEPENDANT_STATUS_REMOVED

# The user of these tests was born on 1990-05-17.
BROKEN = [
    ("date_of_birth", {"date_of_birth": "2999-01-01"}),
    ("date_of_birth", {"date_of_birth": "1850-01-01"}),
    ("date_of_birth", {"relationship": FATHER, "date_of_birth": "1990-05-17"}),
    ("date_of_birth", {"relationship": MOTHER, "date_of_birth": "1990-05-18"}),
    ("date_of_birth", {"relationship": SON, "date_of_birth": "1990-05-17"}),
    ("date_of_birth", {"relationship": DAUGHTER, "date_of_birth": "1990-05-16"}),
    ("phone_number", {"phone_number": "12345"}),
    ("phone_number", {"phone_number": "080 2222 2222"}),
    ("abha_number", {"abha_number": "1234567890123"}),
    ("abha_number", {"abha_number": "234123412346"}),
    ("abha_address", {"abha_address": "meena"}),
    ("abha_address", {"abha_address": "234123412346@abdm"}),
    ("status", {"status": REMOVED}),
]
# How many rows of the table this transaction has fetched by its indexes or by scanning it.
READ = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'dependants'"


def refused_fields(refusal: pytest.ExceptionInfo[DependantRuleBroken]) -> list[str]:
    return [detail.field for detail in refusal.value.details]


def as_text(moment: Any) -> str:
    return to_datetime(moment).isoformat()


class TestCreateDependant:
    async def test_adds_member(self, kit: Any) -> None:
        state = await kit.onboard()

        added = await kit.add(
            state, middle_name="Devi", phone_number="98765 43210", blood_group=BloodGroup.BLOOD_GROUP_O_NEGATIVE
        )

        assert UUID(added.id).version == 7
        assert (added.version, added.status, added.user_id) == (1, ACTIVE, state.user_id)
        assert added.platform_id == state.platform_id
        assert added.phone_number == "+919876543210"
        assert added.created_at == added.first_created_at
        assert (added.created_by.type, added.created_by.id) == (ActorType.ACTOR_TYPE_USER, state.user_id)
        assert await kit.find(state, added.id) == added

    async def test_writes_audit_row_without_values(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard())

        (row,) = await kit.history(added.id)

        assert (row.action, row.entity_type, row.user_id) == ("dependant.create", "dependant", added.user_id)
        assert '"first_name": null' in row.changes
        assert '"relationship": [null, "SPOUSE"]' in row.changes
        assert "Meena" not in row.changes

    async def test_seals_what_describes_the_person(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard(), first_name="Zubeida")

        with kit.superuser() as connection:
            (row,) = connection.execute("SELECT d::text FROM dependants d WHERE id = %s", (added.id,)).fetchone()
            (sealed,) = connection.execute("SELECT sealed FROM dependants WHERE id = %s", (added.id,)).fetchone()

        assert "Zubeida" not in row
        assert b"Zubeida" not in sealed

    @pytest.mark.parametrize(("field", "fields"), BROKEN)
    async def test_refuses_broken_rule(self, kit: Any, field: str, fields: dict[str, Any]) -> None:
        state = await kit.onboard()

        with pytest.raises(DependantRuleBroken) as refusal:
            await kit.add(state, **fields)

        assert refused_fields(refusal) == [field]

    async def test_tells_all_broken_fields_at_once(self, kit: Any) -> None:
        state = await kit.onboard()

        with pytest.raises(DependantRuleBroken) as refusal:
            await kit.add(state, phone_number="1", abha_number="1", date_of_birth="2999-01-01")

        assert refused_fields(refusal) == ["date_of_birth", "phone_number", "abha_number"]

    async def test_judges_dates_in_the_products_time_zone(self, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        state = await kit.onboard()
        # 19:00 UTC on the 1st is the 2nd in India.
        monkeypatch.setattr(service, "day_in", lambda zone, _: original(zone, datetime(2026, 3, 1, 19, tzinfo=UTC)))
        await kit.add(state, relationship=SON, date_of_birth="2026-03-02")

        with pytest.raises(DependantRuleBroken):
            await kit.add(state, relationship=SON, date_of_birth="2026-03-03")

    async def test_takes_oldest_age(self, kit: Any) -> None:
        state = await kit.onboard()
        day = original("Asia/Kolkata", datetime.now(UTC))

        await kit.add(
            state, relationship=Relationship.RELATIONSHIP_GRANDPARENT, date_of_birth=f"{day.year - 120}-01-01"
        )

    async def test_refuses_self(self, kit: Any) -> None:
        state = await kit.onboard()

        with pytest.raises(SelfIsManaged):
            await kit.add(state, relationship=SELF)

    async def test_waits_for_self(self, kit: Any) -> None:
        with pytest.raises(ServiceAway):
            await kit.add(kit.state())

    @pytest.mark.parametrize("status", [UserStatus.USER_STATUS_ONBOARDING, UserStatus.USER_STATUS_DEACTIVATED])
    async def test_refuses_user_who_is_not_active(self, kit: Any, status: UserStatus.ValueType) -> None:
        state = await kit.onboard()
        state.status = status

        with pytest.raises(WrongUserStatus):
            await kit.add(state, call=kit.admin)

    async def test_holds_the_platforms_limit(self, kit: Any) -> None:
        state = await kit.onboard(state=kit.state(max_dependants=2))
        first = await kit.add(state, first_name="One")
        second = await kit.add(state, first_name="Two")
        await kit.update(first, status=DECEASED)

        with pytest.raises(FamilyFull):
            await kit.add(state, first_name="Three")
        await kit.remove(second)
        await kit.add(state, first_name="Three")

    async def test_allows_no_dependants_at_limit_zero(self, kit: Any) -> None:
        state = await kit.onboard(state=kit.state(max_dependants=0))

        with pytest.raises(FamilyFull):
            await kit.add(state)

    async def test_holds_limit_against_simultaneous_writers(self, kit: Any) -> None:
        state = await kit.onboard(state=kit.state(max_dependants=3))

        results = await asyncio.gather(
            *(kit.add(state, first_name=f"Child {n}") for n in range(12)), return_exceptions=True
        )

        assert sum(isinstance(result, Dependant) for result in results) == 3
        assert sum(isinstance(result, FamilyFull) for result in results) == 9
        assert len(await kit.family(state)) == 4

    @pytest.mark.parametrize("parent", [FATHER, MOTHER])
    async def test_allows_one_living_parent(self, kit: Any, parent: Relationship.ValueType) -> None:
        state = await kit.onboard()
        first = await kit.add(state, relationship=parent, first_name="First", date_of_birth="1960-01-01")
        second = {"relationship": parent, "first_name": "Second", "date_of_birth": "1961-01-01"}

        with pytest.raises(DependantRuleBroken) as refusal:
            await kit.add(state, **second)
        assert refused_fields(refusal) == ["relationship"]
        await kit.update(first, status=INACTIVE)
        with pytest.raises(DependantRuleBroken):
            await kit.add(state, **second)
        await kit.add(state, **second, status=DECEASED)
        await kit.update(first, status=DECEASED)
        await kit.add(state, **{**second, "first_name": "Third"})

    async def test_allows_several_brothers(self, kit: Any) -> None:
        state = await kit.onboard()

        await kit.add(state, relationship=BROTHER, first_name="Arun")
        await kit.add(state, relationship=BROTHER, first_name="Varun")

    async def test_refuses_probable_duplicate(self, kit: Any) -> None:
        state = await kit.onboard()
        added = await kit.add(state, first_name="Zoë", last_name="Kumar")

        for name in ("Zoë", "Zoe\u0308", "ZOË"):
            with pytest.raises(DependantDuplicate):
                await kit.add(state, first_name=name, last_name="KUMAR")
        await kit.add(state, first_name="Zoë", last_name="Kumar", date_of_birth="1992-02-01")
        await kit.add(state, first_name="Zoë", last_name="Kumar", relationship=BROTHER)
        await kit.add(state, first_name="Zoë", last_name="Kumar", middle_name="K")
        await kit.remove(added)
        await kit.add(state, first_name="Zoë", last_name="Kumar")

    async def test_leaves_other_families_out_of_it(self, kit: Any) -> None:
        await kit.add(await kit.onboard(), relationship=FATHER, date_of_birth="1960-01-01")

        await kit.add(await kit.onboard(), relationship=FATHER, date_of_birth="1960-01-01")


class TestGetDependant:
    async def test_hides_other_users_dependant(self, kit: Any) -> None:
        added, neighbour = await kit.add(await kit.onboard()), await kit.onboard()

        with pytest.raises(DependantUnknown):
            await kit.find(neighbour, added.id)

    async def test_hides_other_platforms_dependant(self, kit: Any) -> None:
        state = await kit.onboard()
        added = await kit.add(state)

        with pytest.raises(DependantUnknown):
            await kit.find(state, added.id, call=kit.partner_elsewhere)

    async def test_refuses_unknown(self, kit: Any) -> None:
        with pytest.raises(DependantUnknown):
            await kit.find(await kit.onboard(), str(uuid4()))

    async def test_notes_an_operators_look(self, kit: Any) -> None:
        state = await kit.onboard()
        added = await kit.add(state)

        assert await kit.find(state, added.id, call=kit.admin) == added
        await kit.find(state, added.id)

        assert [(row.action, row.actor.id) for row in await kit.history(added.id)] == [
            ("dependant.create", state.user_id),
            ("dependant.read", "asha"),
        ]


class TestListDependants:
    async def test_lists_newest_first_without_removed(self, kit: Any) -> None:
        state = await kit.onboard()
        first, second = await kit.add(state, first_name="One"), await kit.add(state, first_name="Two")
        third = await kit.add(state, first_name="Three")
        await kit.remove(second)
        changed = await kit.update(first, first_name="Uno")

        family = await kit.family(state)

        assert family[:2] == [third, changed]
        assert [one.relationship for one in family[2:]] == [SELF]
        everyone = await kit.family(state, include_removed=True)
        assert [(one.id, one.status) for one in everyone][1] == (second.id, REMOVED)

    async def test_pages_by_key_while_members_are_added(self, kit: Any) -> None:
        state = await kit.onboard()
        added = [await kit.add(state, first_name=f"Child {n}") for n in range(4)]

        (first, second, _) = await kit.family(state, page_size=2)
        await kit.add(state, first_name="Late")
        rest = await kit.family(state, cursor=[as_text(second.first_created_at), second.id])

        assert [one.id for one in (first, second, *rest[:2])] == [one.id for one in reversed(added)]
        assert rest[2].relationship == SELF
        assert len(rest) == 3

    async def test_shows_family_as_it_was(self, kit: Any) -> None:
        state = await kit.onboard()
        added = await kit.add(state)
        changed = await kit.update(added, first_name="Mina")
        await kit.remove(changed)
        await kit.add(state, first_name="Later")

        def then(moment: Any, **more: Any) -> Any:
            return kit.family(state, as_of=to_datetime(moment), **more)

        assert await then(added.created_at) == [added, await kit.self_of(state)]
        assert (await then(changed.created_at))[0] == changed
        just_before = to_datetime(changed.created_at) - timedelta(microseconds=1)
        assert (await kit.family(state, as_of=just_before))[0] == added
        removed = (await kit.versions(added))[0]
        assert [one.relationship for one in await then(removed.created_at)] == [SELF]
        assert (await then(removed.created_at, include_removed=True))[0] == removed
        assert await kit.family(state, as_of=datetime(2020, 1, 1, tzinfo=UTC)) == []
        assert await kit.family(state, as_of=datetime(2999, 1, 1, tzinfo=UTC)) == await kit.family(state)

    async def test_notes_an_operators_look(self, kit: Any) -> None:
        state = await kit.onboard()
        await kit.add(state)

        await kit.family(state, call=kit.admin)

        with kit.superuser() as connection:
            rows = connection.execute(
                "SELECT count FROM audit_log WHERE action = 'dependant.list' AND user_id = %s", (state.user_id,)
            ).fetchall()
        assert rows == [(2,)]

    async def test_hides_family_from_other_platforms(self, kit: Any) -> None:
        state = await kit.onboard()

        assert await kit.family(state, call=kit.partner_elsewhere) == []


class TestUpdateDependant:
    async def test_appends_version(self, kit: Any) -> None:
        state = await kit.onboard()
        added = await kit.add(state, last_name="Kumar", phone_number="9876543210")

        changed = await kit.update(added, first_name="Mina", last_name=None, status=INACTIVE, status_reason="moved")

        assert (changed.id, changed.version, changed.first_name) == (added.id, 2, "Mina")
        assert not changed.HasField("last_name")
        assert changed.phone_number == "+919876543210"
        assert (changed.status, changed.status_reason) == (INACTIVE, "moved")
        assert changed.first_created_at == added.first_created_at
        assert to_datetime(changed.created_at) > to_datetime(added.created_at)
        assert await kit.versions(added) == [changed, added]

    async def test_tells_who_wrote_each_version(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard())

        changed = await kit.update(added, first_name="Mina", call=kit.admin)

        assert (changed.created_by.type, changed.created_by.id) == (ActorType.ACTOR_TYPE_ADMIN, "asha")
        row = (await kit.history(added.id))[-1]
        assert (row.action, row.actor.id, row.changes) == ("dependant.update", "asha", '{"first_name": null}')

    async def test_changes_nothing_quietly(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard(), phone_number="9876543210")

        assert await kit.update(added) == added
        assert await kit.update(added, first_name="Meena", phone_number="098765-43210") == added

        assert len(await kit.versions(added)) == 1
        assert [row.action for row in await kit.history(added.id)][:1] == ["dependant.create"]

    async def test_finds_nothing_to_change_only_when_no_standby_can_lack_it(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard())
        with without_standby(kit.superuser_dsn):
            assert await waits_for_standby(kit.update(added, first_name="Meera"))
            # Everybody sees what was given up, so there is nothing left to change.
            assert await waits_for_standby(kit.update(added, first_name="Meera"))
        assert (await kit.update(added, first_name="Meera")).version == 2

    async def test_numbers_versions_without_gap_under_simultaneous_writers(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard())

        changed = await asyncio.gather(*(kit.update(added, first_name=f"Name {n}") for n in range(32)))

        versions = await kit.versions(added)
        assert [one.version for one in versions] == list(range(33, 0, -1))
        assert {one.first_name for one in versions} == {"Meena", *(f"Name {n}" for n in range(32))}
        assert sorted(one.version for one in changed) == list(range(2, 34))
        times = [to_datetime(one.created_at) for one in versions]
        assert times == sorted(set(times), reverse=True)

    async def test_lets_one_of_the_writers_of_a_version_through(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard())

        results = await asyncio.gather(
            *(kit.update(added, first_name=f"Name {n}", expected_version=1) for n in range(8)), return_exceptions=True
        )

        assert sum(isinstance(result, Dependant) for result in results) == 1
        assert sum(isinstance(result, VersionMismatch) for result in results) == 7

    async def test_keeps_versions_in_order_when_the_clock_runs_back(
        self, kit: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        added = await kit.add(await kit.onboard())
        lock = kit.dependant_rows.lock_family

        async def lock_early(tx: Any, user_id: UUID) -> datetime:
            return await lock(tx, user_id) - timedelta(hours=1)

        monkeypatch.setattr(kit.dependant_rows, "lock_family", lock_early)
        changed = await kit.update(added, first_name="Mina")

        assert to_datetime(changed.created_at) == to_datetime(added.created_at) + timedelta(microseconds=1)

    async def test_refuses_stale_version_before_anything_else(self, kit: Any) -> None:
        state = await kit.onboard()

        with pytest.raises(VersionMismatch):
            await kit.update(await kit.self_of(state), first_name="X", expected_version=7)

    async def test_refuses_self(self, kit: Any) -> None:
        state = await kit.onboard()

        with pytest.raises(SelfIsManaged):
            await kit.update(await kit.self_of(state), blood_group=BloodGroup.BLOOD_GROUP_A_POSITIVE)
        with pytest.raises(SelfIsManaged):
            await kit.update(await kit.add(state), relationship=SELF)

    async def test_refuses_removed(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard())
        await kit.remove(added)

        with pytest.raises(DependantRemoved):
            await kit.update(added, first_name="Mina")

    async def test_refuses_unknown(self, kit: Any) -> None:
        added, neighbour = await kit.add(await kit.onboard()), await kit.onboard()
        added.user_id = neighbour.user_id

        with pytest.raises(DependantUnknown):
            await kit.update(added, first_name="Mina", expected_version=9)

    async def test_refuses_operators_change_for_user_who_is_not_active(self, kit: Any) -> None:
        state = await kit.onboard()
        added = await kit.add(state)
        state.status = UserStatus.USER_STATUS_DEACTIVATED

        with pytest.raises(WrongUserStatus):
            async with kit.database.transaction(kit.admin) as tx:
                await kit.dependants.update_dependant(
                    tx, state, UUID(state.user_id), UUID(added.id), Dependant(first_name="X"), ["first_name"], None
                )

    @pytest.mark.parametrize(("field", "fields"), [case for case in BROKEN if "relationship" not in case[1]])
    async def test_refuses_broken_rule(self, kit: Any, field: str, fields: dict[str, Any]) -> None:
        added = await kit.add(await kit.onboard())

        with pytest.raises(DependantRuleBroken) as refusal:
            await kit.update(added, **fields)

        assert refused_fields(refusal) == [field]

    async def test_refuses_relationship_that_does_not_fit_the_birth_date(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard(), date_of_birth="1992-01-31")

        with pytest.raises(DependantRuleBroken):
            await kit.update(added, relationship=FATHER)
        assert (await kit.update(added, relationship=FATHER, date_of_birth="1960-01-01")).version == 2

    async def test_refuses_second_living_parent(self, kit: Any) -> None:
        state = await kit.onboard()
        await kit.add(state, relationship=FATHER, first_name="One", date_of_birth="1960-01-01")
        late = await kit.add(state, relationship=FATHER, first_name="Two", date_of_birth="1961-01-01", status=DECEASED)
        uncle = await kit.add(state, relationship=BROTHER, first_name="Three", date_of_birth="1962-01-01")

        with pytest.raises(DependantRuleBroken):
            await kit.update(late, status=ACTIVE)
        with pytest.raises(DependantRuleBroken):
            await kit.update(uncle, relationship=FATHER)
        await kit.update(uncle, relationship=FATHER, status=DECEASED)

    async def test_refuses_to_become_a_duplicate(self, kit: Any) -> None:
        state = await kit.onboard()
        await kit.add(state, first_name="Meena")
        other = await kit.add(state, first_name="Mina")

        with pytest.raises(DependantDuplicate):
            await kit.update(other, first_name="MEENA")

    async def test_holds_only_the_change_against_the_rules(self, kit: Any) -> None:
        state = await kit.onboard()
        son = await kit.add(state, relationship=SON, date_of_birth="2010-01-01")
        # The user turns out to be younger than the son, who may still change in all else.
        await kit.apply(kit.profile_event(state, version=3, date_of_birth="2012-01-01"))

        assert (await kit.update(son, first_name="Arun", status=INACTIVE)).version == 2
        with pytest.raises(DependantRuleBroken):
            await kit.update(son, date_of_birth="2010-01-02")
        assert (await kit.update(son, date_of_birth="2013-01-01")).version == 3


class TestDeleteDependant:
    async def test_appends_removed_version(self, kit: Any) -> None:
        state = await kit.onboard()
        added = await kit.add(state)

        await kit.remove(added, expected_version=1)

        shown = await kit.find(state, added.id)
        assert (shown.version, shown.status, shown.first_name) == (2, REMOVED, "Meena")
        row = (await kit.history(added.id))[-1]
        assert (row.action, row.changes) == ("dependant.delete", '{"status": ["active", "removed"]}')

    async def test_refuses_second_time(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard())
        await kit.remove(added)

        with pytest.raises(DependantRemoved):
            await kit.remove(added)

    async def test_refuses_self(self, kit: Any) -> None:
        with pytest.raises(SelfIsManaged):
            await kit.remove(await kit.self_of(await kit.onboard()))

    async def test_refuses_stale_version(self, kit: Any) -> None:
        added = await kit.add(await kit.onboard())

        with pytest.raises(VersionMismatch):
            await kit.remove(added, expected_version=2)


class TestHistory:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE dependants SET status = 'removed'",
            "DELETE FROM dependants",
            "TRUNCATE dependants",
            "SELECT * FROM dependants FOR UPDATE",
            "DROP TRIGGER dependants_refuses_change ON dependants",
        ],
    )
    @pytest.mark.parametrize("role", ["records_runtime", "records_admin", "records_worker"])
    async def test_refuses_change_to_the_services_own_login(self, kit: Any, role: str, statement: str) -> None:
        await kit.add(await kit.onboard())

        with psycopg.connect(kit.runtime_dsn) as connection:
            connection.execute(f"SET ROLE {role}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)

    @pytest.mark.parametrize(
        "statement", ["UPDATE dependants SET status = 'removed'", "DELETE FROM dependants", "TRUNCATE dependants"]
    )
    async def test_refuses_change_even_to_a_superuser(self, kit: Any, statement: str) -> None:
        await kit.add(await kit.onboard())

        with kit.superuser() as connection, pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(statement)

    async def test_is_read_by_keys_only(self, kit: Any) -> None:
        """A person's newest version and a page of a family cost the same however long the histories are."""
        state = await kit.onboard()
        added = await kit.add(state)
        for number in range(5):
            await kit.update(added, first_name=f"Name {number}")
        caller = Call(Caller(CallerType.USER, state.user_id, UUID(state.platform_id)))

        # A connection of its own, which has no plan in mind yet.
        database = Database(kit.runtime_dsn, SERVICE)

        async def rows_read(look: Any) -> int:
            async with database.transaction(caller) as tx:
                # On a table this small the planner would not bother with an index.
                await tx.connection.exec_driver_sql(
                    "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off"
                )
                before: int = (await tx.connection.exec_driver_sql(READ)).scalar_one()
                await look(tx)
                return (await tx.connection.exec_driver_sql(READ)).scalar_one() - before

        assert await rows_read(lambda tx: kit.dependant_rows.find(tx, UUID(added.id))) == 1
        assert await rows_read(lambda tx: kit.dependant_rows.list_family(tx, UUID(state.user_id))) == 4
        await database.close()


original = service.day_in
