"""AuthService over gRPC: opens the transaction, translates, decides nothing."""

from typing import Any

import grpc

from aarokya.identity.v1 import auth_service_pb2 as pb
from aarokya.identity.v1.auth_service_pb2_grpc import AuthServiceServicer
from identity.auth.service import AuthService
from identity.users.profile import to_public
from servicekit.database import Database
from servicekit.server import GATEWAY, allow_peers, call_of

Context = grpc.aio.ServicerContext[Any, Any]


class AuthRpc(AuthServiceServicer):
    """Answers AuthService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["AuthService"]

    def __init__(self, database: Database, auth: AuthService) -> None:
        self._database = database
        self._auth = auth

    @allow_peers(GATEWAY)
    async def IssueToken(self, request: pb.IssueTokenRequest, context: Context) -> pb.IssueTokenResponse:
        call = call_of(context)
        assert call.caller.platform_id is not None
        async with self._database.transaction(call) as tx:
            issued = await self._auth.issue_token(
                tx, call.caller.platform_id, request.phone_number, request.phone_country_code, request.prefill
            )
        return pb.IssueTokenResponse(
            access_token=issued.access_token,
            expires_in=issued.expires_in,
            is_new_user=issued.is_new_user,
            user=to_public(issued.stored.user),
            missing_fields=issued.missing_fields,
        )
