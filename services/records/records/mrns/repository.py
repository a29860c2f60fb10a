"""Every SQL statement about MRNs."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Uuid, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore

from aarokya.records.v1.mrn_pb2 import Mrn
from records.models import dependants, mrns
from records.users.errors import WrongUserStatus
from servicekit.caller import Caller
from servicekit.compiled_statement import CompiledStatement
from servicekit.crypto import LookupHash
from servicekit.data_keys import DataKeys, OwnerErased
from servicekit.database import AnyRow, Transaction
from servicekit.paging import newest_first
from servicekit.rows import RowMapper

FIRST_VERSION = 1


@dataclass(frozen=True, slots=True)
class StoredMrn:
    """An MRN and the platform of its user, which no answer shows."""

    mrn: Mrn
    platform_id: UUID


class MrnRepository:
    """Reads and writes the MRNs that the caller may know of."""

    def __init__(self, keys: DataKeys, hashes: LookupHash) -> None:
        self._keys = keys
        self._hashes = hashes
        self.rows = RowMapper(mrns, Mrn, keys, owner_column="user_id")
        family = select(dependants.c.user_id, dependants.c.status).where(
            dependants.c.id == bindparam("dependant", type_=Uuid),
            dependants.c.platform_id == bindparam("platform", type_=Uuid),
        )
        newest = dependants.c.version.desc()
        self._dependant = CompiledStatement(family.order_by(newest).limit(1))
        own = family.where(dependants.c.user_id == bindparam("user", type_=Uuid))
        self._own_dependant = CompiledStatement(own.order_by(newest).limit(1))
        insertion = insert_or_ignore(mrns).on_conflict_do_nothing().returning(mrns.c.id)
        self._insert = CompiledStatement(insertion, mrns.c.keys())

    async def find_dependant(self, tx: Transaction, dependant_id: UUID) -> AnyRow | None:
        """Return `user_id` and newest `status` of a person in a family that the caller may know of."""
        caller = tx.call.caller
        values = {"dependant": dependant_id, "platform": caller.platform_id}
        if caller.is_user:
            return await self._own_dependant.one_or_none(tx, {**values, "user": UUID(caller.id)})
        return await self._dependant.one_or_none(tx, values)

    async def insert_unless_taken(self, tx: Transaction, mrn: Mrn) -> bool:
        """Add an MRN; False when its pair has one, or another dependant of the user this number at the provider.

        Which of the two it was is not told by the violated constraint: PostgreSQL names the first it meets.
        """
        platform_id = tx.call.caller.platform_id
        try:
            key = await self._keys.for_owner(tx, UUID(mrn.user_id), platform_id)
        except OwnerErased as error:
            # The user was erased after the call was let in.
            raise WrongUserStatus from error
        values = self.rows.values(
            mrn,
            key=key,
            version=FIRST_VERSION,
            platform_id=platform_id,
            mrn_hash=self._number_hash(UUID(mrn.benefit_provider_id), mrn.mrn),
        )
        return bool(await self._insert.rows(tx, values))

    async def is_linked(self, tx: Transaction, dependant_id: UUID, benefit_provider_id: UUID) -> bool:
        """Return whether a dependant has an MRN at a provider."""
        statement = select(mrns.c.id).where(
            mrns.c.dependant_id == dependant_id,
            mrns.c.benefit_provider_id == benefit_provider_id,
            mrns.c.platform_id == tx.call.caller.platform_id,
        )
        return (await tx.execute(statement)).first() is not None

    async def hold_owner(self, tx: Transaction, stored: StoredMrn) -> None:
        """Keep an MRN's user from being erased until the transaction ends; one who was erased before is fine."""
        with suppress(OwnerErased):
            await self._keys.for_owner(tx, UUID(stored.mrn.user_id), stored.platform_id)

    async def delete(self, tx: Transaction, mrn_id: UUID) -> None:
        """Take an MRN away."""
        await tx.execute(delete(mrns).where(mrns.c.id == mrn_id))

    async def find(self, tx: Transaction, mrn_id: UUID, *, for_update: bool = False) -> StoredMrn | None:
        """Return an MRN, locked against other changes if it is to be taken away."""
        statement = self.rows.select(mrns.c.platform_id).where(mrns.c.id == mrn_id, *_visible_to(tx.call.caller))
        if for_update:
            statement = statement.with_for_update(of=mrns)
        row = (await tx.execute(statement)).one_or_none()
        return None if row is None else StoredMrn(self.rows.message(row), row.platform_id)

    async def list_newest(
        self,
        tx: Transaction,
        *,
        user_id: UUID | None,
        dependant_id: UUID | None,
        benefit_provider_id: UUID | None,
        mrn: str | None,
        cursor: Sequence[str] | None,
        page_size: int,
    ) -> Sequence[AnyRow]:
        """Return the rows of a page, and one more."""
        conditions = _visible_to(tx.call.caller)
        if user_id is not None:
            conditions.append(mrns.c.user_id == user_id)
        if dependant_id is not None:
            conditions.append(mrns.c.dependant_id == dependant_id)
        if benefit_provider_id is not None:
            conditions.append(mrns.c.benefit_provider_id == benefit_provider_id)
        if mrn is not None:
            # A number's hash is another one at each provider, and a family knows only a few of those.
            providers: Select[UUID] = select(mrns.c.benefit_provider_id).distinct().where(*conditions)
            known = [benefit_provider_id] if benefit_provider_id else (await tx.execute(providers)).scalars()
            conditions.append(mrns.c.mrn_hash.in_([self._number_hash(provider, mrn) for provider in known]))
        order = (mrns.c.created_at, mrns.c.id)
        statement = newest_first(self.rows.select().where(*conditions), order, cursor, page_size)
        return (await tx.execute(statement)).all()

    def _number_hash(self, benefit_provider_id: UUID, mrn: str) -> bytes:
        return self._hashes.hash("mrn", str(benefit_provider_id), mrn)


def _visible_to(caller: Caller) -> list[ColumnElement[bool]]:
    if caller.is_admin:
        return []
    conditions = [mrns.c.platform_id == caller.platform_id]
    if caller.is_user:
        conditions.append(mrns.c.user_id == UUID(caller.id))
    return conditions
