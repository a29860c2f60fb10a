"""Every SQL statement about benefit providers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Uuid, bindparam, delete, insert, update

from aarokya.catalogue.v1.benefit_provider_pb2 import BenefitProvider
from catalogue.benefit_providers.errors import BenefitProviderCodeTaken, BenefitProviderInUse
from catalogue.models import benefit_providers
from servicekit.compiled_statement import CompiledStatement
from servicekit.database import AnyRow, Transaction, refusing
from servicekit.paging import newest_first
from servicekit.rows import RowMapper

TAKEN = {"uq_benefit_providers_code": BenefitProviderCodeTaken}
REFERRED_TO = {"fk_benefits_benefit_provider_id": BenefitProviderInUse}


@dataclass(frozen=True, slots=True)
class StoredBenefitProvider:
    """A provider and what of its row no answer shows.

    Attributes:
        provider: the provider.
        mrn_issued_at: since when records may have MRNs of the provider.
    """

    provider: BenefitProvider
    mrn_issued_at: datetime | None


class BenefitProviderRepository:
    """Reads and writes benefit providers."""

    def __init__(self) -> None:
        self.rows = RowMapper(benefit_providers, BenefitProvider)
        by_id = self.rows.select(benefit_providers.c.mrn_issued_at).where(
            benefit_providers.c.id == bindparam("provider", type_=Uuid)
        )
        self._by_id = CompiledStatement(by_id)
        self._by_id_held = CompiledStatement(by_id.with_for_update())

    async def insert(self, tx: Transaction, provider: BenefitProvider) -> None:
        """Add a provider."""
        with refusing(TAKEN):
            await tx.execute(insert(benefit_providers).values(self.rows.values(provider)))

    async def update(self, tx: Transaction, provider: BenefitProvider) -> None:
        """Write a provider's new state; its row must be locked by `find` in this transaction."""
        statement = update(benefit_providers).where(benefit_providers.c.id == UUID(provider.id))
        with refusing(TAKEN):
            await tx.execute(statement.values(self.rows.values(provider)))

    async def delete(self, tx: Transaction, provider_id: UUID) -> None:
        """Remove a provider unless a benefit refers to it; the foreign key decides, also against one just added."""
        with refusing(REFERRED_TO):
            await tx.execute(delete(benefit_providers).where(benefit_providers.c.id == provider_id))

    async def note_mrn_issued(self, tx: Transaction, provider_id: UUID) -> None:
        """Remember that there may be MRNs of the provider from now on."""
        statement = update(benefit_providers).where(benefit_providers.c.id == provider_id)
        await tx.execute(statement.values(mrn_issued_at=tx.now))

    async def find(
        self, tx: Transaction, provider_id: UUID, *, for_update: bool = False
    ) -> StoredBenefitProvider | None:
        """Return a provider, locked against other changes if it is to be changed."""
        statement = self._by_id_held if for_update else self._by_id
        row = await statement.one_or_none(tx, {"provider": provider_id})
        return None if row is None else StoredBenefitProvider(self.rows.message(row), row.mrn_issued_at)

    async def list_newest(self, tx: Transaction, cursor: Sequence[str] | None, page_size: int) -> Sequence[AnyRow]:
        """Return the rows of a page, and one more."""
        order = (benefit_providers.c.created_at, benefit_providers.c.id)
        return (await tx.execute(newest_first(self.rows.select(), order, cursor, page_size))).all()
