"""Wires records' parts together and serves."""

import grpc.aio

from aarokya.catalogue.v1 import benefit_provider_service_pb2
from aarokya.identity.v1 import live_state_service_pb2
from aarokya.records.v1.account_service_pb2_grpc import add_AccountServiceServicer_to_server
from aarokya.records.v1.dependant_service_pb2_grpc import add_DependantServiceServicer_to_server
from aarokya.records.v1.mrn_service_pb2_grpc import add_MrnServiceServicer_to_server
from aarokya.records.v1.user_event_service_pb2_grpc import add_UserEventServiceServicer_to_server
from records.accounts.repository import AccountRepository
from records.accounts.rpc import AccountRpc
from records.accounts.service import AccountService
from records.dependants.repository import DependantRepository
from records.dependants.rpc import DependantRpc
from records.dependants.service import DependantService
from records.models import SERVICE, audit_chain, audit_log, data_keys, idempotency_keys, inbox
from records.mrns.providers import MrnProviders
from records.mrns.repository import MrnRepository
from records.mrns.rpc import MrnRpc
from records.mrns.service import MrnService
from records.settings import RecordsSettings
from records.user_events.rpc import UserEventRpc
from records.user_events.service import UserEventService
from records.users.repository import UserRepository
from records.users.states import UserStates
from servicekit.channel import open_channel
from servicekit.foundation import Foundation
from servicekit.outbox import Inbox
from servicekit.tls import channel_credentials


async def serve() -> None:
    """Serve until told to stop."""
    settings = RecordsSettings()
    kit = Foundation(
        SERVICE,
        settings,
        data_keys=data_keys,
        idempotency_keys=idempotency_keys,
        audit_log=audit_log,
        audit_chain=audit_chain,
    )
    credentials = channel_credentials(settings.tls_ca, settings.tls_certificate, settings.tls_key)
    identity = open_channel(
        "identity",
        settings.identity_address,
        credentials,
        [live_state_service_pb2.DESCRIPTOR.services_by_name["LiveStateService"]],
    )
    catalogue = open_channel(
        "catalogue",
        settings.catalogue_address,
        credentials,
        [benefit_provider_service_pb2.DESCRIPTOR.services_by_name["BenefitProviderService"]],
    )
    states = UserStates(identity)

    dependant_rows = DependantRepository(kit.data_keys)
    dependants = DependantService(dependant_rows, kit.audit, settings.timezone)
    user_events = UserEventService(Inbox(inbox), UserRepository(kit.data_keys), dependants, dependant_rows, kit.audit)
    account_rows = AccountRepository(kit.data_keys, kit.hashes)
    accounts = AccountService(account_rows, kit.audit)
    mrn_rows = MrnRepository(kit.data_keys, kit.hashes)
    mrns = MrnService(mrn_rows, states, MrnProviders(catalogue), kit.audit)

    servicers = (
        dependant_rpc := DependantRpc(kit.database, kit.once, kit.pages, states, dependants, dependant_rows),
        account_rpc := AccountRpc(kit.database, kit.once, kit.pages, states, accounts, account_rows),
        mrn_rpc := MrnRpc(kit.database, kit.once, kit.pages, states, mrns, mrn_rows),
        user_event_rpc := UserEventRpc(kit.database, user_events),
    )

    def add(server: grpc.aio.Server) -> None:
        add_DependantServiceServicer_to_server(dependant_rpc, server)
        add_AccountServiceServicer_to_server(account_rpc, server)
        add_MrnServiceServicer_to_server(mrn_rpc, server)
        add_UserEventServiceServicer_to_server(user_event_rpc, server)

    await kit.serve(servicers, add, tasks=(states.run,))
    await identity.close()
    await catalogue.close()
