"""A service's own database: pooled connections, scoped reads and transactions, refusals by constraint name."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import UUID

import psycopg
import structlog
from psycopg import sql
from psycopg.rows import tuple_row
from sqlalchemy import Executable, Row
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import IntegrityError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from servicekit.caller import Call, CallerType
from servicekit.deadline import time_left
from servicekit.errors import Refusal, ServiceAway, ServiceBusy

Connection = psycopg.AsyncConnection[tuple[object, ...]]
Cursor = psycopg.AsyncCursor[tuple[Any, ...]]
Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 2
# The gateway gives a call 5 s. Callers who come all at once had rather wait for most of that than be refused.
POOL_WAIT_S = 4.0
# So many transactions may wait for each connection. Those beyond could not be answered in time.
WAITING_FOR_EACH = 50
# A server that hangs, or that nobody reaches any more, does not answer a cancellation either, so the connection is cut
# off: at the beginning and in a read by itself, where nothing can take long, and when nobody can be waiting for the
# transaction any more.
BEGINNING_S = 3.0
LONGEST_S = 5.0
CANCELLING_S = 1.0
# The gateway gives a call 5 s; the database gives up before that, so that nothing runs on for nobody.
SESSION_OPTIONS = " ".join(
    f"-c {name}={value}"
    for name, value in {
        "statement_timeout": "4s",
        "lock_timeout": "3s",
        "idle_in_transaction_session_timeout": "10s",
        "timezone": "UTC",
    }.items()
)

# A primary that has become a standby; a transaction that was ended because it did nothing, or lasted, for too long.
UNFIT = frozenset({"25006", "25P03", "25P04"})
# A former primary may go on answering those who are connected to it, and knows nothing of what is written elsewhere.
_IS_READ_ONLY = "current_setting('transaction_read_only')"
_BEGIN = f"BEGIN; SELECT now(), {_IS_READ_ONLY}, "
# A slow read is ended by the server itself, before it is taken for one that a dead connection does not answer.
_OPEN = f"SELECT {_IS_READ_ONLY}, set_config(%s, %s, true), set_config('statement_timeout', '2500', true)".encode()
# An entry in the log that nobody reads; a commit waits for standbys only when it has left one.
_LEAVE_AN_ENTRY = b"SELECT pg_logical_emit_message(true, 'aarokya', '')"

log = structlog.get_logger()


class DriverRow(dict[str, Any]):
    """A row that psycopg itself has found: values by column name, which can be read as attributes too."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def _mapping(self) -> "DriverRow":
        """The row by column name, as SQLAlchemy's rows have it."""
        return self


AnyRow = Row[*tuple[Any, ...]] | DriverRow


class Reader(Protocol):
    """What reads go through: a transaction, or a connection that opens the scope of the caller for each of them."""

    @property
    def call(self) -> Call:
        """Who asked, from where."""
        ...

    def run(self, statement: bytes, values: Mapping[str, Any]) -> Awaitable[Cursor]:
        """Run a statement with named parameters, and return its rows as tuples."""
        ...


@dataclass(frozen=True, slots=True)
class _ScopedReads:
    """A connection without a transaction; `run` opens the scope of the caller for each statement."""

    call: Call
    run: Callable[[bytes, Mapping[str, Any]], Awaitable[Cursor]]


