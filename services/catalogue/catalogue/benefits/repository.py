"""Every SQL statement about benefits."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, insert, literal, or_, update

from aarokya.catalogue.v1.benefit_pb2 import Benefit, BenefitProviderSummary
from catalogue.benefit_providers.errors import BenefitProviderMissing
from catalogue.benefits.errors import BenefitCodeTaken
from catalogue.models import benefit_providers, benefits
from servicekit.database import AnyRow, Transaction, refusing
from servicekit.paging import newest_first
from servicekit.rows import RowMapper

REFUSALS = {"uq_benefits_code": BenefitCodeTaken, "fk_benefits_benefit_provider_id": BenefitProviderMissing}
SUMMARY = "provider_"


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
        statement = self._select(offered_to).where(benefits.c.id == benefit_id)
        if for_update:
            statement = statement.with_for_update(of=benefits)
        row = (await tx.execute(statement)).one_or_none()
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
        statement = self._select(offered_to)
        if kind is not None:
            statement = statement.where(benefits.c.type == kind)
        if provider_id is not None:
            statement = statement.where(benefits.c.benefit_provider_id == provider_id)
        if part_of_name is not None:
            # Unlike LIKE, strpos knows no wildcards.
            statement = statement.where(func.strpos(benefits.c.name_key, _name_key(part_of_name)) > 0)
        statement = newest_first(statement, (benefits.c.created_at, benefits.c.id), cursor, page_size)
        return (await tx.execute(statement)).all()

    def to_benefit(self, row: AnyRow) -> Benefit:
        """Return the benefit that a row holds."""
        benefit = self.rows.message(row)
        summary = {name: row._mapping[SUMMARY + name] for name in self._summaries.clear_fields}
        benefit.provider.CopyFrom(self._summaries.message(summary))
        return benefit

    def _select(self, offered_to: OfferedTo | None) -> Select[*tuple[Any, ...]]:
        summary = (benefit_providers.c[name].label(SUMMARY + name) for name in self._summaries.clear_fields)
        statement = self.rows.select(*summary).join(benefit_providers)
        return statement if offered_to is None else statement.where(*_is_offered(offered_to))

    def _values(self, benefit: Benefit) -> dict[str, Any]:
        return self.rows.values(benefit, name_key=_name_key(benefit.name))


def _is_offered(to: OfferedTo) -> list[ColumnElement[bool]]:
    return [
        benefits.c.status == "active",
        benefit_providers.c.status == "active",
        or_(benefits.c.valid_from.is_(None), benefits.c.valid_from <= to.day),
        or_(benefits.c.valid_to.is_(None), benefits.c.valid_to >= to.day),
        or_(benefits.c.is_for_all_platforms, literal(to.platform_id) == benefits.c.platform_ids.any_()),
    ]


def _name_key(name: str) -> str:
    """Return what two spellings of one name have in common."""
    return unicodedata.normalize("NFKC", name).casefold()
