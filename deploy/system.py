"""All processes of a local system: the order in which they start, what each is told, and how they stop."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Protocol
from urllib.parse import quote, urlencode

import httpx
import psycopg
from psycopg.conninfo import conninfo_to_dict

from deploy.errors import DataUnusable, ProgramFailed, WrongOption
from deploy.files import write_privately
from deploy.keyring import Keyring
from deploy.options import Options
from deploy.ports import pick_ports
from deploy.postgres import Cluster
from deploy.supervisor import POLL_S, Program, Supervisor, complaint, run_together, stop_together
from servicekit.tls import prepare_certificates

SERVICES = ("identity", "catalogue", "records")
GATEWAY = "gateway"
# Which services each process calls (docs/design.md).
CALLS: Mapping[str, Sequence[str]] = {
    "identity": ("records",),
    "catalogue": (),
    "records": ("identity", "catalogue"),
    "gateway": SERVICES,
}
# What the user's environment may tell every process, and the gateway alone.
PASSED_TO_ALL = ("AAROKYA_LOG_LEVEL", "AAROKYA_TIMEZONE")
PASSED_TO_GATEWAY = (
    "AAROKYA_ADMIN_API_KEYS",
    "AAROKYA_CORS_ORIGINS",
    "AAROKYA_RATE_LIMITS",
    "AAROKYA_REDIS_URL",
    "AAROKYA_TRUSTED_PROXIES",
)
# A process that has ended so often before everything was ready will not get there.
HOPELESS_CRASHES = 3


class StopRequest(Protocol):
    """Whether someone wants the system to stop."""

    def is_made(self) -> bool: ...

    def is_urgent(self) -> bool: ...


class LocalSystem:
    """The processes of one data folder. Whoever makes it has the folder to itself, and calls it in the main thread."""

    def __init__(self, options: Options, request: StopRequest, say: Callable[[str], None]) -> None:
        self._options = options
        self._request = request
        self._say = say
        self._data = options.data
        self._logs = self._data / "logs"
        self._runtime_file = self._data / "runtime.json"
        self.admin_key_file = self._data / "admin_api_key"
        self._supervisor = Supervisor(self._note_restart, self._note_failure)
        self._programs: dict[str, Program] = {}
        self._cluster: Cluster | None = None
        self._is_ready = False
        self._tells_old_processes = False

    def start(self) -> None:
        """Start everything, and return when the gateway is ready or when someone wants it all to stop.

        Raises:
            CannotRun, OSError: it does not start.
        """
        self._prepare_folder()
        for step in (self._start_database, self._prepare_databases, self._start_processes, self._wait_until_ready):
            if self._request.is_made():
                return
            step()

    def watch(self) -> None:
        """Restart what crashes until someone wants it all to stop."""
        while not self._request.is_made():
            self._supervisor.check()
            if self._tells_old_processes:
                self._tell_new_processes()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop the gateway, then the services, then the database, and leave nothing running."""
        self._runtime_file.unlink(missing_ok=True)
        urgent = self._request.is_urgent
        stop_together([self._programs[GATEWAY]] if GATEWAY in self._programs else [], urgent)
        stop_together([program for name, program in self._programs.items() if name in SERVICES], urgent)
        if self._cluster:
            stop_together([self._cluster.program], urgent)

    @property
    def is_ready(self) -> bool:
        return self._is_ready

    def _prepare_folder(self) -> None:
        self._runtime_file.unlink(missing_ok=True)
        for folder in (self._logs, self._data / "audit_heads"):
            folder.mkdir(mode=0o700, exist_ok=True)
        for log in self._logs.glob("*.log"):
            log.replace(log.with_suffix(".log.1"))
        keyring_file = self._data / "secrets.json"
        if (self._data / "postgres" / "data").exists() and not keyring_file.exists():
            raise DataUnusable(f"{keyring_file} is gone, and without it nobody can read the data beside it")
        if self._options.admin_api_key:
            write_privately(self.admin_key_file, f"{self._options.admin_api_key}\n")
        elif not self.admin_key_file.exists():
            write_privately(self.admin_key_file, f"{Keyring.new_admin_key()}\n")
        self._keyring = Keyring.open(keyring_file, SERVICES)
        self._certificates = prepare_certificates(self._data / "tls", (*SERVICES, GATEWAY))

    def _start_database(self) -> None:
        if self._options.postgres_dsn:
            self._say("Using the PostgreSQL of AAROKYA_POSTGRES_DSN")
            try:
                psycopg.connect(self._options.postgres_dsn, connect_timeout=5).close()
            except psycopg.Error as error:
                reason = str(error).strip().splitlines()[0]
                raise WrongOption(f"the PostgreSQL of AAROKYA_POSTGRES_DSN does not answer: {reason}") from None
            return
        port = pick_ports(1)[0]
        cluster = Cluster(
            self._data / "postgres", self._keyring.superuser_password, port=port, log=self._logs / "postgres.log"
        )
        self._say(f"Starting PostgreSQL {cluster.binaries.major} in {cluster.home}")
        cluster.prepare()
        self._cluster = cluster
        self._supervisor.start(cluster.program)
        cluster.wait_until_ready(self._request.is_made)

    @cached_property
    def _superuser_dsn(self) -> str:
        return self._options.postgres_dsn or self._cluster_dsn()

    def _cluster_dsn(self) -> str:
        assert self._cluster is not None
        return self._cluster.dsn

    def _owner_dsn(self, service: str) -> str:
        password = self._keyring.services[service].owner_password
        return login_dsn(self._superuser_dsn, f"{service}_owner", password, service)

    def _runtime_dsn(self, service: str) -> str:
        password = self._keyring.services[service].runtime_password
        return login_dsn(self._superuser_dsn, f"{service}_runtime", password, service)

    def _prepare_databases(self) -> None:
        self._say("Bringing the databases to the newest schema")
        for command in ("provision", "migrate"):
            run_together([self._one_shot(service, command) for service in SERVICES], self._request.is_made)

    def _one_shot(self, service: str, command: str) -> Program:
        settings = {
            "AAROKYA_DATABASE_OWNER_DSN": self._owner_dsn(service),
            "AAROKYA_DATABASE_RUNTIME_DSN": self._runtime_dsn(service),
        }
        if command == "provision":
            settings["AAROKYA_DATABASE_SUPERUSER_DSN"] = self._superuser_dsn
        return self._program(service, [command], settings, name=f"{service}-{command}")

    def _start_processes(self) -> None:
        self._say("Starting identity, catalogue, records and the gateway")
        *ports, metrics_port = pick_ports(len(SERVICES) + 1)
        self._addresses = {service: f"127.0.0.1:{port}" for service, port in zip(SERVICES, ports, strict=True)}
        self._metrics_listen = f"127.0.0.1:{metrics_port}"
        for service in SERVICES:
            self._programs[service] = self._program(service, ["serve"], self._service_settings(service))
        self._programs[GATEWAY] = self._program(GATEWAY, [], self._gateway_settings())
        for program in self._programs.values():
            self._supervisor.start(program)

    def _service_settings(self, service: str) -> dict[str, str]:
        secrets = self._keyring.services[service]
        settings = {
            **self._shared_settings(service),
            "AAROKYA_LISTEN": self._addresses[service],
            "AAROKYA_DATABASE_RUNTIME_DSN": self._runtime_dsn(service),
            "AAROKYA_MASTER_KEYS": secrets.master_keys,
            "AAROKYA_LOOKUP_KEY": secrets.lookup_key,
            "AAROKYA_AUDIT_KEY": secrets.audit_key,
            "AAROKYA_AUDIT_HEAD_FILE": str(self._data / "audit_heads" / service),
        }
        if service == "identity":
            settings["AAROKYA_JWT_KEYS"] = self._keyring.jwt_keys
        return settings

    def _gateway_settings(self) -> dict[str, str]:
        return {
            **self._shared_settings(GATEWAY),
            **_taken_from_environment(PASSED_TO_GATEWAY),
            "AAROKYA_JWT_KEYS": self._keyring.jwt_keys,
            "AAROKYA_ADMIN_API_KEY": self.admin_key_file.read_text().strip(),
            "AAROKYA_HTTP_HOST": self._options.host,
            "AAROKYA_HTTP_PORT": str(self._options.port),
            "AAROKYA_METRICS_LISTEN": self._metrics_listen,
        }

    def _shared_settings(self, process: str) -> dict[str, str]:
        files = self._certificates[process]
        return {
            "AAROKYA_TLS_CA": str(files.ca),
            "AAROKYA_TLS_CERTIFICATE": str(files.certificate),
            "AAROKYA_TLS_KEY": str(files.key),
            "AAROKYA_PAGE_TOKEN_KEY": self._keyring.page_token_key,
            **{f"AAROKYA_{called.upper()}_ADDRESS": self._addresses[called] for called in CALLS[process]},
        }

    def _program(self, module: str, arguments: Sequence[str], settings: Mapping[str, str], name: str = "") -> Program:
        """Describe a Python process that is told these settings and nothing of ours that is not meant for it."""
        inherited = {
            variable: value
            for variable, value in os.environ.items()
            if not variable.startswith(("AAROKYA_", "PG", "PYTHON"))
        }
        return Program(
            name=name or module,
            # -P keeps the current folder off the import path.
            command=[sys.executable, "-P", "-m", module, *arguments],
            environment={
                **inherited,
                "PYTHONUNBUFFERED": "1",
                "AAROKYA_ENVIRONMENT": "development",
                **_taken_from_environment(PASSED_TO_ALL),
                **settings,
            },
            log=self._logs / f"{name or module}.log",
            directory=self._data,
        )

    def _wait_until_ready(self) -> None:
        with httpx.Client(base_url=self._options.url, timeout=2, trust_env=False) as client:
            while not self._request.is_made():
                self._supervisor.check()
                for program in self._programs.values():
                    if self._supervisor.crashes(program) >= HOPELESS_CRASHES:
                        raise ProgramFailed(
                            f"{program.name} does not start: {complaint(program.log)} (its log is {program.log})"
                        )
                try:
                    if client.get("/readyz").status_code == httpx.codes.OK:
                        self._is_ready = True
                        self._write_runtime()
                        return
                except httpx.TransportError:
                    # It does not listen yet.
                    pass
                time.sleep(POLL_S)

    def _note_restart(self, program: Program, code: int) -> None:
        self._say(f"{program.name} ended with code {code} and was restarted; its log is {program.log}")
        self._tells_old_processes = self._is_ready

    def _note_failure(self, program: Program, error: OSError) -> None:
        self._say(f"{program.name} cannot be started again: {error.strerror}; that is tried once more")

    def _tell_new_processes(self) -> None:
        # On a full disk, what runs goes on, and this is written when there is room.
        with contextlib.suppress(OSError):
            self._write_runtime()
            self._tells_old_processes = False

    def _write_runtime(self) -> None:
        """Tell tools and tests what runs where."""
        gateway, files = self._programs[GATEWAY], self._certificates[GATEWAY]
        runtime = {
            "gateway": {
                "url": self._options.url,
                "pid": gateway.pid,
                "metrics_url": f"http://{self._metrics_listen}/metrics",
            },
            "services": {
                service: {"pid": self._programs[service].pid, "address": self._addresses[service]}
                for service in SERVICES
            },
            "databases": {
                service: {"owner_dsn": self._owner_dsn(service), "runtime_dsn": self._runtime_dsn(service)}
                for service in SERVICES
            },
            "tls": {"ca": str(files.ca), "certificate": str(files.certificate), "key": str(files.key)},
            "admin_api_key_file": str(self.admin_key_file),
        }
        write_privately(self._runtime_file, json.dumps(runtime, indent=2))


def login_dsn(server_dsn: str, user: str, password: str, database: str) -> str:
    """Return the URL by which a login reaches a database on the server that another DSN names."""
    parameters = {name: str(value) for name, value in conninfo_to_dict(server_dsn).items() if value is not None}
    hosts = parameters.pop("host", "localhost").split(",")
    ports = parameters.pop("port", "5432").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    for replaced in ("user", "password", "dbname"):
        parameters.pop(replaced, None)
    places = ",".join(f"{_url_host(host)}:{port}" for host, port in zip(hosts, ports, strict=True))
    rest = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
    return f"postgresql://{quote(user)}:{quote(password, safe='')}@{places}/{quote(database)}{rest}"


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else quote(host, safe="")


def _taken_from_environment(names: Sequence[str]) -> dict[str, str]:
    """Return the variables that are set, or their `_FILE` twins."""
    both = [*names, *(f"{name}_FILE" for name in names)]
    return {name: os.environ[name] for name in both if os.environ.get(name)}
