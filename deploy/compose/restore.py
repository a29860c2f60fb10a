"""Brings the three databases back to a backup.

    python -m deploy.compose.restore deploy/backups/<time> [--keys FOLDER]

Nothing answers meanwhile. Everything that can fail for want of a file or a key happens in databases of other names,
before anything is replaced. The databases as they were stay on their servers under the name `<service>_before_<now>`,
until an operator drops them. A restore that was interrupted is repeated.

Persons are unsealed by all keys that there are: those dumped with the backup, those dumped later, and those in the
databases that are replaced; or by those in `--keys FOLDER` alone. A key that was destroyed in any of them stays so, and
who was erased since the backup is erased again before anything serves.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from deploy.compose.backup import ERASURES, HEADS, KEYS, TIME_FORMAT, erasures
from deploy.compose.stack import (
    PROCESSES,
    SERVICES,
    CommandFailed,
    compose,
    containers,
    in_database,
    query,
    run_once,
    say,
)

DATABASE_S = 120
# In the order in which they stop.
STOPPED = ("proxy", "gateway", "identity", "catalogue", "records")
# Those that keep something about persons.
PERSONAL = ("identity", "records")
RESTORING = "_restoring"

COLLECT = f"CREATE TABLE restored_keys (LIKE {KEYS} INCLUDING ALL)"
# A key is only ever wrapped anew or destroyed, and the source that is merged is newer than those before.
MERGE = f"""
INSERT INTO restored_keys AS old SELECT * FROM {KEYS}
    ON CONFLICT (owner_id) DO UPDATE SET
        master_key_id = excluded.master_key_id, wrapped = excluded.wrapped, destroyed_at = excluded.destroyed_at
    WHERE old.destroyed_at IS NULL;
TRUNCATE {KEYS};
"""  # noqa: S608
COUNT_OTHERS = f"""
SELECT count(*) FROM {KEYS} JOIN restored_keys AS old USING (owner_id)
    WHERE {KEYS}.id <> old.id AND {KEYS}.destroyed_at IS NULL AND old.destroyed_at IS NULL
"""  # noqa: S608
FINISH = f"INSERT INTO {KEYS} SELECT * FROM restored_keys; DROP TABLE restored_keys"  # noqa: S608
SEALED_TABLES = (
    "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'sealed'"
)
# What is sealed begins with the 16 bytes of its key's id.
COUNT_WITHOUT_KEY = f"""
SELECT count(*) FROM "{{table}}" WHERE sealed IS NOT NULL
    AND NOT EXISTS (SELECT FROM {KEYS} WHERE id = encode(substring(sealed FOR 16), 'hex')::uuid)
"""  # noqa: S608
DISCONNECT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid();"
)
DESTROYED = f"""
SELECT json_build_object('user_id', owner_id, 'platform_id', platform_id, 'erased_at', destroyed_at)
    FROM {KEYS} WHERE destroyed_at IS NOT NULL AND platform_id IS NOT NULL
"""  # noqa: S608


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="restore", description="Bring the databases back to a backup.")
    parser.add_argument("backup", type=Path, help="its folder")
    parser.add_argument("--keys", type=Path, help="a folder with dumps of keys, to be used instead of all others")
    arguments = parser.parse_args()
    try:
        restore(arguments.backup.resolve(), arguments.keys)
    except (CommandFailed, OSError) as failure:
        sys.exit(f"restore: {failure}")


def restore(backup: Path, only_keys: Path | None = None) -> None:
    """Put a backup in the place of what is there.

    Raises:
        CommandFailed: something is missing, or a database refused; the message says what that means for the stack.
    """
    keys = [only_keys] if only_keys else list_key_folders(backup)
    for folder in (backup, *keys):
        require_dumps(folder)
    now = datetime.now(UTC).strftime(TIME_FORMAT)
    replicas = {process: len(containers(process)) for process in PROCESSES}
    try:
        say("stopping all but the databases")
        compose("stop", *STOPPED)
        compose("up", "--detach", "--no-deps", *(f"{service}-db" for service in SERVICES))
        for service in SERVICES:
            wait_for_database(service)
            # The roles, which the dumps name.
            run_once(service + "-provision")
            say(f"{service}: restoring")
            load(service, backup, keys, with_live_keys=only_keys is None)
        erased = merge_erasures(backup)
    except (CommandFailed, OSError, KeyboardInterrupt) as failure:
        for service in SERVICES:
            with suppress(CommandFailed):
                discard(service)
        raise CommandFailed(
            f"{failure or 'interrupted'}\nNothing was replaced; to go on with what there was: "
            "docker compose -f deploy/docker-compose.yml up --detach"
        ) from None
    try:
        # From here on, the list outlives whatever happens.
        run_once("identity", "sh", "-c", f"cat >{HEADS}.new && mv {HEADS}.new {HEADS}.{ERASURES}", stdin=erased)
        for service in SERVICES:
            say(f"{service}: replacing the database")
            replace(service, now)
        for service in SERVICES:
            run_once(f"{service}-migrate")
            # The chain goes back with the database; against the heads of what came after, its end would look cut off.
            script = f"set -e; if [ -e {HEADS} ]; then mv {HEADS} {HEADS}_before_{now}; fi"
            if service in PERSONAL:
                script += f"; cat >/tmp/erasures; exec python -P -m {service} replay-erasures /tmp/erasures"
            told = run_once(service, "sh", "-c", script, stdin=erased).strip()
            say(f"{service}: at the newest schema{told and f'; who was erased: {told}'}")
        say("starting everything")
        scales = [f"--scale={process}={count}" for process, count in replicas.items() if count]
        compose("up", "--detach", *scales)
    except (CommandFailed, KeyboardInterrupt) as failure:
        raise CommandFailed(
            f"{failure or 'interrupted'}\nDatabases were replaced, and nothing serves. Repeat the command; what there "
            f"was before is in databases called …_before_{now}"
        ) from None


def list_key_folders(backup: Path) -> list[Path]:
    """Return the folders with the keys of the backup's time and of later times, the oldest first."""
    if not is_time(backup.name):
        raise CommandFailed(f"{backup} is not named by a time, as `make backup` names it; give --keys")
    folder = backup.parent / KEYS
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if is_time(path.name) and path.name >= backup.name]


