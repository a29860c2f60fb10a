"""Rows ↔ proto messages: clear fields have columns, all the others travel sealed in one.

A proto field whose name is a column's is clear. All other fields that are set are written as the same message type,
with only those fields in it, into the column `sealed`: the data key's id, a nonce and the ciphertext, bound to
``table:row id:version`` so that it opens nowhere else and no earlier version can be put back.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from sqlalchemy import ARRAY, Column, ColumnElement, Date, DateTime, LargeBinary, Row, Select, Table, Uuid, select
from sqlalchemy import types as sql
from sqlalchemy.dialects.postgresql import JSONB

from servicekit.data_keys import DataKey, DataKeys
from servicekit.enum_text import number_of, text_of

M = TypeVar("M", bound=Message)
Convert = Callable[[Any], Any]
Write = Callable[[Any, Any], None]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMESTAMP = "google.protobuf.Timestamp"
MASTER_KEY_ID = "data_key_master_key_id"
WRAPPED = "data_key_wrapped"


class ClearField(NamedTuple):
    """A proto field that has a column, and how its value gets there and back; None where it stays as it is.

    A value gets back by `from_column` and an assignment, or by `into_message` where a field can't be assigned.
    """

    name: str
    has_presence: bool
    to_column: Convert | None
    from_column: Convert | None
    into_message: Write | None


class RowMapper(Generic[M]):
    """Turns messages of one type into rows of one table and back."""

    def __init__(
        self,
        table: Table,
        message_type: type[M],
        data_keys: DataKeys | None = None,
        *,
        owner_column: str | None = None,
        computed: Collection[str] = (),
    ) -> None:
        """Work out how every field travels.

        Args:
            table: has an `id`; when it has a `sealed` column, also a `version`.
            message_type: the message of a row.
            data_keys: where the keys come from; for a table with `sealed`.
            owner_column: the column that says whose key seals the row; for a table with `sealed`.
            computed: fields that are worked out for an answer and are never stored.

        Raises:
            TypeError: a column cannot hold its field; or a field has neither a column nor a sealed part to go
                into, nor is computed, so that it would be lost.
        """
        self.table = table
        self.message_type = message_type
        # The stubs name the class of the C implementation too, which looks the same.
        fields = cast("Sequence[FieldDescriptor]", message_type.DESCRIPTOR.fields)
        stored = [field for field in fields if field.name not in computed]
        self.clear_fields = frozenset(field.name for field in stored if field.name in table.c)
        self._clear = [_clear_field(field, table.c[field.name]) for field in stored if field.name in table.c]
        self._not_sealed = [*self.clear_fields, *computed]
        self._is_sealed = "sealed" in table.c
        homeless = [field.name for field in stored if field.name not in table.c]
        if homeless and not self._is_sealed:
            raise TypeError(f"{table.name} has no column for {', '.join(homeless)}")
        if self._is_sealed and (data_keys is None or owner_column is None or "version" not in table.c):
            raise TypeError(f"{table.name} is sealed and needs data keys, an owner column and a version column")
        self._data_keys = data_keys
        self._owner_column = owner_column

    def columns(self) -> list[ColumnElement[Any]]:
        """Return what `message` needs of a row: the clear columns, and for a sealed table its key as well."""
        if not self._is_sealed:
            return [self.table.c[field.name] for field in self._clear]
        assert self._data_keys is not None
        assert self._owner_column is not None
        keys = self._data_keys.table
        names = dict.fromkeys([*(field.name for field in self._clear), "id", "version", self._owner_column, "sealed"])
        return [
            *(self.table.c[name] for name in names),
            keys.c.master_key_id.label(MASTER_KEY_ID),
            keys.c.wrapped.label(WRAPPED),
        ]

    def select(self, *more: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
        """Return a SELECT of `columns` and `more`, joined with the owners' data keys."""
        statement = select(*self.columns(), *more)
        if not self._is_sealed:
            return statement.select_from(self.table)
        assert self._data_keys is not None
        assert self._owner_column is not None
        keys = self._data_keys.table
        return statement.select_from(self.table.outerjoin(keys, keys.c.owner_id == self.table.c[self._owner_column]))

    def values(
        self, message: M, *, key: DataKey | None = None, version: int | None = None, **extra: object
    ) -> dict[str, Any]:
        """Return a message's columns for an INSERT or UPDATE.

        Args:
            message: what to store, `id` included.
            key: the owner's data key, for a sealed table.
            version: the row's version that is being written, for a table with versions; every write needs a new
                one, or else an older ciphertext could be put back.
            extra: columns that are no fields, such as look-up hashes.

        Raises:
            TypeError: the table is sealed and the key or the version is missing.
        """
        values: dict[str, Any] = {}
        for field in self._clear:
            name = field.name
            if field.has_presence and not message.HasField(name):
                values[name] = None
            else:
                value = getattr(message, name)
                values[name] = value if field.to_column is None else field.to_column(value)
        if version is not None:
            values["version"] = version
        values.update(extra)
        if self._is_sealed:
            if key is None or version is None:
                raise TypeError(f"{self.table.name} is sealed and needs a data key and a version")
            hidden = self.message_type()
            hidden.CopyFrom(message)
            for name in self._not_sealed:
                hidden.ClearField(name)
            values["sealed"] = key.seal(hidden.SerializeToString(), self._bound_to(values["id"], version))
        return values

    def message(self, row: Row[*tuple[Any, ...]] | Mapping[str, Any]) -> M:
        """Return a row's message; the clear fields only when the owner's data key was destroyed.

        Raises:
            SealBroken: the sealed part was changed or belongs to another row, version or owner.
        """
        mapping: Mapping[Any, Any] = row._mapping if isinstance(row, Row) else row
        message = self.message_type()
        if self._is_sealed:
            self._open(mapping, message)
        for name, _, _, from_column, into_message in self._clear:
            value = mapping[name]
            # A column that was added later is NULL in older rows, whose sealed part still holds the value.
            if value is None:
                continue
            if into_message is not None:
                into_message(getattr(message, name), value)
            else:
                setattr(message, name, value if from_column is None else from_column(value))
        return message

    def _open(self, row: Mapping[Any, Any], message: M) -> None:
        assert self._data_keys is not None
        sealed: bytes = row["sealed"]
        opened = self._data_keys.open(
            sealed,
            self._bound_to(row["id"], row["version"]),
            owner_id=row[self._owner_column],
            master_key_id=row[MASTER_KEY_ID],
            wrapped=row[WRAPPED],
        )
        if opened is not None:
            message.MergeFromString(opened)

    def _bound_to(self, row_id: object, version: int) -> bytes:
        return f"{self.table.name}:{row_id}:{version}".encode()


