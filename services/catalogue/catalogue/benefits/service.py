"""Every rule about benefits."""

import re
from collections.abc import Sequence
from uuid import UUID

from uuid6 import uuid7

from aarokya.catalogue.v1.benefit_pb2 import Benefit, BenefitStatus, BenefitType
from catalogue.benefits.errors import BenefitRuleBroken, BenefitUnknown
from catalogue.benefits.repository import BenefitRepository, OfferedTo
from catalogue.web_addresses import is_web_address
from servicekit.audit import AuditLog, Changes, changes_between
from servicekit.calendar_days import day_in
from servicekit.database import AnyRow, Transaction
from servicekit.enum_text import text_of
from servicekit.errors import Detail, require_version
from servicekit.messages import apply_mask, changed_fields

DEFAULTS = Benefit(status=BenefitStatus.BENEFIT_STATUS_DRAFT)
CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}", re.ASCII)
# Every reader's every query looks through them; a benefit of more platforms than this is one for all.
MOST_PLATFORMS = 200
# The log tells states and settings; of texts that fill pages it only tells that they changed.
LONG_TEXTS = frozenset({"description", "short_description", "translations"})


class BenefitService:
    """Decides what may happen to benefits, and who sees which."""

    def __init__(self, benefits: BenefitRepository, audit: AuditLog, timezone: str) -> None:
        self._benefits = benefits
        self._audit = audit
        self._timezone = timezone
        self._told = benefits.rows.clear_fields - LONG_TEXTS

    async def create_benefit(self, tx: Transaction, wanted: Benefit) -> Benefit:
        """Add a benefit; it is a draft unless the operator says otherwise.

        Raises:
            BenefitRuleBroken: a value breaks a rule.
            BenefitCodeTaken: another benefit of the provider has this code.
            BenefitProviderMissing: the benefit's provider does not exist.
        """
        benefit = Benefit()
        benefit.CopyFrom(DEFAULTS)
        benefit.MergeFrom(wanted)
        _check_rules(benefit)
        benefit.id = str(uuid7())
        benefit.version = 1
        benefit.created_at.FromDatetime(tx.now)
        benefit.updated_at.FromDatetime(tx.now)
        await self._benefits.insert(tx, benefit)
        await self._record(tx, "benefit.create", benefit.id, changes_between(None, benefit, self._told))
        return await self.get_benefit(tx, UUID(benefit.id))

    async def get_benefit(self, tx: Transaction, benefit_id: UUID) -> Benefit:
        """Return a benefit that the caller may see.

        Raises:
            BenefitUnknown: there is no such benefit, or the caller may not see it.
        """
        benefit = await self._benefits.find(tx, benefit_id, self._offered_to(tx))
        if benefit is None:
            raise BenefitUnknown
        return benefit

    async def list_benefits(
        self,
        tx: Transaction,
        *,
        kind: BenefitType.ValueType | None,
        provider_id: UUID | None,
        part_of_name: str | None,
        cursor: Sequence[str] | None,
        page_size: int,
    ) -> Sequence[AnyRow]:
        """Return the rows of a page of what the caller may see, and one more."""
        return await self._benefits.list_newest(
            tx,
            self._offered_to(tx),
            kind=None if kind is None else text_of(BenefitType.DESCRIPTOR, kind),
            provider_id=provider_id,
            part_of_name=part_of_name,
            cursor=cursor,
            page_size=page_size,
        )

    async def update_benefit(
        self, tx: Transaction, benefit_id: UUID, wanted: Benefit, mask: Sequence[str], expected_version: int | None
    ) -> Benefit:
        """Change a benefit; a change that changes nothing leaves the version as it is.

        Raises:
            BenefitUnknown: there is no such benefit.
            VersionMismatch: `expected_version` is not the benefit's version.
            BenefitRuleBroken: a value breaks a rule.
            BenefitCodeTaken: another benefit of the provider has this code.
        """
        before = await self._get_for_change(tx, benefit_id, expected_version)
        after = apply_mask(before, wanted, mask)
        _check_rules(after)
        if not changed_fields(before, after):
            return before
        return await self._write(tx, "benefit.update", before, after)

    async def archive_benefit(self, tx: Transaction, benefit_id: UUID, expected_version: int | None) -> None:
        """Take a benefit off for good; once more changes nothing.

        Raises:
            BenefitUnknown: there is no such benefit.
            VersionMismatch: `expected_version` is not the benefit's version.
        """
        before = await self._get_for_change(tx, benefit_id, expected_version)
        if before.status == BenefitStatus.BENEFIT_STATUS_ARCHIVED:
            return
        after = apply_mask(before, Benefit(status=BenefitStatus.BENEFIT_STATUS_ARCHIVED), ("status",))
        await self._write(tx, "benefit.archive", before, after)

    def _offered_to(self, tx: Transaction) -> OfferedTo | None:
        """Return what the caller's view is narrowed to; operators see everything."""
        caller = tx.call.caller
        if caller.is_admin:
            return None
        assert caller.platform_id is not None
        return OfferedTo(caller.platform_id, day_in(self._timezone, tx.now))

    async def _get_for_change(self, tx: Transaction, benefit_id: UUID, expected_version: int | None) -> Benefit:
        benefit = await self._benefits.find(tx, benefit_id, for_update=True)
        if benefit is None:
            raise BenefitUnknown
        require_version(expected_version, benefit.version)
        return benefit

    async def _write(self, tx: Transaction, action: str, before: Benefit, after: Benefit) -> Benefit:
        after.version = before.version + 1
        after.updated_at.FromDatetime(tx.now)
        await self._benefits.update(tx, after)
        await self._record(tx, action, after.id, changes_between(before, after, self._told))
        return after

    async def _record(self, tx: Transaction, action: str, benefit_id: str, changes: Changes) -> None:
        await self._audit.record(tx, action, "benefit", benefit_id, changes=changes)


def _check_rules(benefit: Benefit) -> None:
    """Bring the lists to their one form, or say which fields break a rule."""
    benefit.eligible_relationships[:] = dict.fromkeys(benefit.eligible_relationships)
    benefit.platform_ids[:] = dict.fromkeys(benefit.platform_ids)
    details = []
    if not CODE.fullmatch(benefit.code):
        details.append(Detail("code", "A code has 1 to 64 letters, digits, underscores, dots and hyphens."))
    # Dates are ISO texts, which sort as the days do.
    if benefit.HasField("valid_from") and benefit.HasField("valid_to") and benefit.valid_to <= benefit.valid_from:
        details.append(Detail("valid_to", "The last day must be after the first."))
    if benefit.HasField("min_age") and benefit.HasField("max_age") and benefit.max_age < benefit.min_age:
        details.append(Detail("max_age", "The highest age must not be below the lowest."))
    if len(benefit.platform_ids) > MOST_PLATFORMS:
        details.append(Detail("platform_ids", f"Name at most {MOST_PLATFORMS} platforms, or none for all of them."))
    if benefit.HasField("terms_url") and not is_web_address(benefit.terms_url):
        details.append(Detail("terms_url", "This is not an http or https address."))
    if not all(LANGUAGE.fullmatch(language) for language in benefit.translations):
        details.append(Detail("translations", "Each must be named by a BCP 47 tag."))
    if details:
        raise BenefitRuleBroken(*details)
