"""The audit log of one service: rows are written in the transaction of what they tell, and never changed."""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    Uuid,
    cast,
    func,
    insert,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB
from uuid6 import uuid7

from aarokya.audit.v1 import audit_log_pb2
from aarokya.audit.v1.audit_log_service_pb2 import ListAuditLogsRequest
from servicekit.caller import Call
from servicekit.compiled_statement import CompiledStatement
from servicekit.crypto import MasterKeyMissing, SealBroken
from servicekit.data_keys import KEY_ID_BYTES, SERVICE_OWNER, DataKeys, OwnerErased
from servicekit.database import Transaction
from servicekit.enum_text import number_of, text_of
from servicekit.messages import changed_fields
from servicekit.rows import TIMESTAMP, set_timestamp, to_datetime

UNTOLD = frozenset({"id", "version", "created_at", "updated_at"})
"""Fields that change with every change: the row's own columns tell them."""

Changes = Mapping[str, tuple[Any, Any] | None]

log = structlog.get_logger()


def audit_log_table(metadata: MetaData) -> Table:
    """Return the append-only table of what happened.

    `transaction_id` is the transaction that wrote the row. By it the sealer of `audit_chain` knows what can still
    appear behind what it has seen.
    """
    table = Table(
        "audit_log",
        metadata,
        Column("id", Uuid, primary_key=True),
        Column("occurred_at", DateTime(timezone=True), nullable=False),
        Column("actor_type", Text, nullable=False),
        Column("actor_id", Text, nullable=False),
        Column("action", Text, nullable=False),
        Column("entity_type", Text, nullable=False),
        Column("entity_id", Text),
        Column("user_id", Uuid),
        Column("platform_id", Uuid),
        Column("changes", JSONB, nullable=False),
        Column("sealed", LargeBinary),
        Column("request_id", Text),
        Column("source_address", Text),
        Column("user_agent", Text),
        Column("count", BigInteger, nullable=False),
        Column(
            "transaction_id",
            BigInteger,
            nullable=False,
            server_default=text("((pg_current_xact_id())::text)::bigint"),
        ),
    )
    columns = table.c
    newest = (columns.occurred_at, columns.id)
    Index("ix_audit_log_newest", *newest)
    Index("ix_audit_log_entity", columns.entity_id, columns.entity_type, *newest)
    Index("ix_audit_log_user", columns.user_id, *newest, postgresql_where=columns.user_id.is_not(None))
    Index("ix_audit_log_actor", columns.actor_id, *newest)
    Index("ix_audit_log_platform", columns.platform_id, *newest, postgresql_where=columns.platform_id.is_not(None))
    Index("ix_audit_log_action", columns.action, *newest)
    Index("ix_audit_log_transaction", columns.transaction_id, columns.id)
    return table


def audit_chain_table(metadata: MetaData) -> Table:
    """Return the append-only table that numbers and chains the audit rows; `audit_chain` says how."""
    return Table(
        "audit_chain",
        metadata,
        Column("sequence", BigInteger, primary_key=True, autoincrement=False),
        Column("audit_id", Uuid, nullable=False, unique=True),
        Column("hash", LargeBinary, nullable=False),
        Column("horizon", BigInteger, nullable=False),
    )


def changes_between(before: Message | None, after: Message | None, clear_columns: Collection[str]) -> Changes:
    """Return what an audit row may say of a change: old and new value of clear fields, of others that they changed.

    What is new had no values before, so all its old ones are None.

    Args:
        before: None when the thing is new.
        after: None when the thing is gone.
        clear_columns: the fields that may be told, such as `RowMapper.clear_fields`.
    """
    some = before or after
    if some is None:
        return {}
    old, new = before or type(some)(), after or type(some)()
    return {
        name: (before and _json_value(before, name), after and _json_value(after, name))
        if name in clear_columns
        else None
        for name in changed_fields(old, new)
        if name not in UNTOLD
    }


def _json_value(message: Message, name: str) -> Any:
    """Return a field's value as the API spells it; None when it is not set."""
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.has_presence and not message.HasField(name):
        return None
    value = getattr(message, name)
    if field.enum_type is not None:
        if field.is_repeated:
            return [text_of(field.enum_type, number) for number in value]
        return text_of(field.enum_type, value) if value else None
    if field.message_type is None:
        return list(value) if field.is_repeated else value
    if field.message_type.full_name == TIMESTAMP:
        return to_datetime(value).isoformat(timespec="microseconds").replace("+00:00", "Z")
    told = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return told[name]


