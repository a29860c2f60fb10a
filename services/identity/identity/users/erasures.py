"""Lists erased users outside the database."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from identity.models import SERVICE
from identity.users.repository import UserRepository
from servicekit.background import repeat
from servicekit.caller import system_call
from servicekit.database import Database
from servicekit.erasures import ErasureFile

PERIOD_S = 0.5
# An erasure is told by the time at which its transaction began, and seen when that is over, which may take a while when
# it has to wait for standbys.
LONGEST = timedelta(hours=1)
BEGINNING = datetime(1, 1, 1, tzinfo=UTC) + LONGEST


class ErasureList:
    """Writes who was erased into a file. Every replica does, so that the file is whole wherever it is kept."""

    def __init__(self, database: Database, users: UserRepository, file: ErasureFile) -> None:
        self._database = database
        self._users = users
        self._file = file
        # Of those erased last; None until the file was read.
        self._known: set[UUID] | None = None
        self._newest = BEGINNING

    async def run(self) -> None:
        """Write, until cancelled; a database or a disk that is away is waited for."""
        await repeat(self._write, lambda: asyncio.sleep(PERIOD_S), "list of erasures stands still")

    async def _write(self) -> None:
        if self._known is None:
            written = await asyncio.to_thread(self._file.read)
            self._newest = max((erasure.erased_at for erasure in written), default=BEGINNING)
            self._known = {erasure.user_id for erasure in written}
        async with self._database.transaction(system_call(SERVICE)) as tx:
            erasures = await self._users.list_erased_since(tx, self._newest - LONGEST)
            new = [erasure for erasure in erasures if erasure.user_id not in self._known]
            if new:
                await tx.wait_for_replication()
        if new:
            await asyncio.to_thread(self._file.append, new)
            self._newest = max(self._newest, new[-1].erased_at)
        self._known = {erasure.user_id for erasure in erasures}
