"""Accounts and MRNs in the running process, between stand-ins for identity and the catalogue."""

from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from aarokya.catalogue.v1.benefit_provider_service_pb2 import CheckMrnProviderResponse
from aarokya.identity.v1.live_state_service_pb2 import UserState
from aarokya.identity.v1.user_pb2 import UserStatus
from aarokya.records.v1 import account_service_pb2, dependant_service_pb2, mrn_service_pb2
from aarokya.records.v1.account_pb2 import Account, AccountType
from aarokya.records.v1.dependant_pb2 import Gender
from aarokya.records.v1.mrn_pb2 import Mrn
from aarokya.records.v1.user_event_service_pb2 import ApplyUserEventRequest, SelfProfile
from servicekit.caller import Call, Caller, CallerType, system_call

PROFILE = SelfProfile(first_name="Ravi", gender=Gender.GENDER_MALE, date_of_birth="1990-05-17")


async def refused(attempt: Any) -> str:
    """Return the code with which a call was refused."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await attempt
    trailers = dict(error.value.trailing_metadata())
    return str(trailers["grpc-status-details-bin"])


class TestJourney:
    async def test_partner_links_mrn_and_stores_account(
        self, gateway: Any, identity: Any, fake_identity: Any, fake_catalogue: Any
    ) -> None:
        user_id, platform_id, provider_id = str(uuid4()), uuid4(), str(uuid4())
        fake_identity.states[user_id] = UserState(
            user_id=user_id, platform_id=str(platform_id), status=UserStatus.USER_STATUS_ACTIVE, max_dependants=8
        )
        fake_catalogue.providers[provider_id] = CheckMrnProviderResponse(usable=True, mrn_pattern="AP[0-9]{6}")
        event = ApplyUserEventRequest(
            event_id=str(uuid4()),
            user_id=user_id,
            platform_id=str(platform_id),
            user_version=2,
            occurred_at=Timestamp(seconds=1),
            profile=PROFILE,
        )
        await identity.user_events.ApplyUserEvent(event, metadata=identity.asking(system_call("identity")))

        user = gateway.asking(Call(Caller(CallerType.USER, user_id, platform_id)))
        partner = gateway.asking(Call(Caller(CallerType.PARTNER, str(uuid4()), platform_id)))
        stranger = gateway.asking(Call(Caller(CallerType.PARTNER, str(uuid4()), uuid4())))
        family = await gateway.dependants.ListDependants(
            dependant_service_pb2.ListDependantsRequest(user_id=user_id, page_size=50), metadata=user
        )
        (myself,) = family.dependants
        wanted = mrn_service_pb2.LinkMrnRequest(
            mrn=Mrn(dependant_id=myself.id, benefit_provider_id=provider_id, mrn="AP004711")
        )
        assert "DE_501" in await refused(gateway.mrns.LinkMrn(wanted, metadata=stranger))
        linked = await gateway.mrns.LinkMrn(wanted, metadata=partner)
        assert "MR_903" in await refused(gateway.mrns.LinkMrn(wanted, metadata=user))
        found = await gateway.mrns.GetMrn(mrn_service_pb2.GetMrnRequest(mrn_id=linked.mrn.id), metadata=user)
        assert found.mrn.mrn == "AP004711"

        account = account_service_pb2.CreateAccountRequest(
            user_id=user_id, account=Account(type=AccountType.ACCOUNT_TYPE_UPI, account_number="ravi@ybl")
        )
        assert "US_401" in await refused(gateway.accounts.CreateAccount(account, metadata=stranger))
        stored = await gateway.accounts.CreateAccount(account, metadata=partner)
        assert stored.account.is_primary
        assert "AC_803" in await refused(gateway.accounts.CreateAccount(account, metadata=user))

    async def test_only_gateway_may_call(self, identity: Any) -> None:
        asking = identity.asking(system_call("identity"))
        for attempt in (
            identity.mrns.GetMrn(mrn_service_pb2.GetMrnRequest(mrn_id=str(uuid4())), metadata=asking),
            identity.accounts.ListAccounts(
                account_service_pb2.ListAccountsRequest(user_id=str(uuid4())), metadata=asking
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await attempt
            assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
