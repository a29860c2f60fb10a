"""Events that leave with the transaction that causes them, and arrive at least once and in order for each owner.

A relay leases the oldest waiting event of each owner, delivers it outside any transaction and marks it delivered; no
event waits for another owner's. A relay that dies leaves its leases to run out; the receiver's `Inbox` makes the second
delivery harmless.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from typing import Any
from uuid import UUID

import grpc
import structlog
from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Float,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Update,
    Uuid,
    any_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore
from sqlalchemy.sql.dml import ReturningUpdate
from uuid6 import uuid7

from servicekit.background import repeat
from servicekit.caller import system_call
from servicekit.compiled_statement import CompiledStatement
from servicekit.crypto import MasterKeyMissing, SealBroken
from servicekit.data_keys import DataKeys
from servicekit.database import Database, DriverRow, Transaction
from servicekit.deadline import set_deadline
from servicekit.errors import Refusal
from servicekit.metrics import OUTBOX_OLDEST_SECONDS, OUTBOX_WAITING

LEASE = timedelta(seconds=10)
DELIVERY_TIMEOUT_S = 3.0
POLL_S = 0.5
LOOK_AGAIN_S = 0.01
# So many deliveries of a relay are under way at a time, besides those that a caller waits for.
BATCH = 20
# While the receiver is too slow to take them in time, fewer are: down to so many, of which some may be slow themselves.
LEAST_UNDER_WAY = 5
# How old the metrics get.
REPORT_S = 2.0
KEPT = timedelta(days=7)
# At a time, so that it takes no time even when many were delivered at once; and it is done oftener than that.
MOST_DELETED = 1000
LONGEST_BACKOFF_S = 5
# Of two transactions that lease, one may have begun some seconds before the other.
LONGEST_LEASE = 2 * max(LEASE, timedelta(seconds=LONGEST_BACKOFF_S))
# A receiver that is away is asked again soon: what waits is wanted as soon as it is back.
AWAY_PAUSE_S = 0.5
SLOW = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
AWAY = (
    *SLOW,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
)

# Before every owner.
NOBODY = UUID(int=0)
ADDED = ("id", "owner_id", "platform_id", "owner_version", "sealed_for", "sealed", "created_at")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Event:
    """One event to deliver; ``payload`` is None when its owner's data key is gone."""

    id: UUID
    owner_id: UUID
    payload: bytes | None


Deliver = Callable[[Event], Awaitable[None]]


class _Ending(Enum):
    """How a delivery ended."""

    ARRIVED = auto()
    FAILED = auto()
    PUT_OFF = auto()
    """A replica of the receiver was away: that says nothing about the event."""
    UNTRIED = auto()
    """The receiver was away, or the relay was stopped: that says nothing about the event either."""


