"""Brings the three databases back to a backup.

    python -m deploy.compose.restore deploy/backups/<time>

Nothing answers meanwhile. The databases as they were stay on their servers under the name `<service>_before_<now>`,
until an operator drops them. Persons are unsealed by the newest keys there are, those in the databases before all
others; who was erased since the backup is erased again.
"""

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from deploy.compose.backup import KEYS, TIME_FORMAT
from deploy.compose.stack import PROCESSES, SERVICES, CommandFailed, compose, containers, in_database, query, say

DATABASE_S = 60
# In the order in which they stop; they start the other way round.
STOPPED = ("proxy", "gateway", "identity", "catalogue", "records")

ERASE_IN_IDENTITY = """
UPDATE users SET status = 'deactivated', deactivated_at = coalesce(deactivated_at, data_keys.destroyed_at),
    erased_at = data_keys.destroyed_at, phone_hash = NULL, version = version + 1, updated_at = data_keys.destroyed_at
FROM data_keys
WHERE data_keys.owner_id = users.id AND data_keys.destroyed_at IS NOT NULL AND users.erased_at IS NULL
"""
# Records may not have heard of the last erasures yet, so identity's are applied here, too.
ERASE_IN_RECORDS = """
CREATE TEMPORARY TABLE erased AS SELECT unnest('{{{ids}}}'::uuid[]) AS id
    UNION SELECT owner_id FROM data_keys WHERE destroyed_at IS NOT NULL;
UPDATE data_keys SET wrapped = NULL, master_key_id = NULL, destroyed_at = now()
    WHERE owner_id IN (SELECT id FROM erased) AND destroyed_at IS NULL;
UPDATE accounts SET number_hash = NULL WHERE user_id IN (SELECT id FROM erased);
UPDATE mrns SET mrn_hash = NULL WHERE user_id IN (SELECT id FROM erased);
UPDATE users SET erased_at = now() WHERE id IN (SELECT id FROM erased) AND erased_at IS NULL;
"""


def main() -> None:
    """Read the command line and do it."""
    if len(sys.argv) != 2:
        sys.exit("restore: name the backup's folder")
    try:
        restore(Path(sys.argv[1]))
    except (CommandFailed, OSError) as failure:
        sys.exit(f"restore: {failure}")


def restore(backup: Path) -> None:
    """Put a backup in the place of what is there.

    Raises:
        CommandFailed: something is missing, or a database refused.
    """
    missing = [service for service in SERVICES if not (backup / f"{service}.dump").is_file()]
    if missing:
        raise CommandFailed(f"{backup} holds no dump of {', '.join(missing)}")
    now = datetime.now(UTC).strftime(TIME_FORMAT)
    was_running = bool(containers("gateway"))
    say("stopping all but the databases")
    if was_running:
        compose("stop", *STOPPED)
    compose("up", "--detach", "--no-deps", *(f"{service}-db" for service in SERVICES))
    for service in SERVICES:
        _wait_for_database(service)
    keys = _newest_keys(backup, now)
    for service in SERVICES:
        say(f"{service}: restoring")
        _put_aside(service, now)
        compose("run", "-T", "--rm", "--no-deps", f"{service}-provision")
        _load(service, backup / f"{service}.dump")
        _load(service, keys / f"{service}.dump")
        compose("run", "-T", "--rm", "--no-deps", f"{service}-migrate")
        _put_audit_heads_aside(service, now)
    _erase_again()
    say("starting everything")
    if was_running:
        compose("start", *reversed(STOPPED))
    else:
        compose("up", "--detach", *PROCESSES, "proxy")


def _wait_for_database(service: str) -> None:
    deadline = time.monotonic() + DATABASE_S
    while True:
        try:
            query(service, "SELECT 1", database="postgres")
        except CommandFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _exists(service: str) -> bool:
    return service in query(service, "SELECT datname FROM pg_database", database="postgres").splitlines()


def _newest_keys(backup: Path, now: str) -> Path:
    """Return the folder with the newest dumps of keys, made now if the databases are still there."""
    folder = backup.parent / KEYS
    if all(_exists(service) and query(service, f"SELECT to_regclass('{KEYS}')") for service in SERVICES):
        made = folder / now
        made.mkdir(parents=True, mode=0o700)
        for service in SERVICES:
            command = ["pg_dump", f"--dbname={service}", "--format=custom", "--data-only", f"--table={KEYS}"]
            with (made / f"{service}.dump").open("wb") as file:
                subprocess.run(in_database(service, command), stdout=file, check=True)
        return made
    dumped = sorted(path for path in folder.iterdir() if path.suffix != ".part")
    if not dumped:
        raise CommandFailed(f"{folder} holds no keys")
    say(f"unsealing with the keys of {dumped[-1].name}")
    return dumped[-1]


def _put_aside(service: str, now: str) -> None:
    if _exists(service):
        query(
            service,
            f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{service}';"  # noqa: S608
            f'ALTER DATABASE "{service}" RENAME TO "{service}_before_{now}"',
            database="postgres",
        )


def _load(service: str, file: Path) -> None:
    with file.open("rb") as stream:
        command = in_database(service, ["pg_restore", f"--dbname={service}", "--exit-on-error", "--single-transaction"])
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"{service}: {done.stderr.strip()[-2000:]}")


def _put_audit_heads_aside(service: str, now: str) -> None:
    """The chain goes back with the database; against the heads of what came after, its end would look cut off."""
    heads = "/var/lib/aarokya/audit/heads"
    move = f"[ ! -e {heads} ] || mv {heads} {heads}_before_{now}"
    compose("run", "-T", "--rm", "--no-deps", "--entrypoint", "/bin/sh", service, "-c", move)


def _erase_again() -> None:
    query("identity", ERASE_IN_IDENTITY)
    erased = query("identity", "SELECT id FROM users WHERE erased_at IS NOT NULL").split()
    query("records", ERASE_IN_RECORDS.format(ids=",".join(erased)))


if __name__ == "__main__":
    main()
