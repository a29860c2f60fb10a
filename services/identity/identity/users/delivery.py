"""Carries what happened to users to records."""

import grpc.aio

from aarokya.records.v1.user_event_service_pb2 import ApplyUserEventRequest
from aarokya.records.v1.user_event_service_pb2_grpc import UserEventServiceStub
from identity.models import SERVICE
from servicekit.caller import METADATA_KEY, system_call
from servicekit.outbox import DELIVERY_TIMEOUT_S, Event


class UserEventDelivery:
    """Delivers outbox events as UserEventService calls."""

    def __init__(self, records: grpc.aio.Channel) -> None:
        self._stub = UserEventServiceStub(records)

    async def deliver(self, event: Event) -> None:
        """Deliver one event.

        Raises:
            grpc.aio.AioRpcError: records is away or did not take it.
        """
        if event.payload is None:
            # Its person was erased meanwhile; the event that says so follows and replaces it.
            return
        request = ApplyUserEventRequest.FromString(event.payload)
        request.event_id = str(event.id)
        await self._stub.ApplyUserEvent(
            request, timeout=DELIVERY_TIMEOUT_S, metadata=((METADATA_KEY, system_call(SERVICE).to_bytes()),)
        )
