"""Wires the catalogue's parts together and serves."""

import grpc.aio

from aarokya.catalogue.v1.benefit_provider_service_pb2_grpc import add_BenefitProviderServiceServicer_to_server
from aarokya.catalogue.v1.benefit_service_pb2_grpc import add_BenefitServiceServicer_to_server
from catalogue.benefit_providers.repository import BenefitProviderRepository
from catalogue.benefit_providers.rpc import BenefitProviderRpc
from catalogue.benefit_providers.service import BenefitProviderService
from catalogue.benefits.repository import BenefitRepository
from catalogue.benefits.rpc import BenefitRpc
from catalogue.benefits.service import BenefitService
from catalogue.models import SERVICE, audit_chain, audit_log, data_keys, idempotency_keys
from servicekit.foundation import Foundation
from servicekit.settings import ServiceSettings


async def serve() -> None:
    """Serve until told to stop."""
    settings = ServiceSettings()
    kit = Foundation(
        SERVICE,
        settings,
        data_keys=data_keys,
        idempotency_keys=idempotency_keys,
        audit_log=audit_log,
        audit_chain=audit_chain,
    )
    provider_rows, benefit_rows = BenefitProviderRepository(), BenefitRepository()
    providers = BenefitProviderService(provider_rows, kit.audit)
    benefits = BenefitService(benefit_rows, kit.audit, settings.timezone)

    servicers = (
        provider_rpc := BenefitProviderRpc(kit.database, kit.once, kit.pages, providers, provider_rows),
        benefit_rpc := BenefitRpc(kit.database, kit.once, kit.pages, benefits, benefit_rows),
    )

    def add(server: grpc.aio.Server) -> None:
        add_BenefitProviderServiceServicer_to_server(provider_rpc, server)
        add_BenefitServiceServicer_to_server(benefit_rpc, server)

    await kit.serve(servicers, add)
