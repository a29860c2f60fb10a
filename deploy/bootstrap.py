"""Makes the virtualenv that everything else runs in, with nothing but the standard library of Python 3.11 or newer.

It is started by the Makefile as ``python deploy/bootstrap.py [--dev]`` and does nothing when all is there already.
"""

import sys

# Older Pythons must be able to read this file up to here, and parse the rest, to say what is wrong with them.
if sys.version_info < (3, 11):
    sys.exit("aarokya: Python 3.11 or newer is needed, and this is " + sys.version.split()[0])

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "bootstrap.json"
LOCK = VENV / "bootstrap.lock"
LOG = VENV / "bootstrap.log"
# Where the packages lie (docs/design.md), in the order in which Python looks for them.
IMPORT_PATH = ("protos", "servicekit", "gateway", "services/identity", "services/catalogue", "services/records", ".")


class Refusal(Exception):
    """Why there can be no virtualenv, in one sentence."""


def main() -> None:
    """Make or complete the virtualenv, or say in one sentence why that is not possible."""
    parser = argparse.ArgumentParser(description="Make the virtualenv that everything else runs in.")
    parser.add_argument("--dev", action="store_true", help="also install what building, checking and testing need")
    requirements = ROOT / ("requirements-dev.lock" if parser.parse_args().dev else "requirements.lock")
    try:
        if not _is_complete(requirements):
            _require_venv_module()
            with _one_at_a_time():
                if not _is_complete(requirements):
                    _prepare(requirements)
    except KeyboardInterrupt:
        sys.exit("aarokya: stopped while preparing the virtualenv; the next start goes on from there")
    except (Refusal, OSError) as error:
        sys.exit(f"aarokya: the virtualenv could not be prepared: {error}")


def _is_complete(requirements: Path) -> bool:
    """Tell by the stamp whether the virtualenv is this tree's and has the packages of the lock file."""
    stamp = _read_stamp()
    return _is_sound(stamp) and stamp.get(requirements.name) == _digest(requirements)


def _is_sound(stamp: dict[str, str]) -> bool:
    """Tell whether the virtualenv was made here (its scripts hold absolute paths) by this Python, and still starts.

    A virtualenv without stamp, which someone made by hand, is taken over if it is of the same Python.
    """
    if stamp.get("tree", str(ROOT)) != str(ROOT):
        return False
    try:
        version = subprocess.run(
            [PYTHON, "-I", "-c", "import pip, sys; print(sys.version)"], capture_output=True, text=True, check=False
        )
    except OSError:
        return False
    return version.stdout.strip() == sys.version


def _read_stamp() -> dict[str, str]:
    try:
        stamp: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp


def _digest(file: Path) -> str:
    # The import path is part of it, so that a tree that moves its packages gets a new .pth file.
    return hashlib.sha256(repr(IMPORT_PATH).encode() + file.read_bytes()).hexdigest()


def _require_venv_module() -> None:
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise Refusal("this Python has no venv module (on Debian and Ubuntu: apt install python3-venv)")


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let the second `make` that comes at the same time wait for the first."""
    VENV.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another make that prepares the virtualenv", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prepare(requirements: Path) -> None:
    stamp = _read_stamp()
    if not _is_sound(stamp):
        print(f"Making a virtualenv with Python {sys.version.split()[0]}", flush=True)
        for entry in VENV.iterdir():
            if entry == LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        stamp = {}
        _run(["-m", "venv", VENV], python=sys.executable)
    STAMP.unlink(missing_ok=True)
    count = sum(1 for line in requirements.read_text().splitlines() if "==" in line and not line.startswith((" ", "#")))
    print(f"Installing {count} packages from {requirements.name} (once; about a minute)", flush=True)
    _run(["-m", "pip", "install", "--disable-pip-version-check", "--require-hashes", "-r", requirements], count=count)
    _write_import_path()
    STAMP.write_text(json.dumps({**stamp, "tree": str(ROOT), requirements.name: _digest(requirements)}))


def _run(arguments: list[str | Path], python: str | Path = PYTHON, count: int = 0) -> None:
    """Run a Python module apart from the user's settings of Python, and show on a terminal how far pip is."""
    collected = 0
    with LOG.open("w") as log:
        process = subprocess.Popen(
            [python, "-I", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if line.startswith("Collecting ") and sys.stdout.isatty():
                collected += 1
                print(f"\r  {min(collected, count)} of {count}", end="", flush=True)
        if collected:
            print("\r\033[K", end="", flush=True)
    if process.wait() != 0:
        raise Refusal(_reason(LOG.read_text()))


def _reason(output: str) -> str:
    """Return the line of a failed run that says most."""
    if "No space left on device" in output:
        return f"no space is left on the disk that holds {VENV}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["it ended without a word"]
    return f"{errors[0].removeprefix('ERROR:').strip()} (everything it said is in {LOG})"


def _write_import_path() -> None:
    # Lines of a .pth file are relative to the folder that it lies in.
    packages = next((VENV / "lib").glob("python*/site-packages"))
    up = "/".join(".." for _ in packages.relative_to(ROOT).parts)
    (packages / "aarokya.pth").write_text("".join(f"{up}/{folder}\n" for folder in IMPORT_PATH))


if __name__ == "__main__":
    main()
