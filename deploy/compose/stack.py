"""The containers of deploy/docker-compose.yml, as `docker compose` or the older docker-compose runs them.

Only Python's own library is used here, so that an operator's machine needs nothing installed but Docker and Python.
"""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "docker-compose.yml"
SERVICES = ("identity", "catalogue", "records")
PROCESSES = (*SERVICES, "gateway")
HEALTHY_S = 60
MOST_RESTARTS = 3
RUNNING = ("running", "restarting", "paused")


class CommandFailed(Exception):
    """Docker refused, or what it was to run ended badly."""


def say(text: str) -> None:
    """Tell the operator what happens."""
    print(text, file=sys.stderr, flush=True)


def docker(*arguments: str, stdin: str | None = None) -> str:
    """Run Docker and return what it printed.

    Raises:
        CommandFailed: it ended badly.
    """
    return _run(["docker", *arguments], stdin)


def compose(*arguments: str, stdin: str | None = None) -> str:
    """Run Compose on the stack and return what it printed.

    Raises:
        CommandFailed: it ended badly.
    """
    return _run([*_compose_command(), "--file", str(FILE), *arguments], stdin)


def run_once(service: str, *command: str, stdin: str | None = None) -> str:
    """Run a service's container once, beside what runs: with a command of its image's, or `sh -c …`.

    Raises:
        CommandFailed: it ended badly.
    """
    shell = ["--entrypoint", "/bin/sh"] if command[:1] == ("sh",) else []
    arguments = command[1:] if shell else command
    return compose("run", "-T", "--rm", "--no-deps", *shell, service, *arguments, stdin=stdin)


def containers(service: str, *, status: Sequence[str] = RUNNING) -> list[str]:
    """Return the ids of a service's containers in any of the states, the oldest first."""
    labels = {"project": project(), "service": service, "oneoff": "False"}
    filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
    filters += [f"--filter=status={state}" for state in status]
    # Docker lists the newest first. Asking it is ten times as fast as asking Compose.
    return docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()[::-1]


def project() -> str:
    """Return the name that Compose knows the stack by, from where Compose itself takes it."""
    return setting("COMPOSE_PROJECT_NAME") or FILE.parent.name


def setting(name: str) -> str:
    """Return what Compose puts in the place of a variable: of the environment, or else of deploy/.env; or nothing."""
    settings = FILE.parent / ".env"
    lines = settings.read_text().splitlines() if settings.exists() else []
    kept = dict(line.strip().split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return os.environ.get(name) or kept.get(name, "")


def wait_until_healthy(container: str) -> None:
    """Wait until a container's own health check says that it serves.

    Raises:
        CommandFailed: it does not within a minute, or it ends again and again.
    """
    deadline = time.monotonic() + HEALTHY_S
    while True:
        try:
            docker("exec", container, "python", "-P", "/app/healthcheck.py")
        except CommandFailed:
            restarts = int(docker("inspect", "--format", "{{.RestartCount}}", container))
            if restarts >= MOST_RESTARTS or time.monotonic() > deadline:
                told = docker("logs", "--tail", "5", container).strip()
                raise CommandFailed(f"{container[:12]} does not serve after {restarts} restarts: {told}") from None
            time.sleep(0.5)
        else:
            return


def in_database(service: str, command: Sequence[str]) -> list[str]:
    """Return the command line that runs a PostgreSQL program as superuser beside a service's database.

    Raises:
        CommandFailed: the database does not run.
    """
    program, *arguments = command
    return ["docker", "exec", "--interactive", _database_container(service), program, "--username=postgres", *arguments]


def query(service: str, sql: str, *, database: str | None = None) -> str:
    """Run SQL in a service's database and return the rows as text, one a line.

    Raises:
        CommandFailed: the database refused.
    """
    psql = ["psql", f"--dbname={database or service}", "-XqtA", "--set=ON_ERROR_STOP=1"]
    return _run(in_database(service, psql), sql).strip()


def _database_container(service: str) -> str:
    found = containers(f"{service}-db")
    if not found:
        raise CommandFailed(f"{service}-db does not run")
    return found[0]


@functools.cache
def _compose_command() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]


def _run(command: Sequence[str], stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin or "", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(command[:6])} …: {done.stderr.strip()[-2000:]}")
    return done.stdout
