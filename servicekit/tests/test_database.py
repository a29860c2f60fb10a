"""That a service outlives what happens to its database and to the way there."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import ProgrammingError

from servicekit import database as database_module
from servicekit.compiled_statement import CompiledStatement
from servicekit.database import WAITING_FOR_EACH, Database, transaction_of
from servicekit.deadline import set_deadline
from servicekit.errors import NotFound, ServiceAway, ServiceBusy
from servicekit.tests.conftest import data_keys_of
from tests.database_server import without_standby

SLEEP = text("SELECT pg_sleep(5)")
KEYS = CompiledStatement(select(func.count().label("count")).select_from(data_keys_of))
ROLE = CompiledStatement(text("SELECT current_user"))
IS_READ_ONLY = CompiledStatement(text("SELECT current_setting('transaction_read_only') AS is_read_only"))
BROKEN = CompiledStatement(text("SELECT CAST(:number AS integer) AS number"))
SLOW = CompiledStatement(text("SELECT pg_sleep(5)"))


class Unknown(NotFound):
    code = "RQ-103"
    message = "Nothing."


async def use_at_once(kit: Any, count: int) -> None:
    """Run transactions side by side, each on a connection of its own."""
    everyone = asyncio.Barrier(count)

    async def use() -> None:
        async with kit.database.transaction(kit.worker) as tx:
            await everyone.wait()
            await tx.execute(text("SELECT 1"))

    await asyncio.gather(*(use() for _ in range(count)))


def kill_sessions(kit: Any) -> int:
    with kit.superuser() as connection:
        killed = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'kit'"
        ).fetchone()
    return killed[0]


def sessions(kit: Any) -> set[int]:
    with kit.superuser() as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'kit' AND datname = current_database()"
        return {pid for (pid,) in connection.execute(query)}


@asynccontextmanager
async def swallowing_proxy(dsn: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Open a way to a server that swallows everything while the event is set, also what new connections say."""
    server = urlsplit(dsn)
    swallows = asyncio.Event()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while said := await reader.read(65_536):
                if not swallows.is_set():
                    writer.write(said)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(server.hostname, server.port)
        await asyncio.gather(carry(reader, to_server), carry(from_server, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        yield server._replace(netloc=f"{server.username}:{server.password}@127.0.0.1:{port}").geturl(), swallows


async def test_all_sessions_killed_at_once_are_replaced_without_an_error(kit):
    await use_at_once(kit, 10)
    assert kill_sessions(kit) == 10
    await asyncio.sleep(0.1)
    for _ in range(3):
        async with kit.database.transaction(kit.worker) as tx:
            assert (await tx.execute(text("SELECT 1"))).scalar_one() == 1
    await use_at_once(kit, 10)


async def test_a_session_killed_under_way_is_refused_as_away(kit):
    async def work() -> None:
        async with kit.database.transaction(kit.worker) as tx:
            kill_sessions(kit)
            await tx.execute(text("SELECT 1"))

    with pytest.raises(ServiceAway):
        await work()


@pytest.mark.parametrize("by_driver", [False, True])
async def test_a_server_that_became_a_standby_is_refused_as_away_and_left(kit, by_driver):
    database = Database(kit.runtime_dsn, "kit", pool_size=1)

    async def write() -> None:
        async with database.transaction(kit.worker) as tx:
            if by_driver:
                await kit.audit_log.record(tx, "note.change", "note", "n-1")
            else:
                await tx.execute(text("DELETE FROM data_keys"))

    with kit.superuser() as connection:
        connection.execute(f"ALTER DATABASE {kit.database_name} SET default_transaction_read_only = on")
        with pytest.raises(ServiceAway):
            await write()
        connection.execute(f"ALTER DATABASE {kit.database_name} RESET default_transaction_read_only")
    # The same connection would still be read-only.
    async with database.transaction(kit.worker) as tx:
        await kit.audit_log.record(tx, "note.change", "note", "n-1")
    await database.close()


async def test_a_former_primary_is_not_read_from(kit):
    database = Database(kit.runtime_dsn, "kit", pool_size=2)
    async with database.transaction(kit.worker) as tx:
        # Fenced without an end to its sessions, as by a setting or a proxy.
        await tx.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    async with database.transaction(kit.worker) as tx:
        assert (await tx.execute(text("SHOW transaction_read_only"))).scalar_one() == "off"
    with kit.superuser() as connection:
        connection.execute(f"ALTER DATABASE {kit.database_name} SET default_transaction_read_only = on")
    kill_sessions(kit)
    with pytest.raises(ServiceAway):
        async with database.transaction(kit.worker):
            pass
    await database.close()


async def test_an_error_that_was_swallowed_is_no_success(kit):
    async def work() -> None:
        async with kit.database.transaction(kit.worker) as tx:
            with suppress(ProgrammingError):
                await tx.execute(text("SELECT nothing FROM nowhere"))

    with pytest.raises(RuntimeError, match="ROLLBACK"):
        await work()


@pytest.mark.parametrize("asks_again", [True, False])
async def test_a_transaction_that_dawdled_is_refused_as_away(kit, asks_again):
    async def dawdle() -> None:
        async with kit.database.transaction(kit.worker) as tx:
            await tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = '100ms'"))
            await asyncio.sleep(0.5)
            if asks_again:
                await tx.execute(text("SELECT 1"))

    with pytest.raises(ServiceAway):
        await dawdle()
    async with kit.database.transaction(kit.worker) as tx:
        assert (await tx.execute(text("SELECT 1"))).scalar_one() == 1


async def test_a_refusal_stays_one_when_the_session_is_gone(kit):
    async def work() -> None:
        async with kit.database.transaction(kit.worker):
            kill_sessions(kit)
            raise Unknown

    with pytest.raises(Unknown):
        await work()


async def test_a_connection_that_hangs_is_cut_off_and_replaced(kit):
    began = time.monotonic()
    with pytest.raises(ServiceAway):
        async with kit.database.transaction(kit.worker, longest_s=0.3) as tx:
            await tx.execute(SLEEP)
    assert time.monotonic() - began < 2
    async with kit.database.transaction(kit.worker) as tx:
        assert (await tx.execute(text("SELECT 1"))).scalar_one() == 1


async def test_a_connection_into_the_void_is_given_up_although_its_caller_has_gone(kit, monkeypatch):
    """Whoever goes lets the server know, and that takes the same way, which answers nobody."""
    monkeypatch.setattr(database_module, "CANCELLING_S", 0.2)
    async with swallowing_proxy(kit.runtime_dsn) as (dsn, swallow):
        database = Database(dsn, "kit", pool_size=1)

        async def work() -> None:
            async with database.transaction(kit.worker, longest_s=0.6) as tx:
                swallow.set()
                await tx.execute(SLEEP)

        working = asyncio.create_task(work())
        await swallow.wait()
        await asyncio.sleep(0.1)
        working.cancel()
        # psycopg by itself would wait for 5 s for the cancellation to be heard.
        done, _ = await asyncio.wait([working], timeout=3)
        assert done
        swallow.clear()
        async with database.transaction(kit.worker) as tx:
            assert (await tx.execute(text("SELECT 1"))).scalar_one() == 1
        await database.close()


async def test_who_goes_while_a_transaction_is_begun_leaves_none_open(kit, monkeypatch):
    began = asyncio.Event()
    begin = database_module._open_scope

    async def open_scope(driver, scope):
        now = await begin(driver, scope)
        began.set()
        await asyncio.sleep(5)
        return now

    database = Database(kit.runtime_dsn, "kit", pool_size=1)
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "_open_scope", open_scope)

        async def work() -> None:
            async with database.transaction(kit.worker):
                pass

        working = asyncio.create_task(work())
        await began.wait()
        first = sessions(kit)
        working.cancel()
        with suppress(asyncio.CancelledError, ServiceAway):
            await working
    async with database.transaction(kit.worker) as tx:
        assert (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one() not in first
    await database.close()


async def test_a_commit_that_waits_for_a_standby_is_given_up_and_leaves_no_session(kit):
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kit' AND wait_event = 'SyncRep'"
    with without_standby(kit.superuser_dsn), kit.superuser() as connection:
        with pytest.raises(ServiceAway):
            async with kit.database.transaction(kit.worker, longest_s=0.3) as tx:
                await kit.audit_log.record(tx, "note.change", "note", "n-1")
        async with asyncio.timeout(10):
            while connection.execute(waiting).fetchone() != (0,):  # noqa: ASYNC110  # the database tells nobody
                await asyncio.sleep(0.02)


async def test_a_commit_that_is_made_to_stop_waiting_for_a_standby_is_refused_as_away(kit):
    async def write() -> None:
        async with kit.database.transaction(kit.worker) as tx:
            await kit.audit_log.record(tx, "note.change", "note", "n-1")

    waiting = "application_name = 'kit' AND wait_event = 'SyncRep'"
    cancel = f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waiting}"
    with without_standby(kit.superuser_dsn), kit.superuser() as connection:
        writing = asyncio.create_task(write())
        async with asyncio.timeout(10):
            while connection.execute(cancel).fetchone() is None:  # noqa: ASYNC110  # the database tells nobody
                await asyncio.sleep(0.02)
        with pytest.raises(ServiceAway):
            await writing


async def test_nothing_is_committed_for_who_has_gone(kit):
    async def write() -> None:
        set_deadline(0.1)
        async with kit.database.transaction(kit.worker) as tx:
            await kit.audit_log.record(tx, "note.change", "note", "late")
            # As a process that is stopped for a while.
            time.sleep(0.2)  # noqa: ASYNC251

    with pytest.raises(ServiceAway):
        await asyncio.create_task(write())
    with kit.superuser() as connection:
        assert connection.execute("SELECT count(*) FROM audit_log WHERE entity_id = 'late'").fetchone() == (0,)


async def test_reads_that_are_confirmed_wait_for_a_standby_and_others_do_not(kit):
    with without_standby(kit.superuser_dsn):
        async with kit.database.transaction(kit.worker) as tx:
            await tx.execute(text("SELECT 1"))
        with pytest.raises(ServiceAway):
            async with kit.database.transaction(kit.worker, longest_s=0.3) as tx:
                await tx.wait_for_replication()


@pytest.fixture
def swallowed(monkeypatch) -> asyncio.Event:
    """Have the first connection swallow everything: it is cut off, which is what who uses it hears."""
    begin = database_module._open_scope
    has_begun = asyncio.Event()

    async def open_scope(driver, scope):
        if has_begun.is_set():
            return await begin(driver, scope)
        has_begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.2)
        await driver.close()
        raise psycopg.OperationalError("the connection was cut off")

    monkeypatch.setattr(database_module, "_open_scope", open_scope)
    return has_begun


