"""Whether the gateway can do its work."""

import asyncio

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.live_state import LiveState
from gateway.stubs import Stubs

PROBE_S = 1.0


class Readiness:
    """Ready means that identity can be heard, and that every service has answered once since the start.

    Without identity nobody can be let in. When another service goes away later, what does not need it goes on, so the
    gateway stays ready.
    """

    def __init__(self, stubs: Stubs, live_state: LiveState, draining: asyncio.Event) -> None:
        """`draining` is set when the gateway is about to stop, so that balancers send nothing more."""
        self._live_state = live_state
        self._unseen = {name: health_pb2_grpc.HealthStub(channel) for name, channel in stubs.channels.items()}
        self._draining = draining
        self._looking: asyncio.Task[bool] | None = None

    async def is_ready(self) -> bool:
        """Return whether the gateway is ready."""
        if self._draining.is_set() or not self._live_state.is_heard():
            return False
        if not self._unseen:
            return True
        # However many ask, each service is asked once at a time.
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> bool:
        return all(await asyncio.gather(*(self._is_serving(name) for name in list(self._unseen))))

    async def _is_serving(self, name: str) -> bool:
        try:
            answer = await self._unseen[name].Check(health_pb2.HealthCheckRequest(), timeout=PROBE_S)
        except grpc.aio.AioRpcError:
            return False
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            return False
        self._unseen.pop(name, None)
        return True
