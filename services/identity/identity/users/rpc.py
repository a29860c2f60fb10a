"""UserService over gRPC: opens the transaction, translates, decides nothing."""

from typing import Any
from uuid import UUID

import grpc

from aarokya.identity.v1 import user_service_pb2 as pb
from aarokya.identity.v1.user_pb2 import User, UserStatus
from aarokya.identity.v1.user_service_pb2_grpc import UserServiceServicer
from identity.users.profile import to_public
from identity.users.repository import StoredUser, UserRepository
from identity.users.service import UserService
from servicekit.data_keys import SERVICE_OWNER
from servicekit.database import Database
from servicekit.enum_text import text_of
from servicekit.idempotency import OnceOnly
from servicekit.outbox import Outbox
from servicekit.page_tokens import PageTokens
from servicekit.server import GATEWAY, allow_peers, call_of

Context = grpc.aio.ServicerContext[Any, Any]
# How long an answer waits for SELF to follow; when records is away the outbox goes on by itself.
WAIT_FOR_RECORDS_S = 0.5


class UserRpc(UserServiceServicer):
    """Answers UserService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["UserService"]

    def __init__(
        self,
        database: Database,
        once: OnceOnly,
        pages: PageTokens,
        users: UserService,
        user_rows: UserRepository,
        outbox: Outbox,
    ) -> None:
        self._database = database
        self._once = once
        self._pages = pages
        self._users = users
        self._user_rows = user_rows
        self._outbox = outbox

    @allow_peers(GATEWAY)
    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        async with self._database.reading(call_of(context)) as reader:
            stored = await self._users.get_user(reader, UUID(request.user_id))
        return pb.GetUserResponse(user=_public(stored))

    @allow_peers(GATEWAY)
    async def BatchGetUsers(self, request: pb.BatchGetUsersRequest, context: Context) -> pb.BatchGetUsersResponse:
        async with self._database.reading(call_of(context)) as reader:
            found = await self._users.get_each(reader, [UUID(user_id) for user_id in request.user_ids])
        return pb.BatchGetUsersResponse(users=map(_public, found))

    @allow_peers(GATEWAY)
    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        call = call_of(context)
        cursor = self._pages.open(call, request)
        async with self._database.transaction(call) as tx:
            rows = await self._users.list_users(
                tx,
                platform_id=UUID(request.platform_id) if request.HasField("platform_id") else None,
                status=text_of(UserStatus.DESCRIPTOR, request.status) if request.HasField("status") else None,
                phone_number=request.phone_number if request.HasField("phone_number") else None,
                cursor=cursor,
                page_size=request.page_size,
            )
        page, token = self._pages.cut(call, request, rows)
        users = [_public(self._user_rows.to_stored(row)) for row in page]
        return pb.ListUsersResponse(users=users, next_page_token=token)

    @allow_peers(GATEWAY)
    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        expected = request.expected_version if request.HasField("expected_version") else None
        user_id = UUID(request.user_id)
        async with self._database.transaction(call_of(context)) as tx:
            stored = await self._users.update_user(tx, user_id, request.user, request.update_mask.paths, expected)
        if stored.user.status == UserStatus.USER_STATUS_ACTIVE:
            await self._outbox.deliver_soon(user_id, WAIT_FOR_RECORDS_S)
        return pb.UpdateUserResponse(user=_public(stored))

    @allow_peers(GATEWAY)
    async def CompleteOnboarding(
        self, request: pb.CompleteOnboardingRequest, context: Context
    ) -> pb.CompleteOnboardingResponse:
        user_id = UUID(request.user_id)
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.CompleteOnboardingResponse:
                stored = await self._users.complete_onboarding(tx, user_id, request.user, request.update_mask.paths)
                return pb.CompleteOnboardingResponse(user=_public(stored))

            response = await self._once.once(tx, effect, pb.CompleteOnboardingResponse, owner=lambda _: user_id)
        await self._outbox.deliver_soon(user_id, WAIT_FOR_RECORDS_S)
        return response

    @allow_peers(GATEWAY)
    async def DeactivateUser(self, request: pb.DeactivateUserRequest, context: Context) -> pb.DeactivateUserResponse:
        expected = request.expected_version if request.HasField("expected_version") else None
        async with self._database.transaction(call_of(context)) as tx:
            await self._users.deactivate_user(tx, UUID(request.user_id), expected)
        return pb.DeactivateUserResponse()

    @allow_peers(GATEWAY)
    async def ReactivateUser(self, request: pb.ReactivateUserRequest, context: Context) -> pb.ReactivateUserResponse:
        user_id = UUID(request.user_id)
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.ReactivateUserResponse:
                return pb.ReactivateUserResponse(
                    user=_public(await self._users.reactivate_user(tx, user_id, request.reason))
                )

            return await self._once.once(tx, effect, pb.ReactivateUserResponse, owner=lambda _: user_id)

    @allow_peers(GATEWAY)
    async def ReleasePhone(self, request: pb.ReleasePhoneRequest, context: Context) -> pb.ReleasePhoneResponse:
        user_id = UUID(request.user_id)
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.ReleasePhoneResponse:
                return pb.ReleasePhoneResponse(
                    user=_public(await self._users.release_phone(tx, user_id, request.reason))
                )

            return await self._once.once(tx, effect, pb.ReleasePhoneResponse, owner=lambda _: user_id)

    @allow_peers(GATEWAY)
    async def EraseUser(self, request: pb.EraseUserRequest, context: Context) -> pb.EraseUserResponse:
        user_id = UUID(request.user_id)
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.EraseUserResponse:
                return pb.EraseUserResponse(user=_public(await self._users.erase_user(tx, user_id, request.reason)))

            # The person's own key is gone by then, and the answer says nothing of the person.
            response = await self._once.once(tx, effect, pb.EraseUserResponse, owner=lambda _: SERVICE_OWNER)
        await self._outbox.deliver_soon(user_id, WAIT_FOR_RECORDS_S)
        return response


def _public(stored: StoredUser) -> User:
    user = to_public(stored.user)
    if stored.phone_released_at is not None:
        user.ClearField("phone_number")
    return user