async def test_a_cancelled_transaction_does_not_go_on_with_another_connection(kit, swallowed):
    was_open = False

    async def work() -> None:
        nonlocal was_open
        async with kit.database.transaction(kit.worker):
            was_open = True

    working = asyncio.create_task(work())
    await swallowed.wait()
    working.cancel()
    with pytest.raises(ServiceAway):
        await working
    assert not was_open


@pytest.mark.parametrize(("seconds", "is_open"), [(5.0, True), (0.1, False)])
async def test_another_connection_is_tried_only_while_somebody_waits(kit, swallowed, seconds, is_open):
    was_open = False
    set_deadline(seconds)
    with suppress(ServiceAway):
        async with kit.database.transaction(kit.worker):
            was_open = True
    assert was_open == is_open


async def test_more_than_can_be_done_in_time_is_refused_at_once(kit):
    small = Database(kit.runtime_dsn, "kit", pool_size=1)
    goes_on = asyncio.Event()

    async def wait() -> None:
        async with small.transaction(kit.worker):
            await goes_on.wait()

    running = [asyncio.create_task(wait()) for _ in range(1 + WAITING_FOR_EACH)]
    await asyncio.sleep(0)
    began = time.monotonic()
    with pytest.raises(ServiceBusy):
        async with small.transaction(kit.worker):
            pass
    assert time.monotonic() - began < 0.05
    goes_on.set()
    await asyncio.gather(*running)
    await small.close()


