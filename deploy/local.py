"""What `make run` starts: a whole Aarokya on this machine, until Ctrl-C.

Everything lives in one data folder, so that several copies can run side by side.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from deploy.errors import CannotRun, DataUnusable, WrongOption
from deploy.journey import as_shell
from deploy.options import Options
from deploy.ports import is_free
from deploy.system import LocalSystem

# A new cluster takes 60 MB, and PostgreSQL dislikes a full disk.
NEEDED_BYTES = 200 * 1024 * 1024
# A second signal within this time is the first one again: the terminal and `make` both pass it on.
SAME_SIGNAL_S = 1.0


class Signals:
    """Notes who wants us to stop. Nothing is interrupted, so that nothing is ever left half-started."""

    def __init__(self) -> None:
        self._first_at: float | None = None
        self._is_urgent = False
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._note)
        # Under nohup the closing of the terminal is to be ignored.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._note)

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
        elif now - self._first_at > SAME_SIGNAL_S:
            self._is_urgent = True

    def is_made(self) -> bool:
        """Tell whether someone wants us to stop."""
        return self._first_at is not None

    def is_urgent(self) -> bool:
        """Tell whether someone has asked again."""
        return self._is_urgent


def main() -> None:
    """Run the system until someone stops it; whatever stands in the way is said in one sentence."""
    # Whatever is made here holds secrets or personal data.
    os.umask(0o077)
    signals = Signals()
    try:
        options = Options.read(os.environ)
        with _sole_use_of(options.data):
            _require_room(options)
            _run(options, signals)
    except (CannotRun, OSError) as error:
        say(f"aarokya: {error}", sys.stderr.fileno())
        sys.exit(1)


def say(text: str, stream: int = 1) -> None:
    """Write a line; a reader who has gone away is no reason to stop halfway."""
    with contextlib.suppress(OSError):
        os.write(stream, f"{text}\n".encode())


def _run(options: Options, signals: Signals) -> None:
    system = LocalSystem(options, signals, say)
    try:
        system.start()
        if system.is_ready:
            say(_welcome(options.url, system.admin_key_file))
            system.watch()
    finally:
        if signals.is_made():
            say("Stopping")
        system.stop()
    say(f"Stopped; the data stays in {options.data}")


def _welcome(url: str, admin_key_file: Path) -> str:
    return "\n".join(
        (
            f"ready {url}",
            f"API documents:  {url}/api_docs/ui",
            f"operator's key: {admin_key_file}",
            "A partner's journey, to paste into a shell (`make demo` walks it, too):",
            "",
            as_shell(url, admin_key_file),
            "",
            "Ctrl-C stops everything.",
        )
    )


@contextlib.contextmanager
def _sole_use_of(data: Path) -> Iterator[None]:
    """Hold the data folder's lock, which the kernel gives back however we end."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0 and data.stat().st_uid == 0:
            # PostgreSQL runs as another user then, and has to get to its own folder in here.
            data.chmod(data.stat().st_mode | 0o011)
        lock = (data / "lock").open("a")
    except OSError as error:
        raise DataUnusable(f"the data folder {data} cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataUnusable(
                f"it already runs on the data folder {data}; AAROKYA_DATA_DIR names another folder"
            ) from None
        yield


def _require_room(options: Options) -> None:
    if not is_free(options.port, options.host):
        raise WrongOption(
            f"port {options.port} of {options.host} is taken or forbidden; AAROKYA_HTTP_PORT names another port"
        )
    free = shutil.disk_usage(options.data).free
    if free < NEEDED_BYTES:
        raise DataUnusable(
            f"the disk that holds {options.data} has only {free // 2**20} MB left, and 200 MB are needed"
        )


if __name__ == "__main__":
    main()
