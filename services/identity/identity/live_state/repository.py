"""Tells every replica what it must forget, and reads what decides on rights."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, LargeBinary, Text, Uuid, any_, bindparam, func, or_, select, text, update

from identity.models import api_key_secrets, api_keys, platforms, users
from servicekit.compiled_statement import CompiledStatement
from servicekit.database import AnyRow, Reader, Transaction

CHANNEL = "live_state"
PRESENTED_HASH = "app.api_key_hash"

_ANNOUNCE = CompiledStatement(select(func.pg_notify(CHANNEL, bindparam("what", type_=Text)).label("announced")))
_user_states = select(
    users.c.id,
    users.c.platform_id,
    users.c.status,
    users.c.token_generation,
    platforms.c.status.label("platform_status"),
    platforms.c.max_dependants,
).join(platforms, platforms.c.id == users.c.platform_id)
_USER_STATE = CompiledStatement(_user_states.where(users.c.id == bindparam("user", type_=Uuid)))
_USER_STATES = CompiledStatement(_user_states.where(users.c.id == any_(bindparam("users", type_=ARRAY(Uuid)))))
_KEY_STATE = CompiledStatement(
    select(
        api_keys.c.id,
        api_keys.c.platform_id,
        api_keys.c.revoked_at,
        func.least(api_keys.c.expires_at, api_key_secrets.c.expires_at).label("expires_at"),
        api_keys.c.last_used_at,
        platforms.c.status.label("platform_status"),
    )
    .select_from(api_key_secrets)
    .join(api_keys, api_keys.c.id == api_key_secrets.c.key_id)
    .join(platforms, platforms.c.id == api_key_secrets.c.platform_id)
    .where(api_key_secrets.c.hash == bindparam("hash", type_=LargeBinary))
)


async def announce_user(tx: Transaction, user_id: UUID) -> None:
    """Let every replica forget a user's state when the transaction commits."""
    await _announce(tx, f"user:{user_id}")


async def announce_platform(tx: Transaction, platform_id: UUID) -> None:
    """Let every replica forget a platform's state, and its users' and keys', when the transaction commits."""
    await _announce(tx, f"platform:{platform_id}")


async def announce_key(tx: Transaction, key_id: UUID) -> None:
    """Let every replica forget a key's state when the transaction commits."""
    await _announce(tx, f"key:{key_id}")


async def _announce(tx: Transaction, what: str) -> None:
    await _ANNOUNCE.execute(tx, {"what": what})


async def find_user_state(reader: Reader, user_id: UUID) -> AnyRow | None:
    """Return what decides on a user's rights."""
    return await _USER_STATE.one_or_none(reader, {"user": user_id})


async def find_user_states(reader: Reader, user_ids: Sequence[UUID]) -> Sequence[AnyRow]:
    """Return what decides on the rights of those of the users who exist."""
    return await _USER_STATES.rows(reader, {"users": list(user_ids)})


async def find_key_state(tx: Transaction, secret_hash: bytes) -> AnyRow | None:
    """Return the key of a secret and where its platform stands, by the policies that open just these rows."""
    return await _KEY_STATE.one_or_none(tx, {"hash": secret_hash})


async def note_key_use(tx: Transaction, key_id: UUID, unless_since: datetime) -> None:
    """Note that a key is used now, unless that was noted since a moment or the key is just being changed.

    Whoever waits for an answer does not wait for disks or standbys for this.
    """
    await tx.execute(text("SET LOCAL synchronous_commit TO off"))
    last_used_at = api_keys.c.last_used_at
    free = (
        select(api_keys.c.id)
        .where(api_keys.c.id == key_id, or_(last_used_at.is_(None), last_used_at <= unless_since))
        .with_for_update(skip_locked=True)
    )
    await tx.execute(update(api_keys).where(api_keys.c.id.in_(free)).values(last_used_at=tx.now))
