"""Backs up the three databases to one point in time, while everything runs.

    python -m deploy.compose.backup [FOLDER]

Changes wait for some milliseconds while all three databases note where they stand; the dumps are of that moment,
however long they take. FOLDER (deploy/backups) gets `<time>/` with a dump of each database and what is kept outside
the databases, the list of erasures and the audit heads; and `data_keys/<time>/` with the keys that persons' data is
sealed with. Keys are kept for `KEYS_KEPT` only: so an erased person is unreadable in older dumps, too.
"""

import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.compose.stack import FILE, SERVICES, CommandFailed, in_database, run_once, say

FOLDER = FILE.parent / "backups"
KEYS = "data_keys"
KEYS_KEPT = timedelta(days=7)
ERASURES = "erasures"
HEADS = "/var/lib/aarokya/audit/heads"
TIME_FORMAT = "%Y%m%dT%H%M%SZ"
# How long callers may be kept waiting, at most, by one attempt.
LOCK_TIMEOUT = "500ms"
# Less than others wait before they look for a deadlock, so that it is never a caller who has to give way; and when
# PostgreSQL looks, it also sends away an autovacuum that is in the way.
DEADLOCK_TIMEOUT = "100ms"
PASSING = ("lock timeout", "deadlock detected")
ATTEMPTS = 20
PAUSE_S = 0.5
END = "-- end of answer --"


class Session:
    """A psql that stays connected."""

    def __init__(self, service: str) -> None:
        self.service = service
        command = in_database(service, ["psql", f"--dbname={service}", "-XqtA"])
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate("\\q\n")

    def ask(self, sql: str) -> str:
        """Run SQL and return its rows.

        Raises:
            CommandFailed: the database refused, or is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{sql};\n\\echo {END}\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.strip() == END:
                break
            lines.append(line)
        else:
            raise CommandFailed(f"the session in {self.service}'s database ended")
        answer = "".join(lines).strip()
        if "ERROR:" in answer:
            raise CommandFailed(answer)
        return answer


def main() -> None:
    """Read the command line and do it."""
    try:
        print(back_up(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
    except (CommandFailed, OSError) as failure:
        sys.exit(f"backup: {failure}")


def back_up(folder: Path) -> Path:
    """Write the dumps and return the new folder.

    Raises:
        CommandFailed: a database does not answer, or never stood still; nothing is left behind.
    """
    os.umask(0o077)
    began = datetime.now(UTC)
    name = began.strftime(TIME_FORMAT)
    new, new_keys = folder / f"{name}.part", folder / KEYS / f"{name}.part"
    for path in (new, new_keys):
        path.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            readers = [stack.enter_context(Session(service)) for service in SERVICES]
            snapshots = take_snapshots(readers)
            dump(snapshots, new, f"--exclude-table-data={KEYS}")
            dump(snapshots, new_keys, "--data-only", f"--table={KEYS}")
        for service in SERVICES:
            (new / f"{service}.heads").write_text(run_once(service, "sh", "-c", f"cat {HEADS} || true"))
        (new / ERASURES).write_text(erasures())
        new_keys.rename(new_keys.with_suffix(""))
        done = new.rename(new.with_suffix(""))
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(new_keys, ignore_errors=True)
        raise
    forget_old_keys(folder / KEYS, began)
    size = sum(file.stat().st_size for file in done.iterdir())
    say(f"backed up {size / 1024:.0f} KB to {done}")
    return done


def erasures() -> str:
    """Return the list of whom identity has erased, as it keeps it."""
    return run_once("identity", "sh", "-c", f"cat {HEADS}.erasures || true")


def take_snapshots(readers: list[Session]) -> dict[str, str]:
    """Return a snapshot of each database, all of one moment in which nothing was changing anywhere."""
    for reader in readers:
        reader.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    with ExitStack() as stack:
        lockers = [stack.enter_context(Session(reader.service)) for reader in readers]
        tables = {
            locker.service: locker.ask(
                "SELECT string_agg(format('%I', tablename), ', ') FROM pg_tables WHERE schemaname = 'public'"
            )
            for locker in lockers
        }
        for attempt in range(1, ATTEMPTS + 1):
            began, snapshots = time.monotonic(), {}
            try:
                for locker in lockers:
                    locker.ask(f"BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                    locker.ask(f"SET LOCAL deadlock_timeout = '{DEADLOCK_TIMEOUT}'")
                    locker.ask(f"LOCK TABLE {tables[locker.service]} IN SHARE MODE")
                snapshots = {reader.service: reader.ask("SELECT pg_export_snapshot()") for reader in readers}
            except CommandFailed as failure:
                if attempt == ATTEMPTS or not any(cause in str(failure) for cause in PASSING):
                    raise
            finally:
                for locker in lockers:
                    locker.ask("ROLLBACK")
            if snapshots:
                say(f"changes waited for {(time.monotonic() - began) * 1000:.0f} ms")
                return snapshots
            time.sleep(PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


def dump(snapshots: dict[str, str], folder: Path, *options: str) -> None:
    """Dump all databases at once."""
    running = []
    for service, snapshot in snapshots.items():
        command = ["pg_dump", f"--dbname={service}", "--format=custom", f"--snapshot={snapshot}", *options]
        with (folder / f"{service}.dump").open("wb") as file:
            running.append((service, subprocess.Popen(in_database(service, command), stdout=file)))
    failed = [service for service, process in running if process.wait() != 0]
    if failed:
        raise CommandFailed(f"pg_dump failed for {', '.join(failed)}")


def forget_old_keys(folder: Path, now: datetime) -> None:
    """Delete the dumps of keys that are older than they may be."""
    for path in folder.iterdir():
        try:
            made = datetime.strptime(path.name, TIME_FORMAT).replace(tzinfo=UTC)
        except ValueError:
            continue
        if made < now - KEYS_KEPT:
            shutil.rmtree(path)
            say(f"forgot the keys of {path.name}")


if __name__ == "__main__":
    main()
