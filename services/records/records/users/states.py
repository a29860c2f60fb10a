"""What identity says of a user at this moment."""

from uuid import UUID

import grpc
import grpc.aio

from aarokya.identity.v1 import live_state_service_pb2_grpc as pb_grpc
from aarokya.identity.v1.live_state_service_pb2 import GetUserStateRequest, UserState
from aarokya.identity.v1.user_pb2 import UserStatus
from records.models import SERVICE
from records.users.errors import UserUnknown, WrongUserStatus
from servicekit.caller import METADATA_KEY, Call
from servicekit.errors import ServiceAway

TIMEOUT_S = 2.0


class UserStates:
    """Asks identity about users. To be asked before a transaction is opened, never inside one."""

    def __init__(self, identity: grpc.aio.Channel) -> None:
        self._stub: pb_grpc.LiveStateServiceAsyncStub = pb_grpc.LiveStateServiceStub(identity)

    async def get(self, call: Call, user_id: UUID) -> UserState:
        """Return the state of a user that the caller may know of.

        Raises:
            UserUnknown: there is no such user, or it is another's than the caller's.
            ServiceAway: identity does not answer, or not in time.
        """
        metadata = ((METADATA_KEY, call.as_system(SERVICE).to_bytes()),)
        try:
            response = await self._stub.GetUserState(
                GetUserStateRequest(user_id=str(user_id)), timeout=TIMEOUT_S, metadata=metadata
            )
        except grpc.aio.AioRpcError as error:
            raise ServiceAway from error
        caller, state = call.caller, response.state
        if not response.HasField("state"):
            raise UserUnknown
        if (caller.is_partner or caller.is_user) and UUID(state.platform_id) != caller.platform_id:
            raise UserUnknown
        if caller.is_user and str(user_id) != caller.id:
            raise UserUnknown
        return state

    async def get_unless_own(self, call: Call, user_id: UUID) -> UserState | None:
        """Return the state as `get` does, or None when users ask for themselves: the gateway has seen that they may."""
        if call.caller.is_user and call.caller.id == str(user_id):
            return None
        return await self.get(call, user_id)


def require_active(state: UserState) -> None:
    """Refuse with `WrongUserStatus` unless the user is active."""
    if state.status != UserStatus.USER_STATUS_ACTIVE:
        raise WrongUserStatus
