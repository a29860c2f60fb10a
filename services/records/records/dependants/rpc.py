"""DependantService over gRPC: asks for the user's state, opens the transaction, translates, decides nothing."""

from typing import Any
from uuid import UUID

import grpc

from aarokya.identity.v1.live_state_service_pb2 import UserState
from aarokya.records.v1 import dependant_service_pb2 as pb
from aarokya.records.v1.dependant_pb2 import Dependant
from aarokya.records.v1.dependant_service_pb2_grpc import DependantServiceServicer
from records.dependants.errors import FamilyFull
from records.dependants.repository import FAMILY_ORDER, VERSIONS_ORDER, DependantRepository
from records.dependants.service import DependantService
from records.users.states import UserStates
from servicekit.caller import Call
from servicekit.database import Database
from servicekit.idempotency import OnceOnly
from servicekit.page_tokens import PageTokens
from servicekit.rows import to_datetime
from servicekit.server import GATEWAY, allow_peers, call_of

Context = grpc.aio.ServicerContext[Any, Any]


class DependantRpc(DependantServiceServicer):
    """Answers DependantService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["DependantService"]

    def __init__(
        self,
        database: Database,
        once: OnceOnly,
        pages: PageTokens,
        states: UserStates,
        dependants: DependantService,
        dependant_rows: DependantRepository,
    ) -> None:
        self._database = database
        self._once = once
        self._pages = pages
        self._states = states
        self._dependants = dependants
        self._dependant_rows = dependant_rows

    @allow_peers(GATEWAY)
    async def CreateDependant(self, request: pb.CreateDependantRequest, context: Context) -> pb.CreateDependantResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        state = await self._states.get(call, user_id)
        try:
            return await self._create(call, state, request.dependant)
        except FamilyFull:
            if not call.caller.is_user:
                raise
            # Users' own states are remembered, and the platform may allow more by now. Of what was refused nothing
            # has stayed, so it can be tried again, in a transaction of its own.
            latest = await self._states.ask(call, user_id)
            if latest == state:
                raise
            return await self._create(call, latest, request.dependant)

    async def _create(self, call: Call, state: UserState, wanted: Dependant) -> pb.CreateDependantResponse:
        async with self._database.transaction(call) as tx:

            async def effect() -> pb.CreateDependantResponse:
                dependant = await self._dependants.create_dependant(tx, state, wanted)
                return pb.CreateDependantResponse(dependant=dependant)

            return await self._once.once(tx, effect, pb.CreateDependantResponse, owner=lambda _: UUID(state.user_id))

    @allow_peers(GATEWAY)
    async def GetDependant(self, request: pb.GetDependantRequest, context: Context) -> pb.GetDependantResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        await self._states.require_known(call, user_id)
        async with self._database.reading(call) as reader:
            dependant = await self._dependants.get_dependant(reader, user_id, UUID(request.dependant_id))
        return pb.GetDependantResponse(dependant=dependant)

    @allow_peers(GATEWAY)
    async def BatchGetDependants(
        self, request: pb.BatchGetDependantsRequest, context: Context
    ) -> pb.BatchGetDependantsResponse:
        wanted = [(UUID(each.user_id), UUID(each.dependant_id)) for each in request.requests]
        async with self._database.reading(call_of(context)) as reader:
            found = await self._dependants.get_each(reader, wanted)
        return pb.BatchGetDependantsResponse(dependants=found)

    @allow_peers(GATEWAY)
    async def BatchListDependants(
        self, request: pb.BatchListDependantsRequest, context: Context
    ) -> pb.BatchListDependantsResponse:
        async with self._database.reading(call_of(context)) as reader:
            found = await self._dependants.list_each(reader, [UUID(user_id) for user_id in request.user_ids])
        return pb.BatchListDependantsResponse(dependants=found)

    @allow_peers(GATEWAY)
    async def ListDependants(self, request: pb.ListDependantsRequest, context: Context) -> pb.ListDependantsResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        cursor = self._pages.open(call, request)
        await self._states.require_known(call, user_id)
        async with self._database.reading(call) as reader:
            rows = await self._dependants.list_dependants(
                reader,
                user_id,
                as_of=to_datetime(request.as_of) if request.HasField("as_of") else None,
                include_removed=request.include_removed,
                cursor=cursor,
                page_size=request.page_size,
            )
        page, token = self._pages.cut(call, request, rows, FAMILY_ORDER)
        dependants = [self._dependant_rows.to_dependant(row) for row in page]
        return pb.ListDependantsResponse(dependants=dependants, next_page_token=token)

    @allow_peers(GATEWAY)
    async def ListDependantVersions(
        self, request: pb.ListDependantVersionsRequest, context: Context
    ) -> pb.ListDependantVersionsResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        cursor = self._pages.open(call, request)
        await self._states.require_known(call, user_id)
        async with self._database.reading(call) as reader:
            rows = await self._dependants.list_versions(
                reader, user_id, UUID(request.dependant_id), cursor, request.page_size
            )
        page, token = self._pages.cut(call, request, rows, VERSIONS_ORDER)
        dependants = [self._dependant_rows.to_dependant(row) for row in page]
        return pb.ListDependantVersionsResponse(dependants=dependants, next_page_token=token)

    @allow_peers(GATEWAY)
    async def UpdateDependant(self, request: pb.UpdateDependantRequest, context: Context) -> pb.UpdateDependantResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        expected = request.expected_version if request.HasField("expected_version") else None
        state = await self._states.get_unless_own(call, user_id)
        async with self._database.transaction(call) as tx:
            dependant = await self._dependants.update_dependant(
                tx,
                state,
                user_id,
                UUID(request.dependant_id),
                request.dependant,
                request.update_mask.paths,
                expected,
            )
        return pb.UpdateDependantResponse(dependant=dependant)

    @allow_peers(GATEWAY)
    async def DeleteDependant(self, request: pb.DeleteDependantRequest, context: Context) -> pb.DeleteDependantResponse:
        call, user_id = call_of(context), UUID(request.user_id)
        expected = request.expected_version if request.HasField("expected_version") else None
        state = await self._states.get_unless_own(call, user_id)
        async with self._database.transaction(call) as tx:
            await self._dependants.delete_dependant(tx, state, user_id, UUID(request.dependant_id), expected)
        return pb.DeleteDependantResponse()
