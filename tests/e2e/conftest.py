"""The whole system as an outside caller sees it, started once for all tests here.

`AAROKYA_TEST_DATA_DIR` names the data folder of a running system to test instead of starting one.
"""

import itertools
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.contract import Document
from tests.e2e.running import OwnSystem, System, own_system

# Mobile numbers that are valid and that no two users of a run share.
_numbers = itertools.count(secrets.randbelow(900_000_000))
_names = itertools.count(1)


@dataclass
class Caller:
    """Sends requests with one credential."""

    http: httpx.Client
    headers: dict[str, str]

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = {**self.headers, **arguments.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **arguments)

    def get(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("GET", path, **arguments)

    def post(self, path: str, json: Any = None, **arguments: Any) -> httpx.Response:
        return self.request("POST", path, json={} if json is None else json, **arguments)

    def patch(self, path: str, json: Any, **arguments: Any) -> httpx.Response:
        return self.request("PATCH", path, json=json, **arguments)

    def delete(self, path: str, **arguments: Any) -> httpx.Response:
        return self.request("DELETE", path, **arguments)


@dataclass
class Platform:
    """A platform with one key."""

    id: str
    partner: Caller
    secret: str
    key_id: str


@dataclass
class User:
    """A user with a token."""

    id: str
    token: str
    caller: Caller
    phone_number: str
    platform: Platform

    @property
    def path(self) -> str:
        return f"/users/{self.id}"


@dataclass
class World:
    """Makes what tests need, by the API alone."""

    system: System
    http: httpx.Client
    admin: Caller = field(init=False)

    def __post_init__(self) -> None:
        self.admin = self.caller({"admin-api-key": self.system.admin_key})

    def caller(self, headers: dict[str, str] | None = None) -> Caller:
        """Return a caller with these headers."""
        return Caller(self.http, headers or {})

    def unique(self, word: str) -> str:
        """Return a word that no other test has."""
        return f"{word}_{next(_names)}_{secrets.token_hex(4)}"

    def phone_number(self) -> str:
        """Return national digits that no other test has."""
        return f"9{next(_numbers):09d}"

    def platform(self, **fields: Any) -> Platform:
        """Open a platform with one key."""
        created = made(self.admin.post("/platforms", {"name": self.unique("Rides"), **fields}), 201)
        key = made(self.admin.post(f"/platforms/{created['id']}/api_keys", {"name": "test"}), 201)
        return Platform(created["id"], self.caller({"api-key": key["secret"]}), key["secret"], key["id"])

    def token(self, platform: Platform, phone_number: str, **fields: Any) -> dict[str, Any]:
        """Exchange a phone number for a token."""
        body = {"phone_country_code": "+91", "phone_number": phone_number, "platform_id": platform.id, **fields}
        return made(platform.partner.post("/auth/token", body), 200)

    def user(self, platform: Platform | None = None, *, is_active: bool = True, **profile: Any) -> User:
        """Sign a user in, and complete the onboarding unless told not to."""
        platform = platform or self.platform()
        phone_number = self.phone_number()
        answer = self.token(platform, phone_number)
        bearer = self.caller({"authorization": f"Bearer {answer['access_token']}"})
        user = User(answer["user"]["id"], answer["access_token"], bearer, f"+91{phone_number}", platform)
        if is_active:
            fields = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1990-05-17", **profile}
            made(bearer.post(f"{user.path}/complete_onboarding", fields), 200)
        return user

    def dependant(self, user: User, **fields: Any) -> dict[str, Any]:
        """Add a member to a user's family."""
        body = {
            "relationship": "SPOUSE",
            "first_name": self.unique("Asha"),
            "gender": "FEMALE",
            "date_of_birth": "1992-11-03",
            **fields,
        }
        return made(user.caller.post(f"{user.path}/dependants", body), 201)

    def provider(self, **fields: Any) -> dict[str, Any]:
        """Add a benefit provider that issues MRNs."""
        body = {
            "code": f"p{secrets.token_hex(8)}",
            "legal_name": "Apollo Clinics Private Limited",
            "display_name": "Apollo",
            "type": "CLINIC",
            "issues_mrn": True,
            **fields,
        }
        return made(self.admin.post("/benefit_providers", body), 201)

    def benefit(self, provider: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Add an active benefit."""
        body = {
            "benefit_provider_id": provider["id"],
            "code": f"b{secrets.token_hex(8)}",
            "name": self.unique("Consultation"),
            "type": "CONSULTATION",
            "status": "active",
            "price_paise": 0,
            **fields,
        }
        return made(self.admin.post("/benefits", body), 201)


def made(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return an answer's body, once its status is as it should be."""
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    return body


def assert_refused(response: httpx.Response, status: int, code: str) -> None:
    """Assert an answer's status and code, and that it is in the envelope."""
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
    error = response.json()["error"]
    assert set(error) == {"code", "message", "request_id", "details"}
    assert error["request_id"] == response.headers["x-request-id"]


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system."""
    running = os.environ.get("AAROKYA_TEST_DATA_DIR")
    if running:
        yield System.read(Path(running))
        return
    with own_system(tmp_path_factory.mktemp("aarokya")) as own:
        yield own.system


@pytest.fixture(scope="session")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnSystem]:
    """A system that tests may break, as long as they mend it again. It logs all that it can."""
    with own_system(tmp_path_factory.mktemp("breakable"), AAROKYA_LOG_LEVEL="DEBUG") as own:
        yield own


@pytest.fixture(scope="session")
def breakable_world(breakable: OwnSystem) -> Iterator[World]:
    """Makes what tests need in the system that they may break."""
    with httpx.Client(base_url=breakable.system.url, timeout=30, trust_env=False) as client:
        yield World(breakable.system, client)


@pytest.fixture(scope="session")
def document(system: System) -> Document:
    """The OpenAPI document that the system answers."""
    return Document(httpx.get(f"{system.url}/api_docs/openapi.json", trust_env=False).json())


@pytest.fixture(scope="session")
def http(system: System, document: Document) -> Iterator[httpx.Client]:
    """A client that reuses its connections, and fails when an answer is not as the OpenAPI document says."""
    hooks = {"response": [document.check]}
    with httpx.Client(base_url=system.url, timeout=30, trust_env=False, event_hooks=hooks) as client:
        yield client


@pytest.fixture(scope="session")
def world(system: System, http: httpx.Client) -> World:
    """Makes what tests need."""
    return World(system, http)
