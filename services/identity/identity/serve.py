"""Wires identity's parts together and serves."""

import grpc.aio

from aarokya.identity.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server
from aarokya.identity.v1.live_state_service_pb2_grpc import add_LiveStateServiceServicer_to_server
from aarokya.identity.v1.platform_service_pb2_grpc import add_PlatformServiceServicer_to_server
from aarokya.identity.v1.refusal_service_pb2_grpc import add_RefusalServiceServicer_to_server
from aarokya.identity.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server
from aarokya.records.v1 import user_event_service_pb2
from identity.auth.rpc import AuthRpc
from identity.auth.service import AuthService
from identity.live_state.changes import LiveStateChanges
from identity.live_state.rpc import LiveStateRpc
from identity.models import SERVICE, audit_chain, audit_log, data_keys, idempotency_keys, outbox
from identity.platforms.repository import ApiKeyRepository, PlatformRepository
from identity.platforms.rpc import PlatformRpc
from identity.platforms.service import ApiKeyService, PlatformService
from identity.refusals.rpc import RefusalRpc
from identity.settings import IdentitySettings
from identity.users.delivery import UserEventDelivery
from identity.users.erasures import ErasureList
from identity.users.repository import UserRepository
from identity.users.rpc import UserRpc
from identity.users.service import UserService
from servicekit.channel import open_channel
from servicekit.database import Database
from servicekit.erasures import ErasureFile
from servicekit.foundation import Foundation
from servicekit.outbox import Outbox
from servicekit.tls import channel_credentials

# Gateways wait for these answers before they do anything, so they never queue behind a crowd of other calls.
LIVE_STATE_CONNECTIONS = 4
# Anybody can make up keys, so those who ask about them wait for one another, and users do not wait with them.
KEY_CONNECTIONS = 2


async def serve() -> None:
    """Serve until told to stop."""
    settings = IdentitySettings()
    kit = Foundation(
        SERVICE,
        settings,
        data_keys=data_keys,
        idempotency_keys=idempotency_keys,
        audit_log=audit_log,
        audit_chain=audit_chain,
    )
    records = open_channel(
        "records",
        settings.records_address,
        channel_credentials(settings.tls_ca, settings.tls_certificate, settings.tls_key),
        [user_event_service_pb2.DESCRIPTOR.services_by_name["UserEventService"]],
    )
    events = Outbox(outbox, kit.database, kit.data_keys, SERVICE, UserEventDelivery(records).deliver)
    runtime_dsn = settings.database_runtime_dsn.get_secret_value()
    changes = LiveStateChanges(runtime_dsn)
    live_state_database = Database(runtime_dsn, SERVICE, pool_size=LIVE_STATE_CONNECTIONS)
    key_database = Database(runtime_dsn, SERVICE, pool_size=KEY_CONNECTIONS)

    platform_rows, key_rows = PlatformRepository(kit.data_keys), ApiKeyRepository()
    user_rows = UserRepository(kit.data_keys, kit.hashes)
    platforms = PlatformService(platform_rows, kit.audit)
    keys = ApiKeyService(platforms, key_rows, kit.audit, kit.hashes)
    users = UserService(user_rows, platforms, kit.audit, events, settings.timezone)
    auth = AuthService(user_rows, platforms, kit.audit, settings)

    servicers = (
        platform_rpc := PlatformRpc(kit.database, kit.once, kit.pages, platforms, platform_rows, keys, key_rows),
        user_rpc := UserRpc(kit.database, kit.once, kit.pages, users, user_rows, events),
        auth_rpc := AuthRpc(kit.database, auth),
        live_state_rpc := LiveStateRpc(live_state_database, key_database, changes, keys),
        refusal_rpc := RefusalRpc(kit.database, kit.audit),
    )

    def add(server: grpc.aio.Server) -> None:
        add_PlatformServiceServicer_to_server(platform_rpc, server)
        add_UserServiceServicer_to_server(user_rpc, server)
        add_AuthServiceServicer_to_server(auth_rpc, server)
        add_LiveStateServiceServicer_to_server(live_state_rpc, server)
        add_RefusalServiceServicer_to_server(refusal_rpc, server)

    erasures = ErasureList(kit.database, user_rows, ErasureFile(settings.erasure_file))
    await kit.serve(
        servicers,
        add,
        tasks=(events.run, changes.run, erasures.run),
        get_ready=changes.wait_until_heard,
        hand_over=changes.hand_over,
    )
    await live_state_database.close()
    await key_database.close()
    await records.close()
