"""What happens in records when identity tells of a user, on a real database."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert

from aarokya.identity.v1.live_state_service_pb2 import UserState
from aarokya.identity.v1.user_pb2 import UserStatus
from aarokya.records.v1.account_pb2 import Account, AccountStatus, AccountVerificationStatus
from aarokya.records.v1.dependant_pb2 import ActorType, DependantStatus, Gender, Relationship
from aarokya.records.v1.mrn_pb2 import Mrn, MrnSource
from records.accounts.repository import AccountRepository
from records.models import accounts, mrns
from records.mrns.repository import MrnRepository
from records.users.errors import WrongUserStatus
from records.users.repository import UserRepository
from servicekit.data_keys import OwnerErased
from servicekit.database import Transaction
from servicekit.erasures import Erasure
from tests.database_server import waits_for_standby, without_standby

SELF = Relationship.RELATIONSHIP_SELF
ACTIVE = DependantStatus.DEPENDANT_STATUS_ACTIVE


async def write(kit: Any, tx: Transaction, state: UserState, dependant_id: str, what: str) -> None:
    """Store an account or an MRN in an open transaction."""
    row_id = str(uuid4())
    if what == "account":
        account = Account(id=row_id, user_id=state.user_id, type="ACCOUNT_TYPE_UPI", account_number="ravi@okbank")
        account.status = AccountStatus.ACCOUNT_STATUS_ACTIVE
        account.is_primary = True
        account.verification_status = AccountVerificationStatus.ACCOUNT_VERIFICATION_STATUS_UNVERIFIED
        account.created_at.FromDatetime(tx.now)
        account.updated_at.FromDatetime(tx.now)
        await AccountRepository(kit.keys, kit.hashes).insert(tx, account)
    else:
        mrn = Mrn(id=row_id, user_id=state.user_id, dependant_id=dependant_id, mrn="MRN-1")
        mrn.benefit_provider_id = str(uuid4())
        mrn.source = MrnSource.MRN_SOURCE_USER
        mrn.created_at.FromDatetime(tx.now)
        await MrnRepository(kit.keys, kit.hashes).insert_unless_taken(tx, mrn)


def is_blocked(kit: Any) -> bool:
    """Return whether one of the database's sessions waits for a lock of another."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with kit.superuser() as connection:
        return bool(connection.execute(waiting).fetchone() != (0,))


class TestProfile:
    async def test_makes_self_at_onboarding(self, kit: Any) -> None:
        state = await kit.onboard(abha_number="91234567890123", abha_address="ravi@abdm")

        (me,) = await kit.family(state)

        assert (me.relationship, me.version, me.status) == (SELF, 1, ACTIVE)
        assert (me.user_id, me.platform_id) == (state.user_id, state.platform_id)
        assert (me.first_name, me.last_name, me.gender) == ("Ravi", "Kumar", Gender.GENDER_MALE)
        assert not me.HasField("middle_name")
        assert (me.date_of_birth, me.phone_number) == ("1990-05-17", "+919876543210")
        assert (me.abha_number, me.abha_address) == ("91234567890123", "ravi@abdm")
        assert (me.created_by.type, me.created_by.id) == (ActorType.ACTOR_TYPE_SYSTEM, "identity")
        (row,) = await kit.history(me.id)
        assert (row.action, row.actor.id, row.platform_id) == ("dependant.create", "identity", state.platform_id)

    async def test_appends_version_when_profile_changes(self, kit: Any) -> None:
        state = await kit.onboard()
        before = await kit.self_of(state)

        changed = kit.profile_event(state, version=3, first_name="Ravindra")
        changed.profile.ClearField("last_name")
        await kit.apply(changed)

        after = await kit.self_of(state)
        assert (after.id, after.version, after.first_name) == (before.id, 2, "Ravindra")
        assert not after.HasField("last_name")
        assert await kit.versions(before) == [after, before]

    async def test_appends_nothing_when_self_says_so_already(self, kit: Any) -> None:
        state = await kit.onboard()

        await kit.apply(kit.profile_event(state, version=3))

        assert (await kit.self_of(state)).version == 1

    async def test_applies_event_once(self, kit: Any) -> None:
        state = await kit.onboard()
        event = kit.profile_event(state, version=3, first_name="Ravindra")

        await asyncio.gather(*(kit.apply(event) for _ in range(8)))
        await kit.apply(kit.profile_event(state, version=4, first_name="Ravi"))
        await kit.apply(event)

        assert (await kit.self_of(state)).first_name == "Ravi"
        assert (await kit.self_of(state)).version == 3

    async def test_takes_an_event_for_applied_only_when_no_standby_can_lack_it(self, kit: Any) -> None:
        state = await kit.onboard()
        event = kit.profile_event(state, version=3, first_name="Ravindra")
        with without_standby(kit.superuser_dsn):
            assert await waits_for_standby(kit.apply(event))
            # Everybody sees what was given up, so it is found to be applied.
            assert (await kit.self_of(state)).first_name == "Ravindra"
            assert await waits_for_standby(kit.apply(event))
        await kit.apply(event)

    async def test_skips_event_that_comes_late(self, kit: Any) -> None:
        state = await kit.onboard()
        await kit.apply(kit.profile_event(state, version=5, first_name="Newest"))

        await kit.apply(kit.profile_event(state, version=4, first_name="Late"))

        assert (await kit.self_of(state)).first_name == "Newest"

    async def test_makes_one_self_of_simultaneous_events(self, kit: Any) -> None:
        state = kit.state()

        await asyncio.gather(
            *(kit.apply(kit.profile_event(state, version=n, first_name=f"Name {n}")) for n in range(2, 10))
        )

        me = await kit.self_of(state)
        assert me.first_name == "Name 9"
        assert [one.version for one in await kit.versions(me)] == list(range(me.version, 0, -1))

    async def test_is_refused_a_second_self_by_the_database(self, kit: Any) -> None:
        state = await kit.onboard()

        with kit.superuser() as connection, pytest.raises(Exception, match="uq_dependants_self"):
            connection.execute(
                "INSERT INTO dependants SELECT gen_random_uuid(), version, user_id, platform_id, relationship, status,"
                " created_at, first_created_at, created_by_type, created_by_id, sealed FROM dependants"
                " WHERE user_id = %s",
                (state.user_id,),
            )