def to_datetime(timestamp: Any) -> datetime:
    """Return a Timestamp as a time in UTC, exact to a microsecond."""
    return EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)


def set_timestamp(timestamp: Any, moment: datetime) -> None:
    """Set a Timestamp to a moment with a time zone, exact to a microsecond."""
    since = moment - EPOCH
    timestamp.seconds = since.days * 86_400 + since.seconds
    timestamp.nanos = since.microseconds * 1000


def _clear_field(field: FieldDescriptor, column: Column[Any]) -> ClearField:
    """Choose the conversions for a field and its column. Raises TypeError for a pair that does not fit."""
    kind = column.type
    into_message: Write
    if field.is_repeated:
        to_column, into_message = _repeated(field, kind)
    elif field.message_type is None:
        converters = _scalar(field, kind)
        if converters is None:
            return ClearField(field.name, field.has_presence, None, None, None)
        to_value, from_column = converters
        # A plain field cannot be unset; its zero value stands for nothing where the column has no such value.
        return ClearField(
            field.name, field.has_presence, lambda value: to_value(value) if value else None, from_column, None
        )
    elif field.message_type.full_name == TIMESTAMP and isinstance(kind, DateTime):
        to_column, into_message = to_datetime, set_timestamp
    elif isinstance(kind, JSONB):
        to_column, into_message = _to_json, _from_json
    else:
        raise _misfit(field, kind)
    return ClearField(field.name, field.has_presence, to_column, None, into_message)


def _misfit(field: FieldDescriptor, kind: sql.TypeEngine[Any]) -> TypeError:
    return TypeError(f"a column of type {kind!r} cannot hold {field.full_name}")


def _scalar(field: FieldDescriptor, kind: sql.TypeEngine[Any]) -> tuple[Convert, Convert] | None:
    """Return how one value gets into a column and back; None when it stays as it is."""
    if field.enum_type is not None and isinstance(kind, sql.String):
        enum = field.enum_type
        return partial(text_of, enum), partial(number_of, enum)
    if field.type == FieldDescriptor.TYPE_STRING:
        if isinstance(kind, Uuid):
            return UUID, str
        if isinstance(kind, Date):
            return date.fromisoformat, date.isoformat
        if isinstance(kind, JSONB):
            return json.loads, partial(json.dumps, ensure_ascii=False)
    fitting: dict[int, type[sql.TypeEngine[Any]]] = {
        FieldDescriptor.CPPTYPE_STRING: LargeBinary if field.type == FieldDescriptor.TYPE_BYTES else sql.String,
        FieldDescriptor.CPPTYPE_BOOL: sql.Boolean,
        FieldDescriptor.CPPTYPE_INT32: sql.Integer,
        FieldDescriptor.CPPTYPE_INT64: sql.BigInteger,
    }
    if field.cpp_type in fitting and isinstance(kind, fitting[field.cpp_type]):
        return None
    raise _misfit(field, kind)


def _repeated(field: FieldDescriptor, kind: sql.TypeEngine[Any]) -> tuple[Convert, Write]:
    """Return how a list or a map of messages gets into a column and back."""
    entry = field.message_type
    if entry is not None:
        is_map = entry.GetOptions().map_entry and entry.fields_by_name["value"].message_type is not None
        if is_map and isinstance(kind, JSONB):
            return _map_to_json, _map_from_json
    elif isinstance(kind, ARRAY):
        converters = _scalar(field, kind.item_type)
        if converters is None:
            return list, lambda repeated, values: repeated.extend(values)
        to_value, from_value = converters
        return (
            lambda values: list(map(to_value, values)),
            lambda repeated, values: repeated.extend(map(from_value, values)),
        )
    raise _misfit(field, kind)


def _to_json(message: Message) -> dict[str, Any]:
    # Proto names, so that what is stored reads like the API; ParseDict takes either.
    return MessageToDict(message, preserving_proto_field_name=True)


def _from_json(message: Any, value: dict[str, Any]) -> None:
    message.SetInParent()
    ParseDict(value, message)


def _map_to_json(entries: Mapping[str, Message]) -> dict[str, Any]:
    return {key: _to_json(value) for key, value in entries.items()}


def _map_from_json(entries: Any, value: dict[str, Any]) -> None:
    for key, entry in value.items():
        ParseDict(entry, entries[key])
