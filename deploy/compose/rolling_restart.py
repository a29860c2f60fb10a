"""Replaces running containers by new ones, of the image and the secrets that are there now, and loses no request.

    python -m deploy.compose.rolling_restart [--migrate] [SERVICE …]

Without a service it replaces all four processes; `--migrate` brings their databases to the newest schema first, which
the old version goes on with, so that both together are an upgrade.
"""

import argparse
import sys
import time

from deploy.compose.stack import (
    PROCESSES,
    SERVICES,
    CommandFailed,
    compose,
    containers,
    docker,
    say,
    wait_until_healthy,
)

# Until then every client of a service has looked at the name service again, and the proxy has found a new gateway.
KNOWN_AFTER_S = 10
# More than a process takes to drain; Docker kills what is not gone by then.
STOP_S = 30


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description="Replace running containers without losing a request.")
    parser.add_argument("service", nargs="*", help=f"of {', '.join(PROCESSES)}; all when there is none")
    parser.add_argument("--migrate", action="store_true", help="bring the databases to the newest schema first")
    arguments = parser.parse_args()
    unknown = set(arguments.service) - set(PROCESSES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    services = arguments.service or PROCESSES
    try:
        for service in services:
            if arguments.migrate and service in SERVICES:
                say(f"{service}: bringing the database to the newest schema")
                compose("run", "-T", "--rm", "--no-deps", f"{service}-migrate")
        for service in services:
            replace(service)
    except CommandFailed as failure:
        sys.exit(f"rolling restart: {failure}; what runs goes on running")


def replace(service: str) -> None:
    """Start as many new containers as run, and stop the old ones when everybody knows the new ones.

    Raises:
        CommandFailed: a new container does not serve; the old ones still do.
    """
    old = containers(service)
    if not old:
        raise CommandFailed(f"{service} does not run")
    say(f"{service}: starting {len(old)} beside {len(old)}")
    compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", f"{service}={2 * len(old)}", service)
    for container in containers(service):
        wait_until_healthy(container)
    time.sleep(KNOWN_AFTER_S)
    for container in old:
        say(f"{service}: draining {container[:12]}")
        docker("stop", "--time", str(STOP_S), container)
        docker("rm", container)


if __name__ == "__main__":
    main()
