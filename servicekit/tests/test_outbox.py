"""That events arrive, once each and in order for each owner, whoever delivers them."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from sqlalchemy import MetaData, create_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from servicekit import outbox as outbox_module
from servicekit.compiled_statement import CompiledStatement
from servicekit.metrics import OUTBOX_OLDEST_SECONDS, OUTBOX_WAITING
from servicekit.outbox import AWAY, BATCH, LEAST_UNDER_WAY, Event, Outbox, outbox_table
from servicekit.table_protection import grants

TABLE = outbox_table(MetaData())
DIALECT = create_engine("postgresql+psycopg://").dialect
# Longer than an event that is let go, and not as long as a leased one.
PUT_OFF = "delivered_at IS NULL AND attempts = 1 AND leased_until BETWEEN now() AND now() + interval '5 seconds'"


class Receiver:
    """Takes events, at once or when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.arrived: list[bytes | None] = []
        self.arrived_of: defaultdict[UUID, list[bytes | None]] = defaultdict(list)
        self.under_way: Counter[UUID] = Counter()
        self.most_of_one_owner = 0
        self.slow: set[bytes] = set()
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.away: grpc.StatusCode | None = None
        self.refused: bytes | None = None
        # Which are refused, each as often, by a replica that is away.
        self.unlucky: Counter[bytes] = Counter()

    async def take(self, event: Event) -> None:
        self.asked += 1
        self.under_way[event.owner_id] += 1
        self.most_of_one_owner = max(self.most_of_one_owner, self.under_way[event.owner_id])
        try:
            await self._take(event)
        finally:
            self.under_way[event.owner_id] -= 1

    async def _take(self, event: Event) -> None:
        if event.payload in self.slow:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        await self.is_open.wait()
        if event.payload is not None and event.payload == self.refused:
            raise ValueError
        if event.payload is not None and self.unlucky[event.payload] > 0:
            self.unlucky[event.payload] -= 1
            # The others have arrived by now.
            await until(lambda: bool(self.arrived))
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        if self.away:
            raise grpc.aio.AioRpcError(self.away, grpc.aio.Metadata(), grpc.aio.Metadata())
        self.arrived.append(event.payload)
        self.arrived_of[event.owner_id].append(event.payload)


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
    async with AsyncExitStack() as open_at_once:
        # A connection that is being opened when a relay is stopped would keep the database from being dropped.
        for _ in range(4):
            await open_at_once.enter_async_context(kit.database.transaction(kit.worker))
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


async def add_of_each(kit: Any, outbox: Outbox, owners: Sequence[UUID], *payloads: bytes) -> None:
    async with kit.database.transaction(kit.worker) as tx:
        for owner_id in owners:
            for version, payload in enumerate(payloads, 1):
                await outbox.add(
                    tx, owner_id=owner_id, platform_id=kit.platform_id, owner_version=version, payload=payload
                )


@asynccontextmanager
async def running(*outboxes: Outbox) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(outbox.run()) for outbox in outboxes]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
            await asyncio.wait([task])
        await asyncio.wait(tasks)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110  # the database tells nobody
            await asyncio.sleep(0.02)


def count(kit: Any, condition: str = "true") -> int:
    with kit.superuser() as connection:
        return int(connection.execute(f"SELECT count(*) FROM outbox WHERE {condition}").fetchone()[0])


async def rows_looked_at(kit: Any, statement: CompiledStatement, values: dict[str, Any]) -> int:
    """Run a statement, undo it, and return how many rows all steps of its plan have looked at."""

    def rows(node: dict[str, Any]) -> int:
        removed = sum(number for name, number in node.items() if name.startswith("Rows Removed"))
        children = sum(rows(child) for child in node.get("Plans", ()))
        return int((node["Actual Rows"] + removed) * node["Actual Loops"]) + children

    async with kit.database.transaction(kit.worker) as tx:
        explained = b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement._sql
        cursor = await tx.driver.execute(explained, statement._fixed | values)
        [[[plan]]] = await cursor.fetchall()
        await tx.driver.execute("ROLLBACK; BEGIN")
    return rows(plan["Plan"])


