"""Every rule about platforms and their keys."""

import secrets
import string
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid6 import uuid7

from aarokya.identity.v1.api_key_pb2 import ApiKey, ApiKeyStatus
from aarokya.identity.v1.platform_pb2 import Platform, PlatformStatus
from identity.live_state.repository import announce_key, announce_platform
from identity.platforms.errors import (
    ApiKeyUnknown,
    PlatformArchived,
    PlatformHasUsers,
    PlatformRuleBroken,
    PlatformUnknown,
)
from identity.platforms.repository import ApiKeyRepository, PlatformRepository
from identity.users.profile import MAY_BE_REQUIRED
from servicekit.audit import AuditLog, Changes, changes_between
from servicekit.crypto import LookupHash
from servicekit.database import Transaction
from servicekit.enum_text import text_of
from servicekit.errors import Detail, require_version
from servicekit.mail_addresses import is_mail_address
from servicekit.messages import apply_mask, changed_fields
from servicekit.phone_numbers import NotMobile, to_country_code

ALWAYS_REQUIRED = ("first_name", "gender", "date_of_birth")
DEFAULTS = Platform(default_phone_country_code="+91", token_ttl_seconds=3600, min_user_age=18, max_dependants=8)
BASE62 = string.digits + string.ascii_letters
SECRET_LENGTH = 43  # 43 digits of base 62 hold 256 bits
BROUGHT = "(brought)"


def _check_settings(platform: Platform) -> None:
    """Bring the settings to their one form, or say which break a rule."""
    details = []
    try:
        platform.default_phone_country_code = to_country_code(platform.default_phone_country_code)
    except NotMobile:
        details.append(Detail("default_phone_country_code", "No country has this code."))
    if not set(platform.required_profile_fields) <= MAY_BE_REQUIRED:
        details.append(Detail("required_profile_fields", "Each must name a profile field that users can write."))
    if platform.HasField("contact_email") and not is_mail_address(platform.contact_email):
        details.append(Detail("contact_email", "This is not a mail address."))
    if details:
        raise PlatformRuleBroken(*details)
    wanted = dict.fromkeys((*ALWAYS_REQUIRED, *platform.required_profile_fields))
    platform.required_profile_fields[:] = wanted


