"""Seals the audit log: numbers its rows without gaps and chains them by keyed hashes, so that a change is found.

    hash = HMAC(audit key, previous hash ‖ sequence ‖ horizon ‖ the row as PostgreSQL spells it)

Writers only insert into `audit_log`; a task per process, one at a time per database, chains what is committed. A row
may be committed long after rows that were written later, so neither a time nor a number tells what was seen. But
each row names the transaction that wrote it, and a snapshot tells below which transaction all have ended: that is
the *horizon*. All rows below a batch's horizon were chained with it or before. So a pass looks at the rows from the
last batch's horizon on that are not in the chain; it misses none, and reads only the end of an index. A horizon that
was only seen and not written would not do: a server that crashes gives numbers a second time that nothing on its disk
tells of.

Rows of a restored backup may name transactions that this server has not come to yet. A process looks for those that are
not in the chain when it starts, and when the server's count goes back under it.
"""

import asyncio
import hmac
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Exists,
    Row,
    Select,
    Subquery,
    Table,
    Text,
    Uuid,
    bindparam,
    case,
    cast,
    exists,
    func,
    insert,
    select,
    true,
)

from aarokya.audit.v1.audit_log_pb2 import AuditLogVerification
from servicekit.advisory_locks import try_lock
from servicekit.audit_heads import Head, HeadFile
from servicekit.background import repeat
from servicekit.caller import system_call
from servicekit.compiled_statement import CompiledStatement
from servicekit.database import Database, DriverRow, Transaction

PERIOD_S = 0.4
BATCH = 2000
PAGE = 1000
# How long a pass may take: the first one, which may have to look at all that was restored, and any other.
LONGEST_S = 120
STEADY_S = 30
OVERDUE_S = 5
SURELY_OVERDUE_S = 60
"""After this a row that is not in the chain counts as slipped in, not as waiting."""

LOCK = 4_710_302_512  # any number, the same for all sealers of one database
NO_HASH = bytes(32)
CHAINED = (
    "id",
    "occurred_at",
    "actor_type",
    "actor_id",
    "action",
    "entity_type",
    "entity_id",
    "user_id",
    "platform_id",
    "changes",
    "sealed",
    "request_id",
    "source_address",
    "user_agent",
    "count",
    "transaction_id",
)
"""The columns that are hashed, in this order for ever: a column added later must not change what older rows hash to."""

SETTINGS = {
    # The text of a row depends on these; anything else may differ from session to session.
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    # The part of the log that is looked at is small, but the planner's statistics of a log's end are always old.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    # After a restore the whole log is looked at, once.
    "statement_timeout": "60s",
}

_HORIZON = bindparam("horizon", type_=BigInteger)
_PREPARE = CompiledStatement(
    select(*(func.set_config(name, value, true()).label(name) for name, value in SETTINGS.items()))
)

log = structlog.get_logger()


class Link(NamedTuple):
    """One row of the chain."""

    sequence: int
    hash: bytes
    horizon: int


START = Link(0, NO_HASH, 0)


class Seen(NamedTuple):
    """What a process has looked at: whether at what an older server wrote, too, and how far it came at this one."""

    has_all: bool
    next_transaction: int


NOTHING_SEEN = Seen(False, 0)