def outbox_table(metadata: MetaData) -> Table:
    """Return the table of events that wait for delivery or were delivered lately."""
    table = Table(
        "outbox",
        metadata,
        Column("id", Uuid, primary_key=True),
        Column("owner_id", Uuid, nullable=False),
        Column("platform_id", Uuid, nullable=False),
        Column("owner_version", BigInteger, nullable=False),
        Column("sealed_for", Uuid, nullable=False),
        Column("sealed", LargeBinary, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("leased_until", DateTime(timezone=True)),
        Column("delivered_at", DateTime(timezone=True)),
    )
    Index("ix_outbox_waiting", table.c.owner_id, table.c.owner_version, postgresql_where=table.c.delivered_at.is_(None))
    Index("ix_outbox_delivered", table.c.delivered_at, postgresql_where=table.c.delivered_at.is_not(None))
    return table


class Outbox:
    """The sending side."""

    def __init__(self, table: Table, database: Database, data_keys: DataKeys, service: str, deliver: Deliver) -> None:
        self._database = database
        self._data_keys = data_keys
        self._call = system_call(service)
        self._deliver = deliver
        self._wake = asyncio.Event()
        self._deliveries: set[asyncio.Task[None]] = set()
        self._under_way: dict[asyncio.Task[_Ending], Event] = {}
        self._is_away = False
        # How many may be under way: half as many when one was not taken in time, one more when one was. What was sent
        # before that became known tells nothing new.
        self._most_under_way = BATCH
        self._halved_at = 0.0
        self._last_arrival = 0.0
        self._next_probe = 0.0
        self._last_owner = NOBODY
        self._insert = CompiledStatement(insert(table), ADDED)
        self._lease_following = CompiledStatement(_lease_following(table, data_keys.table))
        self._lease_of_owner = CompiledStatement(_lease_of_owner(table, data_keys.table))
        self._mark_delivered = CompiledStatement(_mark_delivered(table))
        self._let_go = CompiledStatement(_let_go(table))
        self._back_off = CompiledStatement(_back_off(table))
        self._count_and_trim = CompiledStatement(_count_and_trim(table))

    async def add(
        self,
        tx: Transaction,
        *,
        owner_id: UUID,
        platform_id: UUID,
        owner_version: int,
        payload: bytes,
        sealed_for: UUID | None = None,
    ) -> None:
        """Add an event to the transaction that causes it.

        Args:
            tx: the transaction.
            owner_id: whose event it is.
            platform_id: the owner's tenant.
            owner_version: orders the events of one owner.
            payload: what to deliver.
            sealed_for: whose data key seals the payload; the owner's by default.
        """
        event_id = uuid7()
        sealed_for = sealed_for or owner_id
        key = await self._data_keys.for_owner(tx, sealed_for, platform_id)
        await self._insert.execute(
            tx,
            {
                "id": event_id,
                "owner_id": owner_id,
                "platform_id": platform_id,
                "owner_version": owner_version,
                "sealed_for": sealed_for,
                "sealed": key.seal(payload, _bound_to(event_id)),
                "created_at": tx.now,
            },
        )

    async def deliver_soon(self, owner_id: UUID, wait_s: float) -> None:
        """Deliver at once what waits for an owner, and wait for that at most ``wait_s`` seconds.

        What has not arrived by then is still on its way: stopping it would leave its lease to run out. While the
        receiver is slow, only as many wait as it may get at a time.
        """
        if len(self._under_way) + len(self._deliveries) >= self._most_under_way < BATCH:
            self._wake.set()
            return
        delivery = asyncio.create_task(self._deliver_all(owner_id, time.monotonic() + wait_s))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)
        await asyncio.wait([delivery], timeout=wait_s)

    async def _deliver_all(self, owner_id: UUID, until: float) -> None:
        """Deliver what waits for an owner, or see it delivered by whoever was quicker, unless that takes too long."""
        # It goes on when the call that asked for it is over.
        set_deadline(None)
        pause_s = LOOK_AGAIN_S
        try:
            while await self._deliver_oldest(owner_id, until, pause_s):
                # It may have to wait for longer than anybody does.
                pause_s *= 1.5
        except Refusal:
            self._wake.set()

    async def _deliver_oldest(self, owner_id: UUID, until: float, pause_s: float) -> bool:
        """Deliver an owner's oldest event; return whether it is worth while to look again."""
        events: list[Event] = []
        try:
            async with self._database.transaction(self._call) as tx:
                row = (await self._lease_of_owner.rows(tx, {"owner": owner_id}))[0]
                events = self._open([row] if row.id else [])
            if row.id is None:
                if not row.is_waiting or time.monotonic() > until:
                    return False
                await asyncio.sleep(pause_s)
                return True
            if not events:
                return False
            ending = await self._attempt(events[0])
            async with self._database.transaction(self._call) as tx:
                return await self._note(tx, ending, events)
        except asyncio.CancelledError:
            await self._end_leases(dict.fromkeys(events, _Ending.UNTRIED))
            raise

    async def run(self) -> None:
        """Deliver what waits, until cancelled; then let go of what is on its way, so that another replica takes it."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(repeat(self._relay, self._pause, "outbox stands still"))
                # Whatever keeps events from leaving, that they wait has to be seen.
                group.create_task(repeat(self._report, partial(asyncio.sleep, REPORT_S), "outbox is not looked after"))
        finally:
            await self._stop()

    async def _stop(self) -> None:
        stopped = (*self._deliveries, *self._under_way)
        for delivery in stopped:
            delivery.cancel()
        if stopped:
            await asyncio.wait(stopped)
        endings = _endings(self._under_way)
        self._under_way.clear()
        await self._end_leases(endings)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()

    async def _relay(self) -> None:
        """Note how deliveries have ended, and begin as many as may be under way, in one transaction.

        What ends meanwhile comes with the next round: the longer one takes, the more it does.
        """
        self._wake.clear()
        ended = {delivery: event for delivery, event in self._under_way.items() if delivery.done()}
        wanted = self._wanted(len(self._under_way) - len(ended))
        if not ended and not wanted:
            return
        events: list[Event] = []
        try:
            async with self._database.transaction(self._call) as tx:
                await self._note_all(tx, _endings(ended))
                if wanted:
                    rows = await self._lease(tx, wanted)
                    events = self._open(rows)
                    if len(events) < len(rows):
                        self._wake.set()
        except asyncio.CancelledError:
            await self._end_leases(dict.fromkeys(events, _Ending.UNTRIED))
            raise
        for delivery in ended:
            del self._under_way[delivery]
        for event in events:
            delivery = asyncio.create_task(self._attempt(event))
            delivery.add_done_callback(lambda _: self._wake.set())
            self._under_way[delivery] = event

    def _wanted(self, under_way: int) -> int:
        """Return how many deliveries to begin: one now and then while the receiver is away.

        The next one does not wait for the result of the last, because that event itself may be what is slow.
        """
        free = max(0, self._most_under_way - under_way)
        if not self._is_away or free == 0:
            return free
        now = time.monotonic()
        if now < self._next_probe:
            return 0
        self._next_probe = now + AWAY_PAUSE_S
        return 1

    async def _lease(self, tx: Transaction, wanted: int) -> list[DriverRow]:
        """Lease events of so many owners, who take turns: what failed comes again when all others have been tried."""
        rows = await self._lease_following.rows(tx, {"after": self._last_owner, "most": wanted})
        if len(rows) < wanted and self._last_owner != NOBODY:
            rows += await self._lease_following.rows(tx, {"after": NOBODY, "most": wanted - len(rows)})
        self._last_owner = rows[-1].owner_id if len(rows) == wanted else NOBODY
        return rows

    def _open(self, rows: Collection[DriverRow]) -> list[Event]:
        """Return the events of leased rows, without those that cannot be opened."""
        events = []
        for row in rows:
            if row.key_id is None:
                # One that was destroyed leaves its row. This one was lost, and may be brought back.
                log.error("event cannot be opened", event_id=str(row.id), error="there is no data key")
                continue
            try:
                payload = self._data_keys.open(
                    row.sealed,
                    _bound_to(row.id),
                    owner_id=row.sealed_for,
                    master_key_id=row.master_key_id,
                    wrapped=row.wrapped,
                )
            except (SealBroken, MasterKeyMissing) as error:
                # Its owner's later events wait for it until someone looks into it; the others' do not.
                log.error("event cannot be opened", event_id=str(row.id), error=type(error).__name__)
                continue
            events.append(Event(row.id, row.owner_id, payload))
        return events

    async def _attempt(self, event: Event) -> _Ending:
        began = time.monotonic()
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_S):
                await self._deliver(event)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            code = error.code() if isinstance(error, grpc.aio.AioRpcError) else grpc.StatusCode.DEADLINE_EXCEEDED
            log.warning("event not delivered", event_id=str(event.id), status=code.name)
            if code not in AWAY:
                return _Ending.FAILED
            if code in SLOW and began >= self._halved_at:
                self._most_under_way = max(LEAST_UNDER_WAY, self._most_under_way // 2)
                self._halved_at = time.monotonic()
            if self._last_arrival <= began:
                self._is_away = True
                return _Ending.UNTRIED
            # A receiver that has taken another one meanwhile is not away. A replica of it may be, and that is no fault
            # of the event; but one that takes all its time keeps others from being delivered.
            return _Ending.FAILED if code is grpc.StatusCode.DEADLINE_EXCEEDED else _Ending.PUT_OFF
        except Exception:
            # One event that cannot be carried must not keep the others from leaving.
            log.exception("event cannot be delivered", event_id=str(event.id))
            return _Ending.FAILED
        # The receiver hears nothing of an event that nobody can read any more.
        if event.payload is not None:
            self._last_arrival = time.monotonic()
            self._most_under_way = min(BATCH, self._most_under_way + 1)
            if self._is_away:
                self._is_away = False
                self._wake.set()
        return _Ending.ARRIVED

    async def _note(self, tx: Transaction, ending: _Ending, events: Collection[Event]) -> bool:
        """Note how events ended; return whether they arrived and there is more for one of their owners."""
        values = {"ids": [event.id for event in events]}
        match ending:
            case _Ending.ARRIVED:
                rows = await self._mark_delivered.rows(tx, values)
                return any(row.more for row in rows)
            case _Ending.FAILED:
                await self._back_off.execute(tx, values)
            case _Ending.PUT_OFF:
                await self._let_go.execute(tx, {**values, "pause_s": AWAY_PAUSE_S})
            case _Ending.UNTRIED:
                await self._let_go.execute(tx, {**values, "pause_s": 0.0})
        return False

    async def _note_all(self, tx: Transaction, endings: dict[Event, _Ending]) -> None:
        for ending in set(endings.values()):
            await self._note(tx, ending, [event for event, its_ending in endings.items() if its_ending is ending])

    async def _end_leases(self, endings: dict[Event, _Ending]) -> None:
        """End the leases of a relay that is stopped: whoever is next need not wait for them to run out."""
        if not endings:
            return
        try:
            async with self._database.transaction(self._call) as tx:
                await self._note_all(tx, endings)
        except Refusal as refusal:
            log.warning("leased events are not let go", code=refusal.code)

    async def _report(self) -> None:
        try:
            async with self._database.transaction(self._call) as tx:
                (found,) = await self._count_and_trim.rows(tx, {"most": MOST_DELETED})
        except Exception:
            # Nobody knows, and that must not look as if all were well.
            OUTBOX_OLDEST_SECONDS.set(float("inf"))
            raise
        OUTBOX_WAITING.set(found.waiting)
        OUTBOX_OLDEST_SECONDS.set(float(found.age or 0))


def _endings(deliveries: Mapping[asyncio.Task[_Ending], Event]) -> dict[Event, _Ending]:
    return {
        event: _Ending.UNTRIED if delivery.cancelled() else delivery.result() for delivery, event in deliveries.items()
    }


def _oldest(table: FromClause, condition: ColumnElement[bool]) -> Select[UUID, UUID]:
    """Select the oldest waiting event of the first owner for whom a condition holds: one look into the index."""
    return (
        select(table.c.owner_id, table.c.id)
        .where(condition, table.c.delivered_at.is_(None))
        .order_by(table.c.owner_id, table.c.owner_version)
        .limit(1)
    )


def _due(table: FromClause, event_id: ColumnElement[UUID]) -> Select[UUID]:
    """Select an event, if it may be tried now and nobody else has it."""
    return (
        select(table.c.id)
        .where(
            table.c.id == event_id,
            table.c.delivered_at.is_(None),
            # One that ends later than any does was given by a server whose clock was ahead.
            or_(
                table.c.leased_until.is_(None),
                table.c.leased_until <= func.now(),
                table.c.leased_until > func.now() + LONGEST_LEASE,
            ),
        )
        .with_for_update(skip_locked=True, of=table)
    )


def _leasing(table: Table, waiting: Select[UUID]) -> CTE:
    """Return what leases the selected events."""
    ids = waiting.cte("waiting")
    return (
        update(table)
        .where(table.c.id == ids.c.id)
        .values(attempts=table.c.attempts + 1, leased_until=func.now() + LEASE)
        .returning(table.c.id, table.c.owner_id, table.c.sealed_for, table.c.sealed)
        .cte("leased")
    )


def _lease_following(table: Table, keys: Table) -> Select[*tuple[Any, ...]]:
    """Lease the oldest events of so many owners, one of each, so that they never overtake one another.

    It leaps from owner to owner in the index, so it takes no longer when many events wait, be they one owner's. Each is
    looked up for itself, since the planner expects that none wait, as is mostly so.
    """
    first = _oldest(table, table.c.owner_id > bindparam("after", type_=Uuid)).subquery("first")
    owners = select(first).cte("owners", recursive=True)
    later = table.alias("later")
    following = _oldest(later, later.c.owner_id > owners.c.owner_id).correlate(owners).lateral("following")
    owners = owners.union_all(select(following).select_from(owners.join(following, true())))
    due = _due(table.alias("oldest"), owners.c.id).correlate(owners).lateral("due")
    waiting = select(due.c.id).select_from(owners.join(due, true())).limit(bindparam("most", type_=Integer))
    leased = _leasing(table, waiting)
    return (
        select(leased, keys.c.id.label("key_id"), keys.c.master_key_id, keys.c.wrapped)
        .select_from(leased.outerjoin(keys, keys.c.owner_id == leased.c.sealed_for))
        .order_by(leased.c.owner_id)
    )


def _lease_of_owner(table: Table, keys: Table) -> Select[*tuple[Any, ...]]:
    """Lease an owner's oldest event.

    The one row is without an event when nothing can be leased, and tells whether something is waiting all the same:
    somebody else has it, or it has to wait longer.
    """
    owner_id = bindparam("owner", type_=Uuid)
    same_owner = table.alias("same_owner")
    oldest = _oldest(same_owner, same_owner.c.owner_id == owner_id).with_only_columns(same_owner.c.id)
    leased = _leasing(table, _due(table, oldest.scalar_subquery()))
    waiting = select(table.c.id).where(table.c.owner_id == owner_id, table.c.delivered_at.is_(None))
    owner = select(waiting.exists().label("is_waiting")).subquery("owner")
    return select(
        owner.c.is_waiting, leased, keys.c.id.label("key_id"), keys.c.master_key_id, keys.c.wrapped
    ).select_from(owner.outerjoin(leased, true()).outerjoin(keys, keys.c.owner_id == leased.c.sealed_for))


def _mark_delivered(table: Table) -> ReturningUpdate[*tuple[Any, ...]]:
    """Mark events delivered; the rows tell whether their owners have more."""
    other = table.alias("other")
    more = (
        select(other.c.id)
        .where(other.c.owner_id == table.c.owner_id, other.c.id != table.c.id, other.c.delivered_at.is_(None))
        .correlate(table)
        .exists()
    )
    return update(table).where(_is_one_of(table)).values(delivered_at=func.now()).returning(more.label("more"))


def _let_go(table: Table) -> Update:
    """Let events be tried at once or after a pause, as if they had not been tried yet."""
    pause = bindparam("pause_s", type_=Float)
    return (
        update(table)
        .where(_is_one_of(table), table.c.delivered_at.is_(None))
        .values(attempts=table.c.attempts - 1, leased_until=_in_seconds(pause))
    )


def _back_off(table: Table) -> Update:
    """Let events be tried again, later the more often they have failed."""
    pause = func.least(LONGEST_BACKOFF_S, 0.25 * func.power(2, func.least(table.c.attempts, 8)))
    return (
        update(table).where(_is_one_of(table), table.c.delivered_at.is_(None)).values(leased_until=_in_seconds(pause))
    )


def _in_seconds(seconds: ColumnElement[float]) -> ColumnElement[datetime]:
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _is_one_of(table: Table) -> ColumnElement[bool]:
    return table.c.id == any_(bindparam("ids", type_=ARRAY(Uuid)))


def _count_and_trim(table: Table) -> Select[*tuple[Any, ...]]:
    """Tell how many events wait and for how long, and forget some of those that were delivered long ago."""
    old = (
        select(table.c.id)
        .where(table.c.delivered_at < func.now() - KEPT)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    forgotten = delete(table).where(table.c.id == old.c.id).cte("forgotten")
    age = func.extract("epoch", func.now() - func.min(table.c.created_at))
    return (
        select(func.count().label("waiting"), age.label("age")).where(table.c.delivered_at.is_(None)).add_cte(forgotten)
    )


def inbox_table(metadata: MetaData) -> Table:
    """Return the table of events that were applied."""
    return Table(
        "inbox",
        metadata,
        Column("event_id", Uuid, primary_key=True),
        Column("applied_at", DateTime(timezone=True), nullable=False, index=True),
    )


class Inbox:
    """The receiving side."""

    def __init__(self, table: Table) -> None:
        noted = insert_or_ignore(table).on_conflict_do_nothing().returning(table.c.event_id)
        self._note = CompiledStatement(noted, ("event_id", "applied_at"))

    async def is_new(self, tx: Transaction, event_id: UUID) -> bool:
        """Note the event in the transaction of its effect; False when it was applied before."""
        return bool(await self._note.rows(tx, {"event_id": event_id, "applied_at": tx.now}))


def _bound_to(event_id: UUID) -> bytes:
    return b"outbox:" + event_id.bytes
