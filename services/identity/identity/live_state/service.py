"""What decides on rights at this moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from aarokya.identity.v1.api_key_pb2 import ApiKeyStatus
from aarokya.identity.v1.live_state_service_pb2 import ApiKeyState, UserState
from aarokya.identity.v1.platform_pb2 import PlatformStatus
from aarokya.identity.v1.user_pb2 import UserStatus
from identity.live_state import repository
from servicekit.database import AnyRow, Reader, Transaction
from servicekit.enum_text import number_of

# Gateways use what they learned of a key for 30 s before they ask again; so together uses are known to a minute.
USE_NOTED_EVERY = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key, and whether its use has to be noted."""

    state: ApiKeyState
    needs_noting: bool


async def find_user_state(reader: Reader, user_id: UUID) -> UserState | None:
    """Return what decides on a user's rights."""
    row = await repository.find_user_state(reader, user_id)
    return None if row is None else _user_state(row)


async def find_user_states(reader: Reader, user_ids: Sequence[UUID]) -> list[UserState]:
    """Return what decides on the rights of those of the users who exist."""
    return [_user_state(row) for row in await repository.find_user_states(reader, user_ids)]


def _user_state(row: AnyRow) -> UserState:
    return UserState(
        user_id=str(row.id),
        platform_id=str(row.platform_id),
        status=UserStatus.ValueType(number_of(UserStatus.DESCRIPTOR, row.status)),
        token_generation=row.token_generation,
        platform_status=_platform_status(row.platform_status),
        max_dependants=row.max_dependants,
    )


async def find_key_state(tx: Transaction, secret_hash: bytes) -> FoundKey | None:
    """Return the key of a secret, by the scope that opens just this secret's rows.

    A secret that lived on for a rotation's overlap is expired after it, whatever the key is.
    """
    row = await repository.find_key_state(tx, secret_hash)
    if row is None:
        return None
    state = ApiKeyState(
        key_id=str(row.id), platform_id=str(row.platform_id), platform_status=_platform_status(row.platform_status)
    )
    if row.expires_at is not None:
        state.expires_at.FromDatetime(row.expires_at)
    if row.revoked_at is not None:
        state.status = ApiKeyStatus.API_KEY_STATUS_REVOKED
    elif row.expires_at is not None and row.expires_at <= tx.now:
        state.status = ApiKeyStatus.API_KEY_STATUS_EXPIRED
    else:
        state.status = ApiKeyStatus.API_KEY_STATUS_ACTIVE
    is_used = (
        state.status == ApiKeyStatus.API_KEY_STATUS_ACTIVE
        and state.platform_status == PlatformStatus.PLATFORM_STATUS_ACTIVE
    )
    is_noted = row.last_used_at is not None and row.last_used_at > tx.now - USE_NOTED_EVERY
    return FoundKey(state, needs_noting=is_used and not is_noted)


async def note_key_use(tx: Transaction, key_id: UUID) -> None:
    """Note that a key is used now; of many who do so at once, one writes."""
    await repository.note_key_use(tx, key_id, tx.now - USE_NOTED_EVERY)


def _platform_status(status: str) -> PlatformStatus.ValueType:
    return PlatformStatus.ValueType(number_of(PlatformStatus.DESCRIPTOR, status))