class AuditChain:
    """Seals and verifies the audit log of one service."""

    def __init__(
        self, service: str, database: Database, audit_log: Table, audit_chain: Table, key: bytes, heads: HeadFile
    ) -> None:
        self._service = service
        self._database = database
        self._log = audit_log
        self._chain = audit_chain
        self._key = key
        self._heads = heads
        self._seen = NOTHING_SEEN
        self._last_kept: Head | None = None
        self._overdue = 0
        self._passed_at = time.monotonic()
        chain = audit_chain.c
        links = select(chain.sequence, chain.hash, chain.horizon)
        self._head_of_chain = CompiledStatement(links.order_by(chain.sequence.desc()).limit(1))
        self._link_by_sequence = CompiledStatement(
            links.where(chain.sequence == bindparam("sequence", type_=BigInteger))
        )
        self._batch = CompiledStatement(self._select_batch(of_this_server=True))
        self._batch_of_all = CompiledStatement(self._select_batch(of_this_server=False))
        self._overdue_rows = CompiledStatement(self._select_overdue())

    async def run(self) -> None:
        """Seal what is committed, until cancelled; a database that is away is waited for."""
        await repeat(self._seal_all, lambda: asyncio.sleep(PERIOD_S), "audit chain stands still")

    async def _seal_all(self) -> None:
        while await self.seal() == BATCH:
            pass

    def overdue_rows(self) -> float:
        """Return how many rows have waited for more than 5 s; infinity when nobody has been able to look for 5 s."""
        return float("inf") if time.monotonic() - self._passed_at > OVERDUE_S else self._overdue

    async def seal(self) -> int:
        """Chain at most one batch and keep the head outside the database; return how many rows were chained.

        Raises:
            Refusal: the database is away.
            OSError: the head file can't be written.
        """
        if self._last_kept is None:
            self._last_kept = await asyncio.to_thread(self._heads.last)
        longest_s = STEADY_S if self._seen.has_all else LONGEST_S
        async with self._database.transaction(system_call(self._service), longest_s=longest_s) as tx:
            alone = await try_lock(tx, LOCK)
            await _PREPARE.execute(tx, {})
            head = await self._head(tx)
            was_there = await self._is_there(tx, self._last_kept)
            batch, seen = await self._seal_after(tx, head) if alone else ([], self._seen)
            head = batch[-1] if batch else head
            overdue = await self._count_overdue(tx, head.horizon)
            if not batch and self._is_news(Head(head.sequence, head.hash)):
                # Outside the database nothing may be known of that a standby lacks.
                await tx.wait_for_replication()
        self._seen = seen
        self._overdue = overdue
        await asyncio.to_thread(self._keep, Head(head.sequence, head.hash), was_there)
        self._passed_at = time.monotonic()
        if batch:
            log.info("audit chain sealed", sequence=head.sequence, hash=head.hash.hex(), rows=len(batch))
        return len(batch)

    async def _seal_after(self, tx: Transaction, head: Link) -> tuple[list[Link], Seen]:
        """Chain the rows from a link's horizon on that are not chained yet, a batch at most."""
        statement = self._batch if self._seen.has_all else self._batch_of_all
        rows, lowest_running, next_transaction = await self._unsealed(tx, statement, head.horizon)
        if next_transaction < self._seen.next_transaction:
            # Another server, or one that has crashed.
            statement = self._batch_of_all
            rows, lowest_running, next_transaction = await self._unsealed(tx, statement, head.horizon)
        seen = Seen(statement is self._batch or len(rows) < BATCH, next_transaction)
        if not rows:
            return [], seen
        # Of a full batch's last transaction, rows may be left over.
        horizon = min(lowest_running, rows[-1].transaction_id) if len(rows) == BATCH else lowest_running
        links: list[Link] = []
        previous = head
        for row in rows:
            sequence = previous.sequence + 1
            previous = Link(sequence, self._hash(previous.hash, sequence, horizon, row.spelt), horizon)
            links.append(previous)
        await tx.connection.execute(
            insert(self._chain),
            [
                {"sequence": link.sequence, "audit_id": row.id, "hash": link.hash, "horizon": horizon}
                for row, link in zip(rows, links, strict=True)
            ],
        )
        return links, seen

    async def _unsealed(
        self, tx: Transaction, statement: CompiledStatement, horizon: int
    ) -> tuple[Sequence[DriverRow], int, int]:
        """Return a batch of rows that are not chained, the lowest transaction that still runs, and the next one to be.

        All three are of one snapshot, that of the one statement: what is not among the rows is either above the
        lowest running transaction or was never committed.
        """
        rows = await statement.rows(tx, {"horizon": horizon, "most": BATCH})
        return [row for row in rows if row.id is not None], rows[0].lowest_running, rows[0].next_transaction

    def _select_batch(self, *, of_this_server: bool) -> Select[*tuple[Any, ...]]:
        table = self._log
        snapshot = _snapshot()
        batch = select(table.c.id, table.c.transaction_id, self._spelt()).where(
            table.c.transaction_id >= _from(snapshot), ~self._is_chained()
        )
        if of_this_server:
            batch = batch.where(table.c.transaction_id < snapshot.c.next_transaction)
        ordered = (
            batch.order_by(table.c.transaction_id, table.c.id).limit(bindparam("most", type_=BigInteger)).lateral()
        )
        return (
            select(snapshot, ordered)
            .select_from(snapshot.outerjoin(ordered, true()))
            .order_by(ordered.c.transaction_id, ordered.c.id)
        )

    def _select_overdue(self) -> Select[int]:
        table = self._log
        snapshot = _snapshot()
        return (
            select(func.count().label("rows"))
            .select_from(snapshot.join(table, true()))
            .where(
                table.c.transaction_id >= _from(snapshot),
                table.c.transaction_id < snapshot.c.next_transaction,
                table.c.id < bindparam("overdue_id", type_=Uuid),
                ~self._is_chained(),
            )
        )

    async def verify(self, tx: Transaction, from_sequence: int, limit: int = 100_000) -> AuditLogVerification:
        """Recompute up to `limit` rows of the chain from `from_sequence` on and say where it first does not hold.

        Finds edited rows, rows taken out of either table or both, an end that was cut off, rows put in another
        order, and rows that were slipped in beside the chain.
        """
        # Read before the chain, which can only grow meanwhile.
        heads = await asyncio.to_thread(self._heads.read)
        await _PREPARE.execute(tx, {})
        newest = await self._head(tx)
        # Beyond the end there is still to be seen whether the end was cut off.
        first = min(max(from_sequence, 1), newest.sequence + 1)
        before = START if first == 1 else await self._link(tx, first - 1)
        walk = _Walk(first, before)
        while walk.rows < limit:
            page = await self._page(tx, walk.last_read, min(PAGE, limit - walk.rows))
            for row in page:
                walk.take(row, self._hash(walk.previous, row.sequence, row.horizon, row.spelt))
            if not page:
                break
            await asyncio.sleep(0)
        at_end = walk.expected > newest.sequence
        for head in heads:
            if head.sequence >= walk.expected and at_end:
                walk.break_at(walk.expected)
            elif first <= head.sequence < walk.expected and walk.hashes.get(head.sequence) != head.hash:
                walk.break_at(head.sequence)
        slipped_in = await self._slipped_in(tx, before, None if at_end else walk.last_horizon, newest)
        if slipped_in is not None:
            walk.break_at(walk.place_of(slipped_in))
        return AuditLogVerification(
            service=self._service,
            rows=walk.rows,
            head_hash=walk.previous.hex() if walk.rows else None,
            intact=walk.first_broken is None,
            first_broken_sequence=walk.first_broken,
            next_from_sequence=None if at_end else walk.expected,
        )

    async def _page(self, tx: Transaction, after: int, size: int) -> Sequence[Row[*tuple[Any, ...]]]:
        """Return links in their order with the rows that they are about, whose spelling is None when they are gone."""
        chain, table = self._chain, self._log
        statement = (
            select(
                chain.c.sequence,
                chain.c.hash,
                chain.c.horizon,
                case((table.c.id.is_not(None), self._spelt())).label("spelt"),
            )
            .select_from(chain.outerjoin(table, table.c.id == chain.c.audit_id))
            .where(chain.c.sequence > after)
            .order_by(chain.c.sequence)
            .limit(size)
        )
        return (await tx.connection.execute(statement)).all()

    async def _slipped_in(
        self, tx: Transaction, before: Link | None, below_horizon: int | None, newest: Link
    ) -> int | None:
        """Return the lowest transaction of rows that are not chained and can't be waiting, in a part of the log.

        Only the part that the links after `before` cover is searched, so that a long log is searched once and
        not again for each part of its chain.
        """
        table = self._log
        conditions = [
            ~self._is_chained(),
            (table.c.transaction_id < newest.horizon) | (table.c.id < _id_at(tx, SURELY_OVERDUE_S)),
        ]
        if before is not None and before != START:
            conditions.append(table.c.transaction_id >= before.horizon)
        if below_horizon is not None:
            conditions.append(table.c.transaction_id < below_horizon)
        lowest = select(func.min(table.c.transaction_id)).where(*conditions)
        found: int | None = (await tx.connection.execute(lowest)).scalar_one()
        return found

    async def _count_overdue(self, tx: Transaction, horizon: int) -> int:
        values = {"horizon": horizon, "overdue_id": _id_at(tx, OVERDUE_S)}
        count: int = (await self._overdue_rows.rows(tx, values))[0].rows
        return count

    async def _head(self, tx: Transaction) -> Link:
        row = await self._head_of_chain.one_or_none(tx, {})
        return START if row is None else Link(**row)

    async def _is_there(self, tx: Transaction, kept: Head | None) -> bool:
        if kept is None or kept.sequence == START.sequence:
            return True
        link = await self._link(tx, kept.sequence)
        return link is not None and link.hash == kept.hash

    async def _link(self, tx: Transaction, sequence: int) -> Link | None:
        row = await self._link_by_sequence.one_or_none(tx, {"sequence": sequence})
        return None if row is None else Link(**row)

    def _is_chained(self) -> Exists:
        return exists().where(self._chain.c.audit_id == self._log.c.id)

    def _spelt(self) -> ColumnElement[str]:
        return cast(func.row(*(self._log.c[name] for name in CHAINED)), Text).label("spelt")

    def _hash(self, previous: bytes, sequence: int, horizon: int, spelt: str | None) -> bytes:
        return hmac.digest(self._key, previous + f"{sequence} {horizon} {spelt}".encode(), "sha256")

    def _keep(self, head: Head, was_there: bool) -> None:
        """Write the head to the file, unless it is there already, and say aloud when the one before was lost."""
        lost = None if was_there else self._last_kept
        if lost is not None:
            log.error("audit chain lost its head", sequence=lost.sequence, hash=lost.hash.hex())
        if self._is_news(head):
            self._heads.append(head, lost=lost)
            self._last_kept = head

    def _is_news(self, head: Head) -> bool:
        return head != (self._last_kept or Head(START.sequence, START.hash))


