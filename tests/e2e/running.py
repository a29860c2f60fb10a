"""Whole systems for tests: one that all share, and ones of a test's own that it may break."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import pytest

from deploy.ports import pick_ports

ROOT = Path(__file__).parents[2]
SERVICES = ("identity", "catalogue", "records")
START_S = 120
STOP_S = 30


@dataclass(frozen=True)
class System:
    """A running system, as its runtime.json tells."""

    url: str
    admin_key: str
    runtime: dict[str, Any]
    data: Path

    @classmethod
    def read(cls, data: Path) -> "System":
        """Read what runs on a data folder."""
        runtime = json.loads((data / "runtime.json").read_text())
        admin_key = Path(runtime["admin_api_key_file"]).read_text().strip()
        return cls(runtime["gateway"]["url"], admin_key, runtime, data)

    @property
    def secrets(self) -> dict[str, Any]:
        """All secrets but the operators' keys."""
        secrets: dict[str, Any] = json.loads((self.data / "secrets.json").read_text())
        return secrets

    def superuser_dsn(self, database: str) -> str:
        """Return the DSN by which the server's superuser reaches a database."""
        server = urlsplit(self.runtime["databases"]["identity"]["runtime_dsn"])
        password = quote(self.secrets["superuser_password"], safe="")
        return f"postgresql://postgres:{password}@{server.hostname}:{server.port}/{database}"

    def superuser(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a connection that may do anything; what it does is done at once."""
        return psycopg.connect(self.superuser_dsn(database), autocommit=True)

    def settings(self, process: str) -> dict[str, str]:
        """Return the environment of another process like the running one of this name, on any free port."""
        secrets, tls = self.secrets, Path(self.runtime["tls"]["ca"]).parent
        settings = {
            "PATH": os.environ["PATH"],
            "AAROKYA_ENVIRONMENT": "development",
            "AAROKYA_TLS_CA": str(tls / "ca.pem"),
            "AAROKYA_TLS_CERTIFICATE": str(tls / f"{process}.pem"),
            "AAROKYA_TLS_KEY": str(tls / f"{process}.key"),
            "AAROKYA_PAGE_TOKEN_KEY": secrets["page_token_key"],
            "AAROKYA_JWT_KEYS": secrets["jwt_keys"],
            **{
                f"AAROKYA_{service.upper()}_ADDRESS": self.runtime["services"][service]["address"]
                for service in SERVICES
            },
        }
        if process == "gateway":
            return {**settings, "AAROKYA_ADMIN_API_KEY": self.admin_key, "AAROKYA_RATE_LIMITS": "off"}
        own, databases = secrets["services"][process], self.runtime["databases"][process]
        return {
            **settings,
            "AAROKYA_LISTEN": "127.0.0.1:0",
            "AAROKYA_DATABASE_RUNTIME_DSN": databases["runtime_dsn"],
            "AAROKYA_DATABASE_OWNER_DSN": databases["owner_dsn"],
            "AAROKYA_MASTER_KEYS": own["master_keys"],
            "AAROKYA_LOOKUP_KEY": own["lookup_key"],
            "AAROKYA_AUDIT_KEY": own["audit_key"],
            "AAROKYA_AUDIT_HEAD_FILE": str(self.data / "audit_heads" / process),
        }


class OwnSystem:
    """A system of a test's own: it may be stopped, told other secrets and started again, always on the same port."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        port = str(pick_ports(1)[0])
        self._environment = {
            **os.environ,
            "AAROKYA_DATA_DIR": str(data),
            "AAROKYA_HTTP_PORT": port,
            "AAROKYA_RATE_LIMITS": "off",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def system(self) -> System:
        """What runs at the moment."""
        return System.read(self.data)

    def start(self) -> None:
        """Start it, and return when it is ready."""
        with (self.data / "run.log").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "deploy.local"],
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if httpx.get(f"{self.system.url}/readyz", trust_env=False).status_code == 200:
                    return
            except (OSError, httpx.TransportError, ValueError):
                pass
            time.sleep(0.2)
        pytest.fail((self.data / "run.log").read_text()[-2000:])

    def stop(self) -> None:
        """Stop it; what is stored stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(STOP_S)
            self._process = None

    def restart_with(self, secrets: Mapping[str, Any]) -> None:
        """Stop it, and start it again with other secrets."""
        self.stop()
        (self.data / "secrets.json").write_text(json.dumps(secrets))
        self.start()


@contextmanager
def own_system(data: Path, **environment: str) -> Iterator[OwnSystem]:
    """Run a system as long as the block lasts."""
    own = OwnSystem(data, **environment)
    try:
        own.start()
        yield own
    finally:
        own.stop()
