"""Hears from the database what must be forgotten and passes it to every stream."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import structlog
from psycopg import sql

from aarokya.identity.v1.live_state_service_pb2 import WatchLiveStateResponse
from identity.live_state.repository import CHANNEL

HEARTBEAT_S = 0.25
RECONNECT_S = 0.2
PROBE_S = 5.0
QUEUED = 10_000

log = structlog.get_logger()


class LiveStateChanges:
    """One LISTEN connection of a replica, and the streams that hang on it."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._streams: set[asyncio.Queue[WatchLiveStateResponse]] = set()
        self._listening = False

    async def run(self) -> None:
        """Listen until cancelled. While the database can't be heard, streams fall silent, so that their leases end."""
        while True:
            try:
                await self._listen()
            except (psycopg.OperationalError, OSError, TimeoutError) as error:
                log.warning("live state can't be heard", error=type(error).__name__)
            self._listening = False
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, connect_timeout=2, application_name="identity live state"
        )
        async with connection:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
            # What was announced while nobody listened is not known.
            self._publish(WatchLiveStateResponse(everything=True))
            self._listening = True
            while True:
                async for notification in connection.notifies(timeout=PROBE_S):
                    self._publish(_to_message(notification.payload))
                async with asyncio.timeout(PROBE_S):
                    await connection.execute("SELECT 1")

    def _publish(self, message: WatchLiveStateResponse) -> None:
        for stream in self._streams:
            if stream.qsize() >= QUEUED:
                # A reader this slow gets a single message in place of all.
                while not stream.empty():
                    stream.get_nowait()
                message = WatchLiveStateResponse(everything=True)
            stream.put_nowait(message)

    async def watch(self) -> AsyncIterator[WatchLiveStateResponse]:
        """Yield what must be forgotten, and a heartbeat after each silence while the database is heard."""
        stream: asyncio.Queue[WatchLiveStateResponse] = asyncio.Queue()
        self._streams.add(stream)
        try:
            yield WatchLiveStateResponse(everything=True)
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        yield await stream.get()
                except TimeoutError:
                    if self._listening:
                        yield WatchLiveStateResponse()
        finally:
            self._streams.discard(stream)


def _to_message(payload: str) -> WatchLiveStateResponse:
    kind, _, identity = payload.partition(":")
    if kind == "user":
        return WatchLiveStateResponse(user_id=identity)
    if kind == "key":
        return WatchLiveStateResponse(key_id=identity)
    if kind == "platform":
        return WatchLiveStateResponse(platform_id=identity)
    return WatchLiveStateResponse(everything=True)
