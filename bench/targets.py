"""What is measured: Aarokya as `make run` starts it, and the peer, on one PostgreSQL, with the same people in both."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import jwt
import psycopg
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from bench.peer import ALGORITHM, AUDIENCE, Base, Dependant, Platform, User
from deploy.keyring import Keyring
from deploy.ports import pick_ports
from deploy.system import SERVICES, login_dsn

ROOT = Path(__file__).resolve().parents[1]
PEER_DATABASE = "bench_peer"
START_S = 120.0
STOP_S = 30.0
PROFILE = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1985-05-17"}
RELATIVE = {"relationship": "OTHER", "first_name": "Asha", "gender": "FEMALE", "date_of_birth": "1992-11-03"}
# At first; a family takes twenty.
RELATIVES = 4
MOST_RELATIVES = 20
# So many people are signed up at once.
AT_ONCE = 8
SEED = 1
ATTEMPTS = 10
TOKEN_S = 86_400


class BenchFailed(Exception):
    """Something did not start, or answered what it must not."""


@dataclass
class Person:
    """A user with a token."""

    id: str
    token: str
    dependants: list[str]


@dataclass
class Target:
    """A running system and its people."""

    name: str
    port: int
    pids: Sequence[int]
    people: list[Person]
    rng: random.Random = field(default_factory=lambda: random.Random(SEED))
    # The first names are taken.
    _marks: itertools.count[int] = field(default_factory=lambda: itertools.count(RELATIVES))
    _turns: itertools.cycle[Person] = field(init=False)

    def __post_init__(self) -> None:
        self._turns = itertools.cycle(self.people)

    # The kinds of requests. All names are such that no two persons of a family are the same.

    def read_user(self) -> bytes:
        person = self.rng.choice(self.people)
        return _request("GET", f"/users/{person.id}", person)

    def read_dependant(self) -> bytes:
        person = self.rng.choice(self.people)
        return _request("GET", f"/users/{person.id}/dependants/{self.rng.choice(person.dependants)}", person)

    def list_dependants(self) -> bytes:
        person = self.rng.choice(self.people)
        return _request("GET", f"/users/{person.id}/dependants", person)

    def add_dependant(self) -> bytes:
        # In turn, so that no family is full before all are.
        person = next(self._turns)
        return _request(
            "POST", f"/users/{person.id}/dependants", person, {**RELATIVE, "last_name": _nth_name(next(self._marks))}
        )

    def change_dependant(self) -> bytes:
        person = self.rng.choice(self.people)
        path = f"/users/{person.id}/dependants/{self.rng.choice(person.dependants)}"
        return _request("PATCH", path, person, {"first_name": _nth_name(next(self._marks))})


def _request(method: str, path: str, person: Person, body: object = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", f"Authorization: Bearer {person.token}"]
    content = b""
    if body is not None:
        content = json.dumps(body).encode()
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join((*lines, "", "")).encode() + content


@contextmanager
def aarokya(data: Path, people: int) -> Iterator[Target]:
    """Run Aarokya on a data folder, with people who joined through its API.

    Raises:
        BenchFailed: it does not start, or does not take them.
    """
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("AAROKYA_")},
        "AAROKYA_DATA_DIR": str(data),
        "AAROKYA_HTTP_PORT": "0",
        "AAROKYA_RATE_LIMITS": "off",
        "AAROKYA_LOG_LEVEL": "WARNING",
    }
    with _running([sys.executable, "-P", "-m", "deploy.local"], environment, data / "run.log") as process:
        runtime_file = data / "runtime.json"
        _until(process, runtime_file.exists)
        runtime = json.loads(runtime_file.read_text())
        url, key_file = runtime["gateway"]["url"], Path(runtime["admin_api_key_file"])
        pids = [runtime["gateway"]["pid"], *(runtime["services"][service]["pid"] for service in SERVICES)]
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            joined = _join(client, key_file.read_text().strip(), people)
        yield Target("Aarokya", urlsplit(url).port or 0, pids, joined)


def _join(client: httpx.Client, admin_key: str, people: int) -> list[Person]:
    def made(path: str, headers: Mapping[str, str], body: object) -> Any:
        keyed = {**headers, "Idempotency-Key": str(uuid4())}
        for _ in range(ATTEMPTS):
            answer = client.post(path, headers=keyed, json=body)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            # Who has just joined may have to wait for SELF before a relative is added.
            time.sleep(float(answer.headers["retry-after"]))
        # A key's secret is told once, and not when the answer that told it was lost.
        if answer.is_error or answer.headers.get("idempotency-replayed"):
            raise BenchFailed(f"POST {path}: {answer.text}")
        return answer.json()

    admin = {"admin-api-key": admin_key}
    wanted = {"name": f"Bench {uuid4()}", "max_dependants": MOST_RELATIVES, "token_ttl_seconds": TOKEN_S}
    platform_id = made("/platforms", admin, wanted)["id"]
    secret = made(f"/platforms/{platform_id}/api_keys", admin, {"name": "bench"})["secret"]

    def join(number: int) -> Person:
        phone = {"phone_country_code": "+91", "phone_number": f"9{number:09d}", "platform_id": platform_id}
        token = made("/auth/token", {"api-key": secret}, phone)
        person = Person(token["user"]["id"], token["access_token"], [])
        headers = {"Authorization": f"Bearer {person.token}"}
        made(f"/users/{person.id}/complete_onboarding", headers, PROFILE)
        for relative in range(RELATIVES):
            added = made(f"/users/{person.id}/dependants", headers, {**RELATIVE, "last_name": _nth_name(relative)})
            person.dependants.append(added["id"])
        return person

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(join, range(people)))


@contextmanager
def peer(data: Path, people: int) -> Iterator[Target]:
    """Run the peer on the PostgreSQL of a data folder that Aarokya runs on, in a database of its own.

    Raises:
        BenchFailed: it does not start.
    """
    runtime = json.loads((data / "runtime.json").read_text())
    server = runtime["databases"]["identity"]["owner_dsn"]
    password = Keyring.open(data / "secrets.json", SERVICES).superuser_password
    superuser = login_dsn(server, "postgres", password, "postgres")
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {PEER_DATABASE}".encode())
    dsn = login_dsn(server, "postgres", password, PEER_DATABASE).replace("postgresql://", "postgresql+psycopg://")
    (port,) = pick_ports(1)
    environment = {**os.environ, "PEER_DSN": dsn, "PEER_KEY": "k" * 32, "PEER_PORT": str(port)}
    joined = _fill(dsn, environment["PEER_KEY"], people)
    with _running([sys.executable, "-P", "-m", "bench.peer"], environment, data / "peer.log") as process:

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/docs", trust_env=False).status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        _until(process, answers)
        yield Target("one process", port, [process.pid], joined)


def _fill(dsn: str, key: str, people: int) -> list[Person]:
    now = datetime.now(UTC).replace(tzinfo=None)
    platform = Platform(id=uuid4(), status="active")
    joined, rows = [], []
    for number in range(people):
        user = User(
            id=uuid4(),
            platform_id=platform.id,
            phone_number=f"+919{number:09d}",
            status="ACTIVE",
            token_generation=1,
            created_at=now,
            version=1,
            **_with_date(PROFILE),
        )
        said: list[dict[str, str]] = [{**PROFILE, "relationship": "SELF"}]
        said += [{**RELATIVE, "last_name": _nth_name(relative)} for relative in range(RELATIVES)]
        family = [
            Dependant(
                id=uuid4(),
                version=1,
                user_id=user.id,
                status="active",
                first_created_at=now,
                created_at=now,
                **_with_date(fields),
            )
            for fields in said
        ]
        claims = {"sub": str(user.id), "generation": 1, "aud": AUDIENCE, "exp": int(time.time()) + TOKEN_S}
        token = jwt.encode(claims, key, ALGORITHM)
        joined.append(Person(str(user.id), token, [str(relative.id) for relative in family[1:]]))
        rows += [user, *family]
    engine = create_engine(dsn)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(platform)
        session.flush()
        session.add_all(rows)
    engine.dispose()
    return joined


def _with_date(fields: Mapping[str, str]) -> dict[str, Any]:
    return {**fields, "date_of_birth": date.fromisoformat(fields["date_of_birth"])}


def _nth_name(number: int) -> str:
    """Return a name that no other number has."""
    letters = ""
    while number:
        number, digit = divmod(number, 26)
        letters += chr(ord("a") + digit)
    return f"Q{letters}"


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)


def _until(process: subprocess.Popen[bytes], holds: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not holds():
        if process.poll() is not None or time.monotonic() - began > START_S:
            raise BenchFailed(f"{process.args!r} does not start")
        time.sleep(0.2)
