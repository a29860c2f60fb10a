"""Every SQL statement about benefits."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Date, Select, Text, Uuid, bindparam, func, insert, literal_column, or_, update

from aarokya.catalogue.v1.benefit_pb2 import Benefit, BenefitProviderSummary
from catalogue.benefit_providers.errors import BenefitProviderMissing
from catalogue.benefits.errors import BenefitCodeTaken
from catalogue.models import benefit_providers, benefits
from servicekit.compiled_statement import CompiledPages, CompiledStatement, Values
from servicekit.database import AnyRow, Transaction, refusing
from servicekit.rows import RowMapper

REFUSALS = {"uq_benefits_code": BenefitCodeTaken, "fk_benefits_benefit_provider_id": BenefitProviderMissing}
SUMMARY = "provider_"
# Written into the statement, or else the planner could not know that the partial index fits.
ACTIVE = literal_column("'active'", Text)

_DAY = bindparam("day", type_=Date)
# By the parameter that they need.
_CONDITIONS: dict[str, list[ColumnElement[bool]]] = {
    "benefit": [benefits.c.id == bindparam("benefit", type_=Uuid)],
    "platform": [
        benefits.c.status == ACTIVE,
        benefit_providers.c.status == ACTIVE,
        or_(benefits.c.valid_from.is_(None), benefits.c.valid_from <= _DAY),
        or_(benefits.c.valid_to.is_(None), benefits.c.valid_to >= _DAY),
        or_(benefits.c.is_for_all_platforms, bindparam("platform", type_=Uuid) == benefits.c.platform_ids.any_()),
    ],
    "kind": [benefits.c.type == bindparam("kind", type_=Text)],
    "provider": [benefits.c.benefit_provider_id == bindparam("provider", type_=Uuid)],
    # Unlike LIKE, strpos knows no wildcards.
    "part_of_name": [func.strpos(benefits.c.name_key, bindparam("part_of_name", type_=Text)) > 0],
}


@dataclass(frozen=True, slots=True)
class OfferedTo:
    """What narrows benefits to those that a user can use.

    Attributes:
        platform_id: the user's platform.
        day: the day on which the benefit is used.
    """

    platform_id: UUID
    day: date


class BenefitRepository:
    """Reads and writes benefits; each is read together with what its answer says of the provider."""

    def __init__(self) -> None:
        self.rows = RowMapper(benefits, Benefit, computed=("provider",))
        self._summaries = RowMapper(benefit_providers, BenefitProviderSummary)
        by_id = self._select(frozenset({"benefit"}))
        self._by_id = CompiledStatement(by_id)
        self._by_id_held = CompiledStatement(by_id.with_for_update(of=benefits))
        self._by_id_offered = CompiledStatement(self._select(frozenset({"benefit", "platform"})))
        self._pages = CompiledPages(self._select, (benefits.c.created_at, benefits.c.id))

    async def insert(self, tx: Transaction, benefit: Benefit) -> None:
        """Add a benefit; its provider stays at least until the transaction ends."""
        with refusing(REFUSALS):
            await tx.execute(insert(benefits).values(self._values(benefit)))

    async def update(self, tx: Transaction, benefit: Benefit) -> None:
        """Write a benefit's new state; its row must be locked by `find` in this transaction."""
        with refusing(REFUSALS):
            await tx.execute(update(benefits).where(benefits.c.id == UUID(benefit.id)).values(self._values(benefit)))

    async def find(
        self, tx: Transaction, benefit_id: UUID, offered_to: OfferedTo | None = None, *, for_update: bool = False
    ) -> Benefit | None:
        """Return a benefit if it is offered to the given ones, locked against other changes if it is to be changed."""
        values = {"benefit": benefit_id, **_offer(offered_to)}
        if offered_to is not None:
            row = await self._by_id_offered.one_or_none(tx, values)
        else:
            row = await (self._by_id_held if for_update else self._by_id).one_or_none(tx, values)
        return None if row is None else self.to_benefit(row)

    async def list_newest(
        self,
        tx: Transaction,
        offered_to: OfferedTo | None,
        *,
        kind: str | None,
        provider_id: UUID | None,
        part_of_name: str | None,
        cursor: Sequence[str] | None,
        page_size: int,
    ) -> Sequence[AnyRow]:
        """Return the rows of a page, and one more."""
        wanted = {
            "kind": kind,
            "provider": provider_id,
            "part_of_name": None if part_of_name is None else _name_key(part_of_name),
        }
        named = _offer(offered_to) | {name: value for name, value in wanted.items() if value is not None}
        return await self._pages.rows(tx, named, cursor, page_size, frozenset(named))

    def to_benefit(self, row: AnyRow) -> Benefit:
        """Return the benefit that a row holds."""
        benefit = self.rows.message(row)
        summary = {name: row._mapping[SUMMARY + name] for name in self._summaries.clear_fields}
        benefit.provider.CopyFrom(self._summaries.message(summary))
        return benefit

    def _select(self, named: frozenset[str]) -> Select[*tuple[Any, ...]]:
        """Return the statement of what the named parameters narrow it to."""
        summary = (benefit_providers.c[name].label(SUMMARY + name) for name in self._summaries.clear_fields)
        statement = self.rows.select(*summary).join(benefit_providers)
        for name, conditions in _CONDITIONS.items():
            if name in named:
                statement = statement.where(*conditions)
        return statement

    def _values(self, benefit: Benefit) -> dict[str, Any]:
        return self.rows.values(benefit, name_key=_name_key(benefit.name))


def _offer(to: OfferedTo | None) -> Values:
    return {} if to is None else {"platform": to.platform_id, "day": to.day}


def _name_key(name: str) -> str:
    """Return what two spellings of one name have in common."""
    return unicodedata.normalize("NFKC", name).casefold()
