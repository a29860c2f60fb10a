"""Effects that happen once however often their POST is sent, remembered in the effect's own transaction."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from google.protobuf.message import Message
from sqlalchemy import (
    Column,
    DateTime,
    LargeBinary,
    MetaData,
    Table,
    Uuid,
    bindparam,
    delete,
    insert,
    select,
)

from servicekit.advisory_locks import try_lock
from servicekit.compiled_statement import CompiledStatement
from servicekit.crypto import LookupHash
from servicekit.data_keys import DataKeys
from servicekit.database import Transaction
from servicekit.errors import KeyReused, KeyStillRunning
from servicekit.server import replayed

REMEMBERED = timedelta(hours=24)
# At a time, so that the answers of a busy day are deleted without running into a statement's time limit.
MOST_FORGOTTEN = 1000
Response = TypeVar("Response", bound=Message)


def idempotency_keys_table(metadata: MetaData) -> Table:
    """Return the table of answers to be repeated; a row is one (caller, path, key)."""
    return Table(
        "idempotency_keys",
        metadata,
        Column("scope", LargeBinary, primary_key=True),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("platform_id", Uuid),
        Column("owner_id", Uuid, nullable=False),
        Column("sealed", LargeBinary, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, index=True),
    )


class OnceOnly:
    """Runs effects once for each idempotency key."""

    def __init__(self, table: Table, data_keys: DataKeys, hashes: LookupHash) -> None:
        self._table = table
        self._data_keys = data_keys
        self._hashes = hashes
        self._find = CompiledStatement(select(table).where(table.c.scope == bindparam("scope", type_=LargeBinary)))
        self._insert = CompiledStatement(insert(table), table.c.keys())

    async def once(
        self,
        tx: Transaction,
        effect: Callable[[], Awaitable[Response]],
        response_type: type[Response],
        *,
        owner: Callable[[Response], UUID],
        kept: Callable[[Response], Response] = lambda response: response,
    ) -> Response:
        """Return the effect's answer, or the one it gave the first time.

        Args:
            tx: the transaction of the effect.
            effect: what to do when this is the first time, or no key came with the call.
            response_type: the answer's type.
            owner: whose data key seals the answer.
            kept: what of the answer may be repeated; secrets are left out here.

        Raises:
            KeyStillRunning: the same call is being carried out at this moment.
            KeyReused: the key was used with another body.
        """
        idempotency = tx.call.idempotency
        if idempotency is None:
            return await effect()
        scope = idempotency.scope
        fingerprint = self._hashes.hash("idempotency", idempotency.fingerprint.hex())
        is_first = await try_lock(tx, int.from_bytes(scope[:8], signed=True))
        # Not together with the lock: what its last holder has written is seen only by a statement that begins later.
        row = await self._find.one_or_none(tx, {"scope": scope})
        is_remembered = row is not None and row.created_at > tx.now - REMEMBERED
        if not is_first and not is_remembered:
            raise KeyStillRunning
        # Many may repeat an answer at the same time, whoever of them has the lock.
        if row is not None and is_remembered:
            if row.fingerprint != fingerprint:
                raise KeyReused
            key = await self._data_keys.find(tx, row.owner_id)
            if key is not None:
                response = response_type()
                response.ParseFromString(key.open(row.sealed, _bound_to(scope)))
                await tx.wait_for_replication()
                replayed.set(True)
                return response
            if not is_first:
                # Its owner was erased, and somebody else does it anew at this moment.
                raise KeyStillRunning
        if row is not None:
            await tx.execute(delete(self._table).where(self._table.c.scope == scope))
        response = await effect()
        owner_id = owner(response)
        key = await self._data_keys.for_owner(tx, owner_id)
        await self._insert.execute(
            tx,
            {
                "scope": scope,
                "fingerprint": fingerprint,
                "platform_id": tx.call.caller.platform_id,
                "owner_id": owner_id,
                "sealed": key.seal(kept(response).SerializeToString(), _bound_to(scope)),
                "created_at": tx.now,
            },
        )
        return response

    async def forget_old(self, tx: Transaction) -> bool:
        """Delete some of what is older than a day; return whether there may be more."""
        table = self._table
        old = select(table.c.scope).where(table.c.created_at < tx.now - REMEMBERED).limit(MOST_FORGOTTEN)
        scopes = list((await tx.execute(old.with_for_update(skip_locked=True))).scalars())
        if scopes:
            await tx.execute(delete(table).where(table.c.scope.in_(scopes)))
        return len(scopes) == MOST_FORGOTTEN


def _bound_to(scope: bytes) -> bytes:
    return b"idempotency_keys:" + scope
