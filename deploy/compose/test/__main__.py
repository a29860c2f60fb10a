"""Brings the whole stack up beside whatever else runs here, tries all that docs/operations.md promises, and cleans up.

It works in a copy of this checkout, and goes the operator's way there: by make, with a deploy/.env of its own. It ends
with a table of what was checked and measured. AAROKYA_COMPOSE_TEST_KEEP=1 leaves everything running.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import httpx

from deploy.compose import stack
from deploy.compose.backup import erasures
from deploy.compose.stack import PROCESSES, SERVICES, CommandFailed, compose, containers, docker, say
from deploy.compose.test.traffic import Traffic, provider
from deploy.ports import pick_ports

ROOT = stack.FILE.parents[1]
READY_S = 180
SERVES_WITHIN_S = 10
REPLICAS = {"records": 3, "identity": 2, "catalogue": 2, "gateway": 3}
# A migration that an upgrade brings: it only adds, as all of ours do in the version that starts to need something.
EXPANSION = '''"""Adds a table that nothing uses."""

from alembic import op

revision = "{revision}"
down_revision = "{head}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE added_by_an_upgrade (id bigint PRIMARY KEY)")
'''


class Unexpected(Exception):
    """Something is not as it is promised."""


def expect(condition: object, otherwise: str) -> None:
    """Raise unless a condition holds."""
    if not condition:
        raise Unexpected(otherwise)


class ComposeTest:
    """One stack of its own: project, images, secrets, port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = f"aarokya-test-{os.getpid()}"
        self.deploy = folder / "checkout" / "deploy"
        self.secrets = self.deploy / "compose" / "secrets"
        self.backups = folder / "backups"
        self.port = pick_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.rows: list[tuple[str, bool, str]] = []
        for name in [name for name in os.environ if name.startswith(("AAROKYA_", "COMPOSE_"))]:
            # An operator's settings are none of the test's.
            del os.environ[name]
        os.environ.update(DOCKER_BUILDKIT="0", COMPOSE_DOCKER_CLI_BUILD="0")
        self.http = httpx.Client(base_url=self.url, timeout=20, trust_env=False)

    def copy_checkout(self) -> None:
        """Copy what git knows of, as it is now, and have all commands work there."""
        copy = self.deploy.parent
        git = ["git", "-C", str(ROOT)]
        subprocess.run([*git, "clone", "--quiet", "--shared", "--no-checkout", ".", str(copy)], check=True)
        listed = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        stack.FILE = self.deploy / "docker-compose.yml"
        self.revision = subprocess.run(
            ["git", "-C", str(copy), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
        ).stdout.strip()
        stand_ins = subprocess.run(
            [Path(__file__).parent / "stand_ins", self.project], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        settings = {
            "COMPOSE_PROJECT_NAME": self.project,
            "AAROKYA_IMAGES": self.project,
            "AAROKYA_HTTP_PORT": self.port,
        }
        (self.deploy / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()) + stand_ins)

    def make(self, *arguments: str, expects: int = 0, ends_at: str | None = None) -> str:
        """Run a target of make as an operator does and return what it told.

        Args:
            expects: the exit code that make is to have.
            ends_at: a line at which the power fails.
        """
        process = subprocess.Popen(
            ["make", "--silent", *arguments],
            cwd=self.deploy.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        told = []
        for line in process.stdout:
            told.append(line)
            if ends_at and ends_at in line:
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        if not ends_at and code != expects:
            raise CommandFailed(f"make {arguments[0]} ended with {code}: {''.join(told)[-2000:]}")
        return "".join(told)

    def check(self, what: str, step: Callable[[], str]) -> None:
        """Take a step; what it returns or raises becomes a line of the table."""
        say(f"== {what}")
        began = time.monotonic()
        try:
            figures, good = step(), True
        except Exception as failure:  # noqa: BLE001 - whatever it is, the steps after it are worth their while
            figures, good = f"{type(failure).__name__}: {failure}", False
        self.rows.append((what, good, figures))
        say(f"   {'passed' if good else 'FAILED'} in {time.monotonic() - began:.0f} s: {figures}")

    def run(self) -> None:
        """Take all steps."""
        self.check("says that secrets are missing", self.says_that_secrets_are_missing)
        self.check("makes secrets", self.makes_secrets)
        self.check("builds images", self.builds_images)
        self.check("starts", self.starts)
        if not self.rows[-1][1]:
            return
        dawdling = ThreadPoolExecutor().submit(self.dawdles)
        self.check("journeys", self.journeys)
        self.check("containers are confined", self.containers_are_confined)
        self.check("databases are apart", self.databases_are_apart)
        self.check("closes slow connections", lambda: self.closes_slow_connections(*dawdling.result()))
        self.check("answers malformed requests", self.answers_malformed_requests)
        self.check("answers for a gateway that is gone", self.answers_for_a_gateway_that_is_gone)
        self.check("believes no forged address", self.believes_no_forged_address)
        traffic = Traffic(self.url, self.admin_key)
        with traffic.running():
            self.check("scales up", lambda: self.scales_up(traffic))
            self.check("survives kills", lambda: self.survives_kills(traffic))
            self.check("rolling restart", lambda: self.restarts(traffic))
            self.check("failed restart", lambda: self.fails_to_restart(traffic))
            self.check("scales down", lambda: self.scales_down(traffic))
            self.check("upgrades", lambda: self.upgrades(traffic))
            self.check("backs up", lambda: self.backs_up(traffic))
        self.check("restores", self.restores)
        self.check("restores on an empty machine", self.restores_on_an_empty_machine)
        self.check("restores over a fresh stack", self.restores_over_a_fresh_stack)
        self.check("journeys after the restore", self.journeys)

    @property
    def admin_key(self) -> str:
        return (self.secrets / "admin_api_key").read_text().strip()

    def says_that_secrets_are_missing(self) -> str:
        command = [*stack._compose_command(), "--file", str(stack.FILE), "config"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        expect(done.returncode != 0 and "make compose-secrets" in done.stderr, done.stderr)
        return "names the command"

    def makes_secrets(self) -> str:
        self.make("compose-secrets")
        made = {file.name: file.read_text() for file in self.secrets.iterdir()}
        settings = (self.deploy / ".env").read_text()
        expect("\nAAROKYA_SECRETS=./compose/secrets\n" in settings, settings)
        self.make("compose-secrets")
        expect(made == {file.name: file.read_text() for file in self.secrets.iterdir()}, "secrets changed")
        expect(settings == (self.deploy / ".env").read_text(), "deploy/.env changed")
        return f"{len(made)} files, the same when run again"

    def builds_images(self) -> str:
        self.make("compose-build", f"ARGS={self.project}-old")
        sizes = {}
        for process in PROCESSES:
            image = json.loads(docker("image", "inspect", f"{self.project}/{process}:{self.project}-old"))[0]
            labels = image["Config"]["Labels"]
            expect(labels["org.opencontainers.image.version"] == f"{self.project}-old", f"{process}: {labels}")
            expect(labels["org.opencontainers.image.revision"].startswith(self.revision), f"{process}: {labels}")
            sizes[process] = image["Size"]
        command = "for tool in gcc cc make git curl pip pip3; do command -v $tool; done; python -m pip --version; true"
        image = f"{self.project}/gateway:{self.project}-old"
        found = docker("run", "--rm", "--entrypoint", "sh", image, "-c", command)
        expect(not found.strip(), f"the image holds {found}")
        base = json.loads(docker("image", "inspect", "python:3.11-slim-bookworm"))[0]["Size"]
        return (
            ", ".join(f"{process} {size / 1e6:.0f} MB" for process, size in sizes.items())
            + f", of which {base / 1e6:.0f} MB Python's own image"
        )

    def starts(self) -> str:
        began = time.monotonic()
        compose("up", "--detach")
        self.wait_until_ready()
        return f"ready {time.monotonic() - began:.1f} s after `up` on an empty machine"

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                if self.http.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            expect(time.monotonic() < deadline, f"not ready within {READY_S} s")
            time.sleep(0.2)

    def journeys(self) -> str:
        runtime = {"gateway": {"url": self.url}, "admin_api_key_file": str(self.secrets / "admin_api_key")}
        (self.folder / "runtime.json").write_text(json.dumps(runtime))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/e2e/test_journeys.py"],
            cwd=ROOT,
            env={**os.environ, "AAROKYA_TEST_DATA_DIR": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        expect(done.returncode == 0, done.stdout[-3000:])
        return done.stdout.strip().splitlines()[-1]

    def containers_are_confined(self) -> str:
        values = {file.read_text().strip() for file in self.secrets.iterdir()} - {""}
        ids = compose("ps", "--quiet").split()
        published = []
        for container in json.loads(docker("inspect", *ids)):
            name, host = container["Name"], container["HostConfig"]
            expect(not container["RestartCount"], f"{name} was started {container['RestartCount']} times again")
            expect(host["ReadonlyRootfs"], f"{name} may write to its root file system")
            expect(container["Config"]["User"] not in ("", "0", "root"), f"{name} runs as root")
            expect(host["Memory"] and host["NanoCpus"] and host["PidsLimit"], f"{name} has no limits")
            expect(host["LogConfig"]["Config"].get("max-size"), f"{name} keeps its logs for ever")
            told = json.dumps([container["Config"]["Env"], container["Config"]["Cmd"]])
            expect(not [value for value in values if value in told], f"{name} is told a secret openly")
            for port, places in (container["NetworkSettings"]["Ports"] or {}).items():
                published += [(port, place["HostIp"], place["HostPort"]) for place in places or ()]
        expect(published == [("8080/tcp", "127.0.0.1", str(self.port))], f"published: {published}")
        for process in PROCESSES:
            seen = docker(
                "exec", containers(process)[0], "sh", "-c", "ls -R /var/lib/aarokya/tls /var/lib/aarokya/authority"
            )
            expect("ca.key" not in seen, f"{process} sees the authority's key")
        return f"{len(ids)} containers, one port"

    def databases_are_apart(self) -> str:
        ask = "import socket, sys; socket.create_connection((sys.argv[1], 5432), 1)"
        tried = 0
        for service in SERVICES:
            # By address, because a name that is not found would prove less.
            address = docker(
                "inspect",
                "--format",
                "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
                containers(f"{service}-db")[0],
            ).strip()
            for process in PROCESSES:
                try:
                    docker("exec", containers(process)[0], "python", "-c", ask, address)
                    reached = True
                except CommandFailed:
                    reached = False
                expect(reached == (process == service), f"{process} {'reaches' if reached else 'misses'} {service}-db")
                tried += 1
        return f"{tried} pairs tried, 3 reach"

    def dawdles(self) -> tuple[bytes, float]:
        """Send the head of a request a byte a second; return what was answered to it and when."""
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.settimeout(1)
            for byte in b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: a":
                try:
                    connection.sendall(bytes([byte]))
                    return connection.recv(4096), time.monotonic() - began
                except TimeoutError:
                    continue
        return b"", time.monotonic() - began

    def closes_slow_connections(self, answer: bytes, seconds: float) -> str:
        expect(_code(answer) == (408, "RQ-116"), f"{answer!r} after {seconds:.1f} s")
        return f"408 RQ-116 after {seconds:.1f} s"

    def answers_malformed_requests(self) -> str:
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost a\r\n\r\n")
            answer = connection.recv(4096)
        expect(_code(answer) == (400, "RQ-114"), repr(answer))
        return "400 RQ-114"

    def answers_for_a_gateway_that_is_gone(self) -> str:
        """Before and after the proxy knows, and with the caller's own id.

        Each on a connection of its own: one that has had an answer before is closed without a word, so that whoever
        keeps connections sends again what may be repeated.
        """
        (gateway,) = compose("ps", "--quiet", "gateway").split()
        headers = {"admin-api-key": self.admin_key, "x-request-id": "ride-1"}
        try:
            docker("kill", "--signal", "STOP", gateway)
            url = f"{self.url}/users/{uuid4()}"
            change = ThreadPoolExecutor().submit(httpx.patch, url, json={}, headers=headers, timeout=30)
            time.sleep(0.5)
            docker("kill", gateway)
            for answer in (change.result(), httpx.get(f"{self.url}/users", headers=headers, timeout=30)):
                error = answer.json()["error"]
                told = (answer.status_code, error["code"], error["request_id"], answer.headers["x-request-id"])
                expect(told == (503, "RQ-111", "ride-1", "ride-1"), str(told))
                expect("retry-after" in answer.headers, str(answer.headers))
        finally:
            docker("start", gateway)
            self.wait_until_ready()
        return "503 RQ-111"

    def believes_no_forged_address(self) -> str:
        """The balancer is whoever speaks to the proxy from its own address, by default."""
        forged = self.source_address_of(f"{self.url}", "203.0.113.7, 10.1.2.3")
        expect(forged not in ("203.0.113.7", "10.1.2.3", ""), f"the audit log says {forged}")
        name = f"Told {secrets.token_hex(4)}"
        body = json.dumps({"name": name})
        head = (
            f"POST /platforms HTTP/1.0\\r\\nadmin-api-key: {self.admin_key}\\r\\ncontent-type: application/json\\r\\n"
            f"x-forwarded-for: 203.0.113.7, 10.1.2.3\\r\\ncontent-length: {len(body)}\\r\\n\\r\\n"
        )
        script = f"exec 3<>/dev/tcp/127.0.0.1/8080; printf '{head}%s' '{body}' >&3; cat <&3"
        answer = docker("exec", containers("proxy")[0], "bash", "-c", script)
        made = json.loads(answer.partition("\n\n")[2])
        told = self.source_address_in_audit_log(made["id"])
        expect(told == "10.1.2.3", f"of what the balancer tells, the audit log says {told}")
        return f"the audit log says {forged}, and what the balancer saw"

    def source_address_of(self, url: str, forwarded_for: str) -> str:
        """Make a platform and return from where, by the audit log."""
        headers = {"admin-api-key": self.admin_key, "x-forwarded-for": forwarded_for}
        made = self.http.post(f"{url}/platforms", json={"name": f"Forged {secrets.token_hex(4)}"}, headers=headers)
        expect(made.status_code == 201, made.text)
        return self.source_address_in_audit_log(made.json()["id"])

    def source_address_in_audit_log(self, entity_id: str) -> str:
        headers = {"admin-api-key": self.admin_key}
        rows = self.http.get("/audit_logs", params={"entity_id": entity_id}, headers=headers)
        return str(rows.json()["items"][0]["source_address"])

    def scales_up(self, traffic: Traffic) -> str:
        time.sleep(3)
        before = {service: set(containers(service)) for service in REPLICAS}
        traffic.take()
        served = self.first_requests(ThreadPoolExecutor().submit(scale, REPLICAS), before)
        waited = {container: at - _began_to_serve(container) for container, at in served.items()}
        expect(len(waited) == sum(REPLICAS.values()) - len(REPLICAS), f"only {len(waited)} new replicas got a request")
        slowest = max(waited.values())
        expect(slowest <= SERVES_WITHIN_S, f"the last new replica got a request {slowest:.1f} s after it was ready")
        time.sleep(5)
        shares = "; ".join(
            f"{service} {'/'.join(map(str, self.answered(service, containers(service)).values()))}"
            for service in REPLICAS
        )
        tally = traffic.take()
        expect(not tally.lost and not tally.lost_writes, str(tally))
        return f"all got requests within {slowest:.1f} s of being ready; requests per replica: {shares}; {tally}"

    def first_requests(self, scaling: Future[str], before: dict[str, set[str]]) -> dict[str, float]:
        """Return when each new replica was first seen to have answered a request."""
        served: dict[str, float] = {}
        deadline: float | None = None
        while deadline is None or time.time() < deadline:
            for service, old in before.items():
                new = set(containers(service)) - old - set(served)
                answered = self.answered(service, new) if new else {}
                served.update((container, time.time()) for container, count in answered.items() if count)
            if scaling.done():
                scaling.result()
                deadline = deadline or time.time() + 2 * SERVES_WITHIN_S
                if len(served) == sum(REPLICAS.values()) - len(REPLICAS):
                    break
            time.sleep(0.2)
        return served

    def answered(self, service: str, ids: Iterable[str]) -> dict[str, int]:
        """Return how many requests these replicas of a service have answered."""
        if service != "gateway":
            return {container: _rpcs(container) for container in ids}
        return self._answered_by_gateways(list(ids))

    def _answered_by_gateways(self, ids: list[str]) -> dict[str, int]:
        table = _get(containers("proxy")[0], 8404, "/;csv")
        lines = [
            line.split(",")
            for line in table.splitlines()
            if line.startswith(("# pxname", "gateways,gateway", "unready,gateway"))
        ]
        columns = [name.strip("# ") for name in lines[0]]
        by_address: Counter[str] = Counter()
        for line in lines[1:]:
            server = dict(zip(columns, line, strict=False))
            # Not its sessions: attempts that were refused count there, too.
            by_address[server["addr"].partition(":")[0]] += int(server["hrsp_2xx"] or 0)
        answered = {}
        for container in json.loads(docker("inspect", *ids)):
            addresses = {network["IPAddress"] for network in container["NetworkSettings"]["Networks"].values()}
            answered[container["Id"]] = sum(count for address, count in by_address.items() if address in addresses)
        return answered

    def survives_kills(self, traffic: Traffic) -> str:
        figures = []
        for service in REPLICAS:
            traffic.take()
            docker("kill", "--signal", "KILL", containers(service)[0])
            time.sleep(4)
            tally = traffic.take()
            figures.append(f"{service}: {tally}")
            expect(not tally.lost, f"{service}: {tally}")
        scale(REPLICAS)
        for service in REPLICAS:
            for container in containers(service):
                stack.wait_until_healthy(container)
        return "; ".join(figures)

    def restarts(self, traffic: Traffic) -> str:
        traffic.take()
        # The upgrade replaces all four; here it is a service and the gateways, several of each.
        before = {service: set(containers(service)) for service in ("records", "gateway")}
        self.make("rolling-restart", f"ARGS={' '.join(before)}")
        for service, old in before.items():
            now = set(containers(service))
            expect(len(now) == len(old) and not now & old, f"{service} was not replaced")
        tally = traffic.take()
        expect(not tally.lost and not tally.lost_writes, str(tally))
        return f"{sum(map(len, before.values()))} containers replaced; {tally}"

    def fails_to_restart(self, traffic: Traffic) -> str:
        traffic.take()
        before = set(containers("gateway"))
        image = f"{self.project}/gateway:{self.project}-broken"
        (self.folder / "Dockerfile").write_text(f'FROM {image.replace("broken", "old")}\nENTRYPOINT ["false"]\n')
        docker(
            "build", "--tag", image, "--file", str(self.folder / "Dockerfile"), str(self.folder / "checkout" / "docs")
        )
        told = self.make("rolling-restart", "ARGS=gateway", f"AAROKYA_VERSION={self.project}-broken", expects=2)
        now = set(containers("gateway", status=(*stack.RUNNING, "exited", "created", "dead")))
        expect(now == before, f"{len(before)} gateways became {len(now)}")
        tally = traffic.take()
        expect(not tally.lost and not tally.lost_writes, f"{tally}; {told}")
        return f"the {len(before)} old ones stay, and no others; {tally}"

    def scales_down(self, traffic: Traffic) -> str:
        traffic.take()
        scale(dict.fromkeys(REPLICAS, 1))
        time.sleep(2)
        expect(all(len(containers(service)) == 1 for service in REPLICAS), "more than one is left")
        tally = traffic.take()
        expect(not tally.lost and not tally.lost_writes, str(tally))
        return str(tally)

    def upgrades(self, traffic: Traffic) -> str:
        versions = self.deploy.parent / "services" / "records" / "records" / "migrations" / "versions"
        found = [
            re.findall(r'^(?:down_)?revision[^=]*= "(\w+)"', file.read_text(), re.M) for file in versions.glob("*.py")
        ]
        revisions, parents = {pair[0] for pair in found}, {parent for pair in found for parent in pair[1:]}
        (head,) = revisions - parents
        (versions / "added.py").write_text(EXPANSION.format(revision="added", head=head))
        self.make("compose-build", f"ARGS={self.project}-new")
        traffic.take()
        with ThreadPoolExecutor() as pool:
            upgrade = pool.submit(self.make, "upgrade")
            together = self.versions_that_answer(upgrade)
            upgrade.result()
        revision = stack.query("records", "SELECT version_num FROM alembic_version")
        expect(revision == "added", f"records is at {revision}")
        for process in PROCESSES:
            image = docker("inspect", "--format", "{{.Config.Image}}", containers(process)[0]).strip()
            expect(image.endswith("-new"), f"{process} runs {image}")
        expect(together == set(PROCESSES), f"both versions answered side by side only of {together}")
        tally = traffic.take()
        expect(not tally.lost and not tally.lost_writes, str(tally))
        return f"{head} → added with both versions of each process answering; {tally}"

    def versions_that_answer(self, upgrade: Future[str]) -> set[str]:
        """Return of which processes an old and a new container answered between two looks, while they are replaced."""
        old = {process: set(containers(process)) for process in PROCESSES}
        seen: dict[str, dict[str, int]] = {process: {} for process in PROCESSES}
        together = set()
        while not upgrade.done():
            for process in PROCESSES:
                try:
                    now = self.answered(process, containers(process))
                except CommandFailed:
                    # A container ended between the two questions.
                    continue
                busy = {it for it, count in now.items() if it in seen[process] and count > seen[process][it]}
                if busy & old[process] and busy - old[process]:
                    together.add(process)
                seen[process] = now
            time.sleep(0.5)
        return together

    def backs_up(self, traffic: Traffic) -> str:
        traffic.take()
        self.kept = self.new_user()
        self.erased_later = self.new_user()
        told = self.make("backup", f"ARGS={self.backups}")
        (self.backup,) = (path for path in self.backups.iterdir() if path.name != "data_keys")
        tally = traffic.take()
        expect(not tally.lost and not tally.lost_writes, str(tally))
        self.not_kept = self.new_user()
        self.end(self.erased_later)
        time.sleep(2)
        # A copy that is newer than all dumps of keys.
        self.erasures = erasures()
        expect(self.erased_later in self.erasures, f"the list of erasures says {self.erasures!r}")
        return f"{' '.join(told.split())}; meanwhile {tally}"

    def restores(self) -> str:
        """One database is lost."""
        stack.query("records", "DROP DATABASE records WITH (FORCE)", database="postgres")
        return self.restore()

    def restores_on_an_empty_machine(self) -> str:
        """The power fails when the first database is replaced; keys are as old as the backup, the list is newer."""
        compose("down", "--volumes", "--timeout", "5")
        listed = self.backups / "20991231T000000Z"
        listed.mkdir()
        (listed / "erasures").write_text(self.erasures)
        self.make("restore", f"FROM={self.backup}", ends_at="catalogue: replacing the database")
        shutil.rmtree(listed)
        return f"after a run that was cut short, {self.restore()}"

    def restores_over_a_fresh_stack(self) -> str:
        """Somebody has used it already, so its keys are others; the list of erasures comes from the backup's side."""
        compose("down", "--volumes", "--timeout", "5")
        compose("up", "--detach")
        self.wait_until_ready()
        # The catalogue's one key has the same owner in every installation; the backup's was made by the traffic.
        keyed = {"admin-api-key": self.admin_key, "idempotency-key": secrets.token_hex(16)}
        self.http.post("/benefit_providers", json=provider(), headers=keyed).raise_for_status()
        (self.backup / "erasures").write_text(self.erasures)
        told = self.make("restore", f"FROM={self.backup}", expects=2)
        expect("--keys FOLDER" in told and "Nothing was replaced" in told, told)
        keys = self.backups / "data_keys" / self.backup.name
        return f"refused for its other keys, and with --keys {self.restore(f'ARGS=--keys {keys}')}"

    def restore(self, *arguments: str) -> str:
        """Restore the backup, and look whether all is as it should be."""
        began = time.monotonic()
        self.make("restore", f"FROM={self.backup}", *arguments)
        self.wait_until_ready()
        seconds = time.monotonic() - began
        kept, gone, erased = (self.seen(user) for user in (self.kept, self.not_kept, self.erased_later))
        expect(kept.json()["first_name"] == "Ravi", kept.text)
        expect(gone.status_code == 404, f"a user made after the backup is there: {gone.text}")
        expect(erased.json()["first_name"] is None and erased.json()["erased_at"], f"erased, and back: {erased.text}")
        for service in ("identity", "records"):
            keys = stack.query(service, "SELECT owner_id FROM data_keys WHERE wrapped IS NOT NULL").split()
            expect(self.kept in keys and self.erased_later not in keys, f"the key of the erased is back in {service}")
        family = self.http.get(f"/users/{self.kept}/dependants", headers={"admin-api-key": self.admin_key}).json()
        expect([member["first_name"] for member in family["items"]] == ["Ravi"], str(family))
        verified = self.http.get("/audit_logs/verify", headers={"admin-api-key": self.admin_key}).json()["items"]
        expect(all(item["intact"] for item in verified), str(verified))
        expect(containers("redis"), "Redis does not run")
        rows = "/".join(str(item["rows"]) for item in verified)
        return (
            f"ready {seconds:.0f} s after the command; audit chains of {rows} rows intact; an erased user stays erased"
        )

    def new_user(self) -> str:
        """Sign a user in and return the id."""
        admin = {"admin-api-key": self.admin_key}
        platform = self.http.post("/platforms", json={"name": f"P {secrets.token_hex(8)}"}, headers=admin).json()["id"]
        key = self.http.post(f"/platforms/{platform}/api_keys", json={"name": "k"}, headers=admin).json()["secret"]
        body = {"phone_country_code": "+91", "phone_number": "9876543210", "platform_id": platform}
        answer = self.http.post("/auth/token", json=body, headers={"api-key": key}).json()
        user = str(answer["user"]["id"])
        profile = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1990-05-17"}
        bearer = {"authorization": f"Bearer {answer['access_token']}"}
        self.http.post(f"/users/{user}/complete_onboarding", json=profile, headers=bearer).raise_for_status()
        return user

    def end(self, user: str) -> None:
        """Deactivate and erase a user."""
        admin = {"admin-api-key": self.admin_key}
        self.http.delete(f"/users/{user}", headers=admin).raise_for_status()
        self.http.post(f"/users/{user}/erase", json={"reason": "asked for"}, headers=admin).raise_for_status()

    def seen(self, user: str) -> httpx.Response:
        """Read a user as an operator."""
        return self.http.get(f"/users/{user}", headers={"admin-api-key": self.admin_key})

    def clean_up(self) -> None:
        """Leave nothing behind."""
        compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        images = docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"{self.project}/*").split()
        if images:
            docker("rmi", "--force", *images)
        versions = [f"org.opencontainers.image.version={self.project}-{name}" for name in ("old", "new")]
        for label in (*versions, f"stand-in={self.project}"):
            docker("image", "prune", "--force", f"--filter=label={label}")


def scale(replicas: Mapping[str, int]) -> str:
    """Have so many replicas of each service."""
    options = [part for service, count in replicas.items() for part in ("--scale", f"{service}={count}")]
    return compose("up", "--detach", "--no-recreate", *options)


def _code(answer: bytes) -> tuple[int, str]:
    """Return status and code of an answer that is to be the envelope of an error."""
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    expect(set(error) == {"code", "message", "request_id", "details"}, str(error))
    return int(head.split()[1]), error["code"]


def _began_to_serve(container: str) -> float:
    """Return since when a process has been serving, by its log."""
    logs = ["docker", "logs", "--timestamps", container]
    log = subprocess.run(logs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
    line = next(line for line in log.splitlines() if '"serving"' in line or "Application startup complete" in line)
    return datetime.fromisoformat(line.split()[0][:26] + "+00:00").timestamp()


def _get(container: str, port: int, path: str) -> str:
    """Ask a container over HTTP from inside, with the one tool that all of them have."""
    ask = f'exec 3<>/dev/tcp/127.0.0.1/{port}; printf "GET {path} HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'
    return docker("exec", container, "bash", "-c", ask)


def _rpcs(container: str) -> int:
    try:
        metrics = _get(container, 9100, "/metrics")
    except CommandFailed:
        # It does not listen yet.
        return 0
    return round(
        sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("aarokya_rpc_calls_total{"))
    )


def print_table(rows: list[tuple[str, bool, str]]) -> None:
    """Print what was checked and measured."""
    width = max((len(what) for what, _, _ in rows), default=0)
    print()
    for what, good, figures in rows:
        print(f"{what:<{width}}  {'passed' if good else 'FAILED'}  {figures}")
    failed = sum(not good for _, good, _ in rows)
    print(f"\n{len(rows) - failed} passed, {failed} failed")


def main() -> int:
    """Run all and return the exit code."""
    # Whoever ends the test early leaves nothing behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    keeps = os.environ.get("AAROKYA_COMPOSE_TEST_KEEP") == "1"
    folder = Path(tempfile.mkdtemp(prefix="aarokya-compose-test-"))
    test = ComposeTest(folder)
    try:
        test.copy_checkout()
        test.run()
        if not all(good for _, good, _ in test.rows):
            print(compose("logs", "--no-color", "--tail=60", *PROCESSES, "proxy")[-20000:], file=sys.stderr)
    finally:
        print_table(test.rows)
        if not keeps:
            test.clean_up()
            shutil.rmtree(folder)
    return 0 if all(good for _, good, _ in test.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
