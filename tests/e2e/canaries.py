"""A life full of values that must be found nowhere but in answers, and the places where they might have leaked to."""

import base64
import os
import random
import socket
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from psycopg.rows import dict_row

from servicekit.crypto import KeyRing
from servicekit.data_keys import KEY_ID_BYTES, DataKey
from servicekit.id_numbers import is_aadhaar
from tests.e2e.conftest import Platform, User, World, made
from tests.e2e.running import SERVICES, System


@dataclass
class Canaries:
    """The values of one run. All texts hold `tag`; a number that may hold no letters is in `numbers`."""

    tag: str = field(default_factory=lambda: "".join(random.choices(string.ascii_lowercase, k=14)))
    numbers: list[str] = field(default_factory=list)

    def digits(self, count: int, first: str = "9") -> str:
        """Return a new number, and remember it."""
        number = first + "".join(random.choices(string.digits, k=count - len(first)))
        self.numbers.append(number)
        return number

    def pan(self) -> str:
        """Return a new PAN, and remember it."""
        letters = random.choices(string.ascii_uppercase, k=6)
        number = "".join(letters[:5]) + "".join(random.choices(string.digits, k=4)) + letters[5]
        self.numbers.append(number)
        return number

    def aadhaar(self) -> str:
        """Return a new Aadhaar number, and remember it."""
        start = "".join(random.choices(string.digits, k=11))
        number = next(start + digit for digit in string.digits if is_aadhaar(start + digit))
        self.numbers.append(number)
        return number

    def born(self, year: int) -> str:
        """Return a birth date, and remember it."""
        date = f"{year}-{random.randint(1, 12):02}-{random.randint(1, 28):02}"
        self.numbers.append(date)
        return date

    def found_in(self, content: bytes) -> list[str]:
        """Return what of them is in some bytes: as it is, in capitals, as UTF-16, in hex, in base64."""
        lower = content.lower()
        found = [
            value
            for value in (self.tag, *self.numbers)
            if any(spelling in lower for spelling in _spellings(value.lower()))
        ]
        # Base64 of capitals is another text, and that of numbers too short to be told from chance.
        if any(spelling in content for spelling in _in_base64(self.tag)):
            found.append(f"{self.tag} in base64")
        return found


def _spellings(value: str) -> tuple[bytes, ...]:
    raw = value.encode()
    return raw, value.encode("utf-16-le"), raw.hex().encode()