class AuditLog:
    """Writes and lists a service's audit rows."""

    def __init__(self, service: str, table: Table, chain: Table, data_keys: DataKeys) -> None:
        self._service = service
        self._table = table
        self._chain = chain
        self._data_keys = data_keys
        # The database itself says which transaction it is.
        written = [column.name for column in table.c if column.name != "transaction_id"]
        self._insert = CompiledStatement(insert(table), written)

    async def record(
        self,
        tx: Transaction,
        action: str,
        entity_type: str,
        entity_id: str | UUID | None,
        *,
        user_id: UUID | None = None,
        platform_id: UUID | None = None,
        owner_id: UUID | None = None,
        changes: Changes | None = None,
        reason: str | None = None,
        count: int = 1,
        call: Call | None = None,
        occurred_at: datetime | None = None,
    ) -> None:
        """Write a row in the transaction of what it tells: if it can't be written, that does not happen either.

        Args:
            tx: the transaction; its call says who acted and from where.
            action: what was done, such as ``user.deactivate``.
            entity_type: what kind of thing it was done to.
            entity_id: the thing's id.
            user_id: whose data it is.
            platform_id: the platform whose data it is; the caller's own by default.
            owner_id: whose data key seals the reason: `user_id` by default, else the service's own. The reason
                is dropped when that key was destroyed.
            changes: what `changes_between` returned.
            reason: why, in the caller's words.
            count: how often it happened.
            call: who acted and from where, when it was not the transaction's caller.
            occurred_at: when it happened, when it was not now.
        """
        call = call or tx.call
        audit_id = uuid7()
        platform_id = platform_id or call.caller.platform_id
        await self._insert.execute(
            tx,
            {
                "id": audit_id,
                "occurred_at": occurred_at or tx.now,
                "actor_type": call.caller.type.value,
                "actor_id": call.caller.id,
                "action": action,
                "entity_type": entity_type,
                "entity_id": None if entity_id is None else str(entity_id),
                "user_id": user_id,
                "platform_id": platform_id,
                "changes": json.dumps(changes or {}),
                "sealed": await self._sealed(tx, audit_id, owner_id or user_id, platform_id, reason),
                "request_id": call.request_id,
                "source_address": call.source_address,
                "user_agent": call.user_agent,
                "count": count,
            },
        )

    async def _sealed(
        self, tx: Transaction, audit_id: UUID, owner_id: UUID | None, platform_id: UUID | None, reason: str | None
    ) -> bytes | None:
        if reason is None:
            return None
        try:
            if owner_id is None:
                key = await self._data_keys.for_owner(tx, SERVICE_OWNER)
            else:
                key = await self._data_keys.for_owner(tx, owner_id, platform_id)
        except OwnerErased:
            return None
        return key.seal(audit_log_pb2.AuditLog(reason=reason).SerializeToString(), _bound_to(audit_id))

    async def list(self, tx: Transaction, request: ListAuditLogsRequest) -> list[audit_log_pb2.AuditLog]:
        """Return the rows that match, newest first, at most `request.limit`.

        Raises:
            ValueError: an id in the request is not a UUID.
        """
        table, chain, keys = self._table, self._chain, self._data_keys.table
        # The reason's owner has no column of its own: the sealed bytes begin with the key's id.
        key_id = cast(func.encode(func.substring(table.c.sealed, 1, KEY_ID_BYTES), "hex"), Uuid)
        statement = (
            select(
                *(column for column in table.c if column.name not in ("changes", "transaction_id")),
                cast(table.c.changes, Text).label("changes"),
                chain.c.sequence,
                keys.c.owner_id,
                keys.c.master_key_id,
                keys.c.wrapped,
            )
            .select_from(
                table.outerjoin(chain, chain.c.audit_id == table.c.id).outerjoin(
                    keys, (keys.c.id == key_id) & table.c.sealed.is_not(None)
                )
            )
            .where(*_conditions(table, request))
            .order_by(table.c.occurred_at.desc(), table.c.id.desc())
            .limit(request.limit)
        )
        return [self._message(row) for row in await tx.connection.execute(statement)]

    def _message(self, row: Row[*tuple[Any, ...]]) -> audit_log_pb2.AuditLog:
        told = row._mapping
        message = audit_log_pb2.AuditLog(
            id=str(row.id),
            service=self._service,
            sequence=row.sequence,
            actor=audit_log_pb2.Actor(
                type=audit_log_pb2.ActorType.ValueType(number_of(audit_log_pb2.ActorType.DESCRIPTOR, row.actor_type)),
                id=row.actor_id,
            ),
            action=row.action,
            entity_type=row.entity_type,
            entity_id=row.entity_id,
            user_id=None if row.user_id is None else str(row.user_id),
            platform_id=None if row.platform_id is None else str(row.platform_id),
            changes=row.changes,
            request_id=row.request_id,
            source_address=row.source_address,
            user_agent=row.user_agent,
            count=told["count"],
        )
        set_timestamp(message.occurred_at, row.occurred_at)
        if row.sealed is not None and row.owner_id is not None:
            try:
                opened = self._data_keys.open(
                    row.sealed,
                    _bound_to(row.id),
                    owner_id=row.owner_id,
                    master_key_id=row.master_key_id,
                    wrapped=row.wrapped,
                )
            except (SealBroken, MasterKeyMissing) as error:
                # Whoever looks into a tampered log must still be able to read it; `verify` is what finds the row.
                log.error("audit reason does not open", audit_id=str(row.id), error=type(error).__name__)
            else:
                message.MergeFromString(opened or b"")
        return message


def _conditions(table: Table, request: ListAuditLogsRequest) -> list[ColumnElement[bool]]:
    columns = table.c
    conditions = [
        columns[name] == getattr(request, name)
        for name in ("entity_type", "entity_id", "actor_id", "action")
        if request.HasField(name)
    ]
    conditions += [
        columns[name] == UUID(getattr(request, name)) for name in ("user_id", "platform_id") if request.HasField(name)
    ]
    # `from` is a keyword of Python.
    if request.HasField("from"):
        conditions.append(columns.occurred_at >= to_datetime(getattr(request, "from")))
    if request.HasField("to"):
        conditions.append(columns.occurred_at < to_datetime(request.to))
    if request.HasField("after"):
        place = (to_datetime(request.after.occurred_at), UUID(request.after.id))
        conditions.append(tuple_(columns.occurred_at, columns.id) < place)
    return conditions


def _bound_to(audit_id: UUID) -> bytes:
    return f"audit_log:{audit_id}:1".encode()
