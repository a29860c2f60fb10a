"""Lists in pages: newest first by key, from where the page before has ended."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, DateTime, Select, Uuid, tuple_


def newest_first(
    statement: Select[Any], order: Sequence[ColumnElement[Any]], cursor: Sequence[str] | None, page_size: int
) -> Select[Any]:
    """Return the statement limited to the page after a cursor, and one row more.

    The columns must be unique together; an index on them makes each page cost the same however deep it lies.
    """
    after = None if cursor is None else [value_of(column, text) for column, text in zip(order, cursor, strict=True)]
    return rows_after(statement, order, after, page_size + 1)


def rows_after(
    statement: Select[Any], order: Sequence[ColumnElement[Any]], after: Sequence[Any] | None, rows: Any
) -> Select[Any]:
    """Return the statement limited to so many rows, newest first, after one with these values or from the first on."""
    if after is not None:
        statement = statement.where(tuple_(*order) < tuple_(*after))
    return statement.order_by(*(column.desc() for column in order)).limit(rows)


def value_of(column: ColumnElement[Any], text: str) -> object:
    """Return a value of a column from its text in a cursor."""
    if isinstance(column.type, DateTime):
        return datetime.fromisoformat(text)
    if isinstance(column.type, Uuid):
        return UUID(text)
    if isinstance(column.type, BigInteger):
        return int(text)
    return text