def _in_base64(value: str) -> Iterator[bytes]:
    """Yield the middle of the value's base64, wherever it begins in what is encoded."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + value.encode())
        yield encoded[4:-4]


@dataclass
class Life:
    """Who lived it, and how to see it again."""

    user: User
    dependant: dict[str, Any]
    account: dict[str, Any]
    mrn: dict[str, Any]
    provider: dict[str, Any]

    @property
    def dependant_path(self) -> str:
        return f"{self.user.path}/dependants/{self.dependant['id']}"


def person(canaries: Canaries, year: int) -> dict[str, Any]:
    """Return what a user and a dependant have in common."""
    return {
        "first_name": f"Ravi{canaries.tag}",
        "middle_name": f"Prasad{canaries.tag}",
        "last_name": f"Kumar{canaries.tag}",
        "gender": "MALE",
        "date_of_birth": canaries.born(year),
        "abha_number": canaries.digits(14),
        "abha_address": f"ravi.{canaries.tag}@abdm",
    }


def profile(canaries: Canaries) -> dict[str, Any]:
    """Return a profile with every field that a user may write."""
    tag = canaries.tag
    return {
        **person(canaries, 1957),
        "email": f"ravi.{tag}@example.org",
        "preferred_language": "hi",
        "address_line": f"12 {tag} Road",
        "city": tag,
        "state_code": "KA",
        "pincode": "560001",
        "id_proof": {"proof_type": "PAN", "number": canaries.pan()},
        "metadata": {tag: {"deep": [tag]}},
    }


def live(world: World, canaries: Canaries, of_platform: Canaries | None = None) -> Life:
    """Do all that a partner, a user and an operator can do with personal values, each POST twice with one key.

    What is said of the platform, and not of the person, holds the values `of_platform`.
    """
    tag = canaries.tag
    platform = _open_platform(world, of_platform or canaries)
    user = _onboard(world, canaries, platform)

    def post_twice(path: str, body: dict[str, Any], status: int = 201) -> dict[str, Any]:
        headers = {"idempotency-key": f"{world.unique(tag)}"}
        first = made(user.caller.post(path, body, headers=headers), status)
        again = user.caller.post(path, body, headers=headers)
        assert (again.json(), again.headers["idempotency-replayed"]) == (first, "true")
        return first

    dependant = post_twice(
        f"{user.path}/dependants",
        {
            "relationship": "SON",
            **person(canaries, 1993),
            "phone_number": canaries.digits(10),
            "blood_group": "A_POSITIVE",
            "status_reason": f"born {tag}",
        },
    )
    path = f"{user.path}/dependants/{dependant['id']}"
    made(user.caller.patch(path, {"first_name": f"Arun{tag}", "status_reason": f"spelt {tag}"}), 200)
    made(world.admin.patch(path, {"status": "inactive", "phone_number": f"+91{canaries.digits(10)}"}), 200)

    account = post_twice(
        f"{user.path}/accounts",
        {
            "type": "BANK",
            "account_number": canaries.digits(17),
            "ifsc": "HDFC0001234",
            "holder_name": f"Ravi {tag}",
            "provider_name": f"Bank of {tag}",
        },
    )
    made(platform.partner.patch(f"{user.path}/accounts/{account['id']}", {"verification_reference": tag}), 200)
    post_twice(f"{user.path}/accounts", {"type": "UPI", "account_number": f"{tag}@okbank"})
    wallet = {"type": "WALLET", "account_number": canaries.digits(10), "provider_name": f"Wallet of {tag}"}
    gone = post_twice(f"{user.path}/accounts", wallet)
    assert user.caller.delete(f"{user.path}/accounts/{gone['id']}").status_code == 204

    provider = world.provider(legal_name="Clinics that everybody may know")
    link = {"dependant_id": dependant["id"], "benefit_provider_id": provider["id"], "mrn": f"MRN-{tag}"}
    unlinked = post_twice("/mrns", link)
    assert world.admin.delete(f"/mrns/{unlinked['id']}", params={"reason": f"not {tag}"}).status_code == 204
    mrn = post_twice("/mrns", link)

    assert user.caller.delete(user.path).status_code == 204
    made(world.admin.post(f"{user.path}/reactivate", {"reason": f"{tag} asked"}), 200)
    answer = world.token(platform, user.phone_number)
    user = User(
        user.id,
        answer["access_token"],
        world.caller({"authorization": f"Bearer {answer['access_token']}"}),
        user.phone_number,
        platform,
    )
    life = Life(user, dependant, account, mrn, provider)
    _read_all(world, canaries, life)
    return life


def _open_platform(world: World, canaries: Canaries) -> Platform:
    tag = canaries.tag
    platform = world.platform(contact_email=f"care.{tag}@example.org", metadata={tag: tag})
    path = f"/platforms/{platform.id}"
    made(world.admin.post(f"{path}/suspend", {"reason": f"{tag} did not pay"}), 200)
    made(world.admin.post(f"{path}/activate", {"reason": f"{tag} has paid"}), 200)
    assert tag in world.admin.get(path).text
    brought = f"{tag}-{canaries.digits(30)}"
    made(world.admin.post(f"{path}/api_keys", {"name": "brought", "secret": brought}), 201)
    rotated = made(world.admin.post(f"{path}/api_keys/{platform.key_id}/rotate", {"overlap_seconds": 600}), 200)
    # All of a secret but its prefix is for nobody to see.
    canaries.numbers += [platform.secret[-30:], rotated["secret"][-30:]]
    return platform


def _onboard(world: World, canaries: Canaries, platform: Platform) -> User:
    """Sign a user in as the newest and the oldest apps do, and fill the profile."""
    tag, number = canaries.tag, canaries.digits(10)
    for body in (
        {
            "phone_country_code": "+91",
            "phone_number": number,
            "platform_id": platform.id,
            "id_proof": {"proof_type": "DRIVING_LICENSE", "number": f"KA01{tag.upper()}"},
            "dob": canaries.born(1961),
            "address": f"7 {tag} Street",
            "gender": "MALE",
            "first_name": f"Prefilled{tag}",
            "last_name": None,
            f"unknown {tag}": tag,
        },
        {"phone_number": f"+91{number}", "platform_id": platform.id, "dl_number": f"KA02{tag.upper()}"},
    ):
        answer = made(platform.partner.post("/auth/token", body), 200)
    token = answer["access_token"]
    canaries.numbers.append(token.rpartition(".")[2])
    user = User(
        answer["user"]["id"], token, world.caller({"authorization": f"Bearer {token}"}), f"+91{number}", platform
    )
    made(user.caller.patch(user.path, profile(canaries)), 200)
    onboarding, headers = profile(canaries), {"idempotency-key": world.unique(tag)}
    for _ in range(2):
        made(user.caller.post(f"{user.path}/complete_onboarding", onboarding, headers=headers), 200)
    return user


def _read_all(world: World, canaries: Canaries, life: Life) -> None:
    """Read everything back: sealed is not lost."""
    user, tag = life.user, canaries.tag
    partner = user.platform.partner
    for caller, path, parameters in (
        (world.admin, user.path, {}),
        (user.caller, user.path, {}),
        (world.admin, "/users", {"phone_number": user.phone_number}),
        (user.caller, f"{user.path}/dependants", {}),
        (world.admin, f"{life.dependant_path}/versions", {}),
        (partner, f"{user.path}/accounts", {}),
        (user.caller, "/mrns", {"mrn": life.mrn["mrn"], "benefit_provider_id": life.provider["id"]}),
        (world.admin, "/audit_logs", {"user_id": user.id}),
    ):
        response = caller.get(path, params=parameters)
        assert response.status_code == 200, response.text
        assert tag in response.text, path


def be_refused(world: World, canaries: Canaries, life: Life) -> None:
    """Send values to where they do not belong, in every part of a request."""
    user, tag = life.user, canaries.tag
    platform = user.platform
    family, accounts = f"{user.path}/dependants", f"{user.path}/accounts"
    member = {"relationship": "SON", **person(canaries, 1999)}
    refused = [
        # Bodies that are wrong in one way or another.
        *(
            user.caller.post(family, {**member, **wrong})
            for wrong in (
                {tag: tag},
                {"first_name": [tag]},
                {"first_name": f"\u0000{tag}"},
                {"first_name": tag * 50},
                {"gender": tag},
                {"date_of_birth": tag},
                {"date_of_birth": "1897-01-31"},
                {"phone_number": f"0000{tag}"},
                {"abha_number": canaries.aadhaar()},
                {"abha_address": tag},
                {"relationship": "SELF"},
                {"status": "removed", "status_reason": tag},
            )
        ),
        *(
            user.caller.patch(user.path, wrong)
            for wrong in (
                {"phone_number": canaries.digits(10)},
                {"email": tag},
                {"pincode": tag},
                {"state_code": tag},
                {"preferred_language": tag + tag},
                {"id_proof": {"proof_type": "PAN", "number": tag}},
                {"id_proof": {"proof_type": "PASSPORT", "number": canaries.aadhaar()}},
                {"id_proof": {"proof_type": tag, "number": tag}},
                {"metadata": {tag: tag * 1000}},
            )
        ),
        *(
            user.caller.post(accounts, wrong)
            for wrong in (
                {"type": "BANK", "account_number": tag, "ifsc": tag},
                {"type": "BANK", "account_number": life.account["id"] + tag},
                {"type": "UPI", "account_number": f"{tag}@okbank"},
                {"type": "UPI", "account_number": tag, "verification_status": "verified"},
            )
        ),
        *(
            user.caller.post("/mrns", {**life_link(life), **wrong})
            for wrong in ({}, {"mrn": tag * 9}, {"dependant_id": tag}, {"benefit_provider_id": user.id})
        ),
        *(
            platform.partner.post("/auth/token", {"platform_id": platform.id, **wrong})
            for wrong in ({"phone_number": tag}, {"phone_number": canaries.digits(10), "phone_country_code": tag})
        ),
        world.admin.patch(user.path, {"phone_number": other_number(world, canaries, platform)}),
        world.admin.post(f"{user.path}/erase", {"reason": tag}),
        world.admin.post(f"{user.path}/release_phone", {"reason": f"{tag}\u0007"}),
        # Bodies that are no JSON.
        *(
            user.caller.request("POST", family, content=content, headers={"content-type": "application/json"})
            for content in (
                f'{{"first_name": "{tag}'.encode(),
                f'{{"first_name": "{tag}\\ud800"}}'.encode(),
                f'{{"{tag}": 1, "{tag}": 2}}'.encode(),
                f'{{"a": "{tag * 20_000}"}}'.encode(),
                f"{tag}\xff".encode("latin-1"),
            )
        ),
        user.caller.request("POST", family, content=tag.encode(), headers={"content-type": f"text/{tag}"}),
        # Paths and queries.
        *(
            world.admin.get(path)
            for path in (
                f"/users/{tag}",
                f"/{tag}",
                f"/{tag}/{tag}?{tag}={tag}",
                f"{family}/{tag}",
                f"/users?phone_number={tag}",
                f"/users?{tag}={tag}",
                f"/users?page_token={tag}",
                f"/users?status={tag}",
                f"/audit_logs?from={tag}",
                f"/audit_logs?user_id={tag}",
            )
        ),
        user.caller.get(f"/mrns?mrn={tag * 9}"),
        user.caller.get(f"/users/{tag}/accounts"),
        world.caller({"admin-api-key": world.system.admin_key}).request("PUT", f"/users/{tag}"),
        # Headers.
        *(
            world.caller(headers).get(user.path)
            for headers in (
                {"api-key": f"{tag}{tag}{tag}"},
                {"admin-api-key": tag},
                {"authorization": f"Bearer {tag}.{tag}.{tag}"},
                {"authorization": f"Basic {base64.b64encode(f'{platform.id}:{tag}'.encode()).decode()}"},
                {"authorization": f"{tag} {tag}"},
                {"authorization": f"Bearer {user.token}x"},
                {"authorization": f"Bearer {user.token}", "api-key": tag},
            )
        ),
        user.caller.patch(user.path, {}, headers={"if-match": f'"{tag}"'}),
        user.caller.post(family, member, headers={"idempotency-key": tag * 20}),
    ]
    for response in refused:
        assert 400 <= response.status_code < 500, (response.request.method, response.request.url, response.text)
        error = response.json()["error"]
        # Only the name of a field comes back, which a caller must know to mend it.
        told = [error["message"], *(detail["message"] for detail in error["details"])]
        assert tag not in str(told), response.text
    user.caller.get(
        user.path, headers={"x-request-id": f"{tag}.{tag}", "traceparent": tag, "cookie": tag, "referer": tag}
    )
    _send_no_http(world.system, tag)


def life_link(life: Life) -> dict[str, str]:
    """Return the body that links the MRN which is linked already."""
    return {name: life.mrn[name] for name in ("dependant_id", "benefit_provider_id", "mrn")}


def other_number(world: World, canaries: Canaries, platform: Platform) -> str:
    """Return the number of another user of the platform."""
    number = canaries.digits(10)
    world.token(platform, number)
    return number


def _send_no_http(system: System, tag: str) -> None:
    url = urlsplit(system.url)
    for sent in (f"GET /{tag} HTTP/9.9\r\n\r\n", f"{tag}\r\n\r\n", f"GET /users HTTP/1.1\r\n{tag} {tag}\r\n\r\n"):
        with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
            connection.sendall(sent.encode())
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert tag.encode() not in answer


def dumps(system: System) -> Iterator[tuple[str, bytes]]:
    """Yield every table of every service as the superuser sees it, and what the sessions ran last."""
    for service in SERVICES:
        with system.superuser(service) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for (table,) in tables:
                rows = connection.execute(f'SELECT t::text FROM "{table}" t').fetchall()
                yield f"{service}.{table}", "\n".join(row[0] for row in rows).encode()
            statements = connection.execute("SELECT coalesce(query, '') FROM pg_stat_activity").fetchall()
            yield f"{service} pg_stat_activity", "\n".join(row[0] for row in statements).encode()


def database_files(system: System) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the database server, the write-ahead log among them, with all that was in memory."""
    with system.superuser("postgres") as connection:
        connection.execute("CHECKPOINT")
    folder = (system.data / "postgres").resolve() / "data"
    yield from _files(folder)


