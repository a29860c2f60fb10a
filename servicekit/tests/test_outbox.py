"""That events arrive, once each and in order for each owner, whoever delivers them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from sqlalchemy import MetaData, create_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from servicekit import outbox as outbox_module
from servicekit.history import grants
from servicekit.metrics import OUTBOX_WAITING
from servicekit.outbox import AWAY, Event, Outbox, outbox_table

TABLE = outbox_table(MetaData())
DIALECT = create_engine("postgresql+psycopg://").dialect


class Receiver:
    """Takes events, at once or when the test says so."""

    def __init__(self) -> None:
        self.arrived: list[bytes | None] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.away: grpc.StatusCode | None = None
        self.refused: bytes | None = None

    async def take(self, event: Event) -> None:
        await self.is_open.wait()
        if event.payload is not None and event.payload == self.refused:
            raise ValueError
        if self.away:
            raise grpc.aio.AioRpcError(self.away, grpc.aio.Metadata(), grpc.aio.Metadata())
        self.arrived.append(event.payload)


@pytest.fixture
async def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def new_outbox(kit: Any, receiver: Receiver) -> AsyncIterator[Callable[[], Outbox]]:
    """Return an outbox as another replica would have it."""
    with psycopg.connect(kit.owner_dsn) as connection:
        connection.execute(str(CreateTable(TABLE).compile(dialect=DIALECT)))
        for index in TABLE.indexes:
            connection.execute(str(CreateIndex(index).compile(dialect=DIALECT)))
        for statement in grants("outbox", "kit", delete=True):
            connection.execute(statement)
    made: list[Outbox] = []

    def new() -> Outbox:
        made.append(Outbox(TABLE, kit.database, kit.data_keys, "kit", receiver.take))
        return made[-1]

    yield new
    receiver.is_open.set()
    for outbox in made:
        await asyncio.gather(*outbox._deliveries, return_exceptions=True)


async def add(kit: Any, outbox: Outbox, owner_id: UUID, *payloads: bytes, first_version: int = 1) -> None:
    async with kit.database.transaction(kit.worker) as tx:
        for version, payload in enumerate(payloads, first_version):
            await outbox.add(tx, owner_id=owner_id, platform_id=kit.platform_id, owner_version=version, payload=payload)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110  # the database tells nobody
            await asyncio.sleep(0.02)


def count(kit: Any, condition: str = "true") -> int:
    with kit.superuser() as connection:
        return int(connection.execute(f"SELECT count(*) FROM outbox WHERE {condition}").fetchone()[0])


def is_leased(kit: Any) -> bool:
    return count(kit, "leased_until > now()") > 0


class TestDeliverSoon:
    async def test_delivers_in_order(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        await add(kit, outbox, owner_id, b"one", b"two", b"three")

        await outbox.deliver_soon(owner_id, 5)

        assert receiver.arrived == [b"one", b"two", b"three"]

    async def test_waits_for_whoever_was_quicker(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        quicker, outbox, owner_id = new_outbox(), new_outbox(), uuid4()
        await add(kit, outbox, owner_id, b"one")
        receiver.is_open.clear()
        await quicker.deliver_soon(owner_id, 0.1)

        asyncio.get_running_loop().call_later(0.1, receiver.is_open.set)
        await outbox.deliver_soon(owner_id, 5)

        assert receiver.arrived == [b"one"]

    async def test_goes_on_after_the_wait(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        await add(kit, outbox, owner_id, b"one")
        receiver.is_open.clear()
        began = time.monotonic()

        await outbox.deliver_soon(owner_id, 0.1)

        assert time.monotonic() - began < 1
        assert receiver.arrived == []
        receiver.is_open.set()
        await outbox.deliver_soon(owner_id, 5)
        assert receiver.arrived == [b"one"]

    async def test_returns_at_once_when_the_receiver_is_away(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        await add(kit, outbox, owner_id, b"one")
        receiver.away = grpc.StatusCode.UNAVAILABLE
        began = time.monotonic()

        await outbox.deliver_soon(owner_id, 5)

        assert time.monotonic() - began < 1


class TestRun:
    @pytest.mark.parametrize("status", AWAY)
    async def test_delivers_soon_when_the_receiver_is_back(
        self, kit: Any, new_outbox: Any, receiver: Receiver, status: grpc.StatusCode
    ) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        receiver.away = status
        await add(kit, outbox, owner_id, b"one")
        with psycopg.connect(kit.owner_dsn) as connection:
            # It has been away for long.
            connection.execute("UPDATE outbox SET attempts = 100")
        task = asyncio.create_task(outbox.run())
        await asyncio.sleep(0.1)
        await add(kit, outbox, owner_id, b"two", first_version=2)
        receiver.away = None

        for _ in range(100):
            if len(receiver.arrived) == 2:
                break
            await asyncio.sleep(0.05)

        assert receiver.arrived == [b"one", b"two"]
        task.cancel()

    async def test_is_not_held_up_by_an_event_that_cannot_be_carried(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox, broken, unreadable, owner_id = new_outbox(), uuid4(), uuid4(), uuid4()
        receiver.refused = b"broken"
        await add(kit, outbox, broken, b"broken")
        await add(kit, outbox, unreadable, b"one")
        with kit.superuser() as connection:
            connection.execute("UPDATE outbox SET sealed = sealed || 'x' WHERE owner_id = %s", [unreadable])
        await add(kit, outbox, owner_id, b"two")
        task = asyncio.create_task(outbox.run())

        for _ in range(100):
            if receiver.arrived:
                break
            await asyncio.sleep(0.05)

        assert receiver.arrived == [b"two"]
        assert not task.done()
        task.cancel()

    @pytest.mark.parametrize(
        "damage",
        ["master_key_id = 'lost'", "wrapped = wrapped || 'x'"],
        ids=["master key missing", "key tampered with"],
    )
    async def test_is_not_held_up_by_a_key_that_cannot_be_unwrapped(
        self, kit: Any, new_outbox: Any, receiver: Receiver, damage: str
    ) -> None:
        outbox, locked, owner_id = new_outbox(), uuid4(), uuid4()
        await add(kit, outbox, locked, b"one")
        with kit.superuser() as connection:
            connection.execute(f"UPDATE data_keys SET {damage} WHERE owner_id = %s", [locked])
        await add(kit, outbox, owner_id, b"two")
        task = asyncio.create_task(outbox.run())
        await until(lambda: bool(receiver.arrived))

        assert receiver.arrived == [b"two"]
        assert not task.done()
        # It still waits, and is seen to.
        await until(lambda: OUTBOX_WAITING._value.get() == 1)
        task.cancel()
        await asyncio.wait([task])

    async def test_goes_on_after_any_failure(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        with kit.superuser() as connection:
            connection.execute("ALTER TABLE outbox RENAME TO moved")
            task = asyncio.create_task(outbox.run())
            await asyncio.sleep(0.1)
            connection.execute("ALTER TABLE moved RENAME TO outbox")
        await add(kit, outbox, owner_id, b"one")
        await until(lambda: bool(receiver.arrived))

        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    @pytest.mark.parametrize("is_soon", [False, True])
    async def test_lets_go_of_what_is_on_its_way_when_it_is_stopped(
        self, kit: Any, new_outbox: Any, receiver: Receiver, is_soon: bool
    ) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        receiver.is_open.clear()
        await add(kit, outbox, owner_id, b"one")
        if is_soon:
            await outbox.deliver_soon(owner_id, 0.2)
        task = asyncio.create_task(outbox.run())
        await asyncio.sleep(0.05)
        await until(lambda: is_leased(kit))
        task.cancel()
        await asyncio.wait([task])

        assert not is_leased(kit)
        receiver.is_open.set()
        await new_outbox().deliver_soon(owner_id, 5)
        assert receiver.arrived == [b"one"]

    async def test_forgets_what_was_delivered_long_ago_bit_by_bit(
        self, kit: Any, new_outbox: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox_module, "MOST_DELETED", 2)
        monkeypatch.setattr(outbox_module, "POLL_S", 0.01)
        outbox, owner_id = new_outbox(), uuid4()
        await add(kit, outbox, owner_id, *(b"old" for _ in range(4)), b"new")
        await outbox.deliver_soon(owner_id, 5)
        with kit.superuser() as connection:
            connection.execute("UPDATE outbox SET delivered_at = now() - interval '8 days' WHERE owner_version < 5")
        await outbox._report()
        assert count(kit) == 3
        task = asyncio.create_task(outbox.run())
        await until(lambda: count(kit) == 1)
        task.cancel()
        await asyncio.wait([task])

    async def test_delivers_soon_after_a_long_absence(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        await add(kit, outbox, owner_id, b"one")
        with kit.superuser() as connection:
            connection.execute("UPDATE outbox SET attempts = 100")
        receiver.away = grpc.StatusCode.UNAVAILABLE
        await outbox.deliver_soon(owner_id, 1)
        receiver.away = None
        task = asyncio.create_task(outbox.run())
        await asyncio.sleep(2)
        task.cancel()

        assert receiver.arrived == [b"one"]
