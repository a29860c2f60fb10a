"""No RPC can be reached without a declaration of who may call it."""

import pytest

from aarokya.audit.v1 import audit_log_service_pb2 as pb
from servicekit.server import NotDeclared, allow_peers, declared_peers


class Declared:
    """A servicer that says of every RPC who may call it."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["AuditLogService"]

    @allow_peers("gateway")
    async def ListAuditLogs(self) -> None: ...

    @allow_peers("gateway", "records")
    async def VerifyAuditLogs(self) -> None: ...


class Forgetful(Declared):
    """A servicer that says nothing of one RPC."""

    async def VerifyAuditLogs(self) -> None: ...


class Open(Declared):
    """A servicer that names nobody."""

    @allow_peers()
    async def VerifyAuditLogs(self) -> None: ...


class TestDeclaredPeers:
    def test_tells_who_may_call_what(self) -> None:
        service = "/aarokya.audit.v1.AuditLogService"
        assert declared_peers([Declared()]) == {
            f"{service}/ListAuditLogs": {"gateway"},
            f"{service}/VerifyAuditLogs": {"gateway", "records"},
        }

    @pytest.mark.parametrize("servicer", [Forgetful(), Open()])
    def test_refuses_an_rpc_that_says_nothing(self, servicer: Declared) -> None:
        with pytest.raises(NotDeclared, match="VerifyAuditLogs"):
            declared_peers([servicer])
