"""A small file of JSON lines that outlives a crash, for what has to be kept outside the database."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

Line = Mapping[str, Any]

PATIENCE_S = 2.0
LOOK_AGAIN_S = 0.01


class LineFile:
    """JSON objects, one a line, oldest first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Iterator[Line]:
        """Yield all lines; there are none without a file."""
        try:
            content = self._path.read_text(errors="replace")
        except FileNotFoundError:
            return
        for text in content.splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                # A crash in the middle of a write leaves half a line; who wrote it writes it again.
                continue
            if isinstance(line, dict):
                yield line

    def size(self) -> int:
        """Return the file's size in bytes."""
        return self._path.stat().st_size

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep replicas that share the file from writing at once.

        Raises:
            OSError: another one has kept the file to itself for longer than writing takes; perhaps it stands still.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(f"{self._path.name}.lock").open("w") as lock:
            _lock(lock, time.monotonic() + PATIENCE_S)
            yield

    def append(self, lines: Iterable[Line]) -> None:
        """Write lines so that they outlive a crash. Raises OSError."""
        is_new = not self._path.exists()
        _write(self._path, lines, "a")
        if is_new:
            _keep_name(self._path)

    def replace(self, lines: Iterable[Line]) -> None:
        """Put other lines in the place of all. Raises OSError."""
        new = self._path.with_name(f"{self._path.name}.new")
        _write(new, lines, "w")
        new.replace(self._path)
        _keep_name(self._path)


def _lock(file: TextIO, until: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(LOOK_AGAIN_S)
        else:
            return


def _write(path: Path, lines: Iterable[Line], mode: str) -> None:
    with path.open(mode) as file:
        # Begins with a line feed, in case the last line was left unfinished.
        file.write("".join(f"\n{json.dumps(dict(line))}" for line in lines) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _keep_name(path: Path) -> None:
    """Let a crash find the file under its name."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
