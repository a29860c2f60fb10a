"""Brings the whole stack up beside whatever else runs here, tries all that docs/operations.md promises, and cleans up.

It ends with a table of what was checked and measured. AAROKYA_COMPOSE_TEST_KEEP=1 leaves everything running.
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

import httpx

from deploy.compose import stack
from deploy.compose.stack import PROCESSES, SERVICES, CommandFailed, compose, containers, docker, say
from deploy.compose.test.traffic import Traffic
from deploy.ports import pick_ports

ROOT = stack.FILE.parents[1]
READY_S = 180
SERVES_WITHIN_S = 10
REPLICAS = {"records": 3, "identity": 2, "catalogue": 2, "gateway": 2}
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
        self.secrets = folder / "secrets"
        # Noted once: somebody may commit meanwhile.
        self.revision = _revision()
        self.port = pick_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.rows: list[tuple[str, bool, str]] = []
        os.environ.update(
            COMPOSE_PROJECT_NAME=f"aarokya-test-{os.getpid()}",
            AAROKYA_IMAGES="aarokya-compose-test",
            AAROKYA_VERSION="old",
            AAROKYA_REVISION=self.revision,
            AAROKYA_SECRETS=str(self.secrets),
            AAROKYA_HTTP_PORT=str(self.port),
            # What compose would take from deploy/.env is an operator's.
            **{f"AAROKYA_{name.upper()}_REPLICAS": "1" for name in PROCESSES},
            AAROKYA_RATE_LIMITS="on",
            AAROKYA_BALANCER="127.0.0.1/32",
            DOCKER_BUILDKIT="0",
            COMPOSE_DOCKER_CLI_BUILD="0",
        )
        self.http = httpx.Client(base_url=self.url, timeout=20, trust_env=False)

    def check(self, what: str, step: Callable[[], str]) -> None:
        """Take a step; what it returns or raises becomes a line of the table."""
        say(f"== {what}")
        began = time.monotonic()
        try:
            figures, good = step(), True
        except (Unexpected, CommandFailed, httpx.HTTPError, OSError, AssertionError, KeyError) as failure:
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
        self.check("believes no forged address", self.believes_no_forged_address)
        traffic = Traffic(self.url, self.admin_key)
        with traffic.running():
            self.check("scales up", lambda: self.scales_up(traffic))
            self.check("survives kills", lambda: self.survives_kills(traffic))
            self.check("rolling restart", lambda: self.restarts(traffic))
            self.check("scales down", lambda: self.scales_down(traffic))
            self.check("upgrades", lambda: self.upgrades(traffic))
            self.check("backs up", lambda: self.backs_up(traffic))
        self.check("restores", self.restores)
        self.check("journeys after the restore", self.journeys)

    @property
    def admin_key(self) -> str:
        return (self.secrets / "admin_api_key").read_text().strip()

    def says_that_secrets_are_missing(self) -> str:
        environment = {**os.environ, "AAROKYA_SECRETS": ""}
        command = [*stack._compose_command(), "--file", str(stack.FILE), "config"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        expect(done.returncode != 0 and "make compose-secrets" in done.stderr, done.stderr)
        return "names the command"

    def makes_secrets(self) -> str:
        script = stack.FILE.parent / "compose" / "make_secrets"
        for _ in range(2):
            subprocess.run([script], check=True, capture_output=True)
            names = {file.name: file.read_text() for file in self.secrets.iterdir()}
        return f"{len(names)} files, the same when run again"

    def builds_images(self) -> str:
        compose("build", *PROCESSES)
        sizes = {}
        for process in PROCESSES:
            image = json.loads(docker("image", "inspect", f"aarokya-compose-test/{process}:old"))[0]
            labels = image["Config"]["Labels"]
            expect(labels["org.opencontainers.image.version"] == "old", f"{process}: {labels}")
            expect(labels["org.opencontainers.image.revision"] == self.revision, f"{process}: {labels}")
            sizes[process] = image["Size"]
        command = "for tool in gcc cc make git curl pip; do command -v $tool; done; ls /opt/aarokya/bin; true"
        found = docker("run", "--rm", "--entrypoint", "sh", "aarokya-compose-test/gateway:old", "-c", command)
        # The public Python image has a pip of its own.
        tools = set(found.split()) & {"/usr/bin/gcc", "/usr/bin/cc", "/usr/bin/make", "/usr/bin/git", "pip", "pip3"}
        expect(not tools, f"the image holds {tools}")
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
        expect(answer.startswith(b"HTTP/1.1 408") and b"RQ-116" in answer, f"{answer!r} after {seconds:.1f} s")
        return f"408 RQ-116 after {seconds:.1f} s"

    def believes_no_forged_address(self) -> str:
        name = f"Forged {secrets.token_hex(4)}"
        headers = {"admin-api-key": self.admin_key, "x-forwarded-for": "203.0.113.7"}
        made = self.http.post("/platforms", json={"name": name}, headers=headers)
        expect(made.status_code == 201, made.text)
        rows = self.http.get(
            "/audit_logs", params={"entity_id": made.json()["id"]}, headers={"admin-api-key": self.admin_key}
        )
        source = rows.json()["items"][0]["source_address"]
        expect(source != "203.0.113.7" and source, f"the audit log says {source}")
        return f"the audit log says {source}"

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
        expect(not tally.lost, str(tally))
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
            by_address[server["addr"].partition(":")[0]] += int(server["stot"])
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
        before = {service: set(containers(service)) for service in REPLICAS}
        _operate("rolling_restart")
        for service, old in before.items():
            now = set(containers(service))
            expect(len(now) == len(old) and not now & old, f"{service} was not replaced")
        tally = traffic.take()
        expect(not tally.lost, str(tally))
        return f"{sum(map(len, before.values()))} containers replaced; {tally}"

    def scales_down(self, traffic: Traffic) -> str:
        traffic.take()
        scale(dict.fromkeys(REPLICAS, 1))
        time.sleep(2)
        expect(all(len(containers(service)) == 1 for service in REPLICAS), "more than one is left")
        tally = traffic.take()
        expect(not tally.lost, str(tally))
        return str(tally)

    def upgrades(self, traffic: Traffic) -> str:
        versions = ROOT / "services" / "records" / "records" / "migrations" / "versions"
        found = [
            re.findall(r'^(?:down_)?revision[^=]*= "(\w+)"', file.read_text(), re.M) for file in versions.glob("*.py")
        ]
        revisions, parents = {pair[0] for pair in found}, {parent for pair in found for parent in pair[1:]}
        (head,) = revisions - parents
        context = self.folder / "upgrade"
        context.mkdir()
        (context / "added.py").write_text(EXPANSION.format(revision="added", head=head))
        for process in PROCESSES:
            text = f"FROM aarokya-compose-test/{process}:old\n"
            if process == "records":
                text += "COPY added.py /app/records/migrations/versions/\n"
            (context / "Dockerfile").write_text(text)
            docker("build", "--tag", f"aarokya-compose-test/{process}:new", str(context))
        traffic.take()
        os.environ["AAROKYA_VERSION"] = "new"
        _operate("rolling_restart", "--migrate")
        revision = stack.query("records", "SELECT version_num FROM alembic_version")
        expect(revision == "added", f"records is at {revision}")
        for process in PROCESSES:
            image = docker("inspect", "--format", "{{.Config.Image}}", containers(process)[0]).strip()
            expect(image.endswith(":new"), f"{process} runs {image}")
        tally = traffic.take()
        expect(not tally.lost, str(tally))
        return f"{head} → added with both versions running; {tally}"

    def backs_up(self, traffic: Traffic) -> str:
        traffic.take()
        self.kept = self.new_user()
        self.erased_later = self.new_user()
        told = _operate("backup", str(self.folder / "backups"))
        tally = traffic.take()
        expect(not tally.lost, str(tally))
        self.not_kept = self.new_user()
        self.end(self.erased_later)
        return f"{' '.join(told.split())}; meanwhile {tally}"

    def restores(self) -> str:
        (backup,) = (path for path in (self.folder / "backups").iterdir() if path.name != "data_keys")
        began = time.monotonic()
        _operate("restore", str(backup))
        self.wait_until_ready()
        seconds = time.monotonic() - began
        kept, gone, erased = (self.seen(user) for user in (self.kept, self.not_kept, self.erased_later))
        expect(kept.json()["first_name"] == "Ravi", kept.text)
        expect(gone.status_code == 404, f"a user made after the backup is there: {gone.text}")
        expect(erased.json()["first_name"] is None and erased.json()["erased_at"], f"erased, and back: {erased.text}")
        family = self.http.get(f"/users/{self.kept}/dependants", headers={"admin-api-key": self.admin_key}).json()
        expect([member["first_name"] for member in family["items"]] == ["Ravi"], str(family))
        verified = self.http.get("/audit_logs/verify", headers={"admin-api-key": self.admin_key}).json()["items"]
        expect(all(item["intact"] for item in verified), str(verified))
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
        images = docker("images", "--quiet", "aarokya-compose-test/*").split()
        if images:
            docker("rmi", "--force", *sorted(set(images)))


def scale(replicas: Mapping[str, int]) -> str:
    """Have so many replicas of each service."""
    options = [part for service, count in replicas.items() for part in ("--scale", f"{service}={count}")]
    return compose("up", "--detach", "--no-recreate", *options)


def _operate(command: str, *arguments: str) -> str:
    """Run one of the operators' commands as an operator does and return what it told."""
    done = subprocess.run(
        [sys.executable, "-m", f"deploy.compose.{command}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CommandFailed(f"{command}: {done.stderr}")
    return done.stderr


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


def _revision() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def print_table(rows: list[tuple[str, bool, str]]) -> None:
    """Print what was checked and measured."""
    width = max(len(what) for what, _, _ in rows)
    print()
    for what, good, figures in rows:
        print(f"{what:<{width}}  {'passed' if good else 'FAILED'}  {figures}")
    failed = sum(not good for _, good, _ in rows)
    print(f"\n{len(rows) - failed} passed, {failed} failed")


def main() -> int:
    """Run all and return the exit code."""
    # Whoever ends the test early leaves nothing behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="aarokya-compose-test-"))
    test = ComposeTest(folder)
    try:
        subprocess.run([Path(__file__).parent / "stand_ins"], check=True)
        test.run()
        if not all(good for _, good, _ in test.rows):
            print(compose("logs", "--no-color", "--tail=60", *PROCESSES, "proxy")[-20000:], file=sys.stderr)
    finally:
        if os.environ.get("AAROKYA_COMPOSE_TEST_KEEP") != "1":
            test.clean_up()
            shutil.rmtree(folder)
    print_table(test.rows)
    return 0 if all(good for _, good, _ in test.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