class PlatformService:
    """Decides what may happen to platforms."""

    def __init__(self, platforms: PlatformRepository, audit: AuditLog) -> None:
        self._platforms = platforms
        self._audit = audit

    async def create_platform(self, tx: Transaction, wanted: Platform) -> Platform:
        """Add a platform; what the operator left out gets its default.

        Raises:
            PlatformRuleBroken: a setting breaks a rule.
            PlatformNameTaken: another platform has this name or id.
        """
        platform = Platform()
        platform.CopyFrom(DEFAULTS)
        platform.MergeFrom(wanted)
        _check_settings(platform)
        platform.id = wanted.id or str(uuid7())
        platform.status = PlatformStatus.PLATFORM_STATUS_ACTIVE
        platform.version = 1
        platform.created_at.FromDatetime(tx.now)
        platform.updated_at.FromDatetime(tx.now)
        await self._platforms.insert(tx, platform)
        await self._record(tx, "platform.create", None, platform)
        return platform

    async def get_platform(self, tx: Transaction, platform_id: UUID, *, for_update: bool = False) -> Platform:
        """Return a platform.

        Raises:
            PlatformUnknown: there is no such platform, or the caller may not know.
        """
        platform = await self._platforms.find(tx, platform_id, for_update=for_update)
        if platform is None:
            raise PlatformUnknown
        return platform

    async def hold_unarchived(self, tx: Transaction, platform_id: UUID) -> None:
        """Refuse what an archived platform allows no more, and keep this one from being archived meanwhile.

        Raises:
            PlatformArchived: the platform is archived.
        """
        if await self._platforms.hold_status(tx, platform_id) == "archived":
            raise PlatformArchived

    async def hold_active(self, tx: Transaction, platform_id: UUID) -> bool:
        """Return whether the platform is active, and keep it so until the transaction ends."""
        return await self._platforms.hold_status(tx, platform_id) == "active"

    async def update_platform(
        self, tx: Transaction, platform_id: UUID, wanted: Platform, mask: Sequence[str], expected_version: int | None
    ) -> Platform:
        """Change a platform's settings; a change that changes nothing leaves the version as it is.

        Raises:
            PlatformUnknown: there is no such platform.
            VersionMismatch: `expected_version` is not the platform's version.
            PlatformArchived: the platform is archived, and something would change.
            PlatformRuleBroken: a setting breaks a rule.
            PlatformNameTaken: another platform has this name.
        """
        before = await self.get_platform(tx, platform_id, for_update=True)
        require_version(expected_version, before.version)
        after = apply_mask(before, wanted, mask)
        if changed_fields(before, after):
            _require_not_archived(before)
        _check_settings(after)
        if not changed_fields(before, after):
            return before
        return await self._write(tx, "platform.update", before, after)

    async def archive_platform(self, tx: Transaction, platform_id: UUID, expected_version: int | None) -> None:
        """Archive a platform that has no users left; once more changes nothing.

        Raises:
            PlatformUnknown: there is no such platform.
            VersionMismatch: `expected_version` is not the platform's version.
            PlatformHasUsers: the platform has users who are not deactivated.
        """
        before = await self.get_platform(tx, platform_id, for_update=True)
        require_version(expected_version, before.version)
        if before.status == PlatformStatus.PLATFORM_STATUS_ARCHIVED:
            return
        if await self._platforms.has_users(tx, platform_id):
            raise PlatformHasUsers
        after = apply_mask(before, before, ())
        after.status = PlatformStatus.PLATFORM_STATUS_ARCHIVED
        after.ClearField("status_reason")
        await self._write(tx, "platform.archive", before, after)

    async def set_status(
        self, tx: Transaction, platform_id: UUID, status: PlatformStatus.ValueType, reason: str
    ) -> Platform:
        """Suspend or activate a platform; the status that it has already changes nothing.

        Raises:
            PlatformUnknown: there is no such platform.
            PlatformArchived: the platform is archived.
        """
        before = await self.get_platform(tx, platform_id, for_update=True)
        _require_not_archived(before)
        if before.status == status:
            return before
        after = apply_mask(before, before, ())
        after.status = status
        after.status_reason = reason
        action = "platform.suspend" if status == PlatformStatus.PLATFORM_STATUS_SUSPENDED else "platform.activate"
        return await self._write(tx, action, before, after, reason=reason)

    async def _write(
        self, tx: Transaction, action: str, before: Platform, after: Platform, *, reason: str | None = None
    ) -> Platform:
        after.version = before.version + 1
        after.updated_at.FromDatetime(tx.now)
        await self._platforms.update(tx, after)
        await self._record(tx, action, before, after, reason=reason)
        await announce_platform(tx, UUID(after.id))
        return after

    async def _record(
        self, tx: Transaction, action: str, before: Platform | None, after: Platform, *, reason: str | None = None
    ) -> None:
        await self._audit.record(
            tx,
            action,
            "platform",
            after.id,
            platform_id=UUID(after.id),
            changes=changes_between(before, after, self._platforms.rows.clear_fields),
            reason=reason,
        )


