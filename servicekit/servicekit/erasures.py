"""Who was erased, kept in a file outside the database, so that a restored backup can be made to forget them again."""

import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import structlog

from servicekit.caller import system_call
from servicekit.database import Database, Transaction
from servicekit.line_file import Line, LineFile

TOLD_EVERY = 100

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erased person: ids that lead to nobody any more."""

    user_id: UUID
    platform_id: UUID
    erased_at: datetime


class ErasureFile:
    """One JSON line a person, oldest first: ``{"user_id", "platform_id", "erased_at"}``.

    Attributes:
        damaged: how many lines could not be read the last time.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)
        self.damaged = 0

    def read(self) -> list[Erasure]:
        """Return each person once; replicas may have written one twice. A damaged line is told and left out."""
        erasures = {}
        self.damaged = 0
        for line in self._file.read():
            try:
                erasure = _erasure(line)
            except (KeyError, TypeError, ValueError):
                log.error("line of the list of erasures can't be read")
                self.damaged += 1
                continue
            erasures[erasure.user_id] = erasure
        return list(erasures.values())

    def append(self, erasures: Iterable[Erasure]) -> None:
        """Write persons so that they outlive a crash. Raises OSError."""
        with self._file.alone():
            self._file.append(
                {
                    "user_id": str(erasure.user_id),
                    "platform_id": str(erasure.platform_id),
                    "erased_at": erasure.erased_at.isoformat(),
                }
                for erasure in erasures
            )


def _erasure(line: Line) -> Erasure:
    user_id, platform_id, erased_at = line["user_id"], line["platform_id"], line["erased_at"]
    if not (isinstance(user_id, str) and isinstance(platform_id, str)):
        raise TypeError
    return Erasure(UUID(user_id), UUID(platform_id), datetime.fromisoformat(erased_at).astimezone(UTC))


async def erase_again(
    database: Database,
    service: str,
    file: Path,
    find_without_key: Callable[[Transaction], Awaitable[Sequence[Erasure]]],
    erase: Callable[[Transaction, Erasure], Awaitable[bool]],
) -> None:
    """Erase again, in a restored database, who is in the file or has lost the data key already; print the progress.

    A damaged line keeps nobody else from being erased, and then the command ends as failed.

    Args:
        database: the restored one.
        service: whose database it is.
        file: who was erased.
        find_without_key: returns who is not erased there and has no data key any more.
        erase: erases one person; returns False when there is nothing left to erase.
    """
    call = system_call(service)
    listed = ErasureFile(file)
    async with database.transaction(call) as tx:
        without_key = await find_without_key(tx)
    erasures = list({erasure.user_id: erasure for erasure in (*without_key, *listed.read())}.values())
    count = 0
    for done, erasure in enumerate(erasures, start=1):
        async with database.transaction(call) as tx:
            count += await erase(tx, erasure)
        if done % TOLD_EVERY == 0:
            print(f"{done} of {len(erasures)} erasures replayed", flush=True)
    print(f"done: {count} of {len(erasures)} persons were there, and are erased again")
    if listed.damaged:
        sys.exit(f"{listed.damaged} lines of the list could not be read: whoever they name is not erased here")
