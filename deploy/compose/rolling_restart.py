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
    RUNNING,
    SERVICES,
    CommandFailed,
    compose,
    containers,
    docker,
    run_once,
    say,
    wait_until_healthy,
)

# Until then every client of a service has looked at the name service again, and the proxy has found a new gateway.
KNOWN_AFTER_S = 10
# More than a process takes to drain; Docker kills what is not gone by then.
STOP_S = 30
ENDED = ("created", "exited", "dead")


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
                run_once(f"{service}-migrate")
        for service in services:
            replace(service)
    except CommandFailed as failure:
        sys.exit(f"rolling restart: {failure}; what runs goes on running")


def replace(service: str) -> None:
    """Start as many new containers as run, and stop the old ones when everybody knows the new ones.

    Raises:
        CommandFailed: a new container does not serve; the old ones still do, and the new ones are gone.
    """
    old = containers(service)
    if not old:
        raise CommandFailed(f"{service} does not run")
    # Compose would start them again, as they are, instead of making new ones.
    for container in containers(service, status=ENDED):
        docker("rm", container)
    say(f"{service}: starting {len(old)} beside {len(old)}")
    try:
        compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", f"{service}={2 * len(old)}", service)
        new = [container for container in containers(service) if container not in old]
        for container in new:
            require_newest_image(container)
            wait_until_healthy(container)
        if len(new) < len(old):
            raise CommandFailed(f"only {len(new)} of {len(old)} new containers of {service} run")
        time.sleep(KNOWN_AFTER_S)
    except BaseException:
        say(f"{service}: removing the new ones")
        for container in containers(service, status=(*RUNNING, *ENDED)):
            if container not in old:
                docker("rm", "--force", container)
        raise
    for container in old:
        say(f"{service}: draining {container[:12]}")
        docker("stop", "--time", str(STOP_S), container)
        docker("rm", container)


def require_newest_image(container: str) -> None:
    """Raise CommandFailed unless a container is of the image that its image's name stands for now."""
    name, image = docker("inspect", "--format", "{{.Config.Image}} {{.Image}}", container).split()
    if docker("image", "inspect", "--format", "{{.Id}}", name).strip() != image:
        raise CommandFailed(f"{container[:12]} is not of the {name} that is there now")


if __name__ == "__main__":
    main()
