"""Hears from the database what must be forgotten and passes it to every stream."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from uuid import uuid4

import psycopg
from psycopg import sql

from aarokya.identity.v1.live_state_service_pb2 import ReplicaMoment, WatchLiveStateResponse
from identity.live_state.repository import CHANNEL
from servicekit.background import repeat
from servicekit.database import Connection, cut_off_after

HEARTBEAT_S = 0.25
# Without heartbeats the readers' leases have ended long before; this is when the connection is given up.
ANSWER_S = 2.0
RECONNECT_S = 0.2
# By then readers have found another replica, if there is one.
HAND_OVER_S = 2.0
# A reader behind by more is told to forget everything, which takes it less time than to catch up.
MOST_WAITING = 1000


class LiveStateChanges:
    """One LISTEN connection of a replica, and the streams that hang on it.

    A heartbeat is a round trip to the database: whatever was committed before has been passed on by then. So whenever
    the database, the connection or this process stands still, all the streams fall silent.
    How late a message arrives its reader can't see, so each tells as of when it speaks: the beginning of the last
    round trip that was completed. It does so on this replica's clock, which readers learn to read from the answers to
    their questions, as these tell when they were seen; and from the opening of the stream, which is a question too.

    A replica that is about to stop says so on its streams, and goes on with them until their readers hear another one,
    but not for long.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._replica_id = uuid4().hex
        self._streams: set[asyncio.Queue[tuple[WatchLiveStateResponse, float]]] = set()
        self._as_of = 0.0
        self._was_heard = asyncio.Event()
        self._is_ending = False
        self._has_no_readers = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled."""
        await repeat(
            self._listen,
            lambda: asyncio.sleep(RECONNECT_S),
            "live state can't be heard",
            expected=(psycopg.Error, OSError),
        )

    async def wait_until_heard(self) -> None:
        """Return when the database was heard once: before, streams would stay silent."""
        await self._was_heard.wait()

    async def hand_over(self) -> None:
        """Tell all readers, also those to come, to look for another replica; return when they have left, or soon."""
        self._is_ending = True
        self._publish(WatchLiveStateResponse())
        if self._streams:
            self._has_no_readers.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_no_readers.wait(), HAND_OVER_S)

    def now(self) -> ReplicaMoment:
        """Return this moment on the clock by which streams tell as of when they speak."""
        return self._moment(time.monotonic())

    async def watch(self) -> AsyncGenerator[WatchLiveStateResponse, None]:
        """Yield what must be forgotten from now on, and heartbeats while the database is heard."""
        # Not before the reader asked for the stream, so the reader may take its asking for this moment.
        opened_us = self.now().clock_us + 1
        stream: asyncio.Queue[tuple[WatchLiveStateResponse, float]] = asyncio.Queue()
        self._streams.add(stream)
        if self._is_ending:
            # Such a reader came to the wrong one, and need not wait for a heartbeat to learn so.
            stream.put_nowait((WatchLiveStateResponse(everything=True), self._as_of))
        try:
            while True:
                said, as_of = await stream.get()
                moment = self._moment(as_of)
                message = WatchLiveStateResponse(
                    as_of_us=moment.clock_us - opened_us, as_of=moment, ending=self._is_ending
                )
                message.MergeFrom(said)
                yield message
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._has_no_readers.set()

    def _moment(self, clock: float) -> ReplicaMoment:
        return ReplicaMoment(replica_id=self._replica_id, clock_us=int(clock * 1_000_000))

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, connect_timeout=2, application_name="identity live state"
        )
        async with connection:
            with cut_off_after(ANSWER_S, connection):
                await _require_primary(connection)
                asked_at = time.monotonic()
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
            # What was announced while nobody listened is not known. Nobody may be told of that moment but with this.
            self._as_of = asked_at
            self._publish(WatchLiveStateResponse(everything=True))
            while True:
                asked_at = time.monotonic()
                with cut_off_after(ANSWER_S, connection):
                    await _require_primary(connection)
                # What came together with the answer goes before the heartbeat.
                await self._pass_on(connection, 0)
                self._as_of = asked_at
                self._publish(WatchLiveStateResponse())
                self._was_heard.set()
                await self._pass_on(connection, HEARTBEAT_S)

    async def _pass_on(self, connection: Connection, seconds: float) -> None:
        async for notification in connection.notifies(timeout=seconds):
            self._publish(_to_message(notification.payload))

    def _publish(self, message: WatchLiveStateResponse) -> None:
        for stream in self._streams:
            if stream.qsize() < MOST_WAITING:
                stream.put_nowait((message, self._as_of))
            else:
                while not stream.empty():
                    stream.get_nowait()
                stream.put_nowait((WatchLiveStateResponse(everything=True), self._as_of))


async def _require_primary(connection: Connection) -> None:
    """Ask the server whether it takes writes.

    Raises:
        psycopg.OperationalError: it does not, so that changes are committed elsewhere and never heard here.
    """
    cursor = await connection.execute("SELECT current_setting('transaction_read_only')")
    if await cursor.fetchone() != ("off",):
        raise psycopg.OperationalError("the server takes no writes")


def _to_message(payload: str) -> WatchLiveStateResponse:
    kind, _, identity = payload.partition(":")
    if kind == "user":
        return WatchLiveStateResponse(user_id=identity)
    if kind == "key":
        return WatchLiveStateResponse(key_id=identity)
    if kind == "platform":
        return WatchLiveStateResponse(platform_id=identity)
    return WatchLiveStateResponse(everything=True)
