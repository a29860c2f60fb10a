"""Every SQL statement about platforms and their keys."""

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Uuid, bindparam, insert, or_, select, update

from aarokya.identity.v1.api_key_pb2 import ApiKey, ApiKeyStatus
from aarokya.identity.v1.platform_pb2 import Platform
from identity.models import api_key_secrets, api_keys, platforms, users
from identity.platforms.errors import ApiKeySecretTaken, PlatformNameTaken
from servicekit.advisory_locks import key_of, lock, lock_shared
from servicekit.compiled_statement import CompiledStatement
from servicekit.data_keys import SERVICE_OWNER, DataKeys
from servicekit.database import AnyRow, Transaction, refusing
from servicekit.paging import newest_first
from servicekit.rows import RowMapper

TAKEN = {"pk_platforms": PlatformNameTaken, "uq_platforms_name_key": PlatformNameTaken}

_PLATFORM = bindparam("platform", type_=Uuid)
_STATUS_HELD = CompiledStatement(
    select(platforms.c.status).where(platforms.c.id == _PLATFORM).with_for_update(read=True)
)


class PlatformRepository:
    """Reads and writes platforms."""

    def __init__(self, keys: DataKeys) -> None:
        self._keys = keys
        self.rows = RowMapper(platforms, Platform, keys, owner_column="id")
        by_id = self.rows.select().where(platforms.c.id == _PLATFORM)
        self._by_id = CompiledStatement(by_id)
        self._by_id_held = CompiledStatement(by_id.with_for_update(of=platforms))

    async def insert(self, tx: Transaction, platform: Platform) -> None:
        """Add a platform. Raises PlatformNameTaken when its name is taken, or its id, be it by an erased user."""
        platform_id = UUID(platform.id)
        # The service's own key is nobody's, and is never destroyed.
        if platform_id != SERVICE_OWNER and await self._keys.are_known_of(tx, platform_id):
            raise PlatformNameTaken
        key = await self._keys.for_owner(tx, platform_id, platform_id)
        values = self.rows.values(platform, key=key, version=platform.version, name_key=_name_key(platform.name))
        with refusing(TAKEN):
            await tx.execute(insert(platforms).values(values))

    async def update(self, tx: Transaction, platform: Platform) -> None:
        """Write a platform's new state; its row must be locked by `find` in this transaction."""
        key = await self._keys.for_owner(tx, UUID(platform.id))
        values = self.rows.values(platform, key=key, version=platform.version, name_key=_name_key(platform.name))
        with refusing(TAKEN):
            await tx.execute(update(platforms).where(platforms.c.id == UUID(platform.id)).values(values))

    async def find(self, tx: Transaction, platform_id: UUID, *, for_update: bool = False) -> Platform | None:
        """Return a platform, locked against other changes if it is to be changed."""
        if for_update:
            await lock(tx, key_of(platform_id))
        statement = self._by_id_held if for_update else self._by_id
        row = await statement.one_or_none(tx, {"platform": platform_id})
        return None if row is None else self.rows.message(row)

    async def hold_status(self, tx: Transaction, platform_id: UUID) -> str:
        """Return where a platform stands, and keep it so until the transaction ends."""
        # So that whoever wants to change that has its turn, however many sign up.
        await lock_shared(tx, key_of(platform_id))
        status: str = (await _STATUS_HELD.rows(tx, {"platform": platform_id}))[0].status
        return status

    async def list_newest(self, tx: Transaction, cursor: Sequence[str] | None, page_size: int) -> Sequence[AnyRow]:
        """Return the rows of a page, and one more."""
        statement = newest_first(self.rows.select(), (platforms.c.created_at, platforms.c.id), cursor, page_size)
        return (await tx.execute(statement)).all()

    async def has_users(self, tx: Transaction, platform_id: UUID) -> bool:
        """Return whether the platform has a user who is not deactivated."""
        # An index finds states by name, not by what they are not.
        statement = (
            select(users.c.id)
            .where(users.c.platform_id == platform_id, users.c.status.in_(("onboarding", "active")))
            .limit(1)
        )
        return (await tx.execute(statement)).first() is not None


