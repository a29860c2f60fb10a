"""A whole system to break: a PostgreSQL cluster for each service, supervised processes, a proxy on every edge."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from chaos.http import Answer, HttpClient, NoAnswer, NotSent
from chaos.proxy import Proxy
from deploy.keyring import Keyring
from deploy.ports import pick_ports
from deploy.postgres import Cluster
from deploy.supervisor import POLL_S, Program, Supervisor, complaint, run_together, stop_together
from deploy.system import CALLS, GATEWAY, SERVICES, login_dsn
from servicekit.tls import prepare_certificates

START_S = 90.0
MIGRATED_S = 60.0
LOW_PRIORITY = 15
# A killed postmaster may fail to start for so long, while old backends still end.
RESTARTING_S = 20.0
# A process that ran this long before it was killed is restarted at once: its end says nothing about its health.
HEALTHY_AFTER_S = 2.0
PROCESSES = (*SERVICES, GATEWAY)
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("protos", "servicekit", "gateway", *(f"services/{service}" for service in SERVICES), ".")


class RigFailed(Exception):
    """The system did not come up, or did not come back."""


@dataclass(frozen=True)
class Layout:
    """What a rig is made of.

    Attributes:
        replicas: how many processes of each kind.
        drain_s: how long a gateway serves on after it was told to stop.
        trees: where the code of a process lies when it is not this checkout, by its package.
        standby_of: the service whose processes are also told of a standby, at `Rig.standby_port`.
        disk_of: the service whose cluster has a disk of its own, which can be filled; only root can make one.
        disk_megabytes: how much that disk holds.
    """

    replicas: int = 1
    drain_s: float = 0.0
    trees: Mapping[str, Path] = field(default_factory=dict)
    standby_of: str = ""
    disk_of: str = ""
    disk_megabytes: int = 400


class Rig:
    """The running system. Everything here is called in the main thread, by one event loop."""

    def __init__(self, folder: Path, seed: int, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout
        self.rng = random.Random(seed)
        self.clusters: dict[str, Cluster] = {}
        self.proxies: dict[str, Proxy] = {}
        self.programs: dict[str, Program] = {}
        self.unplanned: list[str] = []
        self.restarts: Counter[str] = Counter()
        self.done_to: Counter[str] = Counter()
        self.admin_key = Keyring.new_admin_key()
        # Whoever looks into a failure needs the logs.
        self.is_of_interest = False
        # What every probe was answered.
        self.probed: Counter[str] = Counter()
        self._expected: Counter[str] = Counter()
        self._excused_until: dict[str, float] = {}
        self._supervisor = Supervisor(self._note_restart, healthy_after_s=HEALTHY_AFTER_S)
        self._watching: asyncio.Task[None] | None = None
        self._keyring = Keyring.open(folder / "secrets.json", SERVICES)
        self._certificates = prepare_certificates(folder / "tls", PROCESSES)
        processes = self.replicas(*PROCESSES)
        names = [
            *processes,
            *(f"{name}-metrics" for name in processes),
            *(f"{service}-database" for service in SERVICES),
            "standby",
        ]
        self._ports = dict(zip(names, pick_ports(len(names)), strict=True))

    # Starting and stopping.

    async def start(self) -> None:
        """Start everything, and return when all gateways are ready.

        Raises:
            RigFailed: they are not.
        """
        (self.folder / "logs").mkdir()
        if self.layout.disk_of:
            self._mount_disk()
        for service in SERVICES:
            cluster = Cluster(
                self.home_of(service),
                self._keyring.superuser_password,
                port=self._ports[f"{service}-database"],
                log=self.folder / "logs" / f"{service}-database.log",
            )
            cluster.start()
            cluster.program.name = f"{service}-database"
            self._supervisor.adopt(cluster.program)
            self.clusters[service] = cluster
        for command in ("provision", "migrate"):
            run_together([self._one_shot(service, command) for service in SERVICES])
        await self._start_proxies()
        for name in self.replicas(*PROCESSES):
            self.programs[name] = self.program_of(name)
            self._supervisor.start(self.programs[name])
        self._watching = asyncio.create_task(self._watch())
        for gateway in self.replicas(GATEWAY):
            await self.until_ready(gateway, START_S)

    async def stop(self) -> None:
        """Stop everything at once: there is nothing to be kept."""
        if self._watching is not None:
            self._watching.cancel()
        for program in self.programs.values():
            program.send(signal.SIGCONT)
            program.kill()
        stop_together([cluster.program for cluster in self.clusters.values()])
        for proxy in self.proxies.values():
            await proxy.stop()
        if self.layout.disk_of:
            self._unmount_disk()

    def _mount_disk(self) -> None:
        home = self.home_of(self.layout.disk_of)
        home.mkdir()
        size = f"size={self.layout.disk_megabytes}m"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", home], check=False)
        if mounted.returncode:
            raise RigFailed("a disk of its own can only be mounted by root")

    def _unmount_disk(self) -> None:
        subprocess.run(["umount", "--lazy", self.home_of(self.layout.disk_of)], check=False)

    def fail_over(self, service: str, successor: Cluster) -> None:
        """Look for a service's database elsewhere from now on."""
        self.clusters[service] = successor
        successor.program.name = f"{service}-standby"
        self._supervisor.adopt(successor.program)

    async def _start_proxies(self) -> None:
        for caller, called in CALLS.items():
            for service in called:
                for replica in self.replicas(service):
                    await self._add_proxy(f"{caller}-{replica}", self._ports[replica])
        for service in SERVICES:
            await self._add_proxy(f"{service}-database", self._ports[f"{service}-database"])
        for gateway in self.replicas(GATEWAY):
            await self._add_proxy(f"client-{gateway}", self._ports[gateway])

    async def _add_proxy(self, edge: str, target: int) -> None:
        self.proxies[edge] = Proxy(edge, target, self.rng)
        await self.proxies[edge].start()

    async def _watch(self) -> None:
        while True:
            self._supervisor.check()
            await asyncio.sleep(POLL_S)

    def _note_restart(self, program: Program, code: int) -> None:
        self.restarts[program.name] += 1
        if self._expected[program.name] > 0:
            self._expected[program.name] -= 1
        elif time.monotonic() > self._excused_until.get(program.name, 0.0):
            self.unplanned.append(f"{program.name} ended with code {code}: {complaint(program.log)[:300]}")

    # What is where.

    def replicas(self, *kinds: str) -> list[str]:
        """Return the names of the processes of some kinds."""
        return [f"{kind}-{number}" for kind in kinds for number in range(1, self.layout.replicas + 1)]

    def edges(self, start: str) -> list[Proxy]:
        """Return the proxies of the edges whose names begin so."""
        found = [proxy for name, proxy in self.proxies.items() if name.startswith(start)]
        assert found, start
        return found

    def home_of(self, service: str) -> Path:
        """Return the folder of a service's cluster."""
        return self.folder / f"{service}-database"

    def client_port(self, gateway: str = "gateway-1") -> int:
        """Return where clients reach a gateway, through its proxy."""
        return self.proxies[f"client-{gateway}"].port

    def port(self, name: str) -> int:
        """Return where a process serves, around its proxies."""
        return self._ports[name]

    def superuser_dsn(self, service: str) -> str:
        """Return the way into a service's database around the proxy, for the checker."""
        return login_dsn(self.clusters[service].dsn, "postgres", self._keyring.superuser_password, service)

    def query(self, service: str, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Ask a service's database as its superuser; blocks, so it is for threads."""
        with psycopg.connect(self.superuser_dsn(service), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

    async def ask(self, service: str, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Ask a service's database as its superuser."""
        return await asyncio.to_thread(self.query, service, statement, *arguments)

    def memory(self, name: str) -> int:
        """Return the resident bytes of a process."""
        return int(psutil.Process(self.programs[name].pid).memory_info().rss)

    def descriptors(self, name: str) -> int:
        """Return how many files and sockets a process has open."""
        return int(psutil.Process(self.programs[name].pid).num_fds())

    def metrics_port(self, name: str) -> int:
        """Return where a process serves its metrics."""
        return self._ports[f"{name}-metrics"]

    # Breaking things.

    def kill(self, name: str) -> None:
        """Kill a process or a postmaster; the supervisor restarts it."""
        if name not in self.programs:
            self.excuse(name, RESTARTING_S)
        self._end(name, signal.SIGKILL, "killed")

    def terminate(self, name: str) -> None:
        """Ask a process to stop; the supervisor starts it again."""
        self._end(name, signal.SIGTERM, "terminated")

    def _end(self, name: str, signum: signal.Signals, what: str) -> None:
        """Send what ends a process, if it runs: who died before that has died unplanned."""
        if self._program(name).is_running():
            self.done_to[what] += 1
            self._expected[name] += 1
            self._program(name).send(signum)

    def excuse(self, name: str, seconds: float) -> None:
        """Take ends of a process for planned for some time: what was done to it may end it more than once."""
        self._excused_until[name] = time.monotonic() + seconds

    def freeze(self, name: str) -> None:
        """Let a process stand still."""
        if self._program(name).is_running():
            self.done_to["frozen"] += 1
            self._program(name).send(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let a process go on."""
        self._program(name).send(signal.SIGCONT)

    def take_down(self, name: str) -> None:
        """Kill a process and keep it down."""
        program = self._program(name)
        self.done_to["taken down"] += program.is_running()
        self._supervisor.programs.remove(program)
        program.kill()

    def bring_up(self, name: str) -> None:
        """Start a process that was taken down."""
        self._supervisor.start(self._program(name))

    def pid(self, name: str) -> int:
        """Return the id of the process that runs at the moment."""
        return self._program(name).pid

    def _program(self, name: str) -> Program:
        if name in self.programs:
            return self.programs[name]
        return self.clusters[name.removesuffix("-database")].program

    def fired(self) -> Counter[str]:
        """Return how often each fault really hit."""
        total = Counter(self.done_to)
        for proxy in self.proxies.values():
            total.update(proxy.fired)
        return total

    # Waiting.

    async def until_ready(self, gateway: str, within_s: float = 30.0) -> float:
        """Wait until a gateway says that it is ready; return how long that took.

        Raises:
            RigFailed: it took too long.
        """

        async def is_ready() -> bool:
            return (await self.probe(gateway, "/readyz")) == 200

        return await self.until(is_ready, within_s, f"{gateway} is ready")

    async def until_listening(self, name: str, within_s: float = 30.0) -> float:
        """Wait until a process takes connections; return how long that took.

        Raises:
            RigFailed: it took too long.
        """

        async def is_listening() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._ports[name])
            except OSError:
                return False
            writer.close()
            return True

        return await self.until(is_listening, within_s, f"{name} listens")

    async def probe(self, gateway: str, path: str, headers: Mapping[str, str] | None = None) -> int:
        """Return the status that a GET gets, 0 when there is no answer."""
        client = HttpClient(self.client_port(gateway))
        try:
            answer: Answer = await client.request("GET", path, headers or {}, timeout_s=6)
        except (NotSent, NoAnswer):
            return 0
        finally:
            client.close()
        self.probed[answer.label] += 1
        return answer.status

    async def until(self, holds: Callable[[], Any], within_s: float, what: str) -> float:
        """Wait until something holds; return how long that took.

        Raises:
            RigFailed: it took too long.
        """
        began = time.monotonic()
        while not await holds():
            if time.monotonic() - began > within_s:
                raise RigFailed(f"not within {within_s:.0f} s: {what}")
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    # What each process is told.

    async def migrate(self, service: str, tree: Path) -> None:
        """Bring a service's database to the schema of a tree, while everything runs.

        Raises:
            RigFailed: that did not work.
        """
        # Only the main thread may start programs, and it must not stand still meanwhile.
        program = self._one_shot(service, "migrate", tree)
        program.start()
        # It stands for a job on another machine, and must not take the processors from those that serve.
        os.setpriority(os.PRIO_PROCESS, program.pid, LOW_PRIORITY)

        async def has_ended() -> bool:
            return not program.is_running()

        try:
            await self.until(has_ended, MIGRATED_S, f"{service} is migrated")
        finally:
            program.kill()
        if program.process and program.process.returncode:
            raise RigFailed(str(program.failure()))
        self.done_to["migrated"] += 1

    def program_of(self, name: str) -> Program:
        """Describe a process."""
        kind = name.rpartition("-")[0]
        if kind == GATEWAY:
            return self._python(name, kind, [], self._gateway_settings(name))
        return self._python(name, kind, ["serve"], self._service_settings(name, kind))

    def _python(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        settings: Mapping[str, str],
        tree: Path | None = None,
    ) -> Program:
        tree = tree or self.layout.trees.get(name) or self.layout.trees.get(module, ROOT)
        kept = {key: text for key, text in os.environ.items() if not key.startswith(("AAROKYA_", "PG", "PYTHON"))}
        return Program(
            name=name,
            command=[sys.executable, "-P", "-m", module, *arguments],
            environment={
                **kept,
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": os.pathsep.join(str(tree / package) for package in PACKAGES),
                "AAROKYA_ENVIRONMENT": "development",
                "AAROKYA_LOG_LEVEL": "WARNING",
                **settings,
            },
            log=self.folder / "logs" / f"{name}.log",
            directory=self.folder,
        )

    def _one_shot(self, service: str, command: str, tree: Path | None = None) -> Program:
        settings = {
            "AAROKYA_DATABASE_OWNER_DSN": self._dsn(service, "owner", through_proxy=False),
            "AAROKYA_DATABASE_RUNTIME_DSN": self._dsn(service, "runtime", through_proxy=False),
            "AAROKYA_DATABASE_SUPERUSER_DSN": self.clusters[service].dsn,
        }
        return self._python(f"{service}-{command}", service, [command], settings, tree)

    def _dsn(self, service: str, login: str, *, through_proxy: bool = True) -> str:
        secrets = self._keyring.services[service]
        password = secrets.owner_password if login == "owner" else secrets.runtime_password
        server = self.clusters[service].dsn
        if through_proxy:
            ports = [self.proxies[f"{service}-database"].port]
            if self.layout.standby_of == service:
                ports.append(self._ports["standby"])
            hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
            server = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        return login_dsn(server, f"{service}_{login}", password, service)

    @property
    def standby_port(self) -> int:
        return self._ports["standby"]

    @property
    def superuser_password(self) -> str:
        return self._keyring.superuser_password

    def _service_settings(self, name: str, service: str) -> dict[str, str]:
        secrets = self._keyring.services[service]
        settings = {
            **self._shared_settings(name, service),
            "AAROKYA_LISTEN": f"127.0.0.1:{self._ports[name]}",
            "AAROKYA_DATABASE_RUNTIME_DSN": self._dsn(service, "runtime"),
            "AAROKYA_MASTER_KEYS": secrets.master_keys,
            "AAROKYA_LOOKUP_KEY": secrets.lookup_key,
            "AAROKYA_AUDIT_KEY": secrets.audit_key,
            "AAROKYA_AUDIT_HEAD_FILE": str(self.folder / f"{service}-audit-heads"),
        }
        if service == "identity":
            settings["AAROKYA_JWT_KEYS"] = self._keyring.jwt_keys
        return settings

    def _gateway_settings(self, name: str) -> dict[str, str]:
        return {
            **self._shared_settings(name, GATEWAY),
            "AAROKYA_JWT_KEYS": self._keyring.jwt_keys,
            "AAROKYA_ADMIN_API_KEY": self.admin_key,
            "AAROKYA_HTTP_PORT": str(self._ports[name]),
            "AAROKYA_RATE_LIMITS": "off",
            "AAROKYA_DRAIN_SECONDS": str(self.layout.drain_s),
        }

    def _shared_settings(self, name: str, kind: str) -> dict[str, str]:
        files = self._certificates[kind]
        return {
            "AAROKYA_TLS_CA": str(files.ca),
            "AAROKYA_TLS_CERTIFICATE": str(files.certificate),
            "AAROKYA_TLS_KEY": str(files.key),
            "AAROKYA_PAGE_TOKEN_KEY": self._keyring.page_token_key,
            "AAROKYA_METRICS_LISTEN": f"127.0.0.1:{self._ports[f'{name}-metrics']}",
            **{f"AAROKYA_{called.upper()}_ADDRESS": self._address(kind, called) for called in CALLS[kind]},
        }

    def _address(self, caller: str, called: str) -> str:
        ports = [self.proxies[f"{caller}-{replica}"].port for replica in self.replicas(called)]
        return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="aarokya-chaos-"))
    # PostgreSQL may run as another user, who has to get to its own folder in here.
    folder.chmod(0o711)
    return folder


@contextlib.asynccontextmanager
async def running_rig(seed: int, layout: Layout | None = None) -> AsyncIterator[Rig]:
    """Run a new rig in a temporary folder for as long as the block runs."""
    folder = _new_folder()
    rig = Rig(folder, seed, layout or Layout())
    try:
        try:
            await rig.start()
            yield rig
        finally:
            await rig.stop()
    except BaseException:
        rig.is_of_interest = True
        raise
    finally:
        if rig.is_of_interest:
            # They hold nobody's data.
            kept = Path(tempfile.mkdtemp(prefix="aarokya-chaos-logs-"))
            shutil.copytree(folder / "logs", kept, dirs_exist_ok=True)
            print(f"   the logs are in {kept}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
