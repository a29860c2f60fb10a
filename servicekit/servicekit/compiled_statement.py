"""Statements of the hottest paths: written with SQLAlchemy, built and compiled once, and run by psycopg itself.

To build a statement, find it in SQLAlchemy's cache and run it takes two to three times the CPU: 270 µs against 100 for
an audit row, 900 against 250 for a family.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

from sqlalchemy import BigInteger, ClauseElement, ColumnElement, Select, bindparam, create_engine

from servicekit.database import Cursor, DriverRow, Reader, Transaction
from servicekit.paging import rows_after, value_of

Values = dict[str, Any]

_DIALECT = create_engine("postgresql+psycopg://").dialect


class CompiledStatement:
    """One statement with named parameters; its errors are psycopg's own."""

    def __init__(self, statement: ClauseElement, columns: Collection[str] | None = None) -> None:
        """Compile the statement.

        Args:
            statement: its `bindparam` names are the parameters' names; lists can't be parameters of an IN.
            columns: for an INSERT or UPDATE without values, the columns that it sets, which are the parameters' names
                then.
        """
        compiled = statement.compile(dialect=_DIALECT, column_keys=None if columns is None else list(columns))
        self._sql = compiled.string.encode()
        self._fixed = dict(compiled.params)
        self._names: list[str] = []

    async def execute(self, tx: Transaction, values: Values) -> None:
        """Run the statement."""
        await self._run(tx, values)

    async def rows(self, tx: Reader, values: Values) -> list[DriverRow]:
        """Run the statement and return its rows."""
        cursor = await self._run(tx, values)
        found = await cursor.fetchall()
        if not found:
            return []
        if not self._names:
            self._names = [column.name for column in cursor.description or ()]
        names = self._names
        return [DriverRow(zip(names, row, strict=True)) for row in found]

    async def one_or_none(self, tx: Reader, values: Values) -> DriverRow | None:
        """Run a statement that finds one row at most, and return that."""
        rows = await self.rows(tx, values)
        return rows[0] if rows else None

    async def _run(self, tx: Reader, values: Values) -> Cursor:
        return await tx.run(self._sql, self._fixed | values)


class CompiledPages:
    """The pages of a list, newest first: what `newest_first` does, with its statements built once."""

    def __init__(self, build: Callable[..., Select[Any]], order: Sequence[ColumnElement[Any]]) -> None:
        """Describe the list.

        Args:
            build: returns the statement of the whole list for the variant that `rows` is asked for.
            order: the columns that order it, unique together.
        """
        self._build = build
        self._order = order
        self._statements: dict[tuple[bool, tuple[Hashable, ...]], CompiledStatement] = {}

    async def rows(
        self,
        tx: Reader,
        values: Values,
        cursor: Sequence[str] | None,
        page_size: int,
        *variant: Hashable,
    ) -> list[DriverRow]:
        """Return the rows of the page after a cursor, and one more.

        Args:
            tx: where to read.
            values: the parameters of the statement.
            cursor: the texts of the row before the page.
            page_size: how many rows a page has.
            variant: what the statement is built for; few things, each hashable, for all of them are kept.
        """
        key = (cursor is not None, variant)
        statement = self._statements.get(key)
        if statement is None:
            statement = self._statements[key] = self._statement(has_cursor=key[0], variant=variant)
        after = {
            _after(number): value_of(column, text)
            for number, (column, text) in enumerate(zip(self._order, cursor or (), strict=cursor is not None))
        }
        return await statement.rows(tx, {**values, **after, "page_rows": page_size + 1})

    def _statement(self, *, has_cursor: bool, variant: tuple[Hashable, ...]) -> CompiledStatement:
        after = [bindparam(_after(number), type_=column.type) for number, column in enumerate(self._order)]
        rows = bindparam("page_rows", type_=BigInteger)
        return CompiledStatement(rows_after(self._build(*variant), self._order, after if has_cursor else None, rows))


def _after(number: int) -> str:
    return f"after_{number}"