class ApiKeyRepository:
    """Reads and writes partner keys and the hashes of their secrets."""

    async def insert(self, tx: Transaction, key: ApiKey, secret_hash: bytes) -> None:
        """Add a key with its first secret."""
        key_id, platform_id = UUID(key.id), UUID(key.platform_id)
        expires_at = key.expires_at.ToDatetime(UTC) if key.HasField("expires_at") else None
        await tx.execute(
            insert(api_keys).values(
                id=key_id,
                platform_id=platform_id,
                name=key.name,
                prefix=key.prefix,
                expires_at=expires_at,
                created_at=tx.now,
            )
        )
        await self.insert_secret(tx, key_id, platform_id, secret_hash)

    async def insert_secret(self, tx: Transaction, key_id: UUID, platform_id: UUID, secret_hash: bytes) -> None:
        """Add a secret that lives as long as its key."""
        with refusing({"pk_api_key_secrets": ApiKeySecretTaken}):
            await tx.execute(
                insert(api_key_secrets).values(
                    hash=secret_hash, key_id=key_id, platform_id=platform_id, created_at=tx.now
                )
            )

    async def expire_secrets(self, tx: Transaction, key_id: UUID, at: datetime) -> None:
        """Let all the secrets that a key has now end at a moment, unless they end before."""
        secrets = api_key_secrets
        await tx.execute(
            update(secrets)
            .where(secrets.c.key_id == key_id, or_(secrets.c.expires_at.is_(None), secrets.c.expires_at > at))
            .values(expires_at=at)
        )

    async def set_prefix(self, tx: Transaction, key_id: UUID, prefix: str) -> None:
        """Write the part of the newest secret that may be shown."""
        await tx.execute(update(api_keys).where(api_keys.c.id == key_id).values(prefix=prefix))

    async def revoke(self, tx: Transaction, key_id: UUID) -> None:
        """Stop a key and all its secrets."""
        await tx.execute(update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=tx.now))

    async def find(self, tx: Transaction, platform_id: UUID, key_id: UUID) -> ApiKey | None:
        """Return a platform's key, locked against other changes."""
        statement = select(api_keys).where(api_keys.c.platform_id == platform_id, api_keys.c.id == key_id)
        row = (await tx.execute(statement.with_for_update())).one_or_none()
        return None if row is None else to_api_key(row, tx.now)

    async def list_newest(
        self, tx: Transaction, platform_id: UUID, cursor: Sequence[str] | None, page_size: int
    ) -> Sequence[AnyRow]:
        """Return the rows of a page, and one more."""
        statement = select(api_keys).where(api_keys.c.platform_id == platform_id)
        statement = newest_first(statement, (api_keys.c.created_at, api_keys.c.id), cursor, page_size)
        return (await tx.execute(statement)).all()


def to_api_key(row: AnyRow, now: datetime) -> ApiKey:
    """Return the key that a row holds, with its status at a moment."""
    key = ApiKey(id=str(row.id), platform_id=str(row.platform_id), name=row.name, prefix=row.prefix)
    key.created_at.FromDatetime(row.created_at)
    if row.last_used_at is not None:
        key.last_used_at.FromDatetime(row.last_used_at)
    if row.expires_at is not None:
        key.expires_at.FromDatetime(row.expires_at)
    if row.revoked_at is not None:
        key.status = ApiKeyStatus.API_KEY_STATUS_REVOKED
    elif row.expires_at is not None and row.expires_at <= now:
        key.status = ApiKeyStatus.API_KEY_STATUS_EXPIRED
    else:
        key.status = ApiKeyStatus.API_KEY_STATUS_ACTIVE
    return key


def _name_key(name: str) -> str:
    """Return what two spellings of one name have in common."""
    return unicodedata.normalize("NFKC", name).casefold()