async def become_slow(outbox: Outbox, receiver: Receiver) -> None:
    """Take so many events too late that hardly any are sent, and then one in time."""
    receiver.away = grpc.StatusCode.DEADLINE_EXCEEDED
    for _ in range(5):
        await outbox._attempt(Event(uuid4(), uuid4(), b"late"))
    receiver.away = None
    await outbox._attempt(Event(uuid4(), uuid4(), b"last"))


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

    async def test_leaves_it_to_the_relay_while_the_receiver_is_slow(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        await become_slow(outbox, receiver)
        receiver.is_open.clear()
        others = [uuid4() for _ in range(LEAST_UNDER_WAY + 1)]
        await add_of_each(kit, outbox, others, b"other")
        await add(kit, outbox, owner_id, b"one")
        waiting = [asyncio.create_task(outbox.deliver_soon(other, 60)) for other in others]
        await until(lambda: receiver.under_way.total() == len(others))

        await asyncio.wait_for(outbox.deliver_soon(owner_id, 600), 5)

        assert receiver.under_way[owner_id] == 0
        receiver.is_open.set()
        await asyncio.wait(waiting)
        await outbox.deliver_soon(owner_id, 5)
        assert receiver.arrived_of[owner_id] == [b"one"]

    async def test_goes_on_delivering_while_one_event_is_slow(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        receiver.away = grpc.StatusCode.DEADLINE_EXCEEDED
        for _ in range(5):
            await outbox._attempt(Event(uuid4(), uuid4(), b"late"))
        receiver.away = None
        await add(kit, outbox, owner_id, b"one")

        await outbox.deliver_soon(owner_id, 5)

        assert receiver.arrived == [b"one"]

    async def test_waits_for_the_relay(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        await add(kit, outbox, owner_id, b"one", b"two")
        receiver.is_open.clear()
        async with running(new_outbox()):
            await until(lambda: is_leased(kit))
            waiting = asyncio.create_task(outbox.deliver_soon(owner_id, 60))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            receiver.is_open.set()
            await waiting

            assert receiver.arrived == [b"one", b"two"]
            assert count(kit, "delivered_at IS NULL") == 0

    async def test_takes_two_transactions(
        self, kit: Any, new_outbox: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        await add(kit, outbox, owner_id, b"one")
        statements = 0
        run = CompiledStatement._run

        async def counted(statement: CompiledStatement, *arguments: Any) -> Any:
            nonlocal statements
            statements += 1
            return await run(statement, *arguments)

        monkeypatch.setattr(CompiledStatement, "_run", counted)
        transactions = 0
        begin = kit.database.transaction

        def begun(*arguments: Any) -> Any:
            nonlocal transactions
            transactions += 1
            return begin(*arguments)

        monkeypatch.setattr(kit.database, "transaction", begun)
        await outbox.deliver_soon(owner_id, 5)

        assert receiver.arrived == [b"one"]
        assert (transactions, statements) == (2, 2)

    async def test_says_nothing_of_an_event_whose_owner_is_erased(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox, erased = new_outbox(), uuid4()
        await add(kit, outbox, erased, b"one")
        async with kit.database.transaction(kit.worker) as tx:
            await kit.data_keys.destroy(tx, erased)

        await outbox.deliver_soon(erased, 5)

        assert receiver.arrived == [None]
        assert count(kit, "delivered_at IS NULL") == 0


class TestRun:
    async def test_lets_slow_events_delay_no_others(
        self, kit: Any, new_outbox: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox_module, "DELIVERY_TIMEOUT_S", 600)
        outbox, others = new_outbox(), [uuid4() for _ in range(100)]
        receiver.slow = {b"slow"}
        await add_of_each(kit, outbox, [UUID(int=number) for number in range(1, BATCH)], b"slow")
        await add_of_each(kit, outbox, others, b"one", b"two")

        async with running(outbox):
            # What has arrived is marked, whatever is still under way.
            await until(lambda: count(kit, "delivered_at IS NOT NULL") == 200)

        assert all(receiver.arrived_of[owner_id] == [b"one", b"two"] for owner_id in others)
        assert count(kit, "delivered_at IS NULL") == BATCH - 1

    async def test_begins_no_more_than_may_be_under_way(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        outbox = new_outbox()
        receiver.is_open.clear()
        await add_of_each(kit, outbox, [uuid4() for _ in range(2 * BATCH)], b"one")

        async with running(outbox):
            await until(lambda: receiver.under_way.total() == BATCH)
            await outbox._relay()
            assert receiver.under_way.total() == BATCH
            receiver.is_open.set()
            await until(lambda: len(receiver.arrived) == 2 * BATCH)

    async def test_sends_less_at_a_time_to_a_receiver_that_is_slow(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox = new_outbox()
        await become_slow(outbox, receiver)
        receiver.is_open.clear()
        await add_of_each(kit, outbox, [uuid4() for _ in range(2 * BATCH)], b"one")

        async with running(outbox):
            await until(lambda: receiver.under_way.total() > LEAST_UNDER_WAY)
            await outbox._relay()
            assert receiver.under_way.total() == LEAST_UNDER_WAY + 1
            receiver.is_open.set()
            await until(lambda: len(receiver.arrived) == 2 * BATCH + 1)
        assert outbox._most_under_way == BATCH

    async def test_takes_many_that_were_late_together_for_one(self, new_outbox: Any, receiver: Receiver) -> None:
        outbox = new_outbox()
        receiver.away = grpc.StatusCode.DEADLINE_EXCEEDED
        receiver.is_open.clear()
        late = [asyncio.create_task(outbox._attempt(Event(uuid4(), uuid4(), b"late"))) for _ in range(BATCH)]
        await until(lambda: receiver.under_way.total() == BATCH)
        receiver.is_open.set()
        await asyncio.wait(late)
        assert outbox._most_under_way == BATCH // 2

    async def test_delivers_all_at_once_when_the_receiver_is_back(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox, owners = new_outbox(), [uuid4() for _ in range(100)]
        await add_of_each(kit, outbox, owners, b"one", b"two", b"three")
        with kit.superuser() as connection:
            # They have failed so often that each would have to wait for long now.
            connection.execute("UPDATE outbox SET attempts = 100")
        receiver.away = grpc.StatusCode.UNAVAILABLE

        async with running(outbox):
            await until(lambda: receiver.asked >= BATCH + 2)
            asked = receiver.asked
            receiver.away = None
            await until(lambda: len(receiver.arrived) == 300)

        assert all(receiver.arrived_of[owner_id] == [b"one", b"two", b"three"] for owner_id in owners)
        # None failed any more, and that the receiver was away is not held against any event.
        assert receiver.asked <= asked + 301
        assert count(kit, "attempts = 101") == 300

    async def test_asks_after_a_receiver_that_is_away_with_one_event_at_a_time(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox = new_outbox()
        await add_of_each(kit, outbox, [uuid4() for _ in range(100)], b"one")
        receiver.away = grpc.StatusCode.UNAVAILABLE

        async with running(outbox):
            await until(lambda: receiver.asked > BATCH)
            receiver.is_open.clear()
            before = receiver.under_way.total()
            await until(lambda: receiver.under_way.total() > before)
            assert receiver.under_way.total() == before + 1
            assert count(kit, "leased_until > now()") == before + 1

    async def test_finds_out_that_the_receiver_is_back_though_one_event_is_slow(
        self, kit: Any, new_outbox: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outbox, others = new_outbox(), [uuid4() for _ in range(30)]
        receiver.away = grpc.StatusCode.UNAVAILABLE
        await add_of_each(kit, outbox, others, b"one")

        async with running(outbox):
            await until(lambda: receiver.asked > BATCH)
            monkeypatch.setattr(outbox_module, "DELIVERY_TIMEOUT_S", 600)
            receiver.slow = {b"slow"}
            await add_of_each(kit, outbox, [UUID(int=1)], b"slow")
            await until(lambda: receiver.under_way[UUID(int=1)] == 1)
            receiver.away = None
            await until(lambda: len(receiver.arrived) == 30)

    async def test_puts_off_an_event_that_times_out_while_others_arrive(
        self, kit: Any, new_outbox: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox_module, "DELIVERY_TIMEOUT_S", 0.3)
        outbox = new_outbox()
        receiver.slow = {b"slow"}
        await add_of_each(kit, outbox, [uuid4()], b"slow")

        async with running(outbox):
            await until(lambda: receiver.under_way.total() == 1)
            await add_of_each(kit, outbox, [uuid4()], b"one")
            # It times out alone now and then, and that counts for nothing.
            await until(lambda: receiver.arrived == [b"one"])
            async with asyncio.timeout(20):
                while not count(kit, PUT_OFF):
                    await add_of_each(kit, outbox, [uuid4()], b"one")

    async def test_does_not_hold_it_against_an_event_that_a_replica_is_away(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox = new_outbox()
        receiver.unlucky[b"unlucky"] = 3
        await add(kit, outbox, uuid4(), b"unlucky")
        await add_of_each(kit, outbox, [uuid4() for _ in range(3)], b"one")

        async with running(outbox):
            await until(lambda: b"unlucky" in receiver.arrived)
            await until(lambda: count(kit, "delivered_at IS NULL") == 0)
        assert receiver.unlucky[b"unlucky"] == 0
        assert count(kit, "attempts = 1") == 4

    async def test_keeps_order_and_delivers_once_with_two_relays_and_callers(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        owners = [uuid4() for _ in range(30)]
        payloads = [b"%d" % number for number in range(10)]
        relays = [new_outbox(), new_outbox()]
        await add_of_each(kit, relays[0], owners, *payloads)

        async with running(*relays):
            await asyncio.gather(*(relay.deliver_soon(owner_id, 20) for owner_id in owners[:5] for relay in relays))
            await until(lambda: len(receiver.arrived) == 300)
            await until(lambda: count(kit, "delivered_at IS NULL") == 0)

        assert all(receiver.arrived_of[owner_id] == payloads for owner_id in owners)
        assert receiver.most_of_one_owner == 1
        assert count(kit, "attempts = 1") == 300

    async def test_keeps_order_of_effects_with_duplicates_forced(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        owners = [uuid4() for _ in range(10)]
        payloads = [b"%d" % number for number in range(20)]
        relays = [new_outbox(), new_outbox()]
        await add_of_each(kit, relays[0], owners, *payloads)

        async with running(*relays):
            for so_far in range(20, 200, 20):
                await until(lambda least=so_far: len(receiver.arrived) >= least)
                with kit.superuser() as connection:
                    # As if a relay had died between delivery and noting it.
                    await asyncio.to_thread(
                        connection.execute,
                        "UPDATE outbox SET delivered_at = NULL, leased_until = NULL WHERE id IN "
                        "(SELECT id FROM outbox WHERE delivered_at IS NOT NULL ORDER BY random() LIMIT 5)",
                    )
            await until(lambda: count(kit, "delivered_at IS NULL") == 0)

        # The receiver takes notice of the first of each only.
        assert all(list(dict.fromkeys(receiver.arrived_of[owner_id])) == payloads for owner_id in owners)
        assert len(receiver.arrived) > 200

    async def test_takes_over_what_a_dead_relay_has_leased(
        self, kit: Any, new_outbox: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dead, owner_id = new_outbox(), uuid4()
        await add(kit, dead, owner_id, b"one", b"two")
        async with kit.database.transaction(kit.worker) as tx:
            assert len(await dead._lease(tx, BATCH)) == 1

        async with running(new_outbox()):
            await asyncio.sleep(0.1)
            assert receiver.arrived == []
            with kit.superuser() as connection:
                connection.execute("UPDATE outbox SET leased_until = now()")
            await until(lambda: receiver.arrived == [b"one", b"two"])

    async def test_delivers_though_the_clock_was_put_back(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        outbox = new_outbox()
        await add_of_each(kit, outbox, [uuid4(), uuid4()], b"one")
        with kit.superuser() as connection:
            connection.execute("UPDATE outbox SET created_at = now() + interval '1 hour'")
            leased = "leased_until = now() + interval '1 hour', attempts = 1"
            one = "SELECT id FROM outbox ORDER BY id LIMIT 1"
            connection.execute(f"UPDATE outbox SET {leased} WHERE id = ({one})")
        async with running(outbox):
            await until(lambda: len(receiver.arrived) == 2)

    async def test_notes_what_arrived_when_the_database_is_back(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox = new_outbox()
        receiver.is_open.clear()
        await add_of_each(kit, outbox, [uuid4() for _ in range(3)], b"one")

        async with running(outbox):
            await until(lambda: receiver.under_way.total() == 3)
            with kit.superuser() as connection:
                # They wait for the transactions of the relay, which goes on meanwhile.
                await asyncio.to_thread(connection.execute, "ALTER TABLE outbox RENAME TO moved")
                receiver.is_open.set()
                await until(lambda: len(receiver.arrived) == 3)
                await asyncio.sleep(0.1)
                await asyncio.to_thread(connection.execute, "ALTER TABLE moved RENAME TO outbox")
            await until(lambda: count(kit, "delivered_at IS NULL") == 0)

        assert receiver.asked == 3

    async def test_stops_with_what_arrived_noted_and_the_rest_let_go(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox = new_outbox()
        receiver.slow = {b"slow"}
        await add_of_each(kit, outbox, [uuid4() for _ in range(3)], b"one")
        await add_of_each(kit, outbox, [uuid4() for _ in range(3)], b"slow")
        await outbox._relay()
        await until(lambda: len(receiver.arrived) == 3)
        assert count(kit, "delivered_at IS NULL AND leased_until > now()") == 6

        task = asyncio.create_task(outbox.run())
        task.cancel()
        await asyncio.wait([task])
        await outbox._stop()

        assert count(kit, "delivered_at IS NOT NULL") == 3
        assert count(kit, "delivered_at IS NULL AND leased_until <= now() AND attempts = 0") == 3

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
        await asyncio.wait([task])

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
        await asyncio.wait([task])

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

    async def test_shows_for_how_long_an_event_is_stuck_and_when_nobody_can_look(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        def is_an_hour_old() -> bool:
            return 3600 <= OUTBOX_OLDEST_SECONDS._value.get() < 3700

        outbox = new_outbox()
        receiver.refused = b"broken"
        await add(kit, outbox, uuid4(), b"broken")
        with kit.superuser() as connection:
            connection.execute("UPDATE outbox SET created_at = created_at - interval '1 hour'")
        async with running(outbox):
            await until(is_an_hour_old)
            with kit.superuser() as connection:
                connection.execute("ALTER TABLE outbox RENAME TO hidden")
            await until(lambda: OUTBOX_OLDEST_SECONDS._value.get() == float("inf"))
            with kit.superuser() as connection:
                connection.execute("ALTER TABLE hidden RENAME TO outbox")
            await until(is_an_hour_old)

    async def test_keeps_an_event_whose_key_was_lost(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        outbox, owner_id, other_id = new_outbox(), uuid4(), uuid4()
        await add(kit, outbox, owner_id, b"one")
        with kit.superuser() as connection:
            connection.execute("CREATE TABLE lost AS SELECT * FROM data_keys WHERE owner_id = %s", [owner_id])
            connection.execute("DELETE FROM data_keys WHERE owner_id = %s", [owner_id])
            await add(kit, outbox, other_id, b"two")
            async with running(outbox):
                await until(lambda: bool(receiver.arrived))
                assert receiver.arrived == [b"two"]
                connection.execute("INSERT INTO data_keys SELECT * FROM lost")
                connection.execute("UPDATE outbox SET leased_until = NULL")
                await until(lambda: receiver.arrived == [b"two", b"one"])

    async def test_does_not_take_an_erased_users_event_for_an_arrival(
        self, kit: Any, new_outbox: Any, receiver: Receiver
    ) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        await add(kit, outbox, owner_id, b"one")
        receiver.away = grpc.StatusCode.UNAVAILABLE
        await outbox.deliver_soon(owner_id, 1)
        assert outbox._is_away
        receiver.away = None
        async with kit.database.transaction(kit.worker) as tx:
            await kit.data_keys.destroy(tx, owner_id)
        await outbox.deliver_soon(owner_id, 1)
        assert receiver.arrived == [None]
        assert outbox._is_away

    async def test_looks_at_few_events_however_many_wait(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        outbox, owner_id, other_id = new_outbox(), uuid4(), uuid4()
        await add(kit, outbox, owner_id, b"one")
        await add(kit, outbox, other_id, b"two")
        columns = "id, owner_id, platform_id, owner_version, sealed_for, sealed, created_at"
        others = "gen_random_uuid(), owner_id, platform_id, version, sealed_for, sealed, created_at"
        with kit.superuser() as connection:
            connection.execute(
                f"INSERT INTO outbox ({columns}) SELECT {others} FROM outbox, generate_series(2, 20000) version "
                "WHERE owner_id = %s",
                [owner_id],
            )
        for statement, values in (
            (outbox._lease_following, {"after": UUID(int=0), "most": BATCH}),
            (outbox._lease_of_owner, {"owner": owner_id}),
        ):
            assert await rows_looked_at(kit, statement, values) < 100
        async with running(outbox):
            await until(lambda: b"two" in receiver.arrived)

    async def test_goes_on_after_any_failure(self, kit: Any, new_outbox: Any, receiver: Receiver) -> None:
        outbox, owner_id = new_outbox(), uuid4()
        with kit.superuser() as connection:
            await asyncio.to_thread(connection.execute, "ALTER TABLE outbox RENAME TO moved")
            task = asyncio.create_task(outbox.run())
            await asyncio.sleep(0.1)
            await asyncio.to_thread(connection.execute, "ALTER TABLE moved RENAME TO outbox")
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
        monkeypatch.setattr(outbox_module, "REPORT_S", 0.01)
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
        await asyncio.wait([task])

        assert receiver.arrived == [b"one"]
