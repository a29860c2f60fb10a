"""MrnService over gRPC: opens the transactions, translates, decides nothing."""

from typing import Any
from uuid import UUID

import grpc

from aarokya.records.v1 import mrn_service_pb2 as pb
from aarokya.records.v1.mrn_service_pb2_grpc import MrnServiceServicer
from records.mrns.repository import MrnRepository
from records.mrns.service import MrnService
from records.users.states import UserStates
from servicekit.database import Database
from servicekit.idempotency import OnceOnly
from servicekit.page_tokens import PageTokens
from servicekit.server import GATEWAY, allow_peers, call_of

Context = grpc.aio.ServicerContext[Any, Any]


class MrnRpc(MrnServiceServicer):
    """Answers MrnService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["MrnService"]

    def __init__(
        self,
        database: Database,
        once: OnceOnly,
        pages: PageTokens,
        states: UserStates,
        mrns: MrnService,
        mrn_rows: MrnRepository,
    ) -> None:
        self._database = database
        self._once = once
        self._pages = pages
        self._states = states
        self._mrns = mrns
        self._mrn_rows = mrn_rows

    @allow_peers(GATEWAY)
    async def LinkMrn(self, request: pb.LinkMrnRequest, context: Context) -> pb.LinkMrnResponse:
        call = call_of(context)
        # Only the dependant tells whose MRN it will be. Others are asked about that user and the provider between
        # the two transactions. If the dependant is removed meanwhile, it is as if that had come after the link.
        async with self._database.transaction(call) as tx:
            dependant = await self._mrn_rows.find_dependant(tx, UUID(request.mrn.dependant_id))
        refusal = await self._mrns.find_refusal(call, request.mrn, dependant)
        async with self._database.transaction(call) as tx:

            async def effect() -> pb.LinkMrnResponse:
                if refusal is not None:
                    raise refusal
                assert dependant is not None
                return pb.LinkMrnResponse(mrn=await self._mrns.link_mrn(tx, dependant.user_id, request.mrn))

            return await self._once.once(
                tx, effect, pb.LinkMrnResponse, owner=lambda response: UUID(response.mrn.user_id)
            )

    @allow_peers(GATEWAY)
    async def GetMrn(self, request: pb.GetMrnRequest, context: Context) -> pb.GetMrnResponse:
        async with self._database.transaction(call_of(context)) as tx:
            return pb.GetMrnResponse(mrn=await self._mrns.get_mrn(tx, UUID(request.mrn_id)))

    @allow_peers(GATEWAY)
    async def ListMrns(self, request: pb.ListMrnsRequest, context: Context) -> pb.ListMrnsResponse:
        call = call_of(context)
        cursor = self._pages.open(call, request)
        user_id = UUID(request.user_id) if request.HasField("user_id") else None
        if user_id is not None:
            await self._states.require_known(call, user_id)
        async with self._database.transaction(call) as tx:
            rows = await self._mrns.list_mrns(
                tx,
                user_id=user_id,
                dependant_id=UUID(request.dependant_id) if request.HasField("dependant_id") else None,
                benefit_provider_id=(
                    UUID(request.benefit_provider_id) if request.HasField("benefit_provider_id") else None
                ),
                mrn=request.mrn if request.HasField("mrn") else None,
                cursor=cursor,
                page_size=request.page_size,
            )
        page, token = self._pages.cut(call, request, rows)
        return pb.ListMrnsResponse(mrns=[self._mrn_rows.rows.message(row) for row in page], next_page_token=token)

    @allow_peers(GATEWAY)
    async def UnlinkMrn(self, request: pb.UnlinkMrnRequest, context: Context) -> pb.UnlinkMrnResponse:
        async with self._database.transaction(call_of(context)) as tx:
            reason = request.reason if request.HasField("reason") else None
            await self._mrns.unlink_mrn(tx, UUID(request.mrn_id), reason)
            return pb.UnlinkMrnResponse()
