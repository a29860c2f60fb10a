"""Events that leave with the transaction that causes them, and arrive at least once and in order for each owner.

A relay leases the oldest waiting event of each owner, delivers it outside any transaction and marks it delivered.
A relay that dies leaves its lease to run out; the receiver's `Inbox` makes the second delivery harmless.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import grpc
import structlog
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Uuid,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore
from uuid6 import uuid7

from servicekit.background import repeat
from servicekit.caller import system_call
from servicekit.crypto import MasterKeyMissing, SealBroken
from servicekit.data_keys import DataKeys
from servicekit.database import Database, Transaction
from servicekit.errors import Refusal
from servicekit.metrics import OUTBOX_OLDEST_SECONDS, OUTBOX_WAITING

LEASE = timedelta(seconds=10)
DELIVERY_TIMEOUT_S = 3.0
POLL_S = 0.5
LOOK_AGAIN_S = 0.01
BATCH = 20
KEPT = timedelta(days=7)
# At a time, so that it takes no time even when many were delivered at once; and it is done oftener than that.
MOST_DELETED = 1000
LONGEST_BACKOFF_S = 30
# A receiver that is away is asked again soon: what waits is wanted as soon as it is back.
AWAY_PAUSE_S = 0.5
AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Event:
    """One event to deliver; ``payload`` is None when its owner's data key is gone."""

    id: UUID
    owner_id: UUID
    payload: bytes | None


