"""Statements of the hottest paths: written with SQLAlchemy, compiled once, and run by psycopg itself.

That takes a third to a half of the CPU that SQLAlchemy takes to run them: 100 µs against 270 for an audit row.
"""

from collections.abc import Collection
from typing import Any

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import ClauseElement, create_engine

from servicekit.database import Transaction

Values = dict[str, Any]

_DIALECT = create_engine("postgresql+psycopg://").dialect


class QuickStatement:
    """One statement with named parameters."""

    def __init__(self, statement: ClauseElement, columns: Collection[str] | None = None) -> None:
        """Compile the statement.

        Args:
            statement: its `bindparam` names are the parameters' names; lists can't be parameters of an IN.
            columns: for a plain INSERT, the columns that it sets, which are the parameters' names then.
        """
        compiled = statement.compile(dialect=_DIALECT, column_keys=None if columns is None else list(columns))
        self._sql = compiled.string.encode()
        self._fixed = dict(compiled.params)

    async def execute(self, tx: Transaction, values: Values) -> None:
        """Run the statement; its errors are psycopg's own."""
        await self._run(tx, values)

    async def rows(self, tx: Transaction, values: Values) -> list[Values]:
        """Run the statement and return its rows by column name."""
        return await (await self._run(tx, values)).fetchall()

    async def _run(self, tx: Transaction, values: Values) -> psycopg.AsyncCursor[Values]:
        connection = (await tx.connection.get_raw_connection()).driver_connection
        assert isinstance(connection, psycopg.AsyncConnection)
        return await connection.cursor(row_factory=dict_row).execute(self._sql, self._fixed | values)
