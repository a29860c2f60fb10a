"""Every SQL statement about users."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, LargeBinary, Select, Text, Uuid, any_, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore

from aarokya.identity.v1.user_pb2 import User
from identity.models import users
from identity.users.errors import PhoneTaken
from servicekit.advisory_locks import lock
from servicekit.compiled_statement import CompiledPages, CompiledStatement
from servicekit.crypto import LookupHash
from servicekit.data_keys import SERVICE_OWNER, DataKeys, OwnerErased
from servicekit.database import AnyRow, Reader, Transaction, refusing
from servicekit.erasures import Erasure
from servicekit.rows import RowMapper

_USER = bindparam("user", type_=Uuid)
_USERS = bindparam("users", type_=ARRAY(Uuid))
_PLATFORM = bindparam("platform", type_=Uuid)
_STATUS = bindparam("wanted_status", type_=Text)
_PHONE = bindparam("phone", type_=LargeBinary)


@dataclass(slots=True)
class StoredUser:
    """A user and what of its row no answer shows.

    Attributes:
        user: the whole user, the id proof and a released phone number included.
        phone_released_at: when an operator freed the phone number for another user.
        token_generation: how often the user was deactivated; tokens of an earlier generation are dead.
    """

    user: User
    phone_released_at: datetime | None = None
    token_generation: int = 0


class UserRepository:
    """Reads and writes users."""

    def __init__(self, keys: DataKeys, hashes: LookupHash) -> None:
        self._keys = keys
        self._hashes = hashes
        self.rows = RowMapper(users, User, keys, owner_column="id", computed=("id_proof_type", "id_proof_masked"))
        by_id = self._select().where(users.c.id == _USER)
        self._by_id = CompiledStatement(by_id)
        self._by_ids = CompiledStatement(self._select().where(users.c.id == any_(_USERS)))
        self._by_id_held = CompiledStatement(by_id.with_for_update(of=users))
        by_phone = self._select().where(users.c.platform_id == _PLATFORM, users.c.phone_hash == _PHONE)
        self._by_phone = CompiledStatement(by_phone)
        self._pages = CompiledPages(self._select_matching, (users.c.created_at, users.c.id))
        columns = [column.name for column in users.c if column.computed is None]
        insertion = insert_or_ignore(users).on_conflict_do_nothing(constraint="uq_users_phone")
        self._insert = CompiledStatement(insertion.returning(users.c.id), columns)
        self._update = CompiledStatement(update(users).where(users.c.id == _USER), columns)

    async def insert_unless_taken(self, tx: Transaction, stored: StoredUser) -> bool:
        """Add a user; False when the platform has one with this phone number."""
        values = await self._values(tx, stored, UUID(stored.user.id))
        return bool(await self._insert.rows(tx, values))

    async def update(self, tx: Transaction, stored: StoredUser) -> None:
        """Write a user's new state; its row must be locked by `find` in this transaction."""
        with refusing({"uq_users_phone": PhoneTaken}):
            await self._write(tx, stored, owner_id=UUID(stored.user.id))

    async def erase(self, tx: Transaction, stored: StoredUser) -> None:
        """Write what is left of a user and destroy the user's data key; the row must be locked by `find`."""
        # A call that waits for the row reads it anew but may still have the key, so the row is sealed anew too.
        try:
            await self._write(tx, stored, owner_id=UUID(stored.user.id))
        except OwnerErased:
            # A restored backup has the row as it was, and only the keys of today.
            await self._write(tx, stored, owner_id=SERVICE_OWNER)
        await self._keys.destroy(tx, UUID(stored.user.id), UUID(stored.user.platform_id))

    async def list_erased_since(self, tx: Transaction, moment: datetime) -> list[Erasure]:
        """Return who was erased from a moment on, the first first."""
        statement = (
            select(users.c.id, users.c.platform_id, users.c.erased_at)
            .where(users.c.erased_at >= moment)
            .order_by(users.c.erased_at)
        )
        return [Erasure(*row) for row in await tx.execute(statement)]

    async def list_without_key(self, tx: Transaction) -> list[Erasure]:
        """Return whose data key was destroyed though the row does not know: those whom a restore has brought back."""
        keys = self._keys.table
        statement = (
            select(users.c.id, users.c.platform_id, keys.c.destroyed_at)
            .join(keys, keys.c.owner_id == users.c.id)
            .where(keys.c.destroyed_at.is_not(None), users.c.erased_at.is_(None))
        )
        return [Erasure(*row) for row in await tx.execute(statement)]

    async def find(self, reader: Reader, user_id: UUID, *, for_update: bool = False) -> StoredUser | None:
        """Return a user, locked against other changes if it is to be changed."""
        statement = self._by_id_held if for_update else self._by_id
        row = await statement.one_or_none(reader, {"user": user_id})
        return None if row is None else self.to_stored(row)

    async def find_each(self, reader: Reader, user_ids: Sequence[UUID]) -> list[StoredUser]:
        """Return those of some users whom there are, in any order."""
        return [self.to_stored(row) for row in await self._by_ids.rows(reader, {"users": list(user_ids)})]

    async def find_by_phone(self, tx: Transaction, platform_id: UUID, phone_number: str) -> StoredUser | None:
        """Return the platform's user with a phone number in E.164."""
        values = {"platform": platform_id, "phone": self._phone_hash(phone_number)}
        row = await self._by_phone.one_or_none(tx, values)
        return None if row is None else self.to_stored(row)

    async def hold_phone(self, tx: Transaction, platform_id: UUID, phone_number: str) -> None:
        """Wait until no other call creates the platform's user with this number, and keep others waiting."""
        key = self._hashes.hash("phone_number_lock", str(platform_id), phone_number)
        await lock(tx, int.from_bytes(key[:8], signed=True))

    async def list_newest(
        self,
        tx: Transaction,
        *,
        platform_id: UUID | None,
        status: str | None,
        phone_number: str | None,
        cursor: Sequence[str] | None,
        page_size: int,
    ) -> Sequence[AnyRow]:
        """Return the rows of a page, and one more."""
        wanted = {
            "platform": platform_id,
            "wanted_status": status,
            "phone": None if phone_number is None else self._phone_hash(phone_number),
        }
        named = {name: value for name, value in wanted.items() if value is not None}
        return await self._pages.rows(tx, named, cursor, page_size, frozenset(named))

    def to_stored(self, row: AnyRow) -> StoredUser:
        """Return the user that a row holds."""
        return StoredUser(self.rows.message(row), row.phone_released_at, row.token_generation)

    def _select(self) -> Select[*tuple[Any, ...]]:
        return self.rows.select(users.c.phone_released_at, users.c.token_generation)

    def _select_matching(self, named: frozenset[str]) -> Select[*tuple[Any, ...]]:
        conditions = {
            "platform": users.c.platform_id == _PLATFORM,
            "wanted_status": users.c.status == _STATUS,
            "phone": users.c.phone_hash == _PHONE,
        }
        return self._select().where(*(condition for name, condition in conditions.items() if name in named))

    async def _write(self, tx: Transaction, stored: StoredUser, *, owner_id: UUID) -> None:
        values = await self._values(tx, stored, owner_id)
        await self._update.execute(tx, {**values, "user": UUID(stored.user.id)})

    async def _values(self, tx: Transaction, stored: StoredUser, owner_id: UUID) -> dict[str, Any]:
        user = stored.user
        key = await self._keys.for_owner(tx, owner_id, UUID(user.platform_id))
        has_number = user.HasField("phone_number") and stored.phone_released_at is None
        return self.rows.values(
            user,
            key=key,
            version=user.version,
            phone_hash=self._phone_hash(user.phone_number) if has_number else None,
            phone_released_at=stored.phone_released_at,
            token_generation=stored.token_generation,
        )

    def _phone_hash(self, phone_number: str) -> bytes:
        return self._hashes.hash("phone_number", phone_number)
