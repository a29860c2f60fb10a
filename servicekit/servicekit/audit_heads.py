"""The heads of an audit chain, kept in a file outside the database so that a cut-off tail is missed."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from servicekit.line_file import Line, LineFile

LARGEST_BYTES = 1024 * 1024
NEWEST_KEPT = 1000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Head:
    """The last row of a chain at some moment."""

    sequence: int
    hash: bytes


class HeadFile:
    """One JSON line a head, oldest first: ``{"sequence", "hash", "time"}``.

    A file that has grown over a megabyte is thinned out: of all but the newest heads every second one goes. So
    it stays small, and the further back, the wider apart are the heads. A line with ``"lost": true`` tells of a
    head that the database no longer had; it always stays, until an operator who knows why (a restored backup)
    moves the file away.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)

    def read(self) -> list[Head]:
        """Return all heads in the file, oldest first. A damaged line is told and left out: the others still count."""
        heads = []
        for line in self._file.read():
            try:
                heads.append(_head(line))
            except (KeyError, TypeError, ValueError):
                log.error("line of the audit chain's heads can't be read")
        return heads

    def last(self) -> Head | None:
        """Return the head that was written last."""
        heads = self.read()
        return heads[-1] if heads else None

    def append(self, head: Head, *, lost: Head | None = None) -> None:
        """Write a head, and before it one that was lost, so that they outlive a crash.

        Raises:
            OSError: the file can't be written.
        """
        new = [] if lost is None else [_line(lost) | {"lost": True}]
        new.append(_line(head))
        with self._file.alone():
            self._file.append(new)
            if self._file.size() > LARGEST_BYTES:
                self._thin_out()

    def _thin_out(self) -> None:
        lines = list(self._file.read())
        older, newest = lines[:-NEWEST_KEPT], lines[-NEWEST_KEPT:]
        kept = [line for place, line in enumerate(older) if place % 2 == 0 or "lost" in line]
        self._file.replace([*kept, *newest])


def _head(line: Line) -> Head:
    sequence = line["sequence"]
    if not isinstance(sequence, int):
        raise TypeError
    return Head(sequence, bytes.fromhex(line["hash"]))


def _line(head: Head) -> dict[str, object]:
    return {"sequence": head.sequence, "hash": head.hash.hex(), "time": datetime.now(UTC).isoformat()}
