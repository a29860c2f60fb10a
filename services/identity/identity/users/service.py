"""Every rule about users."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from aarokya.identity.v1.platform_pb2 import Platform
from aarokya.identity.v1.user_pb2 import User, UserStatus
from aarokya.records.v1.user_event_service_pb2 import ApplyUserEventRequest, SelfProfile
from identity.live_state.repository import announce_user
from identity.platforms.errors import PlatformUnknown
from identity.platforms.service import ALWAYS_REQUIRED, PlatformService
from identity.users.errors import (
    ProfileIncomplete,
    UserRuleBroken,
    UserUnknown,
    WrongUserStatus,
)
from identity.users.profile import PROFILE_FIELDS, broken_rules, missing_fields
from identity.users.repository import StoredUser, UserRepository
from servicekit.audit import AuditLog, changes_between
from servicekit.calendar_days import day_in
from servicekit.data_keys import SERVICE_OWNER
from servicekit.database import AnyRow, Reader, Transaction, transaction_of
from servicekit.erasures import Erasure
from servicekit.errors import Detail, InvalidField, require_version
from servicekit.messages import apply_mask, changed_fields, has
from servicekit.outbox import Outbox
from servicekit.phone_numbers import NotMobile, to_e164

SEARCHED_COUNTRY_CODE = "+91"
REPLAYED = "Erased before the backup was restored."
SHARED_WITH_SELF = tuple(field.name for field in SelfProfile.DESCRIPTOR.fields)


class UserService:
    """Decides what may happen to users."""

    def __init__(
        self, users: UserRepository, platforms: PlatformService, audit: AuditLog, outbox: Outbox, timezone: str
    ) -> None:
        self._users = users
        self._platforms = platforms
        self._audit = audit
        self._outbox = outbox
        self._timezone = timezone

    async def get_user(self, reader: Reader, user_id: UUID) -> StoredUser:
        """Return a user; an operator's look at a person is noted.

        Raises:
            UserUnknown: there is no such user, or the caller may not know.
        """
        stored = await self._find(reader, user_id)
        if reader.call.caller.is_admin:
            await self._note_reading(transaction_of(reader), user_id, UUID(stored.user.platform_id))
        return stored

    async def get_each(self, reader: Reader, user_ids: Sequence[UUID]) -> list[StoredUser]:
        """Return those of some users who exist.

        That each reads itself, the gateway has made sure (gateway.own_reads); their platform is all that this reaches.

        Raises:
            UserUnknown: the caller is no user.
        """
        if not reader.call.caller.is_user:
            raise UserUnknown
        return await self._users.find_each(reader, user_ids)

    async def list_users(
        self,
        tx: Transaction,
        *,
        platform_id: UUID | None,
        status: str | None,
        phone_number: str | None,
        cursor: Sequence[str] | None,
        page_size: int,
    ) -> Sequence[AnyRow]:
        """Return the rows of a page and one more; an operator's look at people is noted.

        Raises:
            UserRuleBroken: no mobile phone can have the number that is searched for.
        """
        if phone_number is not None:
            try:
                phone_number = to_e164(phone_number, await self._searched_country_code(tx, platform_id))
            except NotMobile as error:
                raise UserRuleBroken(Detail("phone_number", "No mobile phone can have this number.")) from error
        rows = await self._users.list_newest(
            tx,
            platform_id=platform_id,
            status=status,
            phone_number=phone_number,
            cursor=cursor,
            page_size=page_size,
        )
        if phone_number is not None:
            # Whoever asks for a number asks for one person, or for a few on as many platforms.
            for row in rows[:page_size]:
                await self._note_reading(tx, row.id, row.platform_id)
        elif rows:
            await self._audit.record(
                tx, "user.list", "user", None, platform_id=platform_id, count=min(len(rows), page_size)
            )
        return rows

    async def _searched_country_code(self, tx: Transaction, platform_id: UUID | None) -> str:
        """Return what national digits of a search begin with: as in the platform's own requests, if one is named."""
        if platform_id is not None:
            with suppress(PlatformUnknown):
                return (await self._platforms.get_platform(tx, platform_id)).default_phone_country_code
        return SEARCHED_COUNTRY_CODE

    async def update_user(
        self, tx: Transaction, user_id: UUID, wanted: User, mask: Sequence[str], expected_version: int | None
    ) -> StoredUser:
        """Change a profile; a change that changes nothing leaves the version as it is.

        Raises:
            InvalidField: `mask` names the phone number, but the caller is no operator, or `wanted` has no number.
            UserUnknown: there is no such user, or the caller may not know.
            VersionMismatch: `expected_version` is not the user's version.
            WrongUserStatus: the user is deactivated.
            UserRuleBroken: a value breaks a rule.
            PhoneTaken: another user of the platform has the new phone number.
        """
        _require_writable(tx, wanted, mask)
        before = await self._find(tx, user_id, for_update=True)
        require_version(expected_version, before.user.version)
        if before.user.status == UserStatus.USER_STATUS_DEACTIVATED:
            raise WrongUserStatus
        platform = await self._platforms.get_platform(tx, UUID(before.user.platform_id))
        after = self._patched(tx, platform, before, wanted, mask)
        changed = changed_fields(before.user, after.user)
        if not changed:
            return before
        await self._write(tx, "user.update", before, after)
        if after.user.status == UserStatus.USER_STATUS_ACTIVE and set(changed) & set(SHARED_WITH_SELF):
            await self._tell_records(tx, after.user)
        return after

    async def complete_onboarding(
        self, tx: Transaction, user_id: UUID, wanted: User, mask: Sequence[str]
    ) -> StoredUser:
        """Make a user active once the profile has all that the platform requires.

        Raises:
            InvalidField: `mask` names the phone number, but the caller is no operator, or `wanted` has no number.
            UserUnknown: there is no such user, or the caller may not know.
            WrongUserStatus: the user has completed onboarding already, or is deactivated.
            UserRuleBroken: a value breaks a rule, also one that was in the profile before.
            ProfileIncomplete: fields are empty that the platform requires.
            PhoneTaken: another user of the platform has the new phone number.
        """
        _require_writable(tx, wanted, mask)
        before = await self._find(tx, user_id, for_update=True)
        if before.user.status != UserStatus.USER_STATUS_ONBOARDING:
            raise WrongUserStatus
        platform = await self._platforms.get_platform(tx, UUID(before.user.platform_id))
        # The platform may have raised its minimum age since the profile was written, so all of it counts.
        after = self._patched(tx, platform, before, wanted, mask, judged=PROFILE_FIELDS)
        missing = missing_fields(after.user, platform.required_profile_fields)
        if missing:
            raise ProfileIncomplete(*(Detail(field, "The platform requires this field.") for field in missing))
        after.user.status = UserStatus.USER_STATUS_ACTIVE
        after.user.onboarded_at.FromDatetime(tx.now)
        await self._write(tx, "user.complete_onboarding", before, after)
        await self._tell_records(tx, after.user)
        await announce_user(tx, user_id)
        return after

    async def deactivate_user(self, tx: Transaction, user_id: UUID, expected_version: int | None) -> None:
        """End a membership and all its tokens; once more changes nothing.

        Raises:
            UserUnknown: there is no such user, or the caller may not know.
            VersionMismatch: `expected_version` is not the user's version.
        """
        before = await self._find(tx, user_id, for_update=True)
        require_version(expected_version, before.user.version)
        if before.user.status == UserStatus.USER_STATUS_DEACTIVATED:
            return
        after = _copy(before)
        after.user.status = UserStatus.USER_STATUS_DEACTIVATED
        after.user.deactivated_at.FromDatetime(tx.now)
        after.token_generation += 1
        await self._write(tx, "user.deactivate", before, after)
        await announce_user(tx, user_id)

    async def reactivate_user(self, tx: Transaction, user_id: UUID, reason: str) -> StoredUser:
        """Put a deactivated user back to the status before; tokens of that time stay dead.

        Raises:
            UserUnknown: there is no such user, or the caller may not know.
            WrongUserStatus: the user is not deactivated, or is erased.
            PlatformArchived: the user's platform is archived.
            PhoneTaken: the phone number was released, and another user of the platform has it now.
        """
        before = await self._find_deactivated(tx, user_id)
        # An archived platform has no users left, and it shall stay so.
        await self._platforms.hold_unarchived(tx, UUID(before.user.platform_id))
        after = _copy(before)
        was_active = after.user.HasField("onboarded_at")
        after.user.status = UserStatus.USER_STATUS_ACTIVE if was_active else UserStatus.USER_STATUS_ONBOARDING
        after.user.ClearField("deactivated_at")
        after.phone_released_at = None
        await self._write(tx, "user.reactivate", before, after, reason=reason)
        if before.phone_released_at is not None:
            await self._tell_records_of_phone(tx, after)
        await announce_user(tx, user_id)
        return after

    async def release_phone(self, tx: Transaction, user_id: UUID, reason: str) -> StoredUser:
        """Free a deactivated user's phone number: it registers as a new user from then on.

        Raises:
            UserUnknown: there is no such user, or the caller may not know.
            WrongUserStatus: the user is not deactivated, or is erased.
        """
        before = await self._find_deactivated(tx, user_id)
        if before.phone_released_at is not None:
            # Nothing changes, but the answer tells of the person.
            await self._note_reading(tx, user_id, UUID(before.user.platform_id))
            return before
        after = _copy(before)
        after.phone_released_at = tx.now
        await self._write(tx, "user.release_phone", before, after, reason=reason)
        await self._tell_records_of_phone(tx, after)
        return after

    async def erase_user(self, tx: Transaction, user_id: UUID, reason: str) -> StoredUser:
        """Destroy a deactivated user's personal data here, and have it destroyed in records.

        Raises:
            UserUnknown: there is no such user, or the caller may not know.
            WrongUserStatus: the user is not deactivated.
        """
        before = await self._find(tx, user_id, for_update=True)
        if before.user.HasField("erased_at"):
            return before
        if before.user.status != UserStatus.USER_STATUS_DEACTIVATED:
            raise WrongUserStatus
        return await self._erase(tx, before, tx.now, reason)

    async def erase_again(self, tx: Transaction, erasure: Erasure) -> bool:
        """Erase whom a restored backup has brought back, whatever the status was then; False if there is nobody."""
        before = await self._users.find(tx, erasure.user_id, for_update=True)
        if before is None or before.user.HasField("erased_at"):
            return False
        left = _copy(before)
        if left.user.status != UserStatus.USER_STATUS_DEACTIVATED:
            left.user.status = UserStatus.USER_STATUS_DEACTIVATED
            left.user.deactivated_at.FromDatetime(erasure.erased_at)
            left.token_generation += 1
        await self._erase(tx, left, erasure.erased_at, REPLAYED)
        return True

    async def _erase(self, tx: Transaction, before: StoredUser, erased_at: datetime, reason: str) -> StoredUser:
        user_id = UUID(before.user.id)
        user = apply_mask(User(), before.user, sorted(self._users.rows.clear_fields))
        user.erased_at.FromDatetime(erased_at)
        user.updated_at.FromDatetime(tx.now)
        user.version = before.user.version + 1
        after = StoredUser(user, before.phone_released_at, before.token_generation)
        await self._users.erase(tx, after)
        # The person's own key is gone by now, and neither the reason nor the event may be lost with it.
        await self._record(tx, "user.erase", before, after, reason=reason, owner_id=SERVICE_OWNER)
        event = ApplyUserEventRequest(erased=True)
        await self._send(tx, user, event, sealed_for=SERVICE_OWNER)
        await announce_user(tx, user_id)
        return after

    async def _find(self, reader: Reader, user_id: UUID, *, for_update: bool = False) -> StoredUser:
        stored = await self._users.find(reader, user_id, for_update=for_update)
        caller = reader.call.caller
        if stored is None or (caller.is_user and caller.id != str(user_id)):
            raise UserUnknown
        return stored

    async def _find_deactivated(self, tx: Transaction, user_id: UUID) -> StoredUser:
        stored = await self._find(tx, user_id, for_update=True)
        if stored.user.status != UserStatus.USER_STATUS_DEACTIVATED or stored.user.HasField("erased_at"):
            raise WrongUserStatus
        return stored

    def _patched(
        self,
        tx: Transaction,
        platform: Platform,
        before: StoredUser,
        wanted: User,
        mask: Sequence[str],
        *,
        judged: Sequence[str] | None = None,
    ) -> StoredUser:
        """Return the user with the masked fields changed, once the judged ones (those that differ) keep the rules."""
        after = _copy(before)
        after.user = apply_mask(before.user, wanted, mask)
        if judged is None:
            # An app may send its whole form: what stays as it is was in order when it came.
            judged = changed_fields(before.user, after.user)
        details = broken_rules(after.user, judged, today=day_in(self._timezone, tx.now), min_age=platform.min_user_age)
        if "phone_number" in mask:
            try:
                after.user.phone_number = to_e164(wanted.phone_number, platform.default_phone_country_code)
            except NotMobile:
                details.append(Detail("phone_number", "No mobile phone can have this number."))
        if before.user.status == UserStatus.USER_STATUS_ACTIVE:
            details += [
                Detail(field, "An active user must have this field.")
                for field in missing_fields(after.user, ALWAYS_REQUIRED)
                if field in mask
            ]
        if details:
            raise UserRuleBroken(*details)
        return after

    async def _write(
        self, tx: Transaction, action: str, before: StoredUser, after: StoredUser, *, reason: str | None = None
    ) -> None:
        user = after.user
        user.version = before.user.version + 1
        user.updated_at.FromDatetime(tx.now)
        await self._users.update(tx, after)
        await self._record(tx, action, before, after, reason=reason)

    async def _note_reading(self, tx: Transaction, user_id: UUID, platform_id: UUID) -> None:
        """Note that an operator looked at a person."""
        await self._audit.record(tx, "user.read", "user", str(user_id), user_id=user_id, platform_id=platform_id)

    async def _record(
        self,
        tx: Transaction,
        action: str,
        before: StoredUser,
        after: StoredUser,
        *,
        reason: str | None = None,
        owner_id: UUID | None = None,
    ) -> None:
        user = after.user
        changes = dict(changes_between(before.user, user, self._users.rows.clear_fields))
        if (before.phone_released_at is None) != (after.phone_released_at is None):
            changes["phone_number"] = None
        await self._audit.record(
            tx,
            action,
            "user",
            user.id,
            user_id=UUID(user.id),
            platform_id=UUID(user.platform_id),
            owner_id=owner_id,
            changes=changes,
            reason=reason,
        )

    async def _tell_records_of_phone(self, tx: Transaction, stored: StoredUser) -> None:
        """Let SELF say whether the number is still this user's; before onboarding there is no SELF."""
        if not stored.user.HasField("onboarded_at"):
            return
        told = _copy(stored).user
        if stored.phone_released_at is not None:
            told.ClearField("phone_number")
        await self._tell_records(tx, told)

    async def _tell_records(self, tx: Transaction, user: User) -> None:
        """Let SELF say what the profile says."""
        profile = SelfProfile()
        for field in SHARED_WITH_SELF:
            if has(user, field):
                setattr(profile, field, getattr(user, field))
        event = ApplyUserEventRequest(profile=profile)
        await self._send(tx, user, event)

    async def _send(
        self, tx: Transaction, user: User, event: ApplyUserEventRequest, *, sealed_for: UUID | None = None
    ) -> None:
        event.user_id = user.id
        event.platform_id = user.platform_id
        event.user_version = user.version
        event.occurred_at.FromDatetime(tx.now)
        await self._outbox.add(
            tx,
            owner_id=UUID(user.id),
            platform_id=UUID(user.platform_id),
            owner_version=user.version,
            payload=event.SerializeToString(),
            sealed_for=sealed_for,
        )


def _require_writable(tx: Transaction, wanted: User, mask: Sequence[str]) -> None:
    """Refuse the phone number where only the shape of a body counts: to users it is not there to write."""
    if "phone_number" not in mask:
        return
    if not tx.call.caller.is_admin:
        raise InvalidField(Detail("phone_number", "Only operators may change the phone number."))
    if not wanted.HasField("phone_number"):
        raise InvalidField(Detail("phone_number", "The phone number can be changed but not taken away."))


def _copy(stored: StoredUser) -> StoredUser:
    user = User()
    user.CopyFrom(stored.user)
    return StoredUser(user, stored.phone_released_at, stored.token_generation)
