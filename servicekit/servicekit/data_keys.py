"""One data key for each owner: made once, wrapped by a master key, destroyed for good.

Everything sealed for an owner is sealed with that owner's key, so destroying the key makes all of it unreadable
at once, in append-only tables and in older dumps too. A destroyed key leaves its emptied row behind as a
tombstone. The unique owner makes it impossible to get a second key, so that nothing readable can be written about
an erased owner later, and an erasure can be told from a key that was never made.
"""

import time
from collections.abc import Callable
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Engine,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    Uuid,
    bindparam,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from uuid6 import uuid7

from servicekit.compiled_statement import CompiledStatement, Values
from servicekit.crypto import KeyRing, SealBroken, generate_key, open_sealed, seal
from servicekit.database import Transaction

SERVICE_OWNER = UUID(int=0)
"""The owner of what is sealed about nobody in particular, such as an operator's reason for a setting."""

KEY_ID_BYTES = 16
LOOK_AGAIN_S = 0.05
NO_ID = UUID(int=0)


class OwnerErased(Exception):
    """The owner's data key was destroyed: nothing can be sealed for this owner any more."""


def data_keys_table(metadata: MetaData) -> Table:
    """Return the table of wrapped data keys. It holds nothing personal, and is dumped apart from the others."""
    return Table(
        "data_keys",
        metadata,
        Column("id", Uuid, primary_key=True),
        Column("owner_id", Uuid, nullable=False, unique=True),
        Column("platform_id", Uuid),
        Column("master_key_id", Text),
        Column("wrapped", LargeBinary),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        Column("destroyed_at", DateTime(timezone=True)),
        CheckConstraint(
            "CASE WHEN destroyed_at IS NULL THEN num_nulls(wrapped, master_key_id) = 0 "
            "ELSE num_nonnulls(wrapped, master_key_id) = 0 END",
            name="wrapped_until_destroyed",
        ),
    )