async def test_a_database_that_is_not_there_is_refused_as_away(kit):
    nowhere = Database(psycopg.conninfo.make_conninfo(kit.runtime_dsn, port=1), "kit")
    with pytest.raises(ServiceAway):
        async with nowhere.transaction(kit.worker):
            pass
    await nowhere.close()


class TestReading:
    @pytest.fixture
    async def keys(self, kit) -> None:
        """Three data keys, one of them of another platform."""
        async with kit.database.transaction(kit.worker) as tx:
            for platform_id in (kit.platform_id, kit.platform_id, kit.other_platform_id):
                await kit.data_keys.for_owner(tx, uuid4(), platform_id)

    async def test_shows_what_the_caller_may_see_and_no_more(self, kit, keys):
        for call, count in ((kit.partner, 2), (kit.other_partner, 1), (kit.worker, 3), (kit.partner, 2)):
            async with kit.database.reading(call) as reader:
                assert await KEYS.rows(reader, {}) == [{"count": count}]
                # Each statement is one by itself.
                assert await KEYS.rows(reader, {}) == [{"count": count}]

    async def test_leaves_nothing_behind(self, kit, keys):
        database = Database(kit.runtime_dsn, "kit", pool_size=1)
        async with database.reading(kit.worker) as reader:
            await KEYS.rows(reader, {})
        async with database.transaction(kit.partner) as tx:
            assert await KEYS.rows(tx, {}) == [{"count": 2}]
            assert await ROLE.rows(tx, {}) == [{"current_user": "kit_runtime"}]
        async with database.reading(kit.partner) as reader:
            assert await KEYS.rows(reader, {}) == [{"count": 2}]
        await database.close()

    async def test_is_a_transaction_for_operators(self, kit):
        async with kit.database.reading(kit.admin) as reader:
            await kit.audit_log.record(transaction_of(reader), "note.read", "note", "n-1")
        async with kit.database.reading(kit.partner) as reader:
            with pytest.raises(TypeError):
                transaction_of(reader)

    async def test_outlives_the_end_of_all_sessions(self, kit):
        await use_at_once(kit, 10)
        assert kill_sessions(kit) == 10
        await asyncio.sleep(0.1)
        async with kit.database.reading(kit.worker) as reader:
            assert await KEYS.rows(reader, {}) == [{"count": 0}]

    async def test_does_not_read_from_a_former_primary(self, kit):
        database = Database(kit.runtime_dsn, "kit", pool_size=2)
        async with database.transaction(kit.worker) as tx:
            await tx.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
        async with database.reading(kit.worker) as reader:
            assert await IS_READ_ONLY.rows(reader, {}) == [{"is_read_only": "off"}]
        with kit.superuser() as connection:
            connection.execute(f"ALTER DATABASE {kit.database_name} SET default_transaction_read_only = on")
        kill_sessions(kit)
        with pytest.raises(ServiceAway):
            async with database.reading(kit.worker) as reader:
                await KEYS.rows(reader, {})
        await database.close()

    @pytest.mark.parametrize("times", [1, 6, 7])
    async def test_an_error_leaves_nothing_behind(self, kit, times):
        database = Database(kit.runtime_dsn, "kit", pool_size=1)
        # The server has never heard of a statement that broke off when it was about to be prepared.
        for number in [*range(times - 1), "no number"]:
            with suppress(psycopg.DataError):
                async with database.reading(kit.worker) as reader:
                    await BROKEN.rows(reader, {"number": number})
        for number in range(8):
            async with database.reading(kit.worker) as reader:
                assert await BROKEN.rows(reader, {"number": number}) == [{"number": number}]
        await database.close()

    async def test_a_statement_that_waits_to_be_prepared_can_be_prepared_later(self, kit, monkeypatch):
        monkeypatch.setattr(database_module, "_OPEN", database_module._OPEN.replace(b"'2500'", b"'200'"))
        database = Database(kit.runtime_dsn, "kit", pool_size=1)

        async def read() -> object:
            async with database.reading(kit.worker) as reader:
                return await KEYS.rows(reader, {})

        for _ in range(5):
            await read()
        with psycopg.connect(kit.owner_dsn) as connection:
            connection.execute("LOCK TABLE data_keys")
            with pytest.raises(ServiceAway):
                await read()
        assert [await read() for _ in range(3)] == [[{"count": 0}]] * 3
        await database.close()

    async def test_a_slow_statement_is_ended_and_not_tried_again(self, kit, monkeypatch):
        monkeypatch.setattr(database_module, "_OPEN", database_module._OPEN.replace(b"'2500'", b"'200'"))
        database = Database(kit.runtime_dsn, "kit", pool_size=1)
        began = time.monotonic()
        with pytest.raises(ServiceAway):
            async with database.reading(kit.worker) as reader:
                await SLOW.rows(reader, {})
        assert time.monotonic() - began < 2
        async with database.reading(kit.worker) as reader:
            assert await KEYS.rows(reader, {}) == [{"count": 0}]
        await database.close()

    async def test_who_goes_away_leaves_no_answer_to_others(self, kit):
        database = Database(kit.runtime_dsn, "kit", pool_size=1)

        async def read() -> None:
            async with database.reading(kit.worker) as reader:
                await SLOW.rows(reader, {})

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.3)
        reading.cancel()
        with suppress(asyncio.CancelledError, ServiceAway):
            await reading
        for _ in range(3):
            async with database.reading(kit.partner) as reader:
                assert await ROLE.rows(reader, {}) == [{"current_user": "kit_runtime"}]
        await database.close()

    async def test_a_connection_that_hangs_is_cut_off(self, kit, monkeypatch):
        monkeypatch.setattr(database_module, "BEGINNING_S", 0.3)
        # The server would end it by itself only later.
        set_deadline(0.5)
        began = time.monotonic()
        with pytest.raises(ServiceAway):
            async with kit.database.reading(kit.worker) as reader:
                await SLOW.rows(reader, {})
        assert time.monotonic() - began < 2
