"""Where users stand, as identity says; remembered only as long as identity is heard."""

from collections.abc import Sequence
from uuid import UUID

import grpc.aio

from aarokya.identity.v1 import live_state_service_pb2_grpc as pb_grpc
from aarokya.identity.v1.live_state_service_pb2 import (
    BatchGetUserStatesRequest,
    GetUserStateRequest,
    UserState,
    WatchLiveStateRequest,
    WatchLiveStateResponse,
)
from aarokya.identity.v1.user_pb2 import UserStatus
from records.models import SERVICE
from records.users.errors import UserUnknown, WrongUserStatus
from servicekit.caller import METADATA_KEY, Call, system_call
from servicekit.data_loader import DataLoader
from servicekit.leased_cache import Lease, LeasedCache, Watch, read_as_of, read_is_ending
from servicekit.questions import Questions
from servicekit.remote_clock import RemoteClocks

MOST_USERS = 50_000
# What is heard narrows rights at once. This bounds how long anything else about a user may be out of date.
USERS_USED_FOR_S = 60.0
CALL = system_call(SERVICE)
# Is nobody's id; an answer about it is as good as any to learn of identity's clock.
NOBODY = str(UUID(int=0))


class UserStates:
    """Asks identity about users. To be asked before a transaction is opened, never inside one."""

    def __init__(self, identity: grpc.aio.Channel) -> None:
        self._stub: pb_grpc.LiveStateServiceAsyncStub = pb_grpc.LiveStateServiceStub(identity)
        self._clocks = RemoteClocks()
        self._questions = Questions(self._clocks)
        lease = Lease()
        self._users: LeasedCache[str, UserState] = LeasedCache(
            lease,
            DataLoader(self._fetch, self._fetch_many).load,
            tags_of=lambda state: (state.platform_id,),
            max_entries=MOST_USERS,
            max_age_s=USERS_USED_FOR_S,
        )
        self._watch = Watch(
            self._open_stream,
            self._hear,
            (self._users,),
            lease,
            as_of=read_as_of,
            is_ending=read_is_ending,
            clocks=self._clocks,
            ask=lambda: self._fetch(NOBODY),
        )

    async def run(self) -> None:
        """Listen to identity until cancelled. Before and without it, identity is asked every time."""
        await self._watch.run()

    async def get(self, call: Call, user_id: UUID) -> UserState:
        """Return where a user stands, as whoever wants to change something of the user's must know it.

        Of callers themselves the gateway has made sure already, so what is remembered will do, unless it would
        have them refused. For everybody else identity is asked. The state is shared, so nobody may change it.

        Raises:
            UserUnknown: there is no such user, or the caller may not know.
            ServiceAway: identity does not answer, or not in time.
        """
        if call.caller.is_user:
            state = await self._users.get(str(user_id))
            if state is not None and state.status == UserStatus.USER_STATUS_ACTIVE:
                return _visible(call, state)
        return await self.ask(call, user_id)

    async def ask(self, call: Call, user_id: UUID) -> UserState:
        """Return where a user stands, as `get` does, but ask identity whoever calls: before somebody is refused."""
        return _visible(call, await self._users.get(str(user_id), fresh=True))

    async def get_unless_own(self, call: Call, user_id: UUID) -> UserState | None:
        """Return where a user stands as `get` does, or None for callers themselves."""
        return None if _is_own(call, user_id) else await self.get(call, user_id)

    async def require_known(self, call: Call, user_id: UUID) -> None:
        """Make sure that the caller may read of a user, whose id and platform never change.

        Raises:
            UserUnknown: there is no such user, or the caller may not know.
            ServiceAway: identity had to be asked and does not answer, or not in time.
        """
        if not _is_own(call, user_id):
            _visible(call, await self._users.get(str(user_id)))

    async def _fetch(self, user_id: str) -> UserState | None:
        request = GetUserStateRequest(user_id=user_id)
        response = await self._questions.ask(self._stub.GetUserState, request, CALL)
        return response.state if response.HasField("state") else None

    async def _fetch_many(self, user_ids: Sequence[str]) -> dict[str, UserState]:
        request = BatchGetUserStatesRequest(user_ids=user_ids)
        response = await self._questions.ask_about_many(self._stub.BatchGetUserStates, request, CALL)
        return {state.user_id: state for state in response.states}

    def _open_stream(self) -> grpc.aio.UnaryStreamCall[WatchLiveStateRequest, WatchLiveStateResponse]:
        return self._stub.WatchLiveState(WatchLiveStateRequest(), metadata=((METADATA_KEY, CALL.to_bytes()),))

    def _hear(self, message: WatchLiveStateResponse) -> None:
        self._questions.note_sign_of_life()
        match message.WhichOneof("changed"):
            case "user_id":
                self._users.invalidate(message.user_id)
            case "platform_id":
                self._users.invalidate_tag(message.platform_id)
            case "everything":
                self._users.invalidate_everything()


def require_active(state: UserState) -> None:
    """Refuse with `WrongUserStatus` unless the user is active."""
    if state.status != UserStatus.USER_STATUS_ACTIVE:
        raise WrongUserStatus


def _is_own(call: Call, user_id: UUID) -> bool:
    return call.caller.is_user and call.caller.id == str(user_id)


def _visible(call: Call, state: UserState | None) -> UserState:
    """Return the state if the caller may know of it. Raises UserUnknown."""
    caller = call.caller
    if state is None:
        raise UserUnknown
    if (caller.is_partner or caller.is_user) and UUID(state.platform_id) != caller.platform_id:
        raise UserUnknown
    if caller.is_user and state.user_id != caller.id:
        raise UserUnknown
    return state
