"""Every SQL statement about dependants."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Join,
    Select,
    Uuid,
    any_,
    bindparam,
    column,
    func,
    insert,
    literal_column,
    select,
    true,
)
from sqlalchemy.sql.selectable import LateralFromClause

from aarokya.records.v1.dependant_pb2 import Actor, ActorType, Dependant, DependantStatus
from records.models import dependants
from servicekit.advisory_locks import key_of
from servicekit.compiled_statement import CompiledPages, CompiledStatement
from servicekit.data_keys import DataKeys
from servicekit.database import AnyRow, Reader, Transaction
from servicekit.enum_text import number_of, text_of
from servicekit.rows import RowMapper

FAMILY_ORDER = ("first_created_at", "id")
VERSIONS_ORDER = ("version",)
REMOVED = text_of(DependantStatus.DESCRIPTOR, DependantStatus.DEPENDANT_STATUS_REMOVED)

# Written into the statement, or else the planner could not know that the partial index fits.
FIRST = literal_column("1", BigInteger)

_persons = dependants.alias("persons")
_DEPENDANT = bindparam("dependant_id", type_=Uuid)
_DEPENDANTS = bindparam("dependant_ids", type_=ARRAY(Uuid))
_USER = bindparam("user_id", type_=Uuid)
_USERS = bindparam("user_ids", type_=ARRAY(Uuid))
_AS_OF = bindparam("as_of", type_=DateTime(timezone=True))
_LOCK = CompiledStatement(
    select(
        func.pg_advisory_xact_lock(bindparam("key", type_=BigInteger)).label("locked"),
        func.clock_timestamp().label("moment"),
    )
)


class DependantRepository:
    """Reads dependants and appends versions to them."""

    def __init__(self, keys: DataKeys) -> None:
        self._keys = keys
        self.rows = RowMapper(dependants, Dependant, keys, owner_column="user_id", computed=("created_by",))
        versions = self._select().where(dependants.c.id == _DEPENDANT)
        self._newest = CompiledStatement(versions.order_by(dependants.c.version.desc()).limit(1))
        self._newest_of_each = CompiledStatement(self._select_newest_of_each())
        self._versions = CompiledPages(lambda: versions, [dependants.c[name] for name in VERSIONS_ORDER])
        self._family = CompiledStatement(self._select_family(is_as_of=False, include_removed=False))
        order = [_persons.c[name] for name in FAMILY_ORDER]
        self._families = CompiledPages(self._select_family, order)
        self._families_of = CompiledStatement(
            self._select_family(False, False, _persons.c.user_id == any_(_USERS)).order_by(*(c.desc() for c in order))
        )
        self._insert = CompiledStatement(insert(dependants), dependants.c.keys())

    async def lock_family(self, tx: Transaction, user_id: UUID) -> datetime:
        """Keep other changes of a user's family waiting until the transaction ends, and return the time by then.

        Append-only rows can't be locked themselves.
        """
        moment: datetime = (await _LOCK.rows(tx, {"key": key_of(user_id)}))[0].moment
        return moment.astimezone(UTC)

    async def insert(self, tx: Transaction, dependant: Dependant) -> None:
        """Append a version. Raises OwnerErased when the user's data key was destroyed."""
        key = await self._keys.for_owner(tx, UUID(dependant.user_id), UUID(dependant.platform_id))
        values = self.rows.values(
            dependant,
            key=key,
            version=dependant.version,
            created_by_type=text_of(ActorType.DESCRIPTOR, dependant.created_by.type),
            created_by_id=dependant.created_by.id,
        )
        await self._insert.execute(tx, values)

    async def find(self, reader: Reader, dependant_id: UUID) -> Dependant | None:
        """Return a person's newest version, whoever's family it is in."""
        row = await self._newest.one_or_none(reader, {"dependant_id": dependant_id})
        return None if row is None else self.to_dependant(row)

    async def find_each(self, reader: Reader, dependant_ids: Sequence[UUID]) -> list[Dependant]:
        """Return the newest versions of those of some persons whom there are, in any order."""
        rows = await self._newest_of_each.rows(reader, {"dependant_ids": list(dependant_ids)})
        return [self.to_dependant(row) for row in rows]

    async def list_family(self, tx: Transaction, user_id: UUID) -> list[Dependant]:
        """Return the newest versions of all who are not removed, SELF included."""
        return [self.to_dependant(row) for row in await self._family.rows(tx, {"user_id": user_id})]

    async def list_families(self, reader: Reader, user_ids: Sequence[UUID]) -> list[Dependant]:
        """Return the newest versions of all who are not removed from some users' families, newest member first."""
        return [self.to_dependant(row) for row in await self._families_of.rows(reader, {"user_ids": list(user_ids)})]

    async def list_newest(
        self,
        reader: Reader,
        user_id: UUID,
        *,
        as_of: datetime | None,
        include_removed: bool,
        cursor: Sequence[str] | None,
        page_size: int,
    ) -> Sequence[AnyRow]:
        """Return the rows of a page of a family as it was at a moment, and one more."""
        values = {"user_id": user_id} if as_of is None else {"user_id": user_id, "as_of": as_of}
        return await self._families.rows(reader, values, cursor, page_size, as_of is not None, include_removed)

    async def list_versions(
        self, reader: Reader, dependant_id: UUID, cursor: Sequence[str] | None, page_size: int
    ) -> Sequence[AnyRow]:
        """Return the rows of a page of a person's history, and one more."""
        return await self._versions.rows(reader, {"dependant_id": dependant_id}, cursor, page_size)

    def to_dependant(self, row: AnyRow) -> Dependant:
        """Return the version that a row holds."""
        dependant = self.rows.message(row)
        kind = ActorType.ValueType(number_of(ActorType.DESCRIPTOR, row.created_by_type))
        dependant.created_by.CopyFrom(Actor(type=kind, id=row.created_by_id))
        return dependant

    def _select(self) -> Select[*tuple[Any, ...]]:
        return self.rows.select(dependants.c.created_by_type, dependants.c.created_by_id)

    def _select_family(
        self, is_as_of: bool, include_removed: bool, whose: ColumnElement[bool] = _persons.c.user_id == _USER
    ) -> Select[*tuple[Any, ...]]:
        """Return a SELECT that walks the persons by their first versions, and of each takes only the newest."""
        newest = _newest_of(_persons.c.id, _AS_OF if is_as_of else None)
        statement = self._select_from(newest, _persons.join(newest, true()), owner=_persons.c.user_id).where(
            whose, _persons.c.version == FIRST
        )
        return statement if include_removed else statement.where(newest.c.status != REMOVED)

    def _select_newest_of_each(self) -> Select[*tuple[Any, ...]]:
        wanted = func.unnest(_DEPENDANTS).table_valued(column("id", Uuid), name="wanted").render_derived()
        newest = _newest_of(wanted.c.id)
        return self._select_from(newest, wanted.join(newest, true()), owner=newest.c.user_id)

    def _select_from(
        self, newest: LateralFromClause, persons: Join, *, owner: ColumnElement[UUID]
    ) -> Select[*tuple[Any, ...]]:
        """Return a SELECT of newest versions, joined with the data keys of their owners."""
        keys = self._keys.table
        return select(
            *(newest.c.get(column.key or "", column) for column in self.rows.columns()),
            newest.c.created_by_type,
            newest.c.created_by_id,
        ).select_from(persons.outerjoin(keys, keys.c.owner_id == owner))


def _newest_of(person: ColumnElement[UUID], as_of: ColumnElement[datetime] | None = None) -> LateralFromClause:
    """Return the newest version of a person, up to a moment if there is one."""
    versions = select(dependants).where(dependants.c.id == person)
    if as_of is not None:
        versions = versions.where(dependants.c.created_at <= as_of)
    return versions.order_by(dependants.c.version.desc()).limit(1).lateral("newest")
