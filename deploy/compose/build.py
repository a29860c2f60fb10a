"""Builds the images of this checkout, and has deploy/.env name them as the version to run.

    python -m deploy.compose.build [VERSION]

Each version gets a tag of its own, by default its commit, so that the images of the versions before stay.
"""

import os
import re
import subprocess
import sys

from deploy.compose.stack import FILE, PROCESSES, CommandFailed, compose, say, setting

NAME = "AAROKYA_VERSION"


def main() -> None:
    """Read the command line and do it."""
    try:
        build(sys.argv[1] if len(sys.argv) > 1 else "")
    except (CommandFailed, OSError) as failure:
        sys.exit(f"build: {failure}")


def build(version: str) -> None:
    """Build the images and note their version.

    Raises:
        CommandFailed: an image can't be built, or there is no commit to name the version by.
    """
    commit = git("rev-parse", "HEAD")
    changed = "-changed" if git("status", "--porcelain") else ""
    version = version or (commit and commit[:12] + changed)
    if not version:
        raise CommandFailed("this is no checkout of git: name the version, as in make compose-build ARGS=7")
    before = setting(NAME) or "dev"
    os.environ.update({NAME: version, "AAROKYA_REVISION": (commit or "unknown") + changed})
    say(f"building version {version}")
    compose("build", *PROCESSES)
    settings = FILE.parent / ".env"
    text = settings.read_text() if settings.exists() else ""
    line = f"{NAME}={version}"
    text, there = re.subn(rf"^{NAME}=.*$", line, text, flags=re.MULTILINE)
    settings.write_text(text if there else f"{text.rstrip()}\n{line}\n".lstrip())
    say(f"deploy/.env names version {version} now; it was {before}")


def git(*arguments: str) -> str:
    """Return what git says about this checkout; nothing if there is no git or no checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=FILE.parent, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


if __name__ == "__main__":
    main()
