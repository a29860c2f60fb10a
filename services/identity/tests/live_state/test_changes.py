"""What a stream hears of the database, and that it hears nothing while the database is not heard."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from aarokya.identity.v1.live_state_service_pb2 import ReplicaMoment, WatchLiveStateResponse
from deploy.postgres import temporary_cluster
from identity.live_state import changes as changes_module
from identity.live_state.changes import LiveStateChanges
from identity.live_state.repository import announce_key, announce_platform, announce_user
from identity.models import SERVICE
from servicekit.caller import system_call
from servicekit.database import Database
from tests.database_server import DatabaseServer, Logins, migrated_database

HEARTBEAT = WatchLiveStateResponse()
EVERYTHING = WatchLiveStateResponse(everything=True)
ENDING = WatchLiveStateResponse(ending=True)
LISTENER = "application_name = 'identity live state' AND pid <> ALL (%s)"


def without_time(message: WatchLiveStateResponse) -> None:
    """Take out of a message as of when it speaks."""
    for field in ("as_of_us", "as_of"):
        message.ClearField(field)


class Stream:
    """One reader's stream, read in the background."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, WatchLiveStateResponse]] = []
        self.as_of: list[int] = []
        self.moments: list[ReplicaMoment] = []
        self._more = asyncio.Event()

    async def read(self, changes: LiveStateChanges) -> None:
        async with aclosing(changes.watch()) as messages:
            async for message in messages:
                self.as_of.append(message.as_of_us)
                self.moments.append(message.as_of)
                without_time(message)
                self.heard.append((time.monotonic(), message))
                self._more.set()

    @property
    def news(self) -> list[WatchLiveStateResponse]:
        return [message for _, message in self.heard if message != HEARTBEAT]

    @property
    def heartbeats(self) -> list[float]:
        return [at for at, message in self.heard if message == HEARTBEAT]

    async def until(self, message: WatchLiveStateResponse) -> float:
        """Wait for a message, of those that come again and again for the next, and return when it came."""
        start = len(self.heard) if message in (HEARTBEAT, EVERYTHING, ENDING) else 0
        async with asyncio.timeout(5):
            while True:
                for at, heard in self.heard[start:]:
                    if heard == message:
                        return at
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await asyncio.sleep(0)
    yield
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.fixture(scope="module")
def identity_database() -> Iterator[Logins]:
    """A database on a server of our own: a backend is frozen by its pid, which is another outside a container."""
    with temporary_cluster() as cluster:
        yield migrated_database(DatabaseServer(cluster.dsn), SERVICE, SERVICE)


@pytest.fixture
async def database(identity_database: Any) -> AsyncIterator[Database]:
    database = Database(identity_database.runtime_dsn, "identity")
    yield database
    await database.close()


@pytest.fixture
def others(identity_database: Any) -> list[int]:
    """The listeners of others, which are none of this test's business."""
    with identity_database.superuser() as connection:
        query = f"SELECT pid FROM pg_stat_activity WHERE {LISTENER}"
        return [pid for (pid,) in connection.execute(query, ([],))]


@pytest.fixture
async def changes(identity_database: Any, others: list[int]) -> AsyncIterator[LiveStateChanges]:
    changes = LiveStateChanges(identity_database.runtime_dsn)
    async with running(changes.run()):
        yield changes


@pytest.fixture
async def stream(changes: LiveStateChanges) -> AsyncIterator[Stream]:
    stream = Stream()
    async with running(stream.read(changes)):
        await stream.until(HEARTBEAT)
        yield stream


@pytest.fixture
def listener_pid(identity_database: Any, stream: Stream, others: list[int]) -> int:
    with identity_database.superuser() as connection:
        query = f"SELECT pid FROM pg_stat_activity WHERE {LISTENER}"
        (row,) = connection.execute(query, (others,)).fetchall()
    return int(row[0])


