"""The parts that every service is built on, made from its settings and tables."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import grpc.aio
from sqlalchemy import Table

from aarokya.audit.v1.audit_log_service_pb2_grpc import add_AuditLogServiceServicer_to_server
from servicekit.audit import AuditLog
from servicekit.audit_chain import AuditChain
from servicekit.audit_heads import HeadFile
from servicekit.audit_rpc import AuditLogRpc
from servicekit.background import repeat
from servicekit.caller import system_call
from servicekit.crypto import KeyRing, LookupHash
from servicekit.data_keys import DataKeys
from servicekit.database import Database
from servicekit.idempotency import OnceOnly
from servicekit.logs import configure_logs
from servicekit.metrics import AUDIT_UNSEALED, CERTIFICATE_EXPIRY, serve_metrics
from servicekit.page_tokens import PageTokens
from servicekit.server import Servicer, serve
from servicekit.settings import ServiceSettings, key_bytes
from servicekit.tls import server_credentials, soonest_expiry

HOUSEKEEPING_S = 600


class Foundation:
    """What all services have: database, keys, audit log, page tokens; a service wires its own parts to it."""

    def __init__(
        self,
        service: str,
        settings: ServiceSettings,
        *,
        data_keys: Table,
        idempotency_keys: Table,
        audit_log: Table,
        audit_chain: Table,
    ) -> None:
        configure_logs(settings.log_level, for_people=settings.is_development)
        self.service = service
        self.settings = settings
        self.database = Database(
            settings.database_runtime_dsn.get_secret_value(), service, pool_size=settings.database_pool_size
        )
        self.data_keys = DataKeys(data_keys, KeyRing.parse(settings.master_keys.get_secret_value()))
        self.hashes = LookupHash(key_bytes(settings.lookup_key))
        self.audit = AuditLog(service, audit_log, audit_chain, self.data_keys)
        self.once = OnceOnly(idempotency_keys, self.data_keys, self.hashes)
        self.pages = PageTokens(key_bytes(settings.page_token_key))
        self._chain = AuditChain(
            service,
            self.database,
            audit_log,
            audit_chain,
            key_bytes(settings.audit_key),
            HeadFile(settings.audit_head_file),
        )

    async def serve(
        self,
        servicers: Sequence[Servicer],
        add: Callable[[grpc.aio.Server], None],
        tasks: Sequence[Callable[[], Awaitable[None]]] = (),
        get_ready: Callable[[], Awaitable[None]] | None = None,
        hand_over: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Serve the service's own servicers and its audit log until told to stop.

        Args:
            servicers: the service's own.
            add: registers them with the server.
            tasks: the service's own work beside the server.
            get_ready: returns when the service can work, for what it needs besides its database.
            hand_over: called before the service stops, and returns when its streams may end.
        """
        settings = self.settings
        audit_rpc = AuditLogRpc(self.database, self.audit, self._chain)

        def add_all(server: grpc.aio.Server) -> None:
            add(server)
            add_AuditLogServiceServicer_to_server(audit_rpc, server)

        async def reach_all() -> None:
            async with self.database.transaction(system_call(self.service)):
                pass
            if get_ready is not None:
                await get_ready()

        AUDIT_UNSEALED.set_function(self._chain.overdue_rows)
        CERTIFICATE_EXPIRY.set_function(soonest_expiry(settings.tls_certificate))
        serve_metrics(settings.metrics_listen)
        await serve(
            settings.listen,
            server_credentials(settings.tls_ca, settings.tls_certificate, settings.tls_key),
            (*servicers, audit_rpc),
            add_all,
            get_ready=reach_all,
            tasks=(self._chain.run, self._keep_house, *tasks),
            hand_over=hand_over,
            with_reflection=settings.is_development,
        )
        await self.database.close()

    async def _keep_house(self) -> None:
        """Now and then forget what is only kept for a while."""
        await repeat(self._forget_old, lambda: asyncio.sleep(HOUSEKEEPING_S), "housekeeping stands still")

    async def _forget_old(self) -> None:
        is_left = True
        while is_left:
            async with self.database.transaction(system_call(self.service)) as tx:
                is_left = await self.once.forget_old(tx)
