"""Gateways beside the one of the running system, on the same services with the same secrets."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from deploy.ports import pick_ports
from tests.e2e.running import ROOT, STOP_S, System

START_S = 60


@contextmanager
def running_gateway(system: System, module: str = "gateway", **variables: str) -> Iterator[str]:
    """Run another gateway, and give its URL.

    Args:
        system: whose services and secrets it takes.
        module: what is run, if it is not the gateway as it is.
        variables: what else to tell it in its environment.
    """
    port = str(pick_ports(1)[0])
    environment = {**system.settings("gateway"), "AAROKYA_HTTP_PORT": port, **variables}
    log = system.data / "logs" / f"{module}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while not _is_ready(url):
            if time.monotonic() > deadline or process.poll() is not None:
                pytest.fail(log.read_text()[-2000:])
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(STOP_S)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        # It does not listen yet.
        return False
