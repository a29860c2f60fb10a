"""Every rule about benefit providers."""

import re
from collections.abc import Sequence
from uuid import UUID

import re2
from uuid6 import uuid7

from aarokya.catalogue.v1.benefit_provider_pb2 import BenefitProvider, BenefitProviderStatus
from catalogue.benefit_providers.errors import (
    BenefitProviderInUse,
    BenefitProviderRuleBroken,
    BenefitProviderUnknown,
)
from catalogue.benefit_providers.repository import BenefitProviderRepository, StoredBenefitProvider
from catalogue.web_addresses import is_web_address
from servicekit.audit import AuditLog, Changes, changes_between
from servicekit.database import Transaction
from servicekit.errors import Detail, require_version
from servicekit.mail_addresses import is_mail_address
from servicekit.messages import apply_mask, changed_fields

DEFAULTS = BenefitProvider(status=BenefitProviderStatus.BENEFIT_PROVIDER_STATUS_ACTIVE)
CODE = re.compile(r"[a-z][a-z0-9_]{1,31}", re.ASCII)
# A business has landlines, toll-free and short numbers, written in many ways; people dial it, no program does.
SUPPORT_PHONE = re.compile(r"\+?(?:[ ().-]*[0-9]){3,15}[ ().-]*", re.ASCII)
LONGEST_MRN_PATTERN = 200
# The log would repeat the pattern.
QUIETLY = re2.Options()
QUIETLY.log_errors = False


class BenefitProviderService:
    """Decides what may happen to benefit providers."""

    def __init__(self, providers: BenefitProviderRepository, audit: AuditLog) -> None:
        self._providers = providers
        self._audit = audit
        # Providers whose first MRN is noted where no failover takes the note away; they are few.
        self._confirmed: set[UUID] = set()
        # Free data could be about anyone; of that the log, which is for ever, only tells that it changed.
        self._told = providers.rows.clear_fields - {"metadata"}

    async def create_provider(self, tx: Transaction, wanted: BenefitProvider) -> BenefitProvider:
        """Add a provider; it is active unless the operator says otherwise.

        Raises:
            BenefitProviderRuleBroken: a value breaks a rule.
            BenefitProviderCodeTaken: another provider has this code.
        """
        provider = BenefitProvider()
        provider.CopyFrom(DEFAULTS)
        provider.MergeFrom(wanted)
        _check_rules(provider)
        provider.id = str(uuid7())
        provider.version = 1
        provider.created_at.FromDatetime(tx.now)
        provider.updated_at.FromDatetime(tx.now)
        await self._providers.insert(tx, provider)
        await self._record(tx, "benefit_provider.create", provider.id, changes_between(None, provider, self._told))
        return provider

    async def get_provider(self, tx: Transaction, provider_id: UUID) -> BenefitProvider:
        """Return a provider.

        Raises:
            BenefitProviderUnknown: there is no such provider.
        """
        return (await self._get(tx, provider_id)).provider

    async def update_provider(
        self,
        tx: Transaction,
        provider_id: UUID,
        wanted: BenefitProvider,
        mask: Sequence[str],
        expected_version: int | None,
    ) -> BenefitProvider:
        """Change a provider; a change that changes nothing leaves the version as it is.

        Raises:
            BenefitProviderUnknown: there is no such provider.
            VersionMismatch: `expected_version` is not the provider's version.
            BenefitProviderRuleBroken: a value breaks a rule.
            BenefitProviderCodeTaken: another provider has this code.
        """
        before = (await self._get(tx, provider_id, for_update=True)).provider
        require_version(expected_version, before.version)
        after = apply_mask(before, wanted, mask)
        _check_rules(after)
        if not changed_fields(before, after):
            return before
        after.version = before.version + 1
        after.updated_at.FromDatetime(tx.now)
        await self._providers.update(tx, after)
        await self._record(tx, "benefit_provider.update", after.id, changes_between(before, after, self._told))
        return after

    async def delete_provider(self, tx: Transaction, provider_id: UUID, expected_version: int | None) -> None:
        """Remove a provider that no benefit and no MRN has ever referred to.

        Raises:
            BenefitProviderUnknown: there is no such provider.
            VersionMismatch: `expected_version` is not the provider's version.
            BenefitProviderInUse: a benefit refers to the provider, or an MRN has done so.
        """
        stored = await self._get(tx, provider_id, for_update=True)
        require_version(expected_version, stored.provider.version)
        if stored.mrn_issued_at is not None:
            raise BenefitProviderInUse
        await self._providers.delete(tx, provider_id)
        await self._record(
            tx, "benefit_provider.delete", str(provider_id), changes_between(stored.provider, None, self._told)
        )

    async def check_mrn_provider(self, tx: Transaction, provider_id: UUID) -> BenefitProvider | None:
        """Return the provider if an MRN of it may be linked, and remember that one may have been.

        Only the first check of a provider writes. It locks the row, so that a provider is not deleted at the
        same moment; all later ones just read, since a provider with MRNs is never deleted. The first of these in each
        process waits until what was written cannot be lost any more.
        """
        stored = await self._providers.find(tx, provider_id)
        if stored is not None and _is_usable(stored.provider) and stored.mrn_issued_at is None:
            stored = await self._providers.find(tx, provider_id, for_update=True)
        if stored is None or not _is_usable(stored.provider):
            return None
        if stored.mrn_issued_at is None:
            await self._providers.note_mrn_issued(tx, provider_id)
            await self._record(tx, "benefit_provider.note_mrn_issued", stored.provider.id, {"mrn_issued_at": None})
        elif provider_id not in self._confirmed:
            await tx.wait_for_replication()
        return stored.provider

    def note_checked(self, provider_id: UUID) -> None:
        """Take in that a check of a usable provider was committed."""
        self._confirmed.add(provider_id)

    async def _get(self, tx: Transaction, provider_id: UUID, *, for_update: bool = False) -> StoredBenefitProvider:
        stored = await self._providers.find(tx, provider_id, for_update=for_update)
        if stored is None:
            raise BenefitProviderUnknown
        return stored

    async def _record(self, tx: Transaction, action: str, provider_id: str, changes: Changes) -> None:
        await self._audit.record(tx, action, "benefit_provider", provider_id, changes=changes)


