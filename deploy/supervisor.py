"""Starts programs that cannot outlive us, restarts those that crash, and stops them in order."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.errors import ProgramFailed

POLL_S = 0.05
FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 5.0
# A program that ran this long before it crashed is not in a loop: its restart does not wait.
HEALTHY_AFTER_S = 30.0
# How long a program may take to stop once it was told that there is no more time.
LAST_GRACE_S = 5.0
PR_SET_PDEATHSIG = 1
COMPLAINT = re.compile(r"error\b|fatal|panic", re.IGNORECASE)
LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Account:
    """The user that a program runs as when we are root."""

    uid: int
    gid: int


@dataclass
class Program:
    """One program, its log file, and the process that runs it at the moment."""

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str]
    log: Path
    directory: Path
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    # What the kernel sends when we are killed. A program that can lose nothing is killed too.
    orphan_signal: signal.Signals = signal.SIGKILL
    # How long it may take to stop by itself, in seconds, and what tells it then that there is no more time.
    grace_s: float = 20.0
    hurry_signal: signal.Signals = signal.SIGKILL
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process in a session of its own, so that Ctrl-C in the terminal reaches only us.

        Only the main thread may call this: the kernel takes the end of the starting thread for the end of us.
        """
        parent = os.getpid()
        orphan_signal = self.orphan_signal

        def die_with_parent() -> None:
            if LIBC is not None:
                LIBC.prctl(PR_SET_PDEATHSIG, orphan_signal)
                # The parent may have died before the kernel knew that we care.
                if os.getppid() != parent:
                    os._exit(1)

        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=self.environment,
                start_new_session=True,
                # The main thread is the only one that starts programs, so the forked child inherits no held lock.
                preexec_fn=die_with_parent,
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
            )

    @property
    def pid(self) -> int:
        """The process's id, also after it ended; 0 before it was started."""
        return self.process.pid if self.process else 0

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, signum: signal.Signals) -> None:
        """Send the process a signal, if it is still there."""
        if self.process is not None and self.is_running():
            self.process.send_signal(signum)

    def kill(self) -> None:
        """Kill the process, and whatever is left of its group."""
        if self.process is None:
            return
        # macOS denies the permission when the last member of the group is already a zombie.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def failure(self) -> ProgramFailed:
        """Say that the program ended, with the last thing that it wrote."""
        code = self.process.returncode if self.process else None
        return ProgramFailed(f"{self.name} ended with code {code}: {complaint(self.log)} (its log is {self.log})")


@dataclass
class Supervisor:
    """Keeps programs running: `check` restarts those that ended, later and later while they keep failing."""

    # Told the program, running again, and the code with which it had ended.
    on_restart: Callable[[Program, int], None] = lambda *_: None
    # Told the program, and why it could not be started again; that is tried once more.
    on_failure: Callable[[Program, OSError], None] = lambda *_: None
    healthy_after_s: float = HEALTHY_AFTER_S
    programs: list[Program] = field(default_factory=list)
    _started_at: dict[str, float] = field(default_factory=dict)
    _restart_at: dict[str, float] = field(default_factory=dict)
    _crashes: dict[str, int] = field(default_factory=dict)

    def start(self, program: Program) -> None:
        """Start a program and keep it running from now on."""
        program.start()
        self.adopt(program)

    def adopt(self, program: Program) -> None:
        """Keep a program running from now on that was started already."""
        self.programs.append(program)
        self._started_at[program.name] = time.monotonic()

    def check(self) -> None:
        """Notice the programs that ended, and restart those whose time has come."""
        now = time.monotonic()
        for program in self.programs:
            if program.is_running():
                continue
            name = program.name
            if name not in self._restart_at:
                # What the crashed process had started itself must not stand in the way of the new one.
                program.kill()
                if now - self._started_at[name] > self.healthy_after_s:
                    self._crashes[name] = 0
                self._restart_at[name] = now + self._count_crash(name)
            if now >= self._restart_at[name]:
                code = program.process.returncode if program.process else 0
                try:
                    program.start()
                except OSError as error:
                    # The machine has no room for another process, say; that is like a crash.
                    self._restart_at[name] = now + self._count_crash(name)
                    self.on_failure(program, error)
                    continue
                del self._restart_at[name]
                self._started_at[name] = now
                self.on_restart(program, code)

    def _count_crash(self, name: str) -> float:
        """Return how long the next restart waits; the first does not."""
        crashes = self._crashes[name] = self._crashes.get(name, 0) + 1
        # After a thousand crashes, some 85 minutes of them, no float could hold it.
        return 0.0 if crashes == 1 else min(FIRST_BACKOFF_S * 2 ** min(crashes - 2, 10), LONGEST_BACKOFF_S)

    def crashes(self, program: Program) -> int:
        """Return how often a program has ended by itself since it last ran for long."""
        return self._crashes.get(program.name, 0)


def stop_together(programs: Sequence[Program], in_a_hurry: Callable[[], bool] = lambda: False) -> None:
    """Ask programs to stop; press them when it takes too long or someone is in a hurry; kill what is left."""
    deadline = time.monotonic() + max((program.grace_s for program in programs), default=0)
    for program in programs:
        program.send(program.stop_signal)
    while any(program.is_running() for program in programs) and time.monotonic() < deadline and not in_a_hurry():
        time.sleep(POLL_S)
    deadline = time.monotonic() + LAST_GRACE_S
    for program in programs:
        program.send(program.hurry_signal)
    while any(program.is_running() for program in programs) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for program in programs:
        program.kill()


def run_together(programs: Sequence[Program], should_stop: Callable[[], bool] = lambda: False) -> None:
    """Run programs side by side until all have ended.

    Raises:
        ProgramFailed: one of them did not end well; the others are stopped then.
    """
    try:
        for program in programs:
            program.start()
        while any(program.is_running() for program in programs):
            if should_stop():
                return
            for program in programs:
                if not program.is_running() and program.process and program.process.returncode:
                    raise program.failure()
            time.sleep(POLL_S)
        for program in programs:
            if program.process and program.process.returncode:
                raise program.failure()
    finally:
        for program in programs:
            program.kill()


def complaint(log: Path) -> str:
    """Return the last line of a log file that speaks of an error, or else its last line."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    errors = [line for line in lines if COMPLAINT.search(line)]
    return (errors or lines or ["it ended without a word"])[-1]
