"""Keys are replaced while traffic runs, and nobody is refused: master keys, token keys, operators' keys."""

import base64
import json
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from uuid6 import uuid7

from deploy.ports import pick_ports
from servicekit.crypto import KeyRing, generate_key
from tests.e2e.canaries import Canaries, live, unsealed
from tests.e2e.conftest import World, assert_refused, made
from tests.e2e.gateways import running_gateway
from tests.e2e.running import ROOT, SERVICES, START_S, STOP_S, OwnSystem, System

KEYS_ADDED = 2500
BATCH = 1000
LOCK = 4_711
# Enough requests to meet every moment of a rotation, and few enough to leave the machine to it.
PAUSE_S = 0.02


@contextmanager
def traffic(*steps: Callable[[], httpx.Response]) -> Iterator[list[str]]:
    """Repeat requests beside what goes on; give the list of those that did not succeed, which ends up complete."""
    failed: list[str] = []
    count = 0
    stop = threading.Event()

    def repeat(step: Callable[[], httpx.Response]) -> None:
        nonlocal count
        while not stop.is_set():
            response = step()
            count += 1
            if not response.is_success:
                failed.append(f"{response.request.method} {response.request.url.path} {response.text}")
            stop.wait(PAUSE_S)

    threads = [threading.Thread(target=repeat, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert count > len(steps)


def with_rings(secrets_now: dict[str, Any], change: Callable[[str, str], str]) -> dict[str, Any]:
    """Return the secrets with every service's master key ring changed."""
    changed: dict[str, Any] = json.loads(json.dumps(secrets_now))
    for service, own in changed["services"].items():
        own["master_keys"] = change(service, own["master_keys"])
    return changed


def add_keys(system: System, ring: KeyRing) -> str:
    """Give identity so many owners that their keys are re-wrapped in several batches; return the last key's id."""
    rows = []
    for _ in range(KEYS_ADDED):
        key_id, owner_id = uuid7(), uuid7()
        wrapped = ring.wrap(generate_key(), key_id.bytes + owner_id.bytes)
        rows.append((key_id, owner_id, ring.wrapping_key_id, wrapped))
    with system.superuser("identity") as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO data_keys (id, owner_id, master_key_id, wrapped) VALUES (%s, %s, %s, %s)", rows)
    return str(rows[-1][0])


@contextmanager
def held_up_at(system: System, key_id: str) -> Iterator[None]:
    """Let whoever writes this key wait until the block ends."""
    with system.superuser("identity") as holder, system.superuser("identity") as connection:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        connection.execute(
            "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER wait_for_test BEFORE UPDATE ON data_keys FOR EACH ROW"
            f" WHEN (OLD.id = '{key_id}') EXECUTE FUNCTION wait_for_test()"
        )
        yield
        holder.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
        connection.execute("DROP TRIGGER wait_for_test ON data_keys")
        connection.execute("DROP FUNCTION wait_for_test()")


def wrapped_by(system: System, service: str, master_key_id: str) -> int:
    with system.superuser(service) as connection:
        row = connection.execute("SELECT count(*) FROM data_keys WHERE master_key_id = %s", (master_key_id,)).fetchone()
    assert row is not None
    return int(row[0])


def rotate(system: System, service: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", service, "rotate-master-key"],
        cwd=ROOT,
        env=system.settings(service),
        stdout=subprocess.PIPE,
        text=True,
    )


class TestMasterKey:
    def test_is_replaced_while_traffic_runs(self, breakable: OwnSystem, breakable_world: World) -> None:
        """The steps of docs/keys.md, for all services at once."""
        world, canaries = breakable_world, Canaries()
        life = live(world, canaries)
        before = breakable.system.secrets
        new = f"local-{secrets.token_hex(4)}"
        new_keys = {service: f"{new}:{base64.b64encode(generate_key()).decode()}" for service in SERVICES}
        old = KeyRing.parse(before["services"]["identity"]["master_keys"]).wrapping_key_id

        breakable.restart_with(with_rings(before, lambda service, ring: f"{new_keys[service]},{ring}"))
        system = breakable.system
        last = add_keys(system, KeyRing.parse(before["services"]["identity"]["master_keys"]))
        total = wrapped_by(system, "identity", old)
        member = f"{life.user.path}/dependants/{life.dependant['id']}"

        def change_family() -> httpx.Response:
            return life.user.caller.patch(member, {"last_name": world.unique("Kumar")})

        def register() -> httpx.Response:
            body = {"phone_number": world.phone_number(), "platform_id": life.user.platform.id}
            return life.user.platform.partner.post("/auth/token", body)

        def change_provider() -> httpx.Response:
            path = f"/benefit_providers/{life.provider['id']}"
            return world.admin.patch(path, {"display_name": world.unique("Apollo")})

        with traffic(change_family, register, change_provider, lambda: world.admin.get(life.user.path)) as failed:
            with held_up_at(system, last):
                killed = rotate(system, "identity")
                assert killed.stdout is not None
                told = [killed.stdout.readline() for _ in range(total // BATCH)]
                killed.kill()
                assert killed.wait() == -signal.SIGKILL
            left = wrapped_by(system, "identity", old)
            said = {}
            for service in SERVICES:
                resumed = rotate(system, service)
                said[service], _ = resumed.communicate(timeout=120)
                assert resumed.returncode == 0
            wrapped_by_old = {service: wrapped_by(system, service, old) for service in SERVICES}

        assert told == [f"{done} of {total} data keys re-wrapped\n" for done in range(BATCH, total, BATCH)]
        assert left == total - len(told) * BATCH
        assert said["identity"].endswith(f"done: {left} data keys re-wrapped\n")
        assert wrapped_by_old == dict.fromkeys(SERVICES, 0)
        assert failed == []

        # The old key can go now.
        breakable.restart_with(with_rings(before, lambda service, _: new_keys[service]))
        user = made(world.admin.get(life.user.path), 200)
        assert canaries.tag in user["address_line"]
        versions = made(life.user.caller.get(f"{member}/versions"), 200)["items"]
        assert canaries.tag in versions[-1]["first_name"]
        assert canaries.tag in made(life.user.caller.get(f"/mrns/{life.mrn['id']}"), 200)["mrn"]
        back = {"user_id": life.user.id, "action": "user.reactivate"}
        (row,) = made(world.admin.get("/audit_logs", params=back), 200)["items"]
        assert canaries.tag in row["reason"]
        # Whatever is sealed in any table opens with what is left of the ring: nothing is missing.
        opened = {service: unsealed(breakable.system, service) for service in SERVICES}
        assert canaries.found_in(opened["identity"])
        assert canaries.found_in(opened["records"])


@dataclass
class Balancer:
    """Sends each request to one of the gateways in rotation, in turn."""

    http: httpx.Client
    urls: list[str] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    turn: int = 0

    def add(self, url: str) -> None:
        with self.changed:
            self.running[url] = 0
            self.urls.append(url)

    def drain(self, url: str) -> None:
        """Send nothing more to a gateway, and return when it has answered everything."""
        with self.changed:
            self.urls.remove(url)
            self.changed.wait_for(lambda: not self.running[url])

    def send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with self.changed:
            self.turn += 1
            url = self.urls[self.turn % len(self.urls)]
            self.running[url] += 1
        try:
            return self.http.request(method, f"{url}{path}", **arguments)
        finally:
            with self.changed:
                self.running[url] -= 1
                self.changed.notify_all()


@contextmanager
def running_identity(system: System, port: int, jwt_keys: str) -> Iterator[None]:
    """Run another replica of identity."""
    environment = {**system.settings("identity"), "AAROKYA_LISTEN": f"127.0.0.1:{port}", "AAROKYA_JWT_KEYS": jwt_keys}
    with (system.data / "logs" / f"identity-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "identity", "serve"], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(STOP_S)


class TestTokenKeysAndOperatorsKeys:
    def test_are_replaced_without_a_refused_call(self, breakable: OwnSystem, breakable_world: World) -> None:
        """The steps of docs/keys.md, with two gateways and two replicas of identity."""
        world, system = breakable_world, breakable.system
        old, new = (f"{name}:{secrets.token_urlsafe(32)}" for name in ("old", "new"))
        old_operator, new_operator = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        platform, port, other_port = world.platform(), *pick_ports(2)
        number = world.phone_number()
        body = {"phone_number": number, "platform_id": platform.id}
        profile = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1990-05-17"}
        balancer = Balancer(world.http)
        tokens: dict[str, str] = {}
        told_the_new_one: set[str] = set()
        operator = {"key": old_operator}

        def sign_in() -> httpx.Response:
            answer = balancer.send("POST", "/auth/token", json=body, headers={"api-key": platform.secret})
            if answer.is_success:
                token = answer.json()["access_token"]
                tokens[kid_of(token)] = token
                if kid_of(token) == "new":
                    told_the_new_one.add(f"http://{answer.url.netloc.decode()}")
            return answer

        def use_a_token() -> httpx.Response:
            token = secrets.choice(list(tokens.values()))
            return balancer.send("GET", "/benefits", headers={"authorization": f"Bearer {token}"})

        def operate() -> httpx.Response:
            return balancer.send("GET", "/platforms", headers={"admin-api-key": operator["key"]})

        with ExitStack() as whole:

            def open_gateways(count: int, jwt_keys: str, operators: str) -> list[tuple[str, ExitStack]]:
                """Start gateways and put them into rotation, one after the other."""
                opened = []
                for _ in range(count):
                    stack = whole.enter_context(ExitStack())
                    url = stack.enter_context(
                        running_gateway(
                            system,
                            AAROKYA_JWT_KEYS=jwt_keys,
                            AAROKYA_ADMIN_API_KEYS=operators,
                            AAROKYA_IDENTITY_ADDRESS=f"ipv4:127.0.0.1:{port},127.0.0.1:{other_port}",
                        )
                    )
                    balancer.add(url)
                    opened.append((url, stack))
                return opened

            def close_gateways(gateways: list[tuple[str, ExitStack]]) -> None:
                for url, stack in gateways:
                    balancer.drain(url)
                    stack.close()

            first_identity = whole.enter_context(ExitStack())
            first_identity.enter_context(running_identity(system, port, old))
            first = open_gateways(2, old, f"asha:{old_operator}")
            user = made(sign_in(), 200)["user"]["id"]
            bearer = {"authorization": f"Bearer {tokens['old']}"}
            made(balancer.send("POST", f"/users/{user}/complete_onboarding", json=profile, headers=bearer), 200)

            with traffic(sign_in, use_a_token, operate) as failed:
                # 1. Every gateway accepts both.
                second = open_gateways(2, f"{old},{new}", f"asha:{old_operator},asha-new:{new_operator}")
                close_gateways(first)
                # 2. identity signs with the new one, and operators change over.
                whole.enter_context(running_identity(system, other_port, f"{new},{old}"))
                operator["key"] = new_operator
                # Not before every gateway has found the new replica.
                wait_for(lambda: told_the_new_one >= set(balancer.urls))
                first_identity.close()
                # 3. Once the last token of the old key has expired, the old ones go.
                del tokens["old"]
                third = open_gateways(1, new, f"asha-new:{new_operator}")
                close_gateways(second)
            assert failed == []
            assert set(tokens) == {"new"}

            for url, _ in third:
                refused = world.http.get(f"{url}/benefits", headers=bearer)
                assert_refused(refused, 401, "AU-202")
                refused = world.http.get(f"{url}/platforms", headers={"admin-api-key": old_operator})
                assert_refused(refused, 401, "AU-202")


def kid_of(token: str) -> str:
    head = token.split(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()
