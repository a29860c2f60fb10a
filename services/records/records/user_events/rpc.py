"""UserEventService over gRPC: opens the transaction, decides nothing."""

from typing import Any

import grpc

from aarokya.records.v1 import user_event_service_pb2 as pb
from aarokya.records.v1.user_event_service_pb2_grpc import UserEventServiceServicer
from records.user_events.service import UserEventService
from servicekit.database import Database
from servicekit.server import allow_peers, call_of

Context = grpc.aio.ServicerContext[Any, Any]


class UserEventRpc(UserEventServiceServicer):
    """Answers UserEventService."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["UserEventService"]

    def __init__(self, database: Database, user_events: UserEventService) -> None:
        self._database = database
        self._user_events = user_events

    @allow_peers("identity")
    async def ApplyUserEvent(self, request: pb.ApplyUserEventRequest, context: Context) -> pb.ApplyUserEventResponse:
        async with self._database.transaction(call_of(context)) as tx:
            await self._user_events.apply(tx, request)
        return pb.ApplyUserEventResponse()