class TestErased:
    async def test_makes_person_unreadable_in_all_versions(self, kit: Any) -> None:
        state = await kit.onboard()
        added = await kit.add(state, phone_number="9876543210")
        await kit.update(added, first_name="Mina", status_reason="typing mistake")

        await kit.apply(kit.erased_event(state))

        for one in [*await kit.versions(added), *await kit.family(state, call=kit.admin)]:
            for field in ("first_name", "last_name", "gender", "date_of_birth", "phone_number", "status_reason"):
                assert not one.HasField(field)
            assert (one.user_id, one.status) == (state.user_id, ACTIVE)
            assert one.created_by.id
        assert [one.version for one in await kit.versions(added)] == [2, 1]
        assert len(await kit.family(state)) == 2

    async def test_takes_away_what_numbers_are_found_by(self, kit: Any) -> None:
        state = await kit.onboard()
        mine = {"user_id": UUID(state.user_id), "platform_id": UUID(state.platform_id), "version": 1, "sealed": b"x"}
        async with kit.database.transaction(kit.identity) as tx:
            await tx.execute(
                insert(accounts).values(
                    id=uuid4(),
                    type="UPI",
                    is_primary=True,
                    verification_status="unverified",
                    status="active",
                    number_hash=b"hash",
                    created_at=tx.now,
                    updated_at=tx.now,
                    **mine,
                )
            )
            await tx.execute(
                insert(mrns).values(
                    id=uuid4(),
                    dependant_id=uuid4(),
                    benefit_provider_id=uuid4(),
                    source="USER",
                    mrn_hash=b"hash",
                    created_at=tx.now,
                    **mine,
                )
            )

        await kit.apply(kit.erased_event(state))

        with kit.superuser() as connection:
            hashes = connection.execute(
                "SELECT number_hash FROM accounts WHERE user_id = %(user)s"
                " UNION ALL SELECT mrn_hash FROM mrns WHERE user_id = %(user)s",
                {"user": state.user_id},
            ).fetchall()
        assert hashes == [(None,), (None,)]

    @pytest.mark.parametrize("what", ["account", "mrn"])
    async def test_takes_away_what_numbers_are_found_by_of_changes_on_their_way(self, kit: Any, what: str) -> None:
        state = await kit.onboard()
        (me,) = await kit.family(state)

        async with kit.database.transaction(kit.user(state)) as tx:
            await write(kit, tx, state, me.id, what)
            erasing = asyncio.create_task(kit.apply(kit.erased_event(state)))
            while not (erasing.done() or is_blocked(kit)):  # noqa: ASYNC110  # the database has no event for it
                await asyncio.sleep(0.01)
        await erasing

        with kit.superuser() as connection:
            left = connection.execute(
                "SELECT number_hash FROM accounts WHERE user_id = %(user)s"
                " UNION ALL SELECT mrn_hash FROM mrns WHERE user_id = %(user)s",
                {"user": state.user_id},
            ).fetchall()
        assert left == [(None,)]

    @pytest.mark.parametrize("what", ["account", "mrn"])
    async def test_refuses_what_comes_while_it_is_going_on(self, kit: Any, what: str) -> None:
        state = await kit.onboard()
        (me,) = await kit.family(state)

        async def come_late() -> None:
            async with kit.database.transaction(kit.user(state)) as tx:
                await write(kit, tx, state, me.id, what)

        async with kit.database.transaction(kit.identity) as tx:
            await kit.user_events.apply(tx, kit.erased_event(state))
            coming = asyncio.create_task(come_late())
            while not (coming.done() or is_blocked(kit)):  # noqa: ASYNC110  # the database has no event for it
                await asyncio.sleep(0.01)

        with pytest.raises(WrongUserStatus):
            await coming

    async def test_counts_also_when_identity_counts_versions_anew(self, kit: Any) -> None:
        """Identity was restored from a backup, records was not."""
        state = await kit.onboard()
        await kit.apply(kit.profile_event(state, version=7, last_name="Rao"))

        await kit.apply(kit.erased_event(state, version=3))

        assert not (await kit.self_of(state)).HasField("first_name")

    async def test_is_final(self, kit: Any) -> None:
        state = await kit.onboard()
        added = await kit.add(state)
        await kit.apply(kit.erased_event(state, version=9))

        await kit.apply(kit.profile_event(state, version=10, first_name="Back"))

        assert not (await kit.find(state, added.id)).HasField("first_name")
        async with kit.database.transaction(kit.identity) as tx:
            with pytest.raises(OwnerErased):
                await kit.keys.for_owner(tx, UUID(state.user_id))

    async def test_refuses_changes_that_were_on_their_way(self, kit: Any) -> None:
        state = await kit.onboard()
        added = await kit.add(state)
        await kit.apply(kit.erased_event(state))
        assert state.status == UserStatus.USER_STATUS_ACTIVE

        with pytest.raises(WrongUserStatus):
            await kit.add(state, first_name="Late")
        with pytest.raises(WrongUserStatus):
            await kit.update(added, first_name="Late")
        with pytest.raises(WrongUserStatus):
            await kit.remove(added)

    async def test_leaves_others_readable(self, kit: Any) -> None:
        state, neighbour = await kit.onboard(), await kit.onboard()

        await kit.apply(kit.erased_event(state))

        assert (await kit.self_of(neighbour)).first_name == "Ravi"

    async def test_writes_audit_row(self, kit: Any) -> None:
        state = await kit.onboard()

        await kit.apply(kit.erased_event(state))

        (row,) = await kit.history(state.user_id)
        assert (row.action, row.actor.id, row.user_id) == ("user.erase", "identity", state.user_id)

    async def test_needs_no_self(self, kit: Any) -> None:
        """A user who never completed onboarding may be erased too."""
        state = kit.state()

        await kit.apply(kit.erased_event(state))
        await kit.apply(kit.profile_event(state, version=10))

        assert await kit.family(state) == []