@dataclass(frozen=True, slots=True)
class Transaction:
    """One open transaction in the scope of its caller.

    Attributes:
        connection: where statements run.
        driver: psycopg's connection below it, for the hottest statements.
        call: who asked, from where.
        now: the database's time at the beginning of the transaction, UTC.
        held: what was read and locked until the transaction ends, so that it need not be read again.
    """

    connection: AsyncConnection
    driver: Connection
    call: Call
    now: datetime
    held: dict[Hashable, Any] = field(default_factory=dict)

    async def execute(self, statement: Executable) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement and return its result."""
        return await self.connection.execute(statement)

    async def run(self, statement: bytes, values: Mapping[str, Any]) -> Cursor:
        """Run a statement with named parameters, and return its rows as tuples."""
        return await self.driver.cursor(row_factory=tuple_row).execute(statement, values)

    async def wait_for_replication(self) -> None:
        """Have the commit wait for the standbys although nothing was written.

        What was read may be a commit that was given up while it waited for them: everybody sees it, and it is lost
        when one of them takes over. So whoever acknowledges it, or acts on it elsewhere, waits for them too.
        """
        await self.driver.execute(_LEAVE_AN_ENTRY)


def transaction_of(reader: Reader) -> Transaction:
    """Return the transaction that is read in.

    Raises:
        TypeError: there is none, see `Database.reading`; what is to be noted with the read could not be.
    """
    if not isinstance(reader, Transaction):
        raise TypeError("a read by itself has no transaction")
    return reader


class _PromptConnection(psycopg.AsyncConnection[tuple[object, ...]]):
    """A connection that does not wait for long to tell its server that a caller has gone.

    Psycopg does that by a connection of its own, and until it is told, it does not hear that this one was cut off.
    """

    async def cancel_safe(self, *, timeout: float = CANCELLING_S) -> None:  # noqa: ASYNC109 - it is psycopg's.
        """Ask the server to cancel what is going on; raises CancellationTimeout when it does not listen."""
        await super().cancel_safe(timeout=min(timeout, CANCELLING_S))


class Database:
    """The runtime login's connections to a service's database."""

    def __init__(self, dsn: str, service: str, *, pool_size: int = 10) -> None:
        self._service = service
        self._dsn = dsn
        self._pool_size = pool_size
        self._running = 0
        self._engine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._connect,
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT_S,
            pool_recycle=1800,
            # Errors end up in the log, and what was to be written has no business there.
            hide_parameters=True,
        )

    async def _connect(self) -> Connection:
        return await _PromptConnection.connect(
            self._dsn,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            options=SESSION_OPTIONS,
            application_name=self._service,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    @asynccontextmanager
    async def transaction(
        self, call: Call, *, presented: Mapping[str, str] | None = None, longest_s: float = LONGEST_S
    ) -> AsyncIterator[Transaction]:
        """Open a transaction in which only what the caller may see is there.

        Args:
            call: its caller decides on the scope: an operator works as the service's admin role, a service as its
                worker role, a partner or user as the bare runtime login within its platform.
            presented: settings that open single rows to a caller who is not known yet, such as the hash of a secret;
                the bare runtime login is used and no platform is set.
            longest_s: after how many seconds the transaction is cancelled, and the connection cut off.

        Raises:
            ServiceAway: the database does not answer, or not in time.
            ServiceBusy: more transactions wait than can be begun in time.
        """
        async with self._connected() as connection:
            driver, now = await self._begin(connection, _scope(self._service, call, presented))
            try:
                with cut_off_after(longest_s, driver, cancelling_s=CANCELLING_S):
                    try:
                        yield Transaction(connection, driver, call, now)
                        # Who asked has been told by now that it was not done.
                        time_left(longest_s)
                    except BaseException as error:
                        # Without an answer it is rolled back as well, and what went wrong before is what matters.
                        with suppress(psycopg.Error):
                            await _end(connection, driver, b"ROLLBACK")
                        if _is_unfit(error):
                            # The next one may lead to a server that can be written to.
                            await connection.invalidate()
                        raise
                    await _end(connection, driver, b"COMMIT")
            finally:
                if driver.closed:
                    await connection.invalidate()

    @asynccontextmanager
    async def reading(self, call: Call) -> AsyncIterator[Reader]:
        """Open what only reads go through, each by itself in what the caller may see, and in one round trip.

        An operator's look at a person is noted, and that is a write; so operators read in a transaction.

        Raises:
            ServiceAway: the database does not answer, or not in time.
            ServiceBusy: more transactions wait than can be begun in time.
        """
        if call.caller.is_admin:
            async with self.transaction(call) as tx:
                yield tx
        else:
            async with self._connected() as connection:
                yield _ScopedReads(call, partial(self._read, connection, _setting(self._service, call)))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        """Take a connection from the pool, and say in the errors of services what goes wrong."""
        if self._running >= self._pool_size * (1 + WAITING_FOR_EACH):
            raise ServiceBusy
        self._running += 1
        try:
            async with self._engine.connect() as connection:
                yield connection
        except PoolTimeout as error:
            raise ServiceBusy from error
        except (OperationalError, InterfaceError, psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise ServiceAway from error
        except (InternalError, psycopg.InternalError) as error:
            if not _is_unfit(error):
                raise
            log.warning("transaction cannot go on", error=type(getattr(error, "orig", error)).__name__)
            raise ServiceAway from error
        finally:
            self._running -= 1

    async def _begin(self, connection: AsyncConnection, scope: bytes) -> tuple[Connection, datetime]:
        """Begin and set the scope in one round trip."""

        async def begin(driver: Connection) -> tuple[Connection, datetime]:
            return driver, await _open_scope(driver, scope)

        return await self._on_living(connection, begin)

    async def _on_living(
        self, connection: AsyncConnection, attempt: Callable[[Connection], Awaitable[Result]]
    ) -> Result:
        """Return what an attempt returns that did nothing yet, on the first connection of the pool that is not dead.

        When a server restarts or fails over, all pooled connections are dead at once, and each is found out in turn,
        as long as somebody waits for the answer: a transaction that began later could undo what was acknowledged since.
        What broke off in any other way leaves nobody a connection: answers may still come, a transaction may be open,
        and psycopg takes a statement for prepared as soon as that is on its way in a pipeline, whatever comes of it.
        """
        cancelled = _times_cancelled()
        try:
            for _ in range(self._pool_size):
                driver = await _driver(connection)
                try:
                    return await attempt(driver)
                except psycopg.OperationalError:
                    # It may have come in the place of a cancellation.
                    if not driver.closed or _times_cancelled() > cancelled:
                        raise
                    await connection.invalidate()
                time_left(BEGINNING_S)
            return await attempt(await _driver(connection))
        except BaseException:
            if not connection.invalidated:
                await connection.invalidate()
            raise

    async def _read(
        self, connection: AsyncConnection, setting: tuple[str, str], statement: bytes, values: Mapping[str, Any]
    ) -> Cursor:
        return await self._on_living(connection, lambda driver: _run_scoped(driver, setting, statement, values))


def _times_cancelled() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _is_unfit(error: BaseException) -> bool:
    """Return whether PostgreSQL refuses for the state of the session or the server, not for what was asked."""
    cause = error.orig if isinstance(error, InternalError) else error
    return isinstance(cause, psycopg.InternalError) and cause.sqlstate in UNFIT


def _scope(service: str, call: Call, presented: Mapping[str, str] | None) -> bytes:
    """Return what begins a transaction and lets it see what the caller may see."""
    if presented is not None:
        settings = sql.SQL(", ").join(map(_set_config, presented.keys(), presented.values()))
        return (sql.SQL(_BEGIN) + settings).as_bytes()
    name, value = _setting(service, call)
    # A role is a service's name, a UUID hexadecimal digits, whoever sent it. To quote them takes four times as long.
    return f"{_BEGIN}set_config('{name}', '{value}', true)".encode()


def _setting(service: str, call: Call) -> tuple[str, str]:
    """Return the setting that lets a transaction see what the caller may see, and its value."""
    if call.caller.type is CallerType.ADMIN:
        return "role", f"{service}_admin"
    if call.caller.type is CallerType.SYSTEM:
        return "role", f"{service}_worker"
    platform_id = call.caller.platform_id
    assert isinstance(platform_id, UUID)
    return "app.platform_id", str(platform_id)


def _set_config(name: str, value: str) -> sql.Composed:
    return sql.SQL("set_config({}, {}, true)").format(name, value)


async def _open_scope(driver: Connection, scope: bytes) -> datetime:
    with cut_off_after(BEGINNING_S, driver):
        # Two commands can't be prepared, so there is no need to count how often they are run.
        cursor = await driver.execute(scope, prepare=False)
        cursor.nextset()
        row = await cursor.fetchone()
    assert row is not None
    now, *rest = row
    assert isinstance(now, datetime)
    await _require_writable(driver, rest)
    return now.astimezone(UTC)


async def _run_scoped(
    driver: Connection, setting: tuple[str, str], statement: bytes, values: Mapping[str, Any]
) -> Cursor:
    """Run a statement in a scope, in one round trip. After an error, the connection is of no use to anybody."""
    with cut_off_after(BEGINNING_S, driver):
        # Up to its end, PostgreSQL runs a pipeline as one transaction.
        async with driver.pipeline():
            opened = await driver.execute(_OPEN, setting)
            found = await driver.cursor(row_factory=tuple_row).execute(statement, values)
    await _require_writable(driver, await opened.fetchone())
    return found


async def _require_writable(driver: Connection, opened: Sequence[object] | None) -> None:
    """Close the connection and raise when the scope was opened on a server that takes no writes."""
    assert opened is not None
    if opened[0] != "off":
        await driver.close()
        raise psycopg.OperationalError("the server takes no writes")


async def _end(connection: AsyncConnection, driver: Connection, statement: bytes) -> None:
    """Commit or roll back; a connection that cannot do either is thrown away, which rolls back too."""
    warnings: list[str | None] = []

    def note(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(notice.message_primary)

    driver.add_notice_handler(note)
    try:
        cursor = await driver.execute(statement, prepare=False)
    except BaseException:
        await connection.invalidate()
        raise
    finally:
        driver.remove_notice_handler(note)
    if warnings and statement == b"COMMIT":
        # Somebody has had the session stop waiting for the standbys: it is committed here, and may be lost there.
        raise psycopg.OperationalError(f"the commit was given up: {warnings[0]}")
    if cursor.statusmessage != statement.decode():
        # PostgreSQL answers so when an error has ended the transaction before, and somebody has swallowed that.
        raise RuntimeError(f"the transaction ended with {cursor.statusmessage}")


async def _driver(connection: AsyncConnection) -> Connection:
    """Return psycopg's connection: BEGIN and COMMIT cost a third there."""
    raw = (await connection.get_raw_connection()).driver_connection
    assert isinstance(raw, psycopg.AsyncConnection)
    return raw