class _Walk:
    """A walk along the chain: what to expect next, and where it first did not hold."""

    def __init__(self, first: int, before: Link | None) -> None:
        self.expected = first
        # Nothing may stand before the beginning either.
        self.last_read = first - 1 if first > 1 else -(2**63)
        self.previous = NO_HASH if before is None else before.hash
        self.last_horizon = 0
        self.rows = 0
        self.hashes: dict[int, bytes] = {}
        self.first_broken: int | None = first - 1 if before is None else None
        self._horizons: list[tuple[int, int]] = []

    def take(self, row: Row[*tuple[Any, ...]], recomputed: bytes) -> None:
        """Go one link on."""
        if row.sequence != self.expected:
            self.break_at(self.expected)
        if row.spelt is None or row.hash != recomputed:
            self.break_at(row.sequence)
        if row.horizon != self.last_horizon:
            self._horizons.append((row.horizon, row.sequence))
        self.expected = max(self.expected, row.sequence + 1)
        self.last_read = row.sequence
        self.previous = row.hash
        self.last_horizon = row.horizon
        self.hashes[row.sequence] = row.hash
        self.rows += 1

    def break_at(self, sequence: int) -> None:
        """Note a place that does not hold; one before the beginning is told as the beginning."""
        sequence = max(sequence, 1)
        self.first_broken = sequence if self.first_broken is None else min(sequence, self.first_broken)

    def place_of(self, transaction: int) -> int:
        """Return the first place in the chain by which a transaction's rows should have been chained."""
        return next((sequence for horizon, sequence in self._horizons if horizon > transaction), self.expected)


def _id_at(tx: Transaction, seconds_ago: int) -> UUID:
    """Return a UUIDv7 that is lower than those made later than this. (A row's own time may be any time in the past.)"""
    return UUID(int=int((tx.now.timestamp() - seconds_ago) * 1000) << 80)


def _snapshot() -> Subquery:
    """Return the lowest transaction that still runs, and the next one to be."""
    snapshot = func.pg_current_snapshot()
    return select(
        _number(func.pg_snapshot_xmin(snapshot)).label("lowest_running"),
        _number(func.pg_snapshot_xmax(snapshot)).label("next_transaction"),
    ).subquery("snapshot")


def _from(snapshot: Subquery) -> ColumnElement[int]:
    """Return from which transaction on to look: a horizon that the server has not come to yet is an older server's."""
    return case((snapshot.c.next_transaction < _HORIZON, 0), else_=_HORIZON)


def _number(transaction: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(cast(transaction, Text), BigInteger)
