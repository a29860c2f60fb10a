"""What decides on rights at this moment."""

from uuid import UUID

from aarokya.identity.v1.api_key_pb2 import ApiKeyStatus
from aarokya.identity.v1.live_state_service_pb2 import ApiKeyState, UserState
from aarokya.identity.v1.platform_pb2 import PlatformStatus
from aarokya.identity.v1.user_pb2 import UserStatus
from identity.live_state import repository
from servicekit.database import Transaction
from servicekit.enum_text import number_of


async def find_user_state(tx: Transaction, user_id: UUID) -> UserState | None:
    """Return what decides on a user's rights."""
    row = await repository.find_user_state(tx, user_id)
    if row is None:
        return None
    return UserState(
        user_id=str(row.id),
        platform_id=str(row.platform_id),
        status=UserStatus.ValueType(number_of(UserStatus.DESCRIPTOR, row.status)),
        token_generation=row.token_generation,
        platform_status=PlatformStatus.ValueType(number_of(PlatformStatus.DESCRIPTOR, row.platform_status)),
        max_dependants=row.max_dependants,
        erased=row.erased_at is not None,
    )


async def find_key_state(tx: Transaction, secret_hash: bytes) -> ApiKeyState | None:
    """Return the key of a secret; where its platform stands is left to the reader of the platform's scope."""
    row = await repository.find_key_state(tx, secret_hash)
    if row is None:
        return None
    state = ApiKeyState(key_id=str(row.id), platform_id=str(row.platform_id))
    if row.expires_at is not None:
        state.expires_at.FromDatetime(row.expires_at)
    if row.revoked_at is not None:
        state.status = ApiKeyStatus.API_KEY_STATUS_REVOKED
    elif row.expires_at is not None and row.expires_at <= tx.now:
        state.status = ApiKeyStatus.API_KEY_STATUS_EXPIRED
    else:
        state.status = ApiKeyStatus.API_KEY_STATUS_ACTIVE
    return state
