"""That a service outlives what happens to its database and to the way there."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from servicekit import database as database_module
from servicekit.database import WAITING_FOR_EACH, Database
from servicekit.deadline import set_deadline
from servicekit.errors import NotFound, ServiceAway, ServiceBusy
from tests.database_server import without_standby

SLEEP = text("SELECT pg_sleep(5)")


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


async def test_a_commit_that_waits_for_a_standby_is_given_up_and_leaves_no_session(kit):
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kit' AND wait_event = 'SyncRep'"
    with without_standby(kit.superuser_dsn), kit.superuser() as connection:
        with pytest.raises(ServiceAway):
            async with kit.database.transaction(kit.worker, longest_s=0.3) as tx:
                await kit.audit_log.record(tx, "note.change", "note", "n-1")
        async with asyncio.timeout(10):
            while connection.execute(waiting).fetchone() != (0,):  # noqa: ASYNC110  # the database tells nobody
                await asyncio.sleep(0.02)


async def test_reads_that_are_confirmed_wait_for_a_standby_and_others_do_not(kit):
    with without_standby(kit.superuser_dsn):
        async with kit.database.transaction(kit.worker) as tx:
            await tx.execute(text("SELECT 1"))
        with pytest.raises(ServiceAway):
            async with kit.database.transaction(kit.worker, longest_s=0.3) as tx:
                await tx.confirm_reads()


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