def _is_usable(provider: BenefitProvider) -> bool:
    return provider.status == BenefitProviderStatus.BENEFIT_PROVIDER_STATUS_ACTIVE and provider.issues_mrn


def _check_rules(provider: BenefitProvider) -> None:
    """Say which fields break a rule."""
    details = []
    if not CODE.fullmatch(provider.code):
        details.append(Detail("code", "A code has 2 to 32 lower-case letters, digits and underscores, a letter first."))
    if provider.HasField("support_phone") and not SUPPORT_PHONE.fullmatch(provider.support_phone):
        details.append(Detail("support_phone", "This is not a phone number."))
    if provider.HasField("support_email") and not is_mail_address(provider.support_email):
        details.append(Detail("support_email", "This is not a mail address."))
    if provider.HasField("website") and not is_web_address(provider.website):
        details.append(Detail("website", "This is not an http or https address."))
    if provider.HasField("mrn_pattern"):
        if len(provider.mrn_pattern) > LONGEST_MRN_PATTERN:
            details.append(Detail("mrn_pattern", f"A pattern has at most {LONGEST_MRN_PATTERN} characters."))
        elif not _compiles(provider.mrn_pattern):
            details.append(Detail("mrn_pattern", "This is not a regular expression in RE2 syntax."))
    if details:
        raise BenefitProviderRuleBroken(*details)


def _compiles(pattern: str) -> bool:
    try:
        re2.compile(pattern, QUIETLY)
    except re2.error:
        return False
    return True
