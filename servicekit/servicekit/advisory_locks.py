"""Locks of PostgreSQL on numbers, for what no row stands for; they end with the transaction."""

from sqlalchemy import BigInteger, bindparam, func, select

from servicekit.database import Transaction
from servicekit.quick_statement import QuickStatement

_KEY = bindparam("key", type_=BigInteger)
_LOCK = QuickStatement(select(func.pg_advisory_xact_lock(_KEY).label("locked")))
_TRY_LOCK = QuickStatement(select(func.pg_try_advisory_xact_lock(_KEY).label("is_locked")))


async def lock(tx: Transaction, key: int) -> None:
    """Wait until nobody else has the lock, and keep others waiting."""
    await _LOCK.execute(tx, {"key": key})


async def try_lock(tx: Transaction, key: int) -> bool:
    """Take the lock unless somebody else has it; return whether it was taken."""
    is_locked: bool = (await _TRY_LOCK.rows(tx, {"key": key}))[0].is_locked
    return is_locked