def log_files(system: System) -> Iterator[tuple[str, bytes]]:
    """Yield the logs of all processes and of the database server, and what `make run` said."""
    yield from _files(system.data / "logs")
    run_log = system.data / "run.log"
    if run_log.exists():
        yield "run.log", run_log.read_bytes()


def other_files(system: System) -> Iterator[tuple[str, bytes]]:
    """Yield what else the processes keep, and what they tell of themselves."""
    yield from _files(system.data / "audit_heads")
    yield "runtime.json", (system.data / "runtime.json").read_bytes()
    metrics = httpx.get(system.runtime["gateway"]["metrics_url"], trust_env=False)
    yield "metrics", metrics.content


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            try:
                yield str(path.relative_to(folder)), path.read_bytes()
            except FileNotFoundError:
                # The server takes files away whenever it likes.
                continue


def unsealed(system: System, service: str, database: str | None = None) -> bytes:
    """Return all that can be unsealed in a service's tables with the service's own master keys."""
    ring = KeyRing.parse(system.secrets["services"][service]["master_keys"])
    opened = []
    with system.superuser(database or service) as connection:
        connection.row_factory = dict_row
        keys = {row["id"]: row for row in connection.execute("SELECT * FROM data_keys WHERE wrapped IS NOT NULL")}
        tables = connection.execute(
            "SELECT table_name AS t FROM information_schema.columns WHERE column_name = 'sealed'"
        )
        for table in [row["t"] for row in tables]:
            for row in connection.execute(f'SELECT * FROM "{table}" WHERE sealed IS NOT NULL'):
                key = keys.get(UUID(bytes=row["sealed"][:KEY_ID_BYTES]))
                if key is not None:
                    bound = key["id"].bytes + key["owner_id"].bytes
                    data_key = DataKey(
                        key["id"], key["owner_id"], ring.unwrap(key["master_key_id"], key["wrapped"], bound)
                    )
                    opened.append(data_key.open(row["sealed"], _bound_to(table, row)))
    return b"\n".join(opened)


def _bound_to(table: str, row: dict[str, Any]) -> bytes:
    """Return what a row's sealed part is bound to."""
    match table:
        case "idempotency_keys":
            return b"idempotency_keys:" + row["scope"]
        case "outbox":
            return b"outbox:" + row["id"].bytes
        case _:
            return f"{table}:{row['id']}:{row.get('version', 1)}".encode()
