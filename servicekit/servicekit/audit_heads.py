"""The heads of an audit chain, kept in a file outside the database so that a cut-off tail is missed."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LARGEST_BYTES = 1024 * 1024
NEWEST_KEPT = 1000


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
        self._path = path

    def read(self) -> list[Head]:
        """Return all heads in the file, oldest first."""
        return [Head(line["sequence"], bytes.fromhex(line["hash"])) for line in self._lines()]

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
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            _write(self._path, new, "a")
            if self._path.stat().st_size > LARGEST_BYTES:
                self._thin_out()

    def _thin_out(self) -> None:
        lines = list(self._lines())
        older, newest = lines[:-NEWEST_KEPT], lines[-NEWEST_KEPT:]
        kept = [line for place, line in enumerate(older) if place % 2 == 0 or "lost" in line]
        thinner = self._path.with_name(self._path.name + ".new")
        _write(thinner, [*kept, *newest], "w")
        thinner.replace(self._path)

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            content = self._path.read_text()
        except FileNotFoundError:
            return
        for text in content.splitlines():
            try:
                yield json.loads(text)
            except ValueError:
                # A crash in the middle of a write leaves half a line; the head comes again with the next one.
                continue

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep replicas that share the file from writing at once."""
        with self._path.with_name(self._path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _line(head: Head) -> dict[str, object]:
    return {"sequence": head.sequence, "hash": head.hash.hex(), "time": datetime.now(UTC).isoformat()}


def _write(path: Path, lines: Iterable[dict[str, object]], mode: str) -> None:
    with path.open(mode) as file:
        # Begins with a line feed, in case the last line was left unfinished.
        file.write("".join(f"\n{json.dumps(line)}" for line in lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
