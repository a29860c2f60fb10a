"""Every rule about MRNs."""

from collections.abc import Sequence
from uuid import UUID

import re2
from uuid6 import uuid7

from aarokya.records.v1.mrn_pb2 import Mrn, MrnSource
from records.dependants.errors import DependantRemoved, DependantUnknown
from records.dependants.repository import REMOVED
from records.mrns.errors import MrnAlreadyLinked, MrnFormatWrong, MrnOfAnotherDependant, MrnUnknown, ProviderUnusable
from records.mrns.providers import MrnProviders
from records.mrns.repository import MrnRepository, StoredMrn
from records.users.states import UserStates, require_active
from servicekit.audit import AuditLog, changes_between
from servicekit.caller import Call
from servicekit.database import AnyRow, Transaction
from servicekit.errors import Detail, InvalidField, Refusal


class MrnService:
    """Decides what may happen to MRNs."""

    def __init__(self, mrns: MrnRepository, states: UserStates, providers: MrnProviders, audit: AuditLog) -> None:
        self._mrns = mrns
        self._states = states
        self._providers = providers
        self._audit = audit

    async def find_refusal(self, call: Call, wanted: Mrn, dependant: AnyRow | None) -> Refusal | None:
        """Return why a dependant cannot be linked, None if nothing is against it. Asks other services.

        The refusal is returned, not raised, because a call that was carried out before is answered as it was then,
        whatever has become of the user or the provider.
        """
        try:
            await self._check_link(call, wanted, dependant)
        except Refusal as refusal:
            return refusal
        return None

    async def _check_link(self, call: Call, wanted: Mrn, dependant: AnyRow | None) -> None:
        if dependant is None:
            raise DependantUnknown
        state = await self._states.get_unless_own(call, dependant.user_id)
        if state is not None:
            require_active(state)
        if dependant.status == REMOVED:
            raise DependantRemoved
        # The catalogue remembers having been asked, so it is asked last.
        provider = await self._providers.check(call, UUID(wanted.benefit_provider_id))
        if not provider.usable:
            raise ProviderUnusable(Detail("benefit_provider_id", "It must exist, be active and issue MRNs."))
        if provider.HasField("mrn_pattern") and not re2.fullmatch(provider.mrn_pattern, wanted.mrn):
            raise MrnFormatWrong(Detail("mrn", "The benefit provider's numbers look different."))

    async def link_mrn(self, tx: Transaction, user_id: UUID, wanted: Mrn) -> Mrn:
        """Link a user's dependant to a provider, once `find_refusal` has found nothing against it.

        Raises:
            WrongUserStatus: the user was erased meanwhile.
            MrnAlreadyLinked: the dependant has an MRN at the provider.
            MrnOfAnotherDependant: another dependant of the user has this number at the provider.
        """
        mrn = Mrn(
            id=str(uuid7()),
            dependant_id=wanted.dependant_id,
            benefit_provider_id=wanted.benefit_provider_id,
            mrn=wanted.mrn,
            user_id=str(user_id),
            source=MrnSource.MRN_SOURCE_USER if tx.call.caller.is_user else MrnSource.MRN_SOURCE_PARTNER,
        )
        mrn.created_at.FromDatetime(tx.now)
        if not await self._mrns.insert_unless_taken(tx, mrn):
            if await self._mrns.is_linked(tx, UUID(mrn.dependant_id), UUID(mrn.benefit_provider_id)):
                raise MrnAlreadyLinked
            # The pair's MRN may have been what was in the way, and taken away before it was looked for.
            if not await self._mrns.insert_unless_taken(tx, mrn):
                raise MrnOfAnotherDependant
        await self._audit.record(
            tx,
            "mrn.link",
            "mrn",
            mrn.id,
            user_id=user_id,
            changes=changes_between(None, mrn, self._mrns.rows.clear_fields),
        )
        return mrn

    async def get_mrn(self, tx: Transaction, mrn_id: UUID) -> Mrn:
        """Return an MRN.

        Raises:
            MrnUnknown: there is no such MRN, or the caller may not know.
        """
        return (await self._find(tx, mrn_id)).mrn

    async def list_mrns(
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
        """Return the rows of a page and one more. A partner must say whose MRNs it means; users see their own.

        Raises:
            InvalidField: a partner does not say whose MRNs it means.
        """
        says_whose = user_id or dependant_id or (mrn and benefit_provider_id)
        if tx.call.caller.is_partner and not says_whose:
            raise InvalidField(
                Detail("user_id", "Needed unless dependant_id is given, or mrn together with benefit_provider_id.")
            )
        return await self._mrns.list_newest(
            tx,
            user_id=user_id,
            dependant_id=dependant_id,
            benefit_provider_id=benefit_provider_id,
            mrn=mrn,
            cursor=cursor,
            page_size=page_size,
        )

    async def unlink_mrn(self, tx: Transaction, mrn_id: UUID, reason: str | None) -> None:
        """Take an MRN away; its dependant and provider can then be linked again.

        Raises:
            MrnUnknown: there is no such MRN.
        """
        if reason is not None:
            # It is sealed by the user's key. Whoever erases the user takes that first, and then the MRN.
            await self._mrns.hold_owner(tx, await self._find(tx, mrn_id))
        stored = await self._find(tx, mrn_id, for_update=True)
        await self._mrns.delete(tx, mrn_id)
        await self._audit.record(
            tx,
            "mrn.unlink",
            "mrn",
            mrn_id,
            user_id=UUID(stored.mrn.user_id),
            platform_id=stored.platform_id,
            changes=changes_between(stored.mrn, None, self._mrns.rows.clear_fields),
            reason=reason,
        )

    async def _find(self, tx: Transaction, mrn_id: UUID, *, for_update: bool = False) -> StoredMrn:
        stored = await self._mrns.find(tx, mrn_id, for_update=for_update)
        if stored is None:
            raise MrnUnknown
        return stored