def is_time(name: str) -> bool:
    """Return whether `make backup` gave a folder this name."""
    try:
        datetime.strptime(name, TIME_FORMAT)  # noqa: DTZ007
    except ValueError:
        return False
    return True


def require_dumps(folder: Path) -> None:
    """Raise CommandFailed unless there is a dump for each service."""
    missing = [service for service in SERVICES if not (folder / f"{service}.dump").is_file()]
    if missing:
        raise CommandFailed(f"{folder} holds no dump of {', '.join(missing)}")


def wait_for_database(service: str) -> None:
    """Wait until a database answers over TCP: the server that the image starts to fill an empty volume does not.

    Raises:
        CommandFailed: it does not in time.
    """
    deadline = time.monotonic() + DATABASE_S
    ask = in_database(service, ["pg_isready", "--quiet", "--host=127.0.0.1"])
    while subprocess.run(ask, check=False, stdin=subprocess.DEVNULL).returncode != 0:
        if time.monotonic() > deadline:
            raise CommandFailed(f"{service}-db did not start within {DATABASE_S} s")
        time.sleep(0.5)


def load(service: str, backup: Path, keys: Iterable[Path], *, with_live_keys: bool) -> None:
    """Fill a new database, `<service>_restoring`, with the backup and with the keys that open it.

    Raises:
        CommandFailed: a dump is unreadable, or keys are of another installation or do not open all that is sealed.
    """
    new = service + RESTORING
    discard(service)
    create = f"CREATE DATABASE \"{new}\" OWNER {service}_owner TEMPLATE template0 ENCODING 'UTF8'"
    query(service, create, database="postgres")
    with (backup / f"{service}.dump").open("rb") as dump:
        load_dump(service, dump)
    query(service, COLLECT, database=new)
    for folder in keys:
        with (folder / f"{service}.dump").open("rb") as dump:
            merge_keys(service, dump, str(folder))
    if with_live_keys and query(service, f"SELECT to_regclass('public.{KEYS}')"):
        with tempfile.TemporaryFile() as dump:
            command = ["pg_dump", f"--dbname={service}", "--format=custom", "--data-only", f"--table={KEYS}"]
            done = subprocess.run(in_database(service, command), stdout=dump, stderr=subprocess.PIPE, check=False)
            if done.returncode != 0:
                raise CommandFailed(f"{service}: {done.stderr.decode().strip()}")
            dump.seek(0)
            merge_keys(service, dump, "the database that is there")
    query(service, FINISH, database=new)
    for table in query(service, SEALED_TABLES, database=new).splitlines():
        sealed = query(service, COUNT_WITHOUT_KEY.format(table=table), database=new)
        if sealed != "0":
            raise CommandFailed(f"{service}: no key is there for {sealed} rows of {table}; other keys: --keys FOLDER")


def merge_keys(service: str, dump: IO[bytes], source: str) -> None:
    """Add a newer dump of keys to those that are collected."""
    load_dump(service, dump)
    if query(service, COUNT_OTHERS, database=service + RESTORING) != "0":
        raise CommandFailed(
            f"{service}: the keys in {source} are of another installation than those before; "
            "if that is so, name the folder with the right ones: --keys FOLDER"
        )
    query(service, MERGE, database=service + RESTORING)


def discard(service: str) -> None:
    """Drop the database that is being filled, if there is one."""
    query(service, f'DROP DATABASE IF EXISTS "{service}{RESTORING}" WITH (FORCE)', database="postgres")


def load_dump(service: str, dump: IO[bytes]) -> None:
    """Load a dump into the database that is being filled."""
    options = [f"--dbname={service}{RESTORING}", "--exit-on-error", "--single-transaction"]
    command = in_database(service, ["pg_restore", *options])
    done = subprocess.run(command, stdin=dump, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"{service}: {done.stderr.strip()[-2000:]}")


def merge_erasures(backup: Path) -> str:
    """Return whom anything there is knows to be erased, as identity lists them: one JSON object a line."""
    lists = [erasures(), *(file.read_text() for file in backup.parent.glob(f"*/{ERASURES}"))]
    lists += [query(service, DESTROYED, database=service + RESTORING) for service in PERSONAL]
    found: dict[str, object] = {}
    for line in "\n".join(lists).splitlines():
        try:
            erasure = json.loads(line)
        except ValueError:
            # A crash in the middle of a write leaves half a line; identity has written it again.
            continue
        found.setdefault(erasure["user_id"], erasure)
    return "".join(f"{json.dumps(erasure)}\n" for erasure in found.values())


def replace(service: str, now: str) -> None:
    """Put a database aside and the filled one in its place, both or neither."""
    query(
        service,
        DISCONNECT + f'BEGIN; ALTER DATABASE "{service}" RENAME TO "{service}_before_{now}";'
        f'ALTER DATABASE "{service}{RESTORING}" RENAME TO "{service}"; COMMIT',
        database="postgres",
    )


if __name__ == "__main__":
    main()
