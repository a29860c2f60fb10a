"""Identity's process as a whole."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from aarokya.audit.v1.audit_log_service_pb2 import ListAuditLogsRequest, VerifyAuditLogsRequest
from aarokya.identity.v1.auth_service_pb2 import IssueTokenRequest
from aarokya.identity.v1.live_state_service_pb2 import GetUserStateRequest, ResolveApiKeyRequest
from aarokya.identity.v1.user_pb2 import User, UserStatus
from aarokya.identity.v1.user_service_pb2 import (
    CompleteOnboardingRequest,
    DeactivateUserRequest,
    GetUserRequest,
    ReleasePhoneRequest,
)


class TestServe:
    async def test_takes_a_user_from_the_first_token_to_a_recycled_number(self, identity: Any, records: Any) -> None:
        platform = await identity.create_platform()
        key = await identity.create_key(platform)
        as_gateway = identity.said_by(identity.gateway)
        resolved = await identity.live_state.ResolveApiKey(ResolveApiKeyRequest(secret=key.secret), metadata=as_gateway)
        assert resolved.state.platform_id == platform.id

        as_partner = identity.said_by(identity.partner_of(platform))
        asking = IssueTokenRequest(phone_number=identity.new_number(), prefill=User(**identity.profile))
        user = (await identity.auth.IssueToken(asking, metadata=as_partner)).user
        as_user = identity.said_by(identity.user_of(user))
        completing = CompleteOnboardingRequest(
            user_id=user.id, user=User(city="Bengaluru"), update_mask=FieldMask(paths=["city"])
        )
        active = (await identity.users.CompleteOnboarding(completing, metadata=as_user)).user
        assert (active.status, active.city) == (UserStatus.USER_STATUS_ACTIVE, "Bengaluru")
        assert [event.profile.first_name for event in records.events_of(user.id)] == ["Ravi"]
        assert (await identity.users.GetUser(GetUserRequest(user_id=user.id), metadata=as_user)).user == active

        await identity.users.DeactivateUser(DeactivateUserRequest(user_id=user.id), metadata=as_user)
        state = await identity.live_state.GetUserState(GetUserStateRequest(user_id=user.id), metadata=as_gateway)
        assert (state.state.status, state.state.token_generation) == (UserStatus.USER_STATUS_DEACTIVATED, 1)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await identity.auth.IssueToken(asking, metadata=as_partner)
        assert identity.reason_of(error.value) == "US_406"

        as_admin = identity.said_by(identity.admin)
        releasing = ReleasePhoneRequest(user_id=user.id, reason="The SIM was recycled.")
        await identity.users.ReleasePhone(releasing, metadata=as_admin)
        successor = await identity.auth.IssueToken(asking, metadata=as_partner)
        assert successor.is_new_user
        assert successor.user.id != user.id

        listing = ListAuditLogsRequest(user_id=user.id, limit=100)
        told = (await identity.audit_logs.ListAuditLogs(listing, metadata=as_admin)).audit_logs
        assert [row.action for row in told[::-1]] == [
            "user.create",
            "user.complete_onboarding",
            "user.deactivate",
            "user.release_phone",
        ]
        verifying = VerifyAuditLogsRequest(from_sequence=1)
        assert (await identity.audit_logs.VerifyAuditLogs(verifying, metadata=as_admin)).verification.intact

    @pytest.mark.parametrize("keys", ["", "no name", "first:too short"])
    async def test_does_not_start_without_a_key_to_sign_with(self, tmp_path: Path, keys: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "AAROKYA_JWT_KEYS": keys,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "identity", env=environment, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
        )
        _, complaint = await process.communicate()
        assert process.returncode == 1
        [line] = [line for line in complaint.decode().splitlines() if line.startswith("AAROKYA_JWT_KEYS: ")]
        assert "too short" not in line