@contextmanager
def cut_off_after(seconds: float, connection: Connection, *, cancelling_s: float = 0.0) -> Iterator[None]:
    """Shut the connection down when the block lasts too long.

    A cancelled statement waits on for the server's word that it was cancelled, which one that hangs does not give.

    Args:
        seconds: how long the block may last.
        connection: where it runs.
        cancelling_s: how long the server may take to hear of a cancellation before, if it is to be told. A session that
            waits for a standby does not notice that its connection is gone, and would wait for ever.

    Raises:
        psycopg.OperationalError: it lasted too long. A commit may have been done, but not waited for.
    """
    cutting: list[asyncio.Task[None]] = []
    timer = asyncio.get_running_loop().call_later(
        seconds, lambda: cutting.append(asyncio.create_task(_cut_off(connection, cancelling_s)))
    )
    try:
        yield
    finally:
        timer.cancel()
        if cutting:
            # What is about to be shut down must not be used by the next one.
            connection.pgconn.finish()
    if cutting:
        raise psycopg.OperationalError("it took too long")


async def _cut_off(connection: Connection, cancelling_s: float) -> None:
    is_running = connection.info.transaction_status is psycopg.pq.TransactionStatus.ACTIVE
    if cancelling_s and is_running:
        with suppress(psycopg.Error):
            await connection.cancel_safe(timeout=cancelling_s)
    if not connection.closed:
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)


@contextmanager
def refusing(refusals: Mapping[str, type[Refusal]]) -> Iterator[None]:
    """Turn the violation of a named constraint into its refusal."""
    try:
        yield
    except (IntegrityError, psycopg.IntegrityError) as error:
        cause = error.orig if isinstance(error, IntegrityError) else error
        violated = cause.diag.constraint_name if isinstance(cause, psycopg.Error) else None
        refusal = refusals.get(violated or "")
        if refusal is None:
            raise
        raise refusal from error
