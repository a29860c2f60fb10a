"""Every rule about dependants."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from uuid6 import uuid7

from aarokya.identity.v1.live_state_service_pb2 import UserState
from aarokya.records.v1.dependant_pb2 import Actor, ActorType, Dependant, DependantStatus, Relationship
from aarokya.records.v1.user_event_service_pb2 import SelfProfile
from records.dependants.errors import (
    DependantDuplicate,
    DependantRemoved,
    DependantRuleBroken,
    DependantUnknown,
    FamilyFull,
    SelfIsManaged,
)
from records.dependants.person import broken_rules, is_same, with_e164
from records.dependants.repository import DependantRepository
from records.users.errors import WrongUserStatus
from records.users.states import require_active
from servicekit.audit import AuditLog, changes_between
from servicekit.calendar_days import day_in
from servicekit.data_keys import OwnerErased
from servicekit.database import AnyRow, Reader, Transaction, transaction_of
from servicekit.enum_text import number_of
from servicekit.errors import Detail, ServiceAway, require_version
from servicekit.messages import apply_mask, changed_fields
from servicekit.rows import set_timestamp, to_datetime

SELF: Final = Relationship.RELATIONSHIP_SELF
ACTIVE: Final = DependantStatus.DEPENDANT_STATUS_ACTIVE
REMOVED: Final = DependantStatus.DEPENDANT_STATUS_REMOVED
LIVING = frozenset({ACTIVE, DependantStatus.DEPENDANT_STATUS_INACTIVE})
PARENTS = frozenset({Relationship.RELATIONSHIP_FATHER, Relationship.RELATIONSHIP_MOTHER})
CHILDREN = frozenset({Relationship.RELATIONSHIP_SON, Relationship.RELATIONSHIP_DAUGHTER})
# The fields that are compared to find the same person twice in a family.
WHO = frozenset({"relationship", "date_of_birth", "first_name", "middle_name", "last_name"})
# A row has these columns anyway, or its actor and time tell them.
UNTOLD = ("first_created_at", "created_by")
PROFILE_FIELDS = [field.name for field in SelfProfile.DESCRIPTOR.fields]
ONE_TICK = timedelta(microseconds=1)


class DependantService:
    """Decides what may happen to families."""

    def __init__(self, dependants: DependantRepository, audit: AuditLog, timezone: str) -> None:
        self._dependants = dependants
        self._audit = audit
        self._timezone = timezone

    async def create_dependant(self, tx: Transaction, state: UserState, wanted: Dependant) -> Dependant:
        """Add a member to a user's family.

        Raises:
            WrongUserStatus: the user is not active, or was erased meanwhile.
            SelfIsManaged: the new member would be SELF.
            ServiceAway: identity has not told of the user yet.
            DependantRuleBroken: a value breaks a rule.
            FamilyFull: the platform allows no more dependants.
            DependantDuplicate: the family has somebody of this name, birth date and relationship.
        """
        require_active(state)
        if wanted.relationship == SELF:
            raise SelfIsManaged
        user_id = UUID(state.user_id)
        moment = await self._dependants.lock_family(tx, user_id)
        family = await self._dependants.list_family(tx, user_id)
        after = _first_version(wanted, user_id, UUID(state.platform_id))
        self._require_rules(tx, None, after, family)
        if len(family) > state.max_dependants:
            # SELF is in the family and does not count.
            raise FamilyFull
        _require_no_duplicate(after, family)
        return await self._append(tx, "dependant.create", None, after, moment)

    async def get_dependant(self, reader: Reader, user_id: UUID, dependant_id: UUID) -> Dependant:
        """Return a person's newest version; an operator's look at a person is noted.

        Raises:
            DependantUnknown: the user's family has no such person.
        """
        dependant = await self._find(reader, user_id, dependant_id)
        await self._note_read(reader, "dependant.read", user_id, UUID(dependant.platform_id), dependant_id)
        return dependant

    async def get_each(self, reader: Reader, wanted: Sequence[tuple[UUID, UUID]]) -> list[Dependant]:
        """Return the newest versions of some persons, without those who are not in the family that is named with them.

        That all asked for their own, the gateway has made sure (gateway.own_reads); their platform is all this reaches.

        Args:
            reader: where to read.
            wanted: the users' ids and the persons'.

        Raises:
            DependantUnknown: the caller is not a user.
        """
        if not reader.call.caller.is_user:
            raise DependantUnknown
        found = await self._dependants.find_each(reader, [dependant_id for _, dependant_id in wanted])
        known = {(str(user_id), str(dependant_id)) for user_id, dependant_id in wanted}
        return [dependant for dependant in found if (dependant.user_id, dependant.id) in known]

    async def list_each(self, reader: Reader, user_ids: Sequence[UUID]) -> list[Dependant]:
        """Return the newest versions of all who are not removed from the families of some users, newest member first.

        That all asked for their own, the gateway has made sure (gateway.own_reads); their platform is all this reaches.

        Raises:
            DependantUnknown: the caller is no user.
        """
        if not reader.call.caller.is_user:
            raise DependantUnknown
        return await self._dependants.list_families(reader, user_ids)

    async def list_dependants(
        self,
        reader: Reader,
        user_id: UUID,
        *,
        as_of: datetime | None,
        include_removed: bool,
        cursor: Sequence[str] | None,
        page_size: int,
    ) -> Sequence[AnyRow]:
        """Return the rows of a page and one more; an operator's look at people is noted."""
        rows = await self._dependants.list_newest(
            reader, user_id, as_of=as_of, include_removed=include_removed, cursor=cursor, page_size=page_size
        )
        if rows:
            count = min(len(rows), page_size)
            await self._note_read(reader, "dependant.list", user_id, rows[0].platform_id, count=count)
        return rows

    async def list_versions(
        self, reader: Reader, user_id: UUID, dependant_id: UUID, cursor: Sequence[str] | None, page_size: int
    ) -> Sequence[AnyRow]:
        """Return the rows of a page of a person's history and one more; an operator's look is noted.

        Raises:
            DependantUnknown: the user's family has no such person.
        """
        dependant = await self._find(reader, user_id, dependant_id)
        rows = await self._dependants.list_versions(reader, dependant_id, cursor, page_size)
        platform_id, count = UUID(dependant.platform_id), min(len(rows), page_size)
        await self._note_read(reader, "dependant.list_versions", user_id, platform_id, dependant_id, count=count)
        return rows

    async def update_dependant(
        self,
        tx: Transaction,
        state: UserState | None,
        user_id: UUID,
        dependant_id: UUID,
        wanted: Dependant,
        mask: Sequence[str],
        expected_version: int | None,
    ) -> Dependant:
        """Append a changed version; a change that changes nothing appends none.

        `state` is None when users change their own family: the gateway has seen that they may.

        Raises:
            DependantUnknown: the user's family has no such person.
            VersionMismatch: `expected_version` is not the person's newest version.
            WrongUserStatus: the user is not active, or was erased meanwhile.
            SelfIsManaged: the person is SELF, or would become that.
            DependantRemoved: the person was removed.
            DependantRuleBroken: a value breaks a rule.
            DependantDuplicate: the family has somebody else of this name, birth date and relationship.
        """
        moment = await self._dependants.lock_family(tx, user_id)
        before = await self._find_writable(tx, state, user_id, dependant_id, expected_version)
        after = apply_mask(before, with_e164(wanted), mask)
        changed = set(changed_fields(before, after))
        if not changed:
            await tx.wait_for_replication()
            return before
        _require_changeable(before)
        if after.relationship == SELF:
            raise SelfIsManaged
        family = await self._dependants.list_family(tx, user_id)
        self._require_rules(tx, before, after, family)
        if changed & WHO:
            _require_no_duplicate(after, family)
        return await self._append(tx, "dependant.update", before, after, moment)

    async def delete_dependant(
        self,
        tx: Transaction,
        state: UserState | None,
        user_id: UUID,
        dependant_id: UUID,
        expected_version: int | None,
    ) -> None:
        """Append a version that is removed.

        Raises:
            DependantUnknown: the user's family has no such person.
            VersionMismatch: `expected_version` is not the person's newest version.
            WrongUserStatus: the user is not active, or was erased meanwhile.
            SelfIsManaged: the person is SELF.
            DependantRemoved: the person was removed already.
        """
        moment = await self._dependants.lock_family(tx, user_id)
        before = await self._find_writable(tx, state, user_id, dependant_id, expected_version)
        _require_changeable(before)
        after = _copy(before)
        after.status = REMOVED
        await self._append(tx, "dependant.delete", before, after, moment)

    async def follow_profile(
        self, tx: Transaction, user_id: UUID, platform_id: UUID, profile: SelfProfile, moment: datetime
    ) -> None:
        """Let SELF say what the user's profile says; `moment` is what `lock_family` returned.

        Raises:
            WrongUserStatus: the user was erased.
        """
        family = await self._dependants.list_family(tx, user_id)
        before = next((member for member in family if member.relationship == SELF), None)
        said = Dependant()
        for field, value in profile.ListFields():
            setattr(said, field.name, value)
        start = before or _first_version(Dependant(relationship=SELF), user_id, platform_id)
        after = apply_mask(start, said, PROFILE_FIELDS)
        if before is None:
            await self._append(tx, "dependant.create", None, after, moment)
        elif changed_fields(before, after):
            await self._append(tx, "dependant.update", before, after, moment)

    async def _find(self, reader: Reader, user_id: UUID, dependant_id: UUID) -> Dependant:
        dependant = await self._dependants.find(reader, dependant_id)
        if dependant is None or dependant.user_id != str(user_id):
            raise DependantUnknown
        return dependant

    async def _find_writable(
        self,
        tx: Transaction,
        state: UserState | None,
        user_id: UUID,
        dependant_id: UUID,
        expected_version: int | None,
    ) -> Dependant:
        dependant = await self._find(tx, user_id, dependant_id)
        require_version(expected_version, dependant.version)
        if state is not None:
            require_active(state)
        return dependant

    def _require_rules(
        self, tx: Transaction, before: Dependant | None, after: Dependant, family: Sequence[Dependant]
    ) -> None:
        """Hold what changes against the rules; what broke one before and stays as it is passes."""
        changed = set(changed_fields(before or Dependant(), after))
        details = broken_rules(after, changed, day_in(self._timezone, tx.now))
        if "status" in changed and after.status == REMOVED:
            details.append(Detail("status", "A dependant is removed by DELETE."))
        if not details:
            # Only a birth date that makes sense can be compared with another.
            if changed & {"relationship", "date_of_birth"}:
                details += _broken_order(after, _born(family))
            if _lives_as_parent(after) and not (
                before is not None and _lives_as_parent(before) and before.relationship == after.relationship
            ):
                details += _second_parent(after, family)
        if details:
            raise DependantRuleBroken(*details)

    async def _append(
        self, tx: Transaction, action: str, before: Dependant | None, after: Dependant, moment: datetime
    ) -> Dependant:
        """Write the next version, later than the one before whatever the clocks say."""
        if before is not None:
            moment = max(moment, to_datetime(before.created_at) + ONE_TICK)
            after.version = before.version + 1
        else:
            after.version = 1
            set_timestamp(after.first_created_at, moment)
        set_timestamp(after.created_at, moment)
        caller = tx.call.caller
        kind = ActorType.ValueType(number_of(ActorType.DESCRIPTOR, caller.type))
        after.created_by.CopyFrom(Actor(type=kind, id=caller.id))
        try:
            await self._dependants.insert(tx, after)
        except OwnerErased as error:
            raise WrongUserStatus from error
        changes = dict(changes_between(before, after, self._dependants.rows.clear_fields))
        for name in UNTOLD:
            changes.pop(name, None)
        await self._audit.record(
            tx,
            action,
            "dependant",
            after.id,
            user_id=UUID(after.user_id),
            platform_id=UUID(after.platform_id),
            changes=changes,
        )
        return after

    async def _note_read(
        self,
        reader: Reader,
        action: str,
        user_id: UUID,
        platform_id: UUID,
        dependant_id: UUID | None = None,
        *,
        count: int = 1,
    ) -> None:
        if reader.call.caller.is_admin:
            await self._audit.record(
                transaction_of(reader),
                action,
                "dependant",
                dependant_id,
                user_id=user_id,
                platform_id=platform_id,
                count=count,
            )