class ApiKeyService:
    """Decides what may happen to partner keys."""

    def __init__(self, platforms: PlatformService, keys: ApiKeyRepository, audit: AuditLog, hashes: LookupHash) -> None:
        self._platforms = platforms
        self._keys = keys
        self._audit = audit
        self._hashes = hashes

    async def create_key(self, tx: Transaction, platform_id: UUID, wanted: ApiKey) -> ApiKey:
        """Issue a key. Its secret is answered if it was made here, and not if the operator brought it.

        Raises:
            PlatformUnknown: there is no such platform.
            PlatformArchived: the platform is archived.
            PlatformRuleBroken: the moment of expiry does not lie ahead, or no header could carry the secret.
            ApiKeySecretTaken: the secret that the operator brought is another key's.
        """
        await self._platforms.get_platform(tx, platform_id)
        await self._platforms.hold_unarchived(tx, platform_id)
        _check_key(wanted, tx.now)
        key_id = uuid7()
        key = ApiKey(
            id=str(key_id),
            platform_id=str(platform_id),
            name=wanted.name,
            status=ApiKeyStatus.API_KEY_STATUS_ACTIVE,
        )
        key.created_at.FromDatetime(tx.now)
        if wanted.HasField("expires_at"):
            key.expires_at.CopyFrom(wanted.expires_at)
        secret = wanted.secret or _new_secret(key_id)
        # Nothing of a secret that was brought is ever shown again.
        key.prefix = BROUGHT if wanted.secret else _prefix(key_id)
        await self._keys.insert(tx, key, self.hash_secret(secret))
        await self._record(tx, "api_key.create", key, {"name": (None, key.name), "secret": None})
        if not wanted.secret:
            key.secret = secret
        return key

    async def rotate_key(self, tx: Transaction, platform_id: UUID, key_id: UUID, overlap: timedelta) -> ApiKey:
        """Give a key a new secret; those it has now live on for the overlap.

        Raises:
            PlatformUnknown: there is no such platform.
            ApiKeyUnknown: the platform has no such key, or the key is revoked or expired.
            PlatformArchived: the platform is archived.
        """
        await self._platforms.get_platform(tx, platform_id)
        key = await self._get_key(tx, platform_id, key_id)
        await self._platforms.hold_unarchived(tx, platform_id)
        if key.status != ApiKeyStatus.API_KEY_STATUS_ACTIVE:
            raise ApiKeyUnknown(message="The key is revoked or expired; create another one.")
        secret = _new_secret(key_id)
        await self._keys.expire_secrets(tx, key_id, tx.now + overlap)
        await self._keys.insert_secret(tx, key_id, platform_id, self.hash_secret(secret))
        await self._keys.set_prefix(tx, key_id, _prefix(key_id))
        await self._record(
            tx, "api_key.rotate", key, {"secret": None, "overlap_seconds": (None, int(overlap.total_seconds()))}
        )
        await announce_key(tx, key_id)
        key.prefix = _prefix(key_id)
        key.secret = secret
        return key

    async def revoke_key(self, tx: Transaction, platform_id: UUID, key_id: UUID) -> None:
        """Stop a key at once; once more changes nothing.

        Raises:
            PlatformUnknown: there is no such platform.
            ApiKeyUnknown: the platform has no such key.
            PlatformArchived: the platform is archived, and the key is not revoked yet.
        """
        platform = await self._platforms.get_platform(tx, platform_id)
        key = await self._get_key(tx, platform_id, key_id)
        if key.status == ApiKeyStatus.API_KEY_STATUS_REVOKED:
            return
        _require_not_archived(platform)
        await self._keys.revoke(tx, key_id)
        status = text_of(ApiKeyStatus.DESCRIPTOR, key.status)
        await self._record(tx, "api_key.revoke", key, {"status": (status, "revoked")})
        await announce_key(tx, key_id)

    def hash_secret(self, secret: str) -> bytes:
        """Return what a secret is found by: a keyed hash of all of it."""
        return self._hashes.hash("api_key_secret", secret)

    async def _get_key(self, tx: Transaction, platform_id: UUID, key_id: UUID) -> ApiKey:
        key = await self._keys.find(tx, platform_id, key_id)
        if key is None:
            raise ApiKeyUnknown
        return key

    async def _record(self, tx: Transaction, action: str, key: ApiKey, changes: Changes) -> None:
        await self._audit.record(tx, action, "api_key", key.id, platform_id=UUID(key.platform_id), changes=changes)


def _require_not_archived(platform: Platform) -> None:
    if platform.status == PlatformStatus.PLATFORM_STATUS_ARCHIVED:
        raise PlatformArchived


def _check_key(wanted: ApiKey, now: datetime) -> None:
    """Say which of a new key's fields break a rule."""
    details = []
    if wanted.HasField("expires_at") and wanted.expires_at.ToDatetime(UTC) <= now:
        details.append(Detail("expires_at", "The moment must lie ahead."))
    # A header could not carry any other secret.
    if not (wanted.secret.isascii() and wanted.secret.isprintable() and wanted.secret.strip() == wanted.secret):
        details.append(Detail("secret", "Must be printable ASCII, and neither begin nor end with a space."))
    if details:
        raise PlatformRuleBroken(*details)


def _prefix(key_id: UUID) -> str:
    return f"ark_{key_id}"


def _new_secret(key_id: UUID) -> str:
    return f"{_prefix(key_id)}_{''.join(secrets.choice(BASE62) for _ in range(SECRET_LENGTH))}"
