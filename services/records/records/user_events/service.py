"""What an event about a user does in records."""

from uuid import UUID

from aarokya.records.v1.user_event_service_pb2 import ApplyUserEventRequest
from records.dependants.repository import DependantRepository
from records.dependants.service import DependantService
from records.users.repository import UserRepository
from servicekit.audit import AuditLog
from servicekit.database import Transaction
from servicekit.erasures import Erasure
from servicekit.outbox import Inbox


class UserEventService:
    """Applies events exactly once and in order of each user's versions."""

    def __init__(
        self,
        inbox: Inbox,
        users: UserRepository,
        dependants: DependantService,
        dependant_rows: DependantRepository,
        audit: AuditLog,
    ) -> None:
        self._inbox = inbox
        self._users = users
        self._dependants = dependants
        self._dependant_rows = dependant_rows
        self._audit = audit

    async def apply(self, tx: Transaction, event: ApplyUserEventRequest) -> None:
        """Apply an event; one that was applied before, or is older than what is known of the user, changes nothing.

        An erasure always counts: where identity was restored from a backup, it counts its versions from there.

        Raises:
            WrongUserStatus: the user was erased, but a restored backup does not know.
        """
        user_id, platform_id = UUID(event.user_id), UUID(event.platform_id)
        moment = await self._dependant_rows.lock_family(tx, user_id)
        if not await self._inbox.is_new(tx, UUID(event.event_id)):
            await tx.wait_for_replication()
            return
        known = await self._users.find(tx, user_id)
        if known is not None and known.erased_at is not None:
            return
        if known is not None and known.version >= event.user_version and not event.erased:
            return
        await self._users.set_version(tx, user_id, platform_id, event.user_version)
        if event.HasField("profile"):
            await self._dependants.follow_profile(tx, user_id, platform_id, event.profile, moment)
        elif event.erased:
            await self._erase(tx, user_id, platform_id)

    async def erase_again(self, tx: Transaction, erasure: Erasure) -> bool:
        """Erase whom a restored backup has brought back, or who could come back; False if that was done already."""
        user_id, platform_id = erasure.user_id, erasure.platform_id
        await self._dependant_rows.lock_family(tx, user_id)
        known = await self._users.find(tx, user_id)
        if known is not None and known.erased_at is not None:
            await tx.wait_for_replication()
            return False
        await self._users.set_version(tx, user_id, platform_id, known.version if known else 0)
        await self._erase(tx, user_id, platform_id)
        return True

    async def _erase(self, tx: Transaction, user_id: UUID, platform_id: UUID) -> None:
        await self._users.erase(tx, user_id, platform_id)
        await self._audit.record(tx, "user.erase", "user", user_id, user_id=user_id, platform_id=platform_id)