class DataKey:
    """An owner's key, unwrapped."""

    __slots__ = ("_cipher", "_prefix", "id", "owner_id")

    def __init__(self, key_id: UUID, owner_id: UUID, key: bytes) -> None:
        self.id = key_id
        self.owner_id = owner_id
        self._prefix = key_id.bytes
        self._cipher = AESGCM(key)

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt and bind to `aad`; the answer begins with this key's id, 16 bytes, then nonce and ciphertext."""
        return self._prefix + seal(self._cipher, plaintext, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Return what `seal` was given. Raises SealBroken when anything differs, the key's id included."""
        if sealed[:KEY_ID_BYTES] != self._prefix:
            raise SealBroken("sealed bytes are of another key")
        return open_sealed(self._cipher, sealed[KEY_ID_BYTES:], aad)


class DataKeys:
    """The data keys of one service."""

    def __init__(self, table: Table, ring: KeyRing) -> None:
        self.table = table
        self._ring = ring
        by_owner = select(table.c.id, table.c.master_key_id, table.c.wrapped).where(
            table.c.owner_id == bindparam("owner")
        )
        self._by_owner = CompiledStatement(by_owner)
        self._by_owner_held = CompiledStatement(by_owner.with_for_update(read=True))
        self._insert = CompiledStatement(
            insert(table).on_conflict_do_nothing(index_elements=["owner_id"]),
            ("id", "owner_id", "platform_id", "master_key_id", "wrapped", "created_at"),
        )

    async def for_owner(self, tx: Transaction, owner_id: UUID, platform_id: UUID | None = None) -> DataKey:
        """Return the owner's key to write with, making it when there is none.

        Nobody destroys the key before the transaction ends: whoever erases the owner then sees what was written, and
        can take away what was not sealed of it, such as look-up hashes.

        Two that make it at once get the same key: the second insert waits for the first and does nothing.
        `platform_id` is only used for a key that is made, where it decides who sees the row; the caller's own
        platform is the default.

        Raises:
            OwnerErased: the key was destroyed.
        """
        held: DataKey | None = tx.held.get((DataKey, owner_id))
        if held is not None:
            return held
        found = await self._by_owner_held.one_or_none(tx, {"owner": owner_id})
        if found is None:
            key_id = uuid7()
            await self._insert.execute(
                tx,
                {
                    "id": key_id,
                    "owner_id": owner_id,
                    "platform_id": None if owner_id == SERVICE_OWNER else platform_id or tx.call.caller.platform_id,
                    "master_key_id": self._ring.wrapping_key_id,
                    "wrapped": self._ring.wrap(generate_key(), key_id.bytes + owner_id.bytes),
                    "created_at": tx.now,
                },
            )
            found = await self._by_owner_held.one_or_none(tx, {"owner": owner_id})
            if found is None:
                raise LookupError("the owner's data key is of another platform")
        key = self._unwrap(found, owner_id)
        if key is None:
            raise OwnerErased
        tx.held[DataKey, owner_id] = key
        return key

    async def find(self, tx: Transaction, owner_id: UUID) -> DataKey | None:
        """Return the owner's key to read with, or None when it was never made or was destroyed."""
        row = await self._by_owner.one_or_none(tx, {"owner": owner_id})
        return None if row is None else self._unwrap(row, owner_id)

    async def are_known_of(self, tx: Transaction, owner_id: UUID) -> bool:
        """Return whether an owner has a key or had one."""
        return await self._by_owner.one_or_none(tx, {"owner": owner_id}) is not None

    async def destroy(self, tx: Transaction, owner_id: UUID, platform_id: UUID | None = None) -> None:
        """Destroy the owner's key for ever and keep one from being made; again, or without a key, is fine.

        Transactions that write with the key are waited for. What they have written is unreadable from then on.
        """
        tx.held.pop((DataKey, owner_id), None)
        statement = insert(self.table).values(
            id=uuid7(), owner_id=owner_id, platform_id=platform_id, created_at=tx.now, destroyed_at=tx.now
        )
        await tx.execute(
            statement.on_conflict_do_update(
                index_elements=["owner_id"],
                set_={"wrapped": None, "master_key_id": None, "destroyed_at": tx.now},
                where=self.table.c.destroyed_at.is_(None),
            )
        )

    def open(
        self, sealed: bytes, aad: bytes, *, owner_id: UUID, master_key_id: str | None, wrapped: bytes | None
    ) -> bytes | None:
        """Return what `DataKey.seal` was given, by the owner's key as it came wrapped with a joined SELECT.

        None when the key was destroyed. Raises SealBroken when anything differs, also when the wrapped key is not
        the one that sealed, or not of this owner.
        """
        if master_key_id is None or wrapped is None:
            return None
        key = self._ring.unwrap(master_key_id, wrapped, sealed[:KEY_ID_BYTES] + owner_id.bytes)
        return open_sealed(AESGCM(key), sealed[KEY_ID_BYTES:], aad)

    def rewrap(
        self,
        engine: Engine,
        *,
        batch_size: int = 1000,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> int:
        """Wrap every data key with the ring's first master key, and return how many were wrapped anew.

        Runs as the owner login beside traffic: nobody waits for more than the moment in which a batch is written, and
        keys that somebody writes with are left for another round. What is done stays done, so that a second run goes
        on where the first ended.
        Every process must have the new master key in its ring before this starts, and have it first, so that no
        new data key is wrapped by an old one. `progress` is told (keys done, keys to do) after each batch.

        Raises:
            MasterKeyMissing, SealBroken: a key cannot be unwrapped; earlier batches stay done.
        """
        table, ring = self.table, self._ring
        waiting = table.c.master_key_id != ring.wrapping_key_id
        change = (
            update(table)
            .where(table.c.id == bindparam("key_id"))
            .values(master_key_id=ring.wrapping_key_id, wrapped=bindparam("rewrapped"))
        )
        total = _count(engine, waiting)
        done, last = 0, NO_ID
        while True:
            batch = (
                select(table.c.id, table.c.owner_id, table.c.master_key_id, table.c.wrapped)
                .where(waiting, table.c.id > last)
                .order_by(table.c.id)
                .limit(batch_size)
                # Keeps a key that is destroyed at this moment from coming back, and waits for nobody who may wait for
                # another key of the batch.
                .with_for_update(skip_locked=True)
            )
            with engine.begin() as connection:
                rows = connection.execute(batch).all()
                if rows:
                    connection.execute(change, [self._rewrapped(row) for row in rows])
            if rows:
                done, last = done + len(rows), rows[-1].id
                progress(done, max(done, total))
            elif _count(engine, waiting):
                last = NO_ID
                time.sleep(LOOK_AGAIN_S)
            else:
                return done

    def _rewrapped(self, row: Row[UUID, UUID, str, bytes]) -> dict[str, object]:
        aad = row.id.bytes + row.owner_id.bytes
        return {
            "key_id": row.id,
            "rewrapped": self._ring.wrap(self._ring.unwrap(row.master_key_id, row.wrapped, aad), aad),
        }

    def _unwrap(self, row: Values, owner_id: UUID) -> DataKey | None:
        if row["wrapped"] is None:
            return None
        key = self._ring.unwrap(row["master_key_id"], row["wrapped"], row["id"].bytes + owner_id.bytes)
        return DataKey(row["id"], owner_id, key)


def _count(engine: Engine, condition: ColumnElement[bool]) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).where(condition)).scalar_one()