Deliver = Callable[[Event], Awaitable[None]]


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
        self._table = table
        self._database = database
        self._data_keys = data_keys
        self._call = system_call(service)
        self._deliver = deliver
        self._wake = asyncio.Event()
        self._deliveries: set[asyncio.Task[None]] = set()

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
        await tx.execute(
            insert(self._table).values(
                id=event_id,
                owner_id=owner_id,
                platform_id=platform_id,
                owner_version=owner_version,
                sealed_for=sealed_for,
                sealed=key.seal(payload, _bound_to(event_id)),
                created_at=tx.now,
            )
        )

    async def deliver_soon(self, owner_id: UUID, wait_s: float) -> None:
        """Deliver at once what waits for an owner, and wait for that at most ``wait_s`` seconds.

        What has not arrived by then is still on its way: stopping it would leave its lease to run out.
        """
        delivery = asyncio.create_task(self._deliver_all(owner_id, time.monotonic() + wait_s))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)
        await asyncio.wait([delivery], timeout=wait_s)

    async def _deliver_all(self, owner_id: UUID, until: float) -> None:
        """Deliver what waits for an owner, or see it delivered by whoever was quicker, unless that takes too long."""
        try:
            while await self._has_waiting(owner_id):
                leased, delivered = await self._relay(owner_id)
                if leased and not delivered:
                    break
                if not leased:
                    if time.monotonic() > until:
                        break
                    await asyncio.sleep(LOOK_AGAIN_S)
        except Refusal:
            self._wake.set()

    async def run(self) -> None:
        """Deliver what waits, until cancelled; then let go of what is on its way, so that another replica takes it."""
        try:
            await repeat(self._deliver_waiting, self._pause, "outbox stands still")
        finally:
            deliveries = tuple(self._deliveries)
            for delivery in deliveries:
                delivery.cancel()
            if deliveries:
                await asyncio.wait(deliveries)

    async def _deliver_waiting(self) -> None:
        # Whatever keeps events from leaving, that they wait has to be seen.
        await self._report()
        while (await self._relay())[1]:
            pass

    async def _pause(self) -> None:
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()

    async def _relay(self, owner_id: UUID | None = None) -> tuple[int, int]:
        """Try to deliver one batch; return how many events it had and how many of them arrived."""
        events = await self._lease(owner_id)
        try:
            arrived = await asyncio.gather(*(self._attempt(event) for event in events))
            delivered = [event.id for event, ok in zip(events, arrived, strict=True) if ok]
            if delivered:
                async with self._database.transaction(self._call) as tx:
                    table = self._table
                    await tx.execute(update(table).where(table.c.id.in_(delivered)).values(delivered_at=func.now()))
        except asyncio.CancelledError:
            await self._let_go(events)
            raise
        return len(events), len(delivered)

    async def _let_go(self, events: Sequence[Event]) -> None:
        """End the leases of a relay that is stopped: whoever is next need not wait for them to run out."""
        table = self._table
        held = table.c.id.in_([event.id for event in events]) & table.c.delivered_at.is_(None)
        try:
            async with self._database.transaction(self._call) as tx:
                await tx.execute(update(table).where(held).values(leased_until=func.now()))
        except Refusal as refusal:
            log.warning("leased events are not let go", code=refusal.code)

    async def _has_waiting(self, owner_id: UUID) -> bool:
        table = self._table
        waiting = select(table.c.id).where(table.c.owner_id == owner_id, table.c.delivered_at.is_(None)).limit(1)
        async with self._database.transaction(self._call) as tx:
            return (await tx.execute(waiting)).first() is not None

    async def _lease(self, owner_id: UUID | None) -> list[Event]:
        """Take the oldest waiting event of each owner, so that one owner's events never overtake one another."""
        table, earlier = self._table, self._table.alias("earlier")
        waiting = (
            select(table.c.id)
            .where(
                table.c.delivered_at.is_(None),
                func.coalesce(table.c.leased_until, table.c.created_at) <= func.now(),
                ~select(earlier.c.id)
                .where(
                    earlier.c.owner_id == table.c.owner_id,
                    earlier.c.owner_version < table.c.owner_version,
                    earlier.c.delivered_at.is_(None),
                )
                .exists(),
            )
            .order_by(table.c.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True, of=table)
        )
        if owner_id is not None:
            waiting = waiting.where(table.c.owner_id == owner_id)
        async with self._database.transaction(self._call) as tx:
            ids = list((await tx.execute(waiting)).scalars())
            if not ids:
                return []
            await tx.execute(
                update(table)
                .where(table.c.id.in_(ids))
                .values(attempts=table.c.attempts + 1, leased_until=tx.now + LEASE)
            )
            rows = (await tx.execute(select(table).where(table.c.id.in_(ids)).order_by(table.c.id))).all()
            events = []
            for row in rows:
                try:
                    key = await self._data_keys.find(tx, row.sealed_for)
                    payload = None if key is None else key.open(row.sealed, _bound_to(row.id))
                except (SealBroken, MasterKeyMissing) as error:
                    # Its owner's later events wait for it until someone looks into it; the others' do not.
                    log.error("event cannot be opened", event_id=str(row.id), error=type(error).__name__)
                    continue
                events.append(Event(row.id, row.owner_id, payload))
            return events

    async def _attempt(self, event: Event) -> bool:
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_S):
                await self._deliver(event)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            code = error.code() if isinstance(error, grpc.aio.AioRpcError) else grpc.StatusCode.DEADLINE_EXCEEDED
            log.warning("event not delivered", event_id=str(event.id), status=code.name)
            await self._release(event, is_away=code in AWAY)
            return False
        except Exception:
            # One event that cannot be carried must not keep the others from leaving.
            log.exception("event cannot be delivered", event_id=str(event.id))
            await self._release(event, is_away=False)
            return False
        return True

    async def _release(self, event: Event, *, is_away: bool) -> None:
        """Let the event be tried again: soon when the receiver was away, else later the more often it failed."""
        table = self._table
        backoff = func.least(LONGEST_BACKOFF_S, 0.25 * func.power(2, func.least(table.c.attempts, 8)))
        pause = AWAY_PAUSE_S if is_away else backoff
        async with self._database.transaction(self._call) as tx:
            await tx.execute(
                update(table)
                .where(table.c.id == event.id)
                .values(leased_until=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, pause))
            )

    async def _report(self) -> None:
        table = self._table
        async with self._database.transaction(self._call) as tx:
            waiting = (
                await tx.execute(
                    select(
                        func.count(), func.extract("epoch", func.now() - func.min(table.c.created_at)).label("age")
                    ).where(table.c.delivered_at.is_(None))
                )
            ).one()
            old = select(table.c.id).where(table.c.delivered_at < tx.now - KEPT).limit(MOST_DELETED)
            ids = list((await tx.execute(old.with_for_update(skip_locked=True))).scalars())
            if ids:
                await tx.execute(delete(table).where(table.c.id.in_(ids)))
        OUTBOX_WAITING.set(waiting[0])
        OUTBOX_OLDEST_SECONDS.set(float(waiting.age or 0))


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
        self._table = table

    async def is_new(self, tx: Transaction, event_id: UUID) -> bool:
        """Note the event in the transaction of its effect; False when it was applied before."""
        noted = (
            insert_or_ignore(self._table)
            .values(event_id=event_id, applied_at=tx.now)
            .on_conflict_do_nothing()
            .returning(self._table.c.event_id)
        )
        return (await tx.execute(noted)).one_or_none() is not None


def _bound_to(event_id: UUID) -> bytes:
    return b"outbox:" + event_id.bytes
