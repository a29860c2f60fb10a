"""The rules about users, on a real database."""

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from aarokya.identity.v1.user_pb2 import Gender, IdProof, IdProofType, User, UserStatus
from identity.platforms.errors import PlatformArchived
from identity.users.erasures import ErasureList
from identity.users.errors import PhoneTaken, ProfileIncomplete, UserRuleBroken, UserUnknown, WrongUserStatus
from servicekit.caller import system_call
from servicekit.erasures import Erasure, ErasureFile
from servicekit.errors import InvalidField, VersionMismatch
from tests.database_server import waits_for_standby, without_standby

ONBOARDING = UserStatus.USER_STATUS_ONBOARDING
ACTIVE = UserStatus.USER_STATUS_ACTIVE
DEACTIVATED = UserStatus.USER_STATUS_DEACTIVATED
LICENSE = IdProof(proof_type=IdProofType.ID_PROOF_TYPE_DRIVING_LICENSE, number="KA0120190001234")
NEVER_PERSONAL = {
    "id",
    "platform_id",
    "status",
    "version",
    "created_at",
    "updated_at",
    "onboarded_at",
    "deactivated_at",
    "erased_at",
}


def fields_of(refused: pytest.ExceptionInfo[Any]) -> list[str]:
    return [detail.field for detail in refused.value.details]