class TestEraseAgain:
    """What a restored backup has brought back."""

    async def erase_again(self, kit: Any, state: UserState) -> bool:
        erasure = Erasure(UUID(state.user_id), UUID(state.platform_id), datetime(2026, 11, 1, tzinfo=UTC))
        async with kit.database.transaction(kit.identity) as tx:
            return bool(await kit.user_events.erase_again(tx, erasure))

    async def test_makes_person_unreadable(self, kit: Any) -> None:
        state = await kit.onboard()

        assert await self.erase_again(kit, state) is True

        assert not (await kit.self_of(state)).HasField("first_name")
        (row,) = await kit.history(state.user_id)
        assert row.action == "user.erase"
        assert await self.erase_again(kit, state) is False

    async def test_finds_somebody_erased_only_when_no_standby_can_lack_it(self, kit: Any) -> None:
        state = await kit.onboard()
        with without_standby(kit.superuser_dsn):
            assert await waits_for_standby(self.erase_again(kit, state))
            # Everybody sees what was given up, so there is nothing left to do.
            assert await waits_for_standby(self.erase_again(kit, state))
        assert await self.erase_again(kit, state) is False

    async def test_finds_who_has_no_data_key_any_more(self, kit: Any) -> None:
        """The rows are of the backup, the data keys of today."""
        state, users = await kit.onboard(), UserRepository(kit.keys)
        async with kit.database.transaction(kit.identity) as tx:
            await kit.keys.destroy(tx, UUID(state.user_id), UUID(state.platform_id))
            assert UUID(state.user_id) in {erasure.user_id for erasure in await users.list_without_key(tx)}

        assert await self.erase_again(kit, state) is True

        async with kit.database.transaction(kit.identity) as tx:
            assert UUID(state.user_id) not in {erasure.user_id for erasure in await users.list_without_key(tx)}

    async def test_keeps_who_is_not_there_from_coming_back(self, kit: Any) -> None:
        state = kit.state()

        assert await self.erase_again(kit, state) is True
        await kit.apply(kit.profile_event(state, version=7))

        assert await kit.family(state) == []
