"""AuthService as the gateway calls it."""

import asyncio
from typing import Any

import grpc
import jwt
import pytest

from aarokya.identity.v1.auth_service_pb2 import IssueTokenRequest
from aarokya.identity.v1.user_pb2 import IdProof, IdProofType, User
from aarokya.identity.v1.user_service_pb2 import DeactivateUserRequest

LICENSE = IdProof(proof_type=IdProofType.ID_PROOF_TYPE_DRIVING_LICENSE, number="KA0120190001234")


class TestIssueToken:
    async def test_answers_the_token_and_the_whole_user(self, identity: Any) -> None:
        platform = await identity.create_platform()
        request = IssueTokenRequest(
            phone_number=identity.new_number(), prefill=User(first_name="Ravi", id_proof=LICENSE)
        )
        metadata = identity.said_by(identity.partner_of(platform))
        answer = await identity.auth.IssueToken(request, metadata=metadata)

        assert answer.is_new_user
        assert answer.expires_in == 3600
        assert answer.missing_fields == ["gender", "date_of_birth"]
        assert (answer.user.first_name, answer.user.id_proof_masked) == ("Ravi", "••••1234")
        assert not answer.user.HasField("id_proof")
        claims = jwt.decode(answer.access_token, identity.jwt_key, algorithms=["HS256"], audience="aarokya")
        assert claims["sub"] == answer.user.id
        again = await identity.auth.IssueToken(request, metadata=metadata)
        assert not again.is_new_user
        assert again.user == answer.user

    async def test_creates_one_user_for_fifty_calls_at_once(self, identity: Any) -> None:
        platform = await identity.create_platform()
        request = IssueTokenRequest(phone_number=identity.new_number(), phone_country_code="+91")
        metadata = identity.said_by(identity.partner_of(platform))
        answers = await asyncio.gather(*(identity.auth.IssueToken(request, metadata=metadata) for _ in range(50)))
        assert len({answer.user.id for answer in answers}) == 1
        assert sum(answer.is_new_user for answer in answers) == 1

    async def test_refuses_a_deactivated_user(self, identity: Any) -> None:
        platform = await identity.create_platform()
        user = await identity.create_user(platform)
        await identity.users.DeactivateUser(
            DeactivateUserRequest(user_id=user.id), metadata=identity.said_by(identity.admin)
        )
        request = IssueTokenRequest(phone_number=user.phone_number)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.auth.IssueToken(request, metadata=identity.said_by(identity.partner_of(platform)))
        assert identity.reason_of(error.value) == "US_406"
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