class TestGetUser:
    async def get(self, rules: Any, by: Any, user_id: str) -> User:
        async with rules.database.transaction(by) as tx:
            stored = await rules.users.get_user(tx, UUID(user_id))
        return stored.user

    async def test_notes_an_operators_look(self, rules: Any) -> None:
        user = await rules.add_user()
        assert await self.get(rules, rules.admin, user.id) == user
        row = (await rules.history(user.id))[-1]
        assert (row.action, row.actor.id, row.user_id) == ("user.read", "asha", user.id)
        assert row.platform_id == user.platform_id

    async def test_notes_no_look_at_oneself(self, rules: Any) -> None:
        user = await rules.add_user()
        assert await self.get(rules, rules.user_of(user), user.id) == user
        assert [row.action for row in await rules.history(user.id)] == ["user.create"]

    async def test_hides_all_others_from_a_user(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user, colleague, stranger = (
            await rules.add_user(platform),
            await rules.add_user(platform),
            await rules.add_user(),
        )
        for other in (colleague.id, stranger.id, str(uuid4())):
            with pytest.raises(UserUnknown):
                await self.get(rules, rules.user_of(user), other)

    async def test_refuses_an_unknown_id(self, rules: Any) -> None:
        with pytest.raises(UserUnknown):
            await self.get(rules, rules.admin, str(uuid4()))


class TestListUsers:
    async def test_finds_a_number_on_all_platforms_however_it_is_written(self, rules: Any) -> None:
        number = rules.new_number()
        users = [(await rules.issue_token(await rules.add_platform(), number)).stored.user.id for _ in range(2)]
        for written in (number, f"0{number}", f"+91{number}", f"+91 {number[:5]}-{number[5:]}"):
            assert await rules.list_users(phone_number=written) == users[::-1]

    async def test_narrows_by_platform_and_status(self, rules: Any) -> None:
        platform = await rules.add_platform()
        onboarding, active = await rules.add_user(platform), await rules.add_active_user(platform)
        assert await rules.list_users(platform_id=UUID(platform.id)) == [active.id, onboarding.id]
        assert await rules.list_users(platform_id=UUID(platform.id), status="active") == [active.id]
        assert active.id in await rules.list_users(status="active")
        assert onboarding.id not in await rules.list_users(status="active")

    async def test_refuses_a_number_that_no_mobile_has(self, rules: Any) -> None:
        with pytest.raises(UserRuleBroken) as refused:
            await rules.list_users(phone_number="080 2222 1111")
        assert fields_of(refused) == ["phone_number"]

    async def test_notes_the_look_at_those_who_are_found(self, rules: Any) -> None:
        platform = await rules.add_platform()
        await rules.add_user(platform)
        await rules.list_users(platform_id=UUID(platform.id))
        with rules.superuser() as connection:
            noted = connection.execute(
                "SELECT actor_id, count FROM audit_log WHERE action = 'user.list' AND platform_id = %s", (platform.id,)
            ).fetchall()
        assert noted == [("asha", 1)]

    async def test_notes_whose_number_it_was(self, rules: Any) -> None:
        user, other = await rules.add_user(), await rules.add_user()
        await rules.list_users(phone_number=user.phone_number)
        assert (await rules.history(user.id))[-1].action == "user.read"
        assert [row.action for row in await rules.history(other.id)] == ["user.create"]

    async def test_reads_national_digits_as_the_named_platform_does(self, rules: Any) -> None:
        platform = await rules.add_platform(default_phone_country_code="+971")
        user = (await rules.issue_token(platform, "501234567")).stored.user
        assert user.phone_number == "+971501234567"
        found = await rules.list_users(phone_number="501234567", platform_id=UUID(platform.id))
        assert found == [user.id]

    async def test_finds_nobody_on_an_unknown_platform(self, rules: Any) -> None:
        user = await rules.add_user()
        assert await rules.list_users(phone_number=user.phone_number, platform_id=uuid4()) == []

    async def test_does_not_find_a_released_or_erased_number(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        assert await rules.list_users(phone_number=user.phone_number) == [user.id]
        await rules.release_phone(user)
        assert await rules.list_users(phone_number=user.phone_number) == []


class TestUpdateUser:
    async def test_changes_what_is_named_and_nothing_else(self, rules: Any) -> None:
        user = await rules.add_user(first_name="Ravi", last_name="Kumar")
        changed = await rules.update_user(user, city="Bengaluru", last_name=None, id_proof=LICENSE)

        assert (changed.first_name, changed.city, changed.version) == ("Ravi", "Bengaluru", 2)
        assert not changed.HasField("last_name")
        assert changed.updated_at.ToDatetime() > user.updated_at.ToDatetime()
        assert await rules.find_user(user.id) == changed
        row = (await rules.history(user.id))[-1]
        assert (row.action, row.actor.id) == ("user.update", user.id)
        assert row.changes == '{"city": null, "id_proof": null, "last_name": null}'

    async def test_keeps_the_person_out_of_every_clear_column(self, rules: Any) -> None:
        user = await rules.add_user()
        secret = f"Zuleikha{uuid4().hex}"
        await rules.update_user(user, first_name=secret, address_line=secret, metadata=f'{{"x":"{secret}"}}')
        with rules.superuser() as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for (table,) in tables:
                for (row,) in connection.execute(f"SELECT row(t)::text FROM {table} t"):
                    assert secret not in row
                    assert secret.encode().hex() not in row
                    assert user.phone_number[3:] not in row

    @pytest.mark.parametrize("same", [{}, {"first_name": "Ravi"}, {"city": None}])
    async def test_leaves_no_trace_of_a_change_that_changes_nothing(self, rules: Any, same: dict[str, Any]) -> None:
        user = await rules.add_user(first_name="Ravi")
        assert await rules.update_user(user, **same) == user
        assert len(await rules.history(user.id)) == 1

    async def test_names_all_broken_rules_at_once(self, rules: Any) -> None:
        user = await rules.add_user()
        with pytest.raises(UserRuleBroken) as refused:
            await rules.update_user(user, pincode="0", email="x", date_of_birth="2025-01-01")
        assert sorted(fields_of(refused)) == ["date_of_birth", "email", "pincode"]
        assert await rules.find_user(user.id) == user

    async def test_counts_the_age_in_the_products_time_zone(self, rules: Any) -> None:
        today = datetime.now(ZoneInfo("Asia/Kolkata")).date()
        user = await rules.add_user(await rules.add_platform(min_user_age=0))
        assert (await rules.update_user(user, date_of_birth=str(today))).date_of_birth == str(today)
        with pytest.raises(UserRuleBroken):
            await rules.update_user(user, date_of_birth=str(date.fromordinal(today.toordinal() + 1)))

    @pytest.mark.parametrize("field", ["first_name", "gender", "date_of_birth"])
    async def test_keeps_an_active_users_three_required_fields(self, rules: Any, field: str) -> None:
        user = await rules.add_active_user()
        with pytest.raises(UserRuleBroken) as refused:
            await rules.update_user(user, **{field: None})
        assert fields_of(refused) == [field]

    async def test_lets_an_onboarding_user_clear_them(self, rules: Any) -> None:
        user = await rules.add_user(**rules.profile)
        assert not (await rules.update_user(user, first_name=None)).HasField("first_name")

    async def test_lets_an_active_user_clear_what_the_platform_added(self, rules: Any) -> None:
        platform = await rules.add_platform(required_profile_fields=["city"])
        user = await rules.add_active_user(platform, city="Bengaluru")
        assert not (await rules.update_user(user, city=None)).HasField("city")

    async def test_tells_records_what_self_shows(self, rules: Any) -> None:
        user = await rules.add_active_user(last_name="Kumar")
        await rules.events_of(user)
        changed = await rules.update_user(user, last_name=None, abha_number="91123456789012")
        [event] = await rules.events_of(user)
        assert (event.user_id, event.platform_id) == (user.id, user.platform_id)
        assert event.user_version == changed.version
        assert event.profile.abha_number == "91123456789012"
        assert event.profile.phone_number == user.phone_number
        assert not event.profile.HasField("last_name")

    async def test_tells_records_nothing_else(self, rules: Any) -> None:
        onboarding = await rules.add_user()
        await rules.update_user(onboarding, first_name="Ravi")
        assert await rules.events_of(onboarding) == []
        active = await rules.add_active_user()
        await rules.events_of(active)
        await rules.update_user(active, city="Bengaluru")
        assert await rules.events_of(active) == []

    async def test_takes_back_from_self_a_number_that_was_released(self, rules: Any) -> None:
        user = await rules.add_deactivated_user(last_name="Kumar")
        await rules.events_of(user)
        await rules.release_phone(user)
        [event] = await rules.events_of(user)
        assert not event.profile.HasField("phone_number")
        assert event.profile.last_name == "Kumar"
        await rules.reactivate(user)
        [event] = await rules.events_of(user)
        assert event.profile.phone_number == user.phone_number

    async def test_tells_records_nothing_of_the_number_of_somebody_without_self(self, rules: Any) -> None:
        user = await rules.add_user()
        await rules.deactivate(user)
        await rules.release_phone(user)
        await rules.reactivate(user)
        assert await rules.events_of(user) == []

    async def test_does_not_judge_again_what_stays_as_it_is(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user = await rules.add_active_user(platform)
        await rules.update_platform(platform.id, min_user_age=100)
        changed = await rules.update_user(user, date_of_birth=user.date_of_birth, city="Bengaluru")
        assert changed.city == "Bengaluru"
        with pytest.raises(UserRuleBroken):
            await rules.update_user(user, date_of_birth="1990-05-18")

    async def test_lets_operators_change_the_number(self, rules: Any) -> None:
        user, number = await rules.add_active_user(), rules.new_number()
        await rules.events_of(user)
        changed = await rules.update_user(user, by=rules.admin, phone_number=f"0{number}")
        assert changed.phone_number == f"+91{number}"
        [event] = await rules.events_of(user)
        assert event.profile.phone_number == f"+91{number}"
        assert (await rules.history(user.id))[-1].changes == '{"phone_number": null}'
        assert await rules.list_users(phone_number=number) == [user.id]
        assert await rules.list_users(phone_number=user.phone_number) == []

    async def test_finds_the_same_number_unchanged(self, rules: Any) -> None:
        user = await rules.add_user()
        assert await rules.update_user(user, by=rules.admin, phone_number=user.phone_number[3:]) == user

    async def test_refuses_a_number_that_is_taken_on_the_platform(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user, other, elsewhere = await rules.add_user(platform), await rules.add_user(platform), await rules.add_user()
        with pytest.raises(PhoneTaken):
            await rules.update_user(user, by=rules.admin, phone_number=other.phone_number)
        changed = await rules.update_user(user, by=rules.admin, phone_number=elsewhere.phone_number)
        assert changed.phone_number == elsewhere.phone_number

    async def test_refuses_a_number_that_no_mobile_has(self, rules: Any) -> None:
        with pytest.raises(UserRuleBroken) as refused:
            await rules.update_user(await rules.add_user(), by=rules.admin, phone_number="080 2222 1111", pincode="0")
        assert sorted(fields_of(refused)) == ["phone_number", "pincode"]

    async def test_takes_the_number_for_a_wrong_shape_before_anything_else(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        with pytest.raises(InvalidField) as refused:
            await rules.update_user(user, expected_version=77, phone_number=rules.new_number())
        assert fields_of(refused) == ["phone_number"]
        with pytest.raises(InvalidField):
            await rules.update_user(user, by=rules.admin, phone_number=None)

    async def test_refuses_another_version_before_the_status(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        with pytest.raises(VersionMismatch):
            await rules.update_user(user, by=rules.admin, expected_version=user.version + 1, pincode="0")
        with pytest.raises(WrongUserStatus):
            await rules.update_user(user, by=rules.admin, expected_version=user.version, pincode="0")

    async def test_loses_no_update_of_two_at_once(self, rules: Any) -> None:
        user = await rules.add_user()
        await asyncio.gather(rules.update_user(user, city="Bengaluru"), rules.update_user(user, pincode="560001"))
        user = await rules.find_user(user.id)
        assert (user.city, user.pincode, user.version) == ("Bengaluru", "560001", 3)

    async def test_hides_other_users(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user, other = await rules.add_user(platform), await rules.add_user(platform)
        for by in (rules.user_of(other), rules.user_of(await rules.add_user())):
            with pytest.raises(UserUnknown):
                await rules.update_user(user, by=by, city="Bengaluru")


class TestCompleteOnboarding:
    async def test_makes_the_user_active_and_tells_records(self, rules: Any) -> None:
        user = await rules.add_user()
        active = await rules.complete_onboarding(user, **rules.profile, city="Bengaluru")

        assert (active.status, active.version, active.city) == (ACTIVE, 2, "Bengaluru")
        assert active.onboarded_at == active.updated_at
        assert await rules.find_user(user.id) == active
        [event] = await rules.events_of(user)
        assert (event.user_version, event.profile.first_name) == (2, "Ravi")
        assert event.profile.gender == Gender.GENDER_MALE
        assert event.profile.date_of_birth == "1990-05-17"
        row = (await rules.history(user.id))[-1]
        assert row.action == "user.complete_onboarding"
        assert '"status": ["onboarding", "active"]' in row.changes
        assert "Ravi" not in row.changes

    async def test_needs_no_body_when_the_profile_is_complete(self, rules: Any) -> None:
        user = await rules.add_user(**rules.profile)
        assert (await rules.complete_onboarding(user, by=rules.admin)).status == ACTIVE

    async def test_names_all_that_is_missing(self, rules: Any) -> None:
        required = ["first_name", "gender", "date_of_birth", "id_proof_type", "city", "last_name"]
        user = await rules.add_user(await rules.add_platform(required_profile_fields=required), last_name="Kumar")
        with pytest.raises(ProfileIncomplete) as refused:
            await rules.complete_onboarding(user)
        assert fields_of(refused) == required[:-1]
        with pytest.raises(ProfileIncomplete) as refused:
            await rules.complete_onboarding(user, **rules.profile, id_proof=LICENSE)
        assert fields_of(refused) == ["city"]
        assert await rules.find_user(user.id) == user
        assert await rules.events_of(user) == []

    async def test_refuses_broken_rules(self, rules: Any) -> None:
        with pytest.raises(UserRuleBroken) as refused:
            await rules.complete_onboarding(await rules.add_user(), first_name="Ravi", date_of_birth="2025-01-01")
        assert fields_of(refused) == ["date_of_birth"]

    async def test_judges_the_age_by_the_platforms_present_minimum(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user = await rules.add_user(platform, **rules.profile)
        await rules.update_platform(platform.id, min_user_age=100)
        with pytest.raises(UserRuleBroken) as refused:
            await rules.complete_onboarding(user)
        assert fields_of(refused) == ["date_of_birth"]

    async def test_refuses_active_and_deactivated_users(self, rules: Any) -> None:
        user = await rules.add_active_user()
        with pytest.raises(WrongUserStatus):
            await rules.complete_onboarding(user, pincode="0")
        await rules.deactivate(user)
        with pytest.raises(WrongUserStatus):
            await rules.complete_onboarding(user, by=rules.admin)

    async def test_happens_once_of_two_at_once(self, rules: Any) -> None:
        user = await rules.add_user(**rules.profile)
        outcomes = await asyncio.gather(*(rules.complete_onboarding(user) for _ in range(2)), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["User", "WrongUserStatus"]
        assert len(await rules.events_of(user)) == 1


class TestDeactivateUser:
    @pytest.mark.parametrize("is_active", [True, False])
    async def test_ends_the_membership_and_the_tokens(self, rules: Any, is_active: bool) -> None:
        user = await (rules.add_active_user() if is_active else rules.add_user())
        await rules.deactivate(user, expected_version=user.version)

        after = await rules.find_user(user.id)
        assert (after.status, after.version) == (DEACTIVATED, user.version + 1)
        assert after.deactivated_at == after.updated_at
        assert after.phone_number == user.phone_number
        async with rules.database.transaction(rules.gateway) as tx:
            assert (await rules.user_rows.find(tx, UUID(user.id))).token_generation == 1
        row = (await rules.history(user.id))[-1]
        assert (row.action, row.actor.id) == ("user.deactivate", user.id)

    async def test_changes_nothing_once_more(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        rows = len(await rules.history(user.id))
        await rules.deactivate(user, by=rules.admin)
        assert await rules.find_user(user.id) == user
        assert len(await rules.history(user.id)) == rows

    async def test_refuses_another_version(self, rules: Any) -> None:
        user = await rules.add_user()
        with pytest.raises(VersionMismatch):
            await rules.deactivate(user, expected_version=9)


class TestReactivateUser:
    @pytest.mark.parametrize("status", [ACTIVE, ONBOARDING])
    async def test_goes_back_to_the_status_before(self, rules: Any, status: Any) -> None:
        user = await (rules.add_active_user() if status == ACTIVE else rules.add_user())
        await rules.deactivate(user)
        back = await rules.reactivate(user, "He came back.")

        assert (back.status, back.version) == (status, user.version + 2)
        assert not back.HasField("deactivated_at")
        assert back.phone_number == user.phone_number
        async with rules.database.transaction(rules.gateway) as tx:
            assert (await rules.user_rows.find(tx, UUID(user.id))).token_generation == 1
        row = (await rules.history(user.id))[-1]
        assert (row.action, row.reason) == ("user.reactivate", "He came back.")

    async def test_takes_a_released_number_back(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        await rules.release_phone(user)
        assert (await rules.reactivate(user)).phone_number == user.phone_number
        assert await rules.list_users(phone_number=user.phone_number) == [user.id]

    async def test_refuses_when_the_released_number_is_in_use(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user = await rules.add_deactivated_user(platform)
        await rules.release_phone(user)
        successor = (await rules.issue_token(platform, user.phone_number)).stored.user
        with pytest.raises(PhoneTaken):
            await rules.reactivate(user)
        await rules.deactivate(successor)
        with pytest.raises(PhoneTaken):
            await rules.reactivate(user)
        await rules.release_phone(successor)
        assert (await rules.reactivate(user)).phone_number == user.phone_number

    async def test_refuses_who_is_not_deactivated(self, rules: Any) -> None:
        for user in (await rules.add_user(), await rules.add_active_user()):
            with pytest.raises(WrongUserStatus):
                await rules.reactivate(user)

    async def test_refuses_an_archived_platform(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user = await rules.add_deactivated_user(platform)
        await rules.archive_platform(platform.id)
        with pytest.raises(PlatformArchived):
            await rules.reactivate(user)

    async def test_refuses_an_unknown_user(self, rules: Any) -> None:
        with pytest.raises(UserUnknown):
            await rules.reactivate(User(id=str(uuid4())))


class TestReleasePhone:
    async def test_frees_the_number_for_a_new_user(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user = await rules.add_deactivated_user(platform)
        released = await rules.release_phone(user, "The SIM was recycled.")

        assert released.phone_released_at is not None
        assert released.user.version == user.version + 1
        issued = await rules.issue_token(platform, user.phone_number)
        assert issued.is_new_user
        assert issued.stored.user.id != user.id
        row = (await rules.history(user.id))[-1]
        assert (row.action, row.reason, row.changes) == (
            "user.release_phone",
            "The SIM was recycled.",
            '{"phone_number": null}',
        )

    async def test_changes_nothing_once_more(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        released = await rules.release_phone(user)
        assert await rules.release_phone(user) == released
        told = [row.action for row in await rules.history(user.id)]
        # The second answer shows an operator the person, as a reading does.
        assert told[-2:] == ["user.release_phone", "user.read"]

    async def test_refuses_who_is_not_deactivated_or_is_erased(self, rules: Any) -> None:
        for user in (await rules.add_user(), await rules.add_active_user()):
            with pytest.raises(WrongUserStatus):
                await rules.release_phone(user)
        erased = await rules.add_deactivated_user()
        await rules.erase(erased)
        with pytest.raises(WrongUserStatus):
            await rules.release_phone(erased)


class TestEraseUser:
    async def test_leaves_nothing_personal(self, rules: Any) -> None:
        platform = await rules.add_platform()
        user = await rules.add_deactivated_user(platform, last_name="Kumar", id_proof=LICENSE, metadata="{}")
        erased = await rules.erase(user, "Ticket 4711.")

        assert {field.name for field, _ in erased.ListFields()} == NEVER_PERSONAL
        assert (erased.status, erased.version) == (DEACTIVATED, user.version + 1)
        assert erased.erased_at == erased.updated_at
        assert erased.onboarded_at == user.onboarded_at
        assert await rules.find_user(user.id) == erased
        assert (await rules.issue_token(platform, user.phone_number)).is_new_user
        with rules.superuser() as connection:
            wrapped = connection.execute("SELECT wrapped FROM data_keys WHERE owner_id = %s", (user.id,)).fetchone()
        assert wrapped == (None,)

    async def test_keeps_its_reason_but_no_earlier_one(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        await rules.release_phone(user, "Ravi has lost his SIM.")
        await rules.erase(user, "Ticket 4711.")
        rows = {row.action: row for row in await rules.history(user.id)}
        assert not rows["user.release_phone"].HasField("reason")
        assert rows["user.erase"].reason == "Ticket 4711."
        assert '"first_name": null' in rows["user.erase"].changes

    async def test_tells_records_after_what_it_makes_unreadable(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        erased = await rules.erase(user)
        # Onboarding's event was never delivered, and can't be any more.
        [lost, event] = await rules.events_of(user)
        assert lost is None
        assert (event.erased, event.user_id, event.platform_id) == (True, user.id, user.platform_id)
        assert event.user_version == erased.version

    async def test_changes_nothing_once_more(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        erased = await rules.erase(user)
        assert await rules.erase(user) == erased

    async def test_refuses_who_is_not_deactivated(self, rules: Any) -> None:
        for user in (await rules.add_user(), await rules.add_active_user()):
            with pytest.raises(WrongUserStatus):
                await rules.erase(user)

    async def test_is_for_good(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        erased = await rules.erase(user)
        with pytest.raises(WrongUserStatus):
            await rules.reactivate(user)
        with pytest.raises(WrongUserStatus):
            await rules.update_user(user, by=rules.admin, first_name="Ravi")
        with pytest.raises(WrongUserStatus):
            await rules.complete_onboarding(user, by=rules.admin, **rules.profile)
        await rules.deactivate(user, by=rules.admin)
        assert await rules.find_user(user.id) == erased

    @pytest.mark.parametrize("operation", ["reactivate", "release_phone", "erase"])
    async def test_is_seen_by_who_waits_for_it(self, rules: Any, operation: str) -> None:
        user = await rules.add_deactivated_user()
        async with rules.as_admin() as tx:
            erased = await rules.users.erase_user(tx, UUID(user.id), "Ticket 4711.")
            waiting = asyncio.ensure_future(getattr(rules, operation)(user))
            await rules.wait_until_blocked()
        if operation == "erase":
            assert await waiting == erased.user
        else:
            with pytest.raises(WrongUserStatus):
                await waiting


class TestEraseAgain:
    """What a restored backup has brought back."""

    async def erase_again(self, rules: Any, user: User) -> bool:
        erasure = Erasure(UUID(user.id), UUID(user.platform_id), datetime(2026, 11, 1, tzinfo=UTC))
        async with rules.database.transaction(system_call("identity")) as tx:
            return bool(await rules.users.erase_again(tx, erasure))

    @pytest.mark.parametrize("status", ["onboarding", "active", "deactivated"])
    async def test_erases_whatever_the_status_was(self, rules: Any, status: str) -> None:
        platform = await rules.add_platform()
        user = await getattr(rules, {"onboarding": "add_user"}.get(status, f"add_{status}_user"))(platform)

        assert await self.erase_again(rules, user) is True

        erased = await rules.find_user(user.id)
        assert (erased.status, erased.HasField("first_name")) == (DEACTIVATED, False)
        assert erased.erased_at.ToDatetime(UTC) == datetime(2026, 11, 1, tzinfo=UTC)
        assert erased.HasField("deactivated_at")
        assert (await rules.issue_token(platform, user.phone_number)).is_new_user
        *_, row = await rules.history(user.id)
        assert (row.action, row.actor.id, row.reason) == (
            "user.erase",
            "identity",
            "Erased before the backup was restored.",
        )
        *_, event = await rules.events_of(user)
        assert event.erased

    async def test_erases_who_has_no_data_key_any_more(self, rules: Any) -> None:
        """The rows are of the backup, the data keys of today."""
        platform = await rules.add_platform()
        user = await rules.add_active_user(platform)
        async with rules.database.transaction(system_call("identity")) as tx:
            await rules.user_rows._keys.destroy(tx, UUID(user.id), UUID(platform.id))
            back = {erasure.user_id for erasure in await rules.user_rows.list_without_key(tx)}
        assert UUID(user.id) in back

        assert await self.erase_again(rules, user) is True

        assert (await rules.find_user(user.id)).HasField("erased_at")
        assert (await rules.issue_token(platform, user.phone_number)).is_new_user
        async with rules.database.transaction(system_call("identity")) as tx:
            assert UUID(user.id) not in {erasure.user_id for erasure in await rules.user_rows.list_without_key(tx)}

    async def test_does_nothing_once_more_or_for_nobody(self, rules: Any) -> None:
        user = await rules.add_deactivated_user()
        erased = await rules.erase(user)
        assert await self.erase_again(rules, user) is False
        assert await rules.find_user(user.id) == erased
        assert await self.erase_again(rules, User(id=str(uuid4()), platform_id=user.platform_id)) is False


class TestErasureList:
    async def test_names_whoever_is_erased(self, rules: Any, tmp_path: Path) -> None:
        file = ErasureFile(tmp_path / "heads.erasures")
        before, during, spared = [await rules.add_deactivated_user() for _ in range(3)]
        await rules.erase(before)
        for erased in ([before], [before, during]):
            writing = asyncio.create_task(ErasureList(rules.database, rules.user_rows, file).run())
            while UUID(erased[-1].id) not in {one.user_id for one in file.read()}:  # noqa: ASYNC110  # a file has no event
                await asyncio.sleep(0.01)
            writing.cancel()
            await rules.erase(during)
        listed = [str(erasure.user_id) for erasure in file.read()]
        assert listed.index(before.id) < listed.index(during.id)
        assert spared.id not in listed

    async def test_names_nobody_whose_erasure_a_standby_may_lack(self, rules: Any, tmp_path: Path) -> None:
        file = ErasureFile(tmp_path / "heads.erasures")
        user = await rules.add_deactivated_user()
        names = ErasureList(rules.database, rules.user_rows, file)
        with without_standby(rules.superuser_dsn):
            assert await waits_for_standby(rules.erase(user))
            assert await waits_for_standby(names._write())
            assert UUID(user.id) not in {erasure.user_id for erasure in file.read()}
        await names._write()
        assert UUID(user.id) in {erasure.user_id for erasure in file.read()}

    async def test_waits_for_a_file_that_cannot_be_read(self, rules: Any, tmp_path: Path) -> None:
        path = tmp_path / "heads.erasures"
        path.mkdir()
        user = await rules.add_deactivated_user()
        await rules.erase(user)
        writing = asyncio.create_task(ErasureList(rules.database, rules.user_rows, ErasureFile(path)).run())
        await asyncio.sleep(0.2)
        assert not writing.done()
        path.rmdir()
        async with asyncio.timeout(5):
            while UUID(user.id) not in {one.user_id for one in ErasureFile(path).read()}:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
        writing.cancel()
