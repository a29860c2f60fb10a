"""Locks of PostgreSQL on numbers, for what no row stands for; they end with the transaction."""

from uuid import UUID

from sqlalchemy import BigInteger, bindparam, func, select

from servicekit.compiled_statement import CompiledStatement
from servicekit.database import Transaction

_KEY = bindparam("key", type_=BigInteger)
_LOCK = CompiledStatement(select(func.pg_advisory_xact_lock(_KEY).label("locked")))
_LOCK_SHARED = CompiledStatement(select(func.pg_advisory_xact_lock_shared(_KEY).label("locked")))
_TRY_LOCK = CompiledStatement(select(func.pg_try_advisory_xact_lock(_KEY).label("is_locked")))


async def lock(tx: Transaction, key: int) -> None:
    """Wait until nobody else has the lock, and keep others waiting."""
    await _LOCK.execute(tx, {"key": key})


async def lock_shared(tx: Transaction, key: int) -> None:
    """Wait until nobody has the lock for itself or has waited for that before, and keep those waiting who want it so.

    Rows can be locked like that, too, but there whoever shares passes whoever waits, who may then wait for ever.
    """
    await _LOCK_SHARED.execute(tx, {"key": key})


def key_of(row_id: UUID) -> int:
    """Return the key of a lock for a row: the random half of its id."""
    return int.from_bytes(row_id.bytes[8:], signed=True)


async def try_lock(tx: Transaction, key: int) -> bool:
    """Take the lock unless somebody else has it; return whether it was taken."""
    is_locked: bool = (await _TRY_LOCK.rows(tx, {"key": key}))[0].is_locked
    return is_locked
