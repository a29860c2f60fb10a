"""Tells every replica what it must forget, and reads what decides on rights."""

from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select

from aarokya.identity.v1.platform_pb2 import PlatformStatus
from identity.models import api_key_secrets, api_keys, platforms, users
from servicekit.database import AnyRow, Transaction
from servicekit.enum_text import number_of

CHANNEL = "live_state"
PRESENTED_HASH = "app.api_key_hash"


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
    await tx.execute(select(func.pg_notify(CHANNEL, what)))


async def find_user_state(tx: Transaction, user_id: UUID) -> AnyRow | None:
    """Return what decides on a user's rights."""
    statement: Select[Any] = (
        select(
            users.c.id,
            users.c.platform_id,
            users.c.status,
            users.c.token_generation,
            users.c.erased_at,
            platforms.c.status.label("platform_status"),
            platforms.c.max_dependants,
        )
        .join(platforms, platforms.c.id == users.c.platform_id)
        .where(users.c.id == user_id)
    )
    return (await tx.execute(statement)).one_or_none()


async def find_key_state(tx: Transaction, secret_hash: bytes) -> AnyRow | None:
    """Return the key of a secret, by the policies that open just this secret's rows."""
    secrets, keys = api_key_secrets, api_keys
    statement: Select[Any] = (
        select(
            keys.c.id,
            keys.c.platform_id,
            keys.c.revoked_at,
            func.least(keys.c.expires_at, secrets.c.expires_at).label("expires_at"),
        )
        .join(keys, keys.c.id == secrets.c.key_id)
        .where(secrets.c.hash == secret_hash)
    )
    return (await tx.execute(statement)).one_or_none()


async def find_platform_status(tx: Transaction, platform_id: UUID) -> PlatformStatus.ValueType:
    """Return where a platform stands."""
    status = (await tx.execute(select(platforms.c.status).where(platforms.c.id == platform_id))).scalar_one()
    return PlatformStatus.ValueType(number_of(PlatformStatus.DESCRIPTOR, status))