def _require_changeable(dependant: Dependant) -> None:
    if dependant.relationship == SELF:
        raise SelfIsManaged
    if dependant.status == REMOVED:
        raise DependantRemoved


def _first_version(wanted: Dependant, user_id: UUID, platform_id: UUID) -> Dependant:
    first = with_e164(wanted)
    first.id = str(uuid7())
    first.user_id = str(user_id)
    first.platform_id = str(platform_id)
    if not first.HasField("status"):
        first.status = ACTIVE
    return first


def _born(family: Sequence[Dependant]) -> date:
    """Return the user's own birth date, as SELF says it.

    Raises:
        ServiceAway: identity has not told of the user yet.
        WrongUserStatus: the user was erased while the call was on its way.
    """
    for member in family:
        if member.relationship == SELF:
            if not member.HasField("date_of_birth"):
                raise WrongUserStatus
            return date.fromisoformat(member.date_of_birth)
    raise ServiceAway


def _broken_order(person: Dependant, user_born: date) -> list[Detail]:
    born = date.fromisoformat(person.date_of_birth)
    if person.relationship in PARENTS and born >= user_born:
        return [Detail("date_of_birth", "A parent is older than the user.")]
    if person.relationship in CHILDREN and born <= user_born:
        return [Detail("date_of_birth", "A child is younger than the user.")]
    return []


def _lives_as_parent(person: Dependant) -> bool:
    return person.relationship in PARENTS and person.status in LIVING


def _second_parent(person: Dependant, family: Sequence[Dependant]) -> list[Detail]:
    others = (member for member in family if member.id != person.id and member.relationship == person.relationship)
    if any(member.status in LIVING for member in others):
        return [Detail("relationship", "The family has one who is living.")]
    return []


def _require_no_duplicate(person: Dependant, family: Sequence[Dependant]) -> None:
    if any(is_same(person, member) for member in family if member.id != person.id):
        raise DependantDuplicate


def _copy(dependant: Dependant) -> Dependant:
    copy = Dependant()
    copy.CopyFrom(dependant)
    return copy
