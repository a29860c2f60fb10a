"""BenefitService over gRPC: opens the transaction, translates, decides nothing."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any
from uuid import UUID

import grpc

from aarokya.catalogue.v1 import benefit_service_pb2 as pb
from aarokya.catalogue.v1.benefit_pb2 import Benefit
from aarokya.catalogue.v1.benefit_service_pb2_grpc import BenefitServiceServicer
from catalogue.benefits.repository import BenefitRepository
from catalogue.benefits.service import BenefitService
from servicekit.data_keys import SERVICE_OWNER
from servicekit.database import Database
from servicekit.idempotency import OnceOnly
from servicekit.page_tokens import PageTokens
from servicekit.server import GATEWAY, LARGEST_ANSWER, allow_peers, call_of

Context = grpc.aio.ServicerContext[Any, Any]

# What all texts of a page may take: half of the largest answer there is, with some room for what goes with each.
LARGEST_PAGE = LARGEST_ANSWER // 2 - 64 * 1024


class BenefitRpc(BenefitServiceServicer):
    """Answers BenefitService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["BenefitService"]

    def __init__(
        self,
        database: Database,
        once: OnceOnly,
        pages: PageTokens,
        benefits: BenefitService,
        benefit_rows: BenefitRepository,
    ) -> None:
        self._database = database
        self._once = once
        self._pages = pages
        self._benefits = benefits
        self._benefit_rows = benefit_rows

    @allow_peers(GATEWAY)
    async def CreateBenefit(self, request: pb.CreateBenefitRequest, context: Context) -> pb.CreateBenefitResponse:
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.CreateBenefitResponse:
                return pb.CreateBenefitResponse(benefit=await self._benefits.create_benefit(tx, request.benefit))

            return await self._once.once(tx, effect, pb.CreateBenefitResponse, owner=lambda response: SERVICE_OWNER)

    @allow_peers(GATEWAY)
    async def GetBenefit(self, request: pb.GetBenefitRequest, context: Context) -> pb.GetBenefitResponse:
        async with self._database.transaction(call_of(context)) as tx:
            return pb.GetBenefitResponse(benefit=await self._benefits.get_benefit(tx, UUID(request.benefit_id)))

    @allow_peers(GATEWAY)
    async def ListBenefits(self, request: pb.ListBenefitsRequest, context: Context) -> pb.ListBenefitsResponse:
        call = call_of(context)
        cursor = self._pages.open(call, request)
        async with self._database.transaction(call) as tx:
            rows = await self._benefits.list_benefits(
                tx,
                kind=request.type if request.HasField("type") else None,
                provider_id=UUID(request.benefit_provider_id) if request.HasField("benefit_provider_id") else None,
                part_of_name=request.q if request.HasField("q") else None,
                cursor=cursor,
                page_size=request.page_size,
            )
        benefits = [self._benefit_rows.to_benefit(row) for row in rows]
        request.page_size = min(request.page_size, _count_that_fits(benefits))
        page, token = self._pages.cut(call, request, rows)
        return pb.ListBenefitsResponse(benefits=benefits[: len(page)], next_page_token=token)

    @allow_peers(GATEWAY)
    async def UpdateBenefit(self, request: pb.UpdateBenefitRequest, context: Context) -> pb.UpdateBenefitResponse:
        expected = request.expected_version if request.HasField("expected_version") else None
        async with self._database.transaction(call_of(context)) as tx:
            benefit = await self._benefits.update_benefit(
                tx, UUID(request.benefit_id), request.benefit, request.update_mask.paths, expected
            )
            return pb.UpdateBenefitResponse(benefit=benefit)

    @allow_peers(GATEWAY)
    async def DeleteBenefit(self, request: pb.DeleteBenefitRequest, context: Context) -> pb.DeleteBenefitResponse:
        expected = request.expected_version if request.HasField("expected_version") else None
        async with self._database.transaction(call_of(context)) as tx:
            await self._benefits.archive_benefit(tx, UUID(request.benefit_id), expected)
            return pb.DeleteBenefitResponse()


def _count_that_fits(benefits: Sequence[Benefit]) -> int:
    """Return how many of the benefits one answer can carry; a page of long texts is shorter than was asked for."""
    sizes = accumulate(benefit.ByteSize() for benefit in benefits)
    return sum(size <= LARGEST_PAGE for size in sizes)
