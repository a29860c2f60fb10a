"""Counts refused authentications and authorisations, and has identity write them into the audit log.

Noting one is a few dictionary operations: it never waits, fails or changes an answer. Refusals of one minute with the
same code, source address and route are one count. Operators must not wait a minute to see an attack, and rows cannot
be changed once they are written; so a count is sent 2 s after its first refusal, which makes a burst one row. What
comes later in the same minute is sent after 10 s, and anything after that when the minute is over: a minute has three
rows at most, which add up. Every gateway counts for itself.

What waits is bounded. More than that is dropped and counted in `aarokya_refusals_dropped_total`; while identity is away
counts wait in memory. When an answer of identity is lost they are sent again: rather twice than never.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
import structlog
from prometheus_client import Counter

from aarokya.identity.v1 import refusal_service_pb2_grpc as pb_grpc
from aarokya.identity.v1.refusal_service_pb2 import RecordRefusalsRequest, Refusal
from gateway.user_agent import printable
from servicekit.background import repeat
from servicekit.caller import METADATA_KEY, system_call

MOST_ROWS = 10_000
ROWS_AT_ONCE = 200
LOOKED_AT_EVERY_S = 0.5
TIMEOUT_S = 4.0
MINUTE_S = 60
# How long the first, the second and any later count of one minute wait, unless the minute is over before.
WAITS_S = (2, 10, MINUTE_S)
# Identity is away, has too much to do, or stops and cancels what runs.
PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
)

DROPPED = Counter("aarokya_refusals_dropped_total", "Refusals that the audit log does not tell.")

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    """A count that is not written yet, with the first refusal in it."""

    count: int
    first_at: float
    due_at: float
    request_id: str
    user_agent: str


@dataclass(slots=True)
class _Row:
    """What was counted of one (code, address, route, minute)."""

    code: str
    source_address: str
    route: str
    minute: int
    written: int = 0
    waiting: _Waiting | None = None


class Refusals:
    """The refusals of this process."""

    def __init__(self, identity: grpc.aio.Channel, *, clock: Callable[[], float] = time.time) -> None:
        self._stub: pb_grpc.RefusalServiceAsyncStub = pb_grpc.RefusalServiceStub(identity)
        self._clock = clock
        self._rows: dict[tuple[str, str, str, int], _Row] = {}

    def note(self, code: str, source_address: str, route: str, request_id: str, user_agent: str | None) -> None:
        """Count a refusal.

        Args:
            code: the code that is answered.
            source_address: where the request came from.
            route: its method and path template.
            request_id: its id.
            user_agent: what the caller calls itself, whatever that holds.
        """
        now = self._clock()
        minute = int(now // MINUTE_S)
        key = (code, source_address, route, minute)
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= MOST_ROWS:
                DROPPED.inc()
                return
            row = self._rows[key] = _Row(code, source_address, route, minute)
        if row.waiting is not None:
            row.waiting.count += 1
            return
        due_at = min(now + WAITS_S[min(row.written, len(WAITS_S) - 1)], (minute + 1) * MINUTE_S)
        row.waiting = _Waiting(1, now, due_at, request_id, printable(user_agent) or "")

    async def run(self) -> None:
        """Send counts when they are due, until cancelled; `flush` sends what is left then."""
        await repeat(self._send_due, lambda: asyncio.sleep(LOOKED_AT_EVERY_S), "refusals are not sent")

    async def _send_due(self) -> None:
        now = self._clock()
        await self._send([row for row in self._rows.values() if row.waiting and row.waiting.due_at <= now])
        self._forget_minutes_before(int(now // MINUTE_S))

    async def flush(self) -> None:
        """Send everything now."""
        await self._send([row for row in self._rows.values() if row.waiting])

    async def _send(self, rows: Sequence[_Row]) -> None:
        """Send rows in batches; what identity cannot take at the moment waits on."""
        for start in range(0, len(rows), ROWS_AT_ONCE):
            batch = [(row, waiting) for row in rows[start : start + ROWS_AT_ONCE] if (waiting := row.waiting)]
            for row, _ in batch:
                # What is refused while this batch is on its way is another count.
                row.waiting = None
                row.written += 1
            try:
                request = RecordRefusalsRequest(refusals=[_message(row, waiting) for row, waiting in batch])
                await self._stub.RecordRefusals(
                    request, timeout=TIMEOUT_S, metadata=((METADATA_KEY, system_call("gateway").to_bytes()),)
                )
            except asyncio.CancelledError:
                for row, waiting in batch:
                    _put_back(row, waiting)
                raise
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING:
                    log.error("refusals are not recorded", status=error.code().name)
                    DROPPED.inc(sum(waiting.count for _, waiting in batch))
                    continue
                for row, waiting in batch:
                    _put_back(row, waiting)
                return
            except Exception:
                # It would not go the next time either, and must not keep others from being told.
                log.exception("refusals cannot be sent")
                DROPPED.inc(sum(waiting.count for _, waiting in batch))

    def _forget_minutes_before(self, minute: int) -> None:
        for key in [key for key, row in self._rows.items() if row.minute < minute and not row.waiting]:
            del self._rows[key]


def _put_back(row: _Row, waiting: _Waiting) -> None:
    if row.waiting is not None:
        waiting.count += row.waiting.count
    row.waiting = waiting
    row.written -= 1


def _message(row: _Row, waiting: _Waiting) -> Refusal:
    refusal = Refusal(
        code=row.code,
        source_address=row.source_address,
        route=row.route,
        count=waiting.count,
        request_id=waiting.request_id,
        user_agent=waiting.user_agent,
    )
    refusal.first_at.FromMicroseconds(int(waiting.first_at * 1_000_000))
    return refusal
