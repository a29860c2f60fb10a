"""Lists erased users outside the database."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from identity.models import SERVICE
from identity.users.repository import UserRepository
from servicekit.caller import system_call
from servicekit.database import Database
from servicekit.erasures import ErasureFile
from servicekit.errors import Refusal

PERIOD_S = 0.5
# An erasure is told by the time at which its transaction began, and none lasts so long.
LONGEST = timedelta(minutes=1)
BEGINNING = datetime(1, 1, 1, tzinfo=UTC) + LONGEST

log = structlog.get_logger()


class ErasureList:
    """Writes who was erased into a file. Every replica does, so that the file is whole wherever it is kept."""

    def __init__(self, database: Database, users: UserRepository, file: ErasureFile) -> None:
        self._database = database
        self._users = users
        self._file = file

    async def run(self) -> None:
        """Write, until cancelled; a database or a disk that is away is waited for."""
        known, newest = set(), BEGINNING
        for erasure in await asyncio.to_thread(self._file.read):
            known.add(erasure.user_id)
            newest = max(newest, erasure.erased_at)
        while True:
            try:
                async with self._database.transaction(system_call(SERVICE)) as tx:
                    erasures = await self._users.list_erased_since(tx, newest - LONGEST)
                new = [erasure for erasure in erasures if erasure.user_id not in known]
                if new:
                    await asyncio.to_thread(self._file.append, new)
                    newest = max(newest, new[-1].erased_at)
                known = {erasure.user_id for erasure in erasures}
            except (Refusal, OSError) as error:
                log.error("list of erasures stands still", error=type(error).__name__)
            await asyncio.sleep(PERIOD_S)
