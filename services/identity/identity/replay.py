"""Erases users again in a database that was restored from a backup."""

from pathlib import Path

from identity.models import SERVICE, audit_chain, audit_log, data_keys, idempotency_keys, outbox
from identity.platforms.repository import PlatformRepository
from identity.platforms.service import PlatformService
from identity.settings import IdentitySettings
from identity.users.repository import UserRepository
from identity.users.service import UserService
from servicekit.erasures import erase_again
from servicekit.errors import ServiceAway
from servicekit.foundation import Foundation
from servicekit.outbox import Event, Outbox


async def replay_erasures(file: Path) -> None:
    """Erase again who is in the list. What records has to hear of it waits for the process that serves."""
    settings = IdentitySettings()
    kit = Foundation(
        SERVICE,
        settings,
        data_keys=data_keys,
        idempotency_keys=idempotency_keys,
        audit_log=audit_log,
        audit_chain=audit_chain,
    )
    rows = UserRepository(kit.data_keys, kit.hashes)
    platforms = PlatformService(PlatformRepository(kit.data_keys), kit.audit)
    events = Outbox(outbox, kit.database, kit.data_keys, SERVICE, _leave)
    users = UserService(rows, platforms, kit.audit, events, settings.timezone)
    await erase_again(kit.database, SERVICE, file, rows.list_without_key, users.erase_again)
    await kit.database.close()


async def _leave(event: Event) -> None:
    raise ServiceAway
