"""UserEventService as its peers see it."""

from typing import Any

import grpc
import pytest

from aarokya.records.v1.dependant_service_pb2 import ListDependantsRequest


class TestApplyUserEvent:
    async def test_answers_identity(self, identity: Any, gateway: Any) -> None:
        state = identity.state()
        event = identity.profile_event(state)

        for _ in range(2):
            await identity.user_events.ApplyUserEvent(event, metadata=identity.asking(identity.identity))

        family = await gateway.dependants.ListDependants(
            ListDependantsRequest(user_id=state.user_id, page_size=5), metadata=gateway.asking(gateway.user(state))
        )
        assert [one.first_name for one in family.dependants] == ["Ravi"]

    async def test_refuses_the_gateway(self, gateway: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await gateway.user_events.ApplyUserEvent(
                gateway.profile_event(gateway.state()), metadata=gateway.asking(gateway.admin)
            )

        assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