async def test_hears_nothing_from_a_server_that_takes_no_writes(
    identity_database: Any, stream: Stream, listener_pid: int
) -> None:
    """Such as a former primary, whose sessions go on: what narrows rights is committed elsewhere."""
    setting = "SET default_transaction_read_only = on"
    with identity_database.superuser() as connection:
        database = connection.info.dbname
        connection.execute(f"ALTER DATABASE {database} {setting}")
        try:
            connection.execute("SELECT pg_terminate_backend(%s)", (listener_pid,))
            await asyncio.sleep(0.5)
            heard = len(stream.heard)
            await asyncio.sleep(1)
            assert len(stream.heard) == heard
        finally:
            connection.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    await stream.until(HEARTBEAT)


class TestWatch:
    async def test_hears_what_is_announced_in_order(self, stream: Stream, database: Database) -> None:
        user_id, key_id, platform_id = uuid4(), uuid4(), uuid4()
        async with database.transaction(system_call("identity")) as tx:
            await announce_user(tx, user_id)
            await announce_key(tx, key_id)
            await announce_platform(tx, platform_id)
        await stream.until(HEARTBEAT)
        assert stream.news[-3:] == [
            WatchLiveStateResponse(user_id=str(user_id)),
            WatchLiveStateResponse(key_id=str(key_id)),
            WatchLiveStateResponse(platform_id=str(platform_id)),
        ]

    async def test_hears_at_once(self, stream: Stream, database: Database) -> None:
        delays = []
        for _ in range(20):
            user_id = uuid4()
            async with database.transaction(system_call("identity")) as tx:
                await announce_user(tx, user_id)
                began = time.monotonic()
            delays.append(await stream.until(WatchLiveStateResponse(user_id=str(user_id))) - began)
            await asyncio.sleep(0.03)
        assert sorted(delays)[10] < 0.05

    async def test_hears_nothing_of_what_is_rolled_back(self, stream: Stream, database: Database) -> None:
        async def roll_back() -> None:
            async with database.transaction(system_call("identity")) as tx:
                await announce_user(tx, uuid4())
                raise LookupError

        before = len(stream.news)
        with pytest.raises(LookupError):
            await roll_back()
        await stream.until(HEARTBEAT)
        assert len(stream.news) == before

    async def test_beats_several_times_a_lease(self, stream: Stream) -> None:
        await asyncio.sleep(1.5)
        gaps = [later - earlier for earlier, later in zip(stream.heartbeats, stream.heartbeats[1:], strict=False)]
        assert len(gaps) >= 4
        assert max(gaps) < 0.5

    async def test_every_stream_hears_everything(self, changes: LiveStateChanges, database: Database) -> None:
        streams = [Stream() for _ in range(3)]
        user_id = uuid4()
        async with running(*(stream.read(changes) for stream in streams)):
            await streams[0].until(HEARTBEAT)
            async with database.transaction(system_call("identity")) as tx:
                await announce_user(tx, user_id)
            await streams[2].until(HEARTBEAT)
        assert all(stream.news[-1] == WatchLiveStateResponse(user_id=str(user_id)) for stream in streams)

    async def test_forgets_streams_that_are_gone(self, changes: LiveStateChanges, stream: Stream) -> None:
        async with running(Stream().read(changes)):
            assert len(changes._streams) == 2
        assert len(changes._streams) == 1

    async def test_tells_a_slow_reader_to_forget_everything(
        self, changes: LiveStateChanges, stream: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(changes_module, "MOST_WAITING", 3)
        async with aclosing(changes.watch()) as slow:
            waiting = asyncio.ensure_future(anext(slow))
            await asyncio.sleep(0)
            sent = [WatchLiveStateResponse(user_id=str(number)) for number in range(5)]
            for message in sent:
                changes._publish(message)
            # The first four gave way to one that says it all.
            heard = [await waiting, await anext(slow)]
            for message in heard:
                without_time(message)
            assert heard == [EVERYTHING, sent[4]]

    async def test_tells_as_of_when_it_speaks_in_two_ways(self, changes: LiveStateChanges) -> None:
        before, stream = changes.now(), Stream()
        async with running(stream.read(changes)):
            opening = changes.now()
            await stream.until(HEARTBEAT)
            await stream.until(HEARTBEAT)
        assert {moment.replica_id for moment in stream.moments} == {before.replica_id}
        [opened_us] = {moment.clock_us - us for moment, us in zip(stream.moments, stream.as_of, strict=True)}
        assert before.clock_us <= opened_us <= opening.clock_us + 1
        assert stream.moments[-1].clock_us <= changes.now().clock_us

    def test_every_process_has_a_clock_of_its_own(self) -> None:
        assert LiveStateChanges("").now().replica_id != LiveStateChanges("").now().replica_id

    async def test_tells_as_of_when_it_speaks(self, stream: Stream, listener_pid: int) -> None:
        assert stream.as_of == sorted(stream.as_of)
        os.kill(listener_pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(1)
        finally:
            os.kill(listener_pid, signal.SIGCONT)
        before = len(stream.heard)
        await stream.until(HEARTBEAT)
        # What is said at last is only known for the moment at which it was asked.
        [delay, *_] = [at - as_of / 1e6 for (at, _), as_of in zip(stream.heard, stream.as_of, strict=True)][before:]
        opened_at = min(at - as_of / 1e6 for (at, _), as_of in zip(stream.heard, stream.as_of, strict=True))
        assert delay - opened_at > 0.5


class TestHandOver:
    async def test_tells_readers_and_returns_when_they_have_left(
        self, changes: LiveStateChanges, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(changes_module, "HAND_OVER_S", 600)
        last, first = Stream(), Stream()
        async with running(last.read(changes)):
            async with running(first.read(changes)):
                await first.until(HEARTBEAT)
                handing_over = asyncio.create_task(changes.hand_over())
                # They hear on, so as to miss nothing until another replica is heard.
                for stream in (first, last) * 2:
                    await stream.until(ENDING)
            await last.until(ENDING)
            assert not handing_over.done()
        await asyncio.wait_for(handing_over, 5)

    async def test_tells_who_comes_later_at_once(self, changes: LiveStateChanges, database: Database) -> None:
        await changes.wait_until_heard()
        await changes.hand_over()
        async with aclosing(changes.watch()) as messages:
            message = await anext(messages)
        without_time(message)
        assert message == WatchLiveStateResponse(everything=True, ending=True)

    async def test_waits_for_nobody_for_long(
        self, changes: LiveStateChanges, stream: Stream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(changes_module, "HAND_OVER_S", 0.05)
        await asyncio.wait_for(changes.hand_over(), 5)
        # An older reader does not know what that means, and reads on until the server drains.
        await stream.until(ENDING)


class TestDatabaseNotHeard:
    async def test_forgets_everything_when_the_connection_was_lost(
        self, stream: Stream, identity_database: Any, listener_pid: int, database: Database
    ) -> None:
        with identity_database.superuser() as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", (listener_pid,))
        await stream.until(EVERYTHING)
        user_id = uuid4()
        async with database.transaction(system_call("identity")) as tx:
            await announce_user(tx, user_id)
        await stream.until(HEARTBEAT)
        assert stream.news[-1] == WatchLiveStateResponse(user_id=str(user_id))

    async def test_falls_silent_while_the_database_hangs(
        self, stream: Stream, listener_pid: int, database: Database
    ) -> None:
        user_id = uuid4()
        os.kill(listener_pid, signal.SIGSTOP)
        try:
            stopped = time.monotonic()
            async with database.transaction(system_call("identity")) as tx:
                await announce_user(tx, user_id)
            await asyncio.sleep(1.2)
            # One may have been on its way.
            assert [at for at in stream.heartbeats if at > stopped + 0.1] == []
        finally:
            os.kill(listener_pid, signal.SIGCONT)
        await stream.until(HEARTBEAT)
        assert stream.news[-1] == WatchLiveStateResponse(user_id=str(user_id))

    async def test_gives_up_a_connection_that_hangs(
        self, stream: Stream, listener_pid: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(changes_module, "ANSWER_S", 0.3)
        os.kill(listener_pid, signal.SIGSTOP)
        try:
            await stream.until(EVERYTHING)
            await stream.until(HEARTBEAT)
        finally:
            os.kill(listener_pid, signal.SIGCONT)

    async def test_says_nothing_before_the_database_was_heard(self) -> None:
        changes = LiveStateChanges("host=127.0.0.1 port=1 user=nobody dbname=nowhere")
        stream = Stream()
        async with running(changes.run(), stream.read(changes)):
            await asyncio.sleep(0.6)
        assert stream.heard == []
