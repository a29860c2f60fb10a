"""BenefitProviderService over gRPC: opens the transaction, translates, decides nothing."""

from typing import Any
from uuid import UUID

import grpc

from aarokya.catalogue.v1 import benefit_provider_service_pb2 as pb
from aarokya.catalogue.v1.benefit_provider_service_pb2_grpc import BenefitProviderServiceServicer
from catalogue.benefit_providers.repository import BenefitProviderRepository
from catalogue.benefit_providers.service import BenefitProviderService
from servicekit.data_keys import SERVICE_OWNER
from servicekit.database import Database
from servicekit.idempotency import OnceOnly
from servicekit.page_tokens import PageTokens
from servicekit.server import GATEWAY, allow_peers, call_of

Context = grpc.aio.ServicerContext[Any, Any]


class BenefitProviderRpc(BenefitProviderServiceServicer):
    """Answers BenefitProviderService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["BenefitProviderService"]

    def __init__(
        self,
        database: Database,
        once: OnceOnly,
        pages: PageTokens,
        providers: BenefitProviderService,
        provider_rows: BenefitProviderRepository,
    ) -> None:
        self._database = database
        self._once = once
        self._pages = pages
        self._providers = providers
        self._provider_rows = provider_rows

    @allow_peers(GATEWAY)
    async def CreateBenefitProvider(
        self, request: pb.CreateBenefitProviderRequest, context: Context
    ) -> pb.CreateBenefitProviderResponse:
        async with self._database.transaction(call_of(context)) as tx:

            async def effect() -> pb.CreateBenefitProviderResponse:
                provider = await self._providers.create_provider(tx, request.benefit_provider)
                return pb.CreateBenefitProviderResponse(benefit_provider=provider)

            return await self._once.once(
                tx, effect, pb.CreateBenefitProviderResponse, owner=lambda response: SERVICE_OWNER
            )

    @allow_peers(GATEWAY)
    async def GetBenefitProvider(
        self, request: pb.GetBenefitProviderRequest, context: Context
    ) -> pb.GetBenefitProviderResponse:
        async with self._database.transaction(call_of(context)) as tx:
            provider = await self._providers.get_provider(tx, UUID(request.benefit_provider_id))
            return pb.GetBenefitProviderResponse(benefit_provider=provider)

    @allow_peers(GATEWAY)
    async def ListBenefitProviders(
        self, request: pb.ListBenefitProvidersRequest, context: Context
    ) -> pb.ListBenefitProvidersResponse:
        call = call_of(context)
        cursor = self._pages.open(call, request)
        async with self._database.transaction(call) as tx:
            rows = await self._provider_rows.list_newest(tx, cursor, request.page_size)
        page, token = self._pages.cut(call, request, rows)
        return pb.ListBenefitProvidersResponse(
            benefit_providers=[self._provider_rows.rows.message(row) for row in page], next_page_token=token
        )

    @allow_peers(GATEWAY)
    async def UpdateBenefitProvider(
        self, request: pb.UpdateBenefitProviderRequest, context: Context
    ) -> pb.UpdateBenefitProviderResponse:
        expected = request.expected_version if request.HasField("expected_version") else None
        async with self._database.transaction(call_of(context)) as tx:
            provider = await self._providers.update_provider(
                tx, UUID(request.benefit_provider_id), request.benefit_provider, request.update_mask.paths, expected
            )
            return pb.UpdateBenefitProviderResponse(benefit_provider=provider)

    @allow_peers(GATEWAY)
    async def DeleteBenefitProvider(
        self, request: pb.DeleteBenefitProviderRequest, context: Context
    ) -> pb.DeleteBenefitProviderResponse:
        expected = request.expected_version if request.HasField("expected_version") else None
        async with self._database.transaction(call_of(context)) as tx:
            await self._providers.delete_provider(tx, UUID(request.benefit_provider_id), expected)
            return pb.DeleteBenefitProviderResponse()

    @allow_peers("records")
    async def CheckMrnProvider(
        self, request: pb.CheckMrnProviderRequest, context: Context
    ) -> pb.CheckMrnProviderResponse:
        provider_id = UUID(request.benefit_provider_id)
        async with self._database.transaction(call_of(context)) as tx:
            provider = await self._providers.check_mrn_provider(tx, provider_id)
        if provider is None:
            return pb.CheckMrnProviderResponse(usable=False)
        self._providers.note_checked(provider_id)
        pattern = provider.mrn_pattern if provider.HasField("mrn_pattern") else None
        return pb.CheckMrnProviderResponse(usable=True, mrn_pattern=pattern)
