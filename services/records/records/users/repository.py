"""Every SQL statement about users."""

from uuid import UUID

from sqlalchemy import Uuid, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert

from records.models import accounts, mrns, users
from servicekit.compiled_statement import CompiledStatement
from servicekit.data_keys import DataKeys
from servicekit.database import AnyRow, Transaction
from servicekit.erasures import Erasure

_FIND = CompiledStatement(select(users.c.version, users.c.erased_at).where(users.c.id == bindparam("user", type_=Uuid)))
_insertion = insert(users)
_SET_VERSION = CompiledStatement(
    _insertion.on_conflict_do_update(index_elements=["id"], set_={"version": _insertion.excluded.version}),
    ("id", "platform_id", "version"),
)


class UserRepository:
    """Notes what identity said of users, and makes erased ones unreadable."""

    def __init__(self, keys: DataKeys) -> None:
        self._keys = keys

    async def find(self, tx: Transaction, user_id: UUID) -> AnyRow | None:
        """Return the version that identity last told of, and whether the user was erased."""
        return await _FIND.one_or_none(tx, {"user": user_id})

    async def set_version(self, tx: Transaction, user_id: UUID, platform_id: UUID, version: int) -> None:
        """Note the version that identity told of."""
        await _SET_VERSION.execute(tx, {"id": user_id, "platform_id": platform_id, "version": version})

    async def list_without_key(self, tx: Transaction) -> list[Erasure]:
        """Return whose data key was destroyed though the row does not know: those whom a restore has brought back."""
        keys = self._keys.table
        statement = (
            select(users.c.id, users.c.platform_id, keys.c.destroyed_at)
            .join(keys, keys.c.owner_id == users.c.id)
            .where(keys.c.destroyed_at.is_not(None), users.c.erased_at.is_(None))
        )
        return [Erasure(*row) for row in await tx.execute(statement)]

    async def erase(self, tx: Transaction, user_id: UUID, platform_id: UUID) -> None:
        """Destroy the user's data key and every hash by which a number of the user's could still be found."""
        await self._keys.destroy(tx, user_id, platform_id)
        await tx.execute(update(accounts).where(accounts.c.user_id == user_id).values(number_hash=None))
        await tx.execute(update(mrns).where(mrns.c.user_id == user_id).values(mrn_hash=None))
        await tx.execute(update(users).where(users.c.id == user_id).values(erased_at=tx.now))
