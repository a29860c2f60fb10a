"""Erases users again in a database that was restored from a backup."""

from pathlib import Path

from records.dependants.repository import DependantRepository
from records.dependants.service import DependantService
from records.models import SERVICE, audit_chain, audit_log, data_keys, idempotency_keys, inbox
from records.settings import RecordsSettings
from records.user_events.service import UserEventService
from records.users.repository import UserRepository
from servicekit.erasures import erase_again
from servicekit.foundation import Foundation
from servicekit.outbox import Inbox


async def replay_erasures(file: Path) -> None:
    """Erase again who is in identity's list."""
    settings = RecordsSettings()
    kit = Foundation(
        SERVICE,
        settings,
        data_keys=data_keys,
        idempotency_keys=idempotency_keys,
        audit_log=audit_log,
        audit_chain=audit_chain,
    )
    users, dependant_rows = UserRepository(kit.data_keys), DependantRepository(kit.data_keys)
    dependants = DependantService(dependant_rows, kit.audit, settings.timezone)
    user_events = UserEventService(Inbox(inbox), users, dependants, dependant_rows, kit.audit)
    await erase_again(kit.database, SERVICE, file, users.list_without_key, user_events.erase_again)
    await kit.database.close()
