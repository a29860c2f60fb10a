"""Who may call what: every route against every kind of caller, and every path against ids that are not the caller's.

The matrix is generated from the contract's table and the order of refusals. Each request also has a mistake in its
body or query, so that one answer shows both whom the guard lets in and that nothing else was looked at before it.
"""

import base64
import json
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from uuid6 import uuid7

from tests.e2e.conftest import Caller, Platform, System, User, World, assert_refused, made
from tests.e2e.contract import OPERATIONS, PUBLIC, WRITES, Document, Operation
from tests.e2e.gateways import running_gateway
from tests.e2e.tokens import claims_of, header_of, sign, signing_key

# Operations that a user may call before the onboarding is complete.
WHILE_ONBOARDING = ("PATCH /users/{user_id}", "POST /users/{user_id}/complete_onboarding")
UNKNOWN = {
    "platform_id": "PL-301",
    "key_id": "PL-305",
    "user_id": "US-401",
    "dependant_id": "DE-501",
    "account_id": "AC-801",
    "benefit_provider_id": "BP-601",
    "benefit_id": "BE-701",
    "mrn_id": "MR-901",
}
STATUSES = {
    "AU-205": 400,
    "AU-201": 401,
    "AU-202": 401,
    "AU-203": 401,
    "AU-208": 401,
    "AU-204": 403,
    "AU-209": 403,
    "AU-207": 403,
    "AU-206": 403,
    "RQ-102": 400,
    "RQ-101": 422,
}
CONTENT_TYPE = {"content-type": "application/json"}
REASON = {"reason": "the access test"}


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of caller, and what the contract says of it wherever it calls.

    Attributes:
        name: which of the cast it is.
        kind: A admin, P partner, B partner as Basic, U user; "-" for a credential of no kind.
        refusal: the code with which its credential is refused on every route.
        is_suspended: whether its platform is suspended or archived.
        status: of a user.
        is_named: whether a path with a user's id names this user.
    """

    name: str
    kind: str
    refusal: str | None = None
    is_suspended: bool = False
    status: str = "active"
    is_named: bool = True

    def code_on(self, operation: Operation) -> str:
        """Return the code that the contract demands, in its order: 205 201 202 203/208 204 209 207 206, the body."""
        takes = operation.callers
        if self.kind == "B" and "B" not in takes:
            return "AU-204"
        if self.refusal:
            return self.refusal
        if self.kind not in takes:
            return "AU-204"
        if self.is_suspended:
            return "AU-209"
        if self.status == "deactivated" or (self.status == "onboarding" and str(operation) not in WHILE_ONBOARDING):
            return "AU-207"
        if not self.is_named and "{user_id}" in operation.path:
            return "AU-206"
        return "RQ-102" if operation in WRITES else "RQ-101"


ROLES = (
    Role("nobody", "-", "AU-201"),
    *(
        Role(f"two credentials: {both}", "-", "AU-205")
        for both in (
            "admin and partner",
            "admin and user",
            "partner and user",
            "partner and Basic",
            "admin and garbage",
            "user and an empty key",
            "all three",
        )
    ),
    *(
        Role(f"the same header twice: {header}", "-", "AU-205")
        for header in ("admin-api-key", "api-key", "Bearer", "Basic", "Bearer and Basic")
    ),
    *(
        Role(f"garbage: {garbage}", "-", "AU-202")
        for garbage in (
            "admin key",
            "admin key and more",
            "partner key as admin key",
            "partner key",
            "short partner key",
            "long partner key",
            "partner key beyond ASCII",
            "admin key as partner key",
            "two partner keys in one header",
            "token",
            "token of dots",
            "partner key as token",
            "token with its signature cut",
        )
    ),
    *(
        Role(f"garbage: Basic {garbage}", "B", "AU-202")
        for garbage in (
            "not base64",
            "beyond ASCII",
            "without colon",
            "without secret",
            "wrong secret",
            "other platform",
            "not an id",
        )
    ),
    *(
        Role(f"an empty {header}", "-", "AU-202")
        for header in ("admin-api-key", "api-key", "authorization", "Bearer", "Basic")
    ),
    *(
        Role(f"the scheme {scheme}", "-", "AU-202")
        for scheme in ("Digest", "Token", "Bearer with a tab", "Bearerx", "none")
    ),
    Role("admin", "A"),
    Role("partner", "P"),
    Role("partner of another platform", "P"),
    Role("partner as Basic", "B"),
    Role("partner as basic, in small letters", "B"),
    Role("user", "U"),
    Role("user, scheme in capitals", "U"),
    Role("user while onboarding", "U", status="onboarding"),
    Role("user, another while onboarding", "U", status="onboarding", is_named=False),
    Role("user, deactivated", "U", status="deactivated"),
    Role("user, deactivated while onboarding", "U", status="deactivated"),
    Role("user, deactivated, another", "U", status="deactivated", is_named=False),
    Role("user, erased", "U", status="deactivated"),
    Role("user, another of the platform", "U", is_named=False),
    Role("user, another of another platform", "U", is_named=False),
    Role("user, from before a deactivation", "U", "AU-203"),
    Role("expired token", "U", "AU-203"),
    Role("expired token of a deactivated user", "U", "AU-203"),
    Role("expired token of another", "U", "AU-203", is_named=False),
    Role("forged token", "U", "AU-202"),
    Role("forged token that is expired", "U", "AU-202"),
    Role("token of nobody", "U", "AU-202"),
    Role("token of another platform", "U", "AU-202"),
    Role("revoked key", "P", "AU-208"),
    Role("revoked key as Basic", "B", "AU-208"),
    Role("expired key", "P", "AU-208"),
    Role("expired key as Basic", "B", "AU-208"),
    Role("rotated key", "P", "AU-208"),
    Role("suspended platform's partner", "P", is_suspended=True),
    Role("suspended platform's partner as Basic", "B", is_suspended=True),
    Role("suspended platform's revoked key", "P", "AU-208"),
    Role("suspended platform's user", "U", is_suspended=True),
    Role("suspended platform's user while onboarding", "U", is_suspended=True, status="onboarding"),
    Role("suspended platform's user, deactivated", "U", is_suspended=True, status="deactivated"),
    Role("suspended platform's user, another", "U", is_suspended=True, is_named=False),
    Role("archived platform's partner", "P", is_suspended=True),
    Role("archived platform's partner as Basic", "B", is_suspended=True),
    Role("archived platform's user", "U", is_suspended=True, status="deactivated"),
)


@dataclass(frozen=True, slots=True)
class Player:
    """Who plays a role: the headers to send and the user's id to put into the path."""

    headers: list[tuple[str, str]]
    user_id: str


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def basic(platform_id: str, secret: str) -> list[tuple[str, str]]:
    return basic_text(f"{platform_id}:{secret}")


def basic_text(text: str) -> list[tuple[str, str]]:
    return [("authorization", f"Basic {base64.b64encode(text.encode()).decode()}")]


def token_of(user: User) -> list[tuple[str, str]]:
    return bearer(user.token)


def new_key(world: World, platform: Platform, **fields: object) -> dict[str, str]:
    path = f"/platforms/{platform.id}/api_keys"
    key: dict[str, str] = made(world.admin.post(path, {"name": "another", **fields}), 201)
    return key


def leave(world: World, user: User) -> User:
    assert world.admin.delete(user.path).status_code == 204
    return user


def revoked_key(world: World, platform: Platform) -> str:
    key = new_key(world, platform)
    assert world.admin.delete(f"/platforms/{platform.id}/api_keys/{key['id']}").status_code == 204
    return key["secret"]


def expired_key(world: World, platform: Platform) -> str:
    """Make a key that is valid for a moment, and wait until the moment is over."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    secret = new_key(world, platform, expires_at=moment)["secret"]
    partner = world.caller({"api-key": secret})
    deadline = time.monotonic() + 30
    while partner.get("/users").json()["error"]["code"] != "AU-208":
        assert time.monotonic() < deadline, "the key never expires"
        time.sleep(0.1)
    return secret


def rotated_key(world: World, platform: Platform) -> str:
    key = new_key(world, platform)
    path = f"/platforms/{platform.id}/api_keys/{key['id']}/rotate"
    made(world.admin.post(path, {"overlap_seconds": 0}), 200)
    return key["secret"]


def suspend(world: World, platform: Platform) -> None:
    made(world.admin.post(f"/platforms/{platform.id}/suspend", REASON), 200)


class Cast:
    """Everybody who plays a role, made once by the API."""

    def __init__(self, world: World, system: System) -> None:
        self.players: dict[str, Player] = {}
        kid, key = signing_key(system)
        platform, other_platform = world.platform(), world.platform()
        self.named = named = world.user(platform)
        another = world.user(platform)

        def forge(user: User, secret: bytes = key, **claims: object) -> list[tuple[str, str]]:
            return bearer(sign({**claims_of(user.token), **claims}, {**header_of(user.token), "kid": kid}, secret))

        admin, partner, user = [("admin-api-key", system.admin_key)], [("api-key", platform.secret)], token_of(named)
        as_basic = basic(platform.id, platform.secret)
        self._play("nobody", [])
        self._play("two credentials: admin and partner", admin + partner)
        self._play("two credentials: admin and user", admin + user)
        self._play("two credentials: partner and user", partner + user)
        self._play("two credentials: partner and Basic", partner + as_basic)
        self._play("two credentials: admin and garbage", [*admin, ("api-key", "garbage")])
        self._play("two credentials: user and an empty key", [*user, ("api-key", "")])
        self._play("two credentials: all three", admin + partner + user)
        self._play("the same header twice: admin-api-key", admin + admin)
        self._play("the same header twice: api-key", partner + partner)
        self._play("the same header twice: Bearer", user + user)
        self._play("the same header twice: Basic", as_basic + as_basic)
        self._play("the same header twice: Bearer and Basic", user + as_basic)
        self._play("garbage: admin key", [("admin-api-key", secrets.token_urlsafe(32))])
        self._play("garbage: admin key and more", [("admin-api-key", f"{system.admin_key}x")])
        self._play("garbage: partner key as admin key", [("admin-api-key", platform.secret)])
        self._play("garbage: partner key", [("api-key", f"{platform.secret[:-8]}{secrets.token_hex(4)}")])
        self._play("garbage: short partner key", [("api-key", "x")])
        self._play("garbage: long partner key", [("api-key", "x" * 5000)])
        self._play("garbage: partner key beyond ASCII", [("api-key", f"ark_é{'x' * 40}")])
        self._play("garbage: admin key as partner key", [("api-key", system.admin_key)])
        self._play("garbage: two partner keys in one header", [("api-key", f"{platform.secret}, {platform.secret}")])
        self._play("garbage: token", bearer("garbage"))
        self._play("garbage: token of dots", bearer(".."))
        self._play("garbage: partner key as token", bearer(platform.secret))
        self._play("garbage: token with its signature cut", bearer(named.token[:-4]))
        self._play("garbage: Basic not base64", [("authorization", "Basic *")])
        self._play("garbage: Basic beyond ASCII", [("authorization", "Basic é")])
        self._play("garbage: Basic without colon", basic_text(platform.id))
        self._play("garbage: Basic without secret", basic(platform.id, ""))
        self._play("garbage: Basic wrong secret", basic(platform.id, f"{platform.secret}x"))
        self._play("garbage: Basic other platform", basic(other_platform.id, platform.secret))
        self._play("garbage: Basic not an id", basic("partner", platform.secret))
        for header in ("admin-api-key", "api-key", "authorization"):
            self._play(f"an empty {header}", [(header, "")])
        for scheme in ("Bearer", "Basic"):
            self._play(f"an empty {scheme}", [("authorization", scheme)])
        self._play("the scheme Digest", [("authorization", f"Digest {named.token}")])
        self._play("the scheme Token", [("authorization", f"Token {named.token}")])
        self._play("the scheme Bearer with a tab", [("authorization", f"Bearer\t{named.token}")])
        self._play("the scheme Bearerx", [("authorization", f"Bearerx {named.token}")])
        self._play("the scheme none", [("authorization", named.token)])

        self._play("admin", admin)
        self._play("partner", partner)
        self._play("partner of another platform", [("api-key", other_platform.secret)])
        self._play("partner as Basic", as_basic)
        in_small_letters = as_basic[0][1].replace("Basic", "basic")
        self._play("partner as basic, in small letters", [("authorization", in_small_letters)])
        self._play("user", user)
        self._play("user, scheme in capitals", [("authorization", f"BEARER {named.token}")])
        onboarding = world.user(platform, is_active=False)
        self._play("user while onboarding", token_of(onboarding), onboarding)
        self._play("user, another while onboarding", token_of(onboarding))
        deactivated = leave(world, world.user(platform))
        self._play("user, deactivated", token_of(deactivated), deactivated)
        self._play("user, deactivated, another", token_of(deactivated))
        left_early = leave(world, world.user(platform, is_active=False))
        self._play("user, deactivated while onboarding", token_of(left_early), left_early)
        erased = leave(world, world.user(platform))
        made(world.admin.post(f"{erased.path}/erase", REASON), 200)
        self._play("user, erased", token_of(erased), erased)
        self._play("user, another of the platform", token_of(another))
        self._play("user, another of another platform", token_of(world.user(other_platform)))
        returned = leave(world, world.user(platform))
        made(world.admin.post(f"{returned.path}/reactivate", REASON), 200)
        self._play("user, from before a deactivation", token_of(returned), returned)

        now = int(time.time())
        over = {"iat": now - 3600, "exp": now - 1}
        self._play("expired token", forge(named, **over))
        self._play("expired token of a deactivated user", forge(deactivated, **over), deactivated)
        self._play("expired token of another", forge(another, **over))
        wrong = secrets.token_bytes(48)
        self._play("forged token", forge(named, wrong))
        self._play("forged token that is expired", forge(named, wrong, **over))
        self._play("token of nobody", forge(named, sub=str(uuid7())))
        self._play("token of another platform", forge(named, platform_id=other_platform.id))

        revoked, expired = revoked_key(world, platform), expired_key(world, platform)
        self._play("revoked key", [("api-key", revoked)])
        self._play("revoked key as Basic", basic(platform.id, revoked))
        self._play("expired key", [("api-key", expired)])
        self._play("expired key as Basic", basic(platform.id, expired))
        self._play("rotated key", [("api-key", rotated_key(world, platform))])

        closed = world.platform()
        member, newcomer, leaver = world.user(closed), world.user(closed, is_active=False), world.user(closed)
        gone_key = revoked_key(world, closed)
        leave(world, leaver)
        suspend(world, closed)
        self._play("suspended platform's partner", [("api-key", closed.secret)])
        self._play("suspended platform's partner as Basic", basic(closed.id, closed.secret))
        self._play("suspended platform's revoked key", [("api-key", gone_key)])
        self._play("suspended platform's user", token_of(member), member)
        self._play("suspended platform's user while onboarding", token_of(newcomer), newcomer)
        self._play("suspended platform's user, deactivated", token_of(leaver), leaver)
        self._play("suspended platform's user, another", token_of(member))

        archived = world.platform()
        last = leave(world, world.user(archived))
        assert world.admin.delete(f"/platforms/{archived.id}").status_code == 204
        self._play("archived platform's partner", [("api-key", archived.secret)])
        self._play("archived platform's partner as Basic", basic(archived.id, archived.secret))
        self._play("archived platform's user", token_of(last), last)

    def _play(self, role: str, headers: list[tuple[str, str]], user: User | None = None) -> None:
        self.players[role] = Player(headers, (user or self.named).id)


@pytest.fixture(scope="session")
def cast(world: World, system: System) -> Cast:
    """Everybody who plays a role."""
    return Cast(world, system)


def path_of(operation: Operation, user_id: str) -> str:
    """Return a path whose ids, but for the user's, name nothing: nobody may get so far as to look."""
    ids = {name: uuid7() for name in UNKNOWN}
    return operation.path.format(**{**ids, "user_id": user_id})


def send_mistake(http: httpx.Client, operation: Operation, player: Player) -> httpx.Response:
    """Send a request whose body is no JSON, or one with a query parameter that nobody knows."""
    path = path_of(operation, player.user_id)
    headers = [*player.headers, *CONTENT_TYPE.items()]
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    if operation in WRITES:
        return http.request(operation.method, path, headers=raw, content=b"{")
    return http.request(operation.method, path, headers=raw, params={"no_such_parameter": "1"})


class TestMatrix:
    """Every operation of the table, every role."""

    @pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
    @pytest.mark.parametrize("operation", OPERATIONS, ids=str)
    def test_answers_as_the_table_says(self, http: httpx.Client, cast: Cast, operation: Operation, role: Role) -> None:
        response = send_mistake(http, operation, cast.players[role.name])
        code = role.code_on(operation)
        assert_refused(response, STATUSES[code], code)
        assert ("www-authenticate" in response.headers) == (response.status_code == 401)
        assert response.headers["cache-control"] == "no-store"

    def test_is_of_every_role(self, cast: Cast) -> None:
        assert set(cast.players) == {role.name for role in ROLES}


class TestTable:
    """The table against what the system says of itself."""

    def test_has_a_row_for_every_operation(self, document: Document) -> None:
        described = {f"{method} {path}" for method, path, operation in document.operations() if operation["security"]}
        assert described == {str(operation) for operation in OPERATIONS}

    def test_knows_every_public_path(self, document: Document) -> None:
        public = {(method, path) for method, path, operation in document.operations() if not operation["security"]}
        assert public == {("GET", path) for path in (*PUBLIC, "/api_docs/assets/{name}")}

    @pytest.mark.parametrize("operation", OPERATIONS, ids=str)
    def test_lists_every_refusal(self, document: Document, operation: Operation) -> None:
        codes = {role.code_on(operation) for role in ROLES}
        path = document.document["paths"][operation.path]
        assert codes <= set(path[operation.method.lower()]["x-error-codes"])


class TestPublicPaths:
    @pytest.mark.parametrize("path", PUBLIC)
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"admin-api-key": "garbage"},
            {"authorization": "Bearer garbage"},
            {"admin-api-key": "a", "api-key": "b", "authorization": "Digest c"},
        ],
    )
    def test_need_no_credential_and_look_at_none(self, http: httpx.Client, path: str, headers: dict[str, str]) -> None:
        assert http.get(path, headers=headers).status_code == 200


class TestRoutesBeforeCredentials:
    """A path or method that nobody takes is told to anybody, whatever the credential."""

    CREDENTIALS = ({}, {"admin-api-key": "garbage"}, {"api-key": "a", "admin-api-key": "b"})

    @pytest.mark.parametrize("path", sorted({operation.path for operation in OPERATIONS}))
    def test_answers_405_with_all_methods(self, http: httpx.Client, path: str) -> None:
        methods = sorted(operation.method for operation in OPERATIONS if operation.path == path)
        concrete = path_of(next(operation for operation in OPERATIONS if operation.path == path), str(uuid7()))
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"} - set(methods):
            for headers in self.CREDENTIALS:
                response = http.request(method, concrete, headers=headers)
                assert response.status_code == 405, method
                assert response.headers["allow"] == ", ".join(methods)
                if method != "HEAD":
                    assert_refused(response, 405, "RQ-104")

    @pytest.mark.parametrize("path", [*sorted({operation.path for operation in OPERATIONS}), *PUBLIC])
    def test_answers_404_beside_a_path(self, http: httpx.Client, path: str) -> None:
        concrete = path.format(**{name: uuid7() for name in UNKNOWN})
        for beside in (f"{concrete}/", f"{concrete}/x/y/z", f"/v1{concrete}", f"/{concrete}", f"{concrete}%2F"):
            for headers in self.CREDENTIALS:
                response = http.get(httpx.URL(http.base_url, raw_path=beside.encode()), headers=headers)
                assert_refused(response, 404, "RQ-103")


class TestCredentialBeforeBody:
    """Not a byte of the body is waited for before the credential is judged."""

    def code_after_head(self, system: System, operation: Operation, *lines: str) -> str:
        """Send a request's head, which promises a body that never comes, and return the code of the answer."""
        address = urlsplit(system.url)
        head = (f"{operation.method} {path_of(operation, str(uuid7()))} HTTP/1.1", "Host: localhost", *lines)
        with socket.create_connection((address.hostname, address.port), timeout=8) as connection:
            connection.sendall("\r\n".join((*head, "", "")).encode())
            answer = HTTPResponse(connection)
            answer.begin()
            assert answer.status == 401, operation
            code: str = json.loads(answer.read())["error"]["code"]
            return code

    @pytest.mark.parametrize("operation", WRITES, ids=str)
    def test_answers_before_the_body_comes(self, system: System, operation: Operation) -> None:
        lines = ("Content-Type: application/json", "Content-Length: 10")
        assert self.code_after_head(system, operation, *lines) == "AU-201"

    @pytest.mark.parametrize(
        "lines",
        [
            ["Content-Type: text/plain", "Content-Length: 2"],
            ["Content-Type: application/json", "Content-Length: 999999999"],
            ["Content-Length: 2"],
            ["Content-Type: application/json", "Transfer-Encoding: chunked"],
            ["Content-Type: application/json", "Content-Length: 2", "Idempotency-Key: "],
            ["Content-Type: application/json", "Content-Length: 2", "If-Match: garbage"],
        ],
    )
    def test_refuses_a_bad_key_before_a_bad_head(self, system: System, lines: list[str]) -> None:
        for operation in WRITES:
            assert self.code_after_head(system, operation, "admin-api-key: garbage", *lines) == "AU-202", operation


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    """Operators' keys by name."""
    return {name: secrets.token_urlsafe(32) for name in ("asha", "ravi", "ravi-next")}


@pytest.fixture(scope="module")
def staffed(system: System, keys: dict[str, str]) -> Iterator[httpx.Client]:
    """A client of a gateway that knows these operators."""
    listed = ",".join(f"{name}:{key}" for name, key in keys.items())
    with (
        running_gateway(system, AAROKYA_ADMIN_API_KEYS=listed) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
    ):
        yield client


class TestOperators:
    """Each operator has a key and a name, and none of them can be told from another but by the audit log."""

    def test_are_named_in_the_audit_log(
        self, world: World, system: System, staffed: httpx.Client, keys: dict[str, str]
    ) -> None:
        for name, key in {**keys, "admin": system.admin_key}.items():
            operator = Caller(staffed, {"admin-api-key": key})
            platform = made(operator.post("/platforms", {"name": world.unique("Staffed")}), 201)
            query = {"entity_type": "platform", "entity_id": platform["id"]}
            [row] = made(world.admin.get("/audit_logs", params=query), 200)["items"]
            assert row["actor"] == {"type": "ADMIN", "id": name}

    def test_are_known_to_no_other_gateway(self, world: World, keys: dict[str, str]) -> None:
        for key in keys.values():
            assert_refused(world.http.get("/platforms", headers={"admin-api-key": key}), 401, "AU-202")

    def test_show_their_key_alone(self, staffed: httpx.Client, keys: dict[str, str]) -> None:
        for name, key in keys.items():
            for shown in (name, f"{name}:{key}", key[:-1], f"{key}x", key.swapcase(), ",".join(keys.values())):
                assert_refused(staffed.get("/platforms", headers={"admin-api-key": shown}), 401, "AU-202")


@dataclass(frozen=True)
class Estate:
    """A user with one of everything, and callers of every kind."""

    platform: Platform
    user: User
    dependant_id: str
    account_id: str
    provider_id: str
    benefit_id: str
    mrn_id: str

    @property
    def ids(self) -> dict[str, str]:
        return {
            "platform_id": self.platform.id,
            "key_id": self.platform.key_id,
            "user_id": self.user.id,
            "dependant_id": self.dependant_id,
            "account_id": self.account_id,
            "benefit_provider_id": self.provider_id,
            "benefit_id": self.benefit_id,
            "mrn_id": self.mrn_id,
        }


def make_estate(world: World, platform: Platform | None = None) -> Estate:
    user = world.user(platform)
    dependant, provider = world.dependant(user), world.provider()
    benefit = world.benefit(provider, platform_ids=[user.platform.id])
    account = made(user.caller.post(f"{user.path}/accounts", {"type": "UPI", "account_number": "ravi@okbank"}), 201)
    link = {"dependant_id": dependant["id"], "benefit_provider_id": provider["id"], "mrn": "MRN-1"}
    mrn = made(user.caller.post("/mrns", link), 201)
    return Estate(user.platform, user, dependant["id"], account["id"], provider["id"], benefit["id"], mrn["id"])


@pytest.fixture(scope="session")
def estate(world: World) -> Estate:
    """What paths name."""
    return make_estate(world)


@pytest.fixture(scope="session")
def neighbour(world: World, estate: Estate) -> Estate:
    """The same of another user of the same platform."""
    return make_estate(world, estate.platform)


@pytest.fixture(scope="session")
def stranger(world: World) -> Estate:
    """The same of a user of another platform."""
    return make_estate(world)


# Bodies in which nothing is wrong, and which change nothing that any other test would miss.
BODIES = {
    "POST /platforms/{platform_id}/suspend": REASON,
    "POST /platforms/{platform_id}/activate": REASON,
    "POST /platforms/{platform_id}/api_keys": {"name": "unknown"},
    "POST /platforms/{platform_id}/api_keys/{key_id}/rotate": {"overlap_seconds": 60},
    "POST /users/{user_id}/reactivate": REASON,
    "POST /users/{user_id}/release_phone": REASON,
    "POST /users/{user_id}/erase": REASON,
    "POST /users/{user_id}/dependants": {
        "relationship": "SISTER",
        "first_name": "Unknown",
        "gender": "FEMALE",
        "date_of_birth": "1992-11-03",
    },
    "POST /users/{user_id}/accounts": {"type": "UPI", "account_number": "unknown@okbank"},
}


def send(caller: Caller, operation: Operation, path: str) -> httpx.Response:
    """Send a request in which nothing but the path may be wrong."""
    arguments = {"json": BODIES.get(str(operation), {})} if operation in WRITES else {}
    return caller.request(operation.method, path, **arguments)


def caller_of(world: World, estate: Estate, kind: str) -> Caller:
    return {"A": world.admin, "P": estate.platform.partner, "U": estate.user.caller}[kind]


def names_in(path: str) -> list[str]:
    return [name for name in UNKNOWN if f"{{{name}}}" in path]


PATH_CASES = [
    pytest.param(operation, kind, name, id=f"{operation} {kind} {name}")
    for operation in OPERATIONS
    for kind in operation.callers
    for name in names_in(operation.path)
]
NO_IDS = ("unknown", "1", "null", "%00", "%E2%82%AC", "%ff", "x" * 500)


class TestPathIds:
    """An id in the path that names nothing, or nothing of the caller's, is the 404 of its resource."""

    def path(self, operation: Operation, estate: Estate, name: str, value: str) -> str:
        """Return a path that is good up to an id; what comes after it is unknown, too, and may not matter."""
        names = names_in(operation.path)
        after = {later: str(uuid7()) for later in names[names.index(name) + 1 :]}
        return operation.path.format(**{**estate.ids, **after, name: value})

    @pytest.mark.parametrize(("operation", "kind", "name"), PATH_CASES)
    def test_hides_what_does_not_exist(
        self, world: World, estate: Estate, operation: Operation, kind: str, name: str
    ) -> None:
        names_another_user = kind == "U" and name == "user_id"
        code = "AU-206" if names_another_user else UNKNOWN[name]
        for unknown in (str(uuid7()), str(uuid4()), str(uuid7()).upper()):
            response = send(caller_of(world, estate, kind), operation, self.path(operation, estate, name, unknown))
            assert_refused(response, 403 if names_another_user else 404, code)

    @pytest.mark.parametrize(("operation", "kind", "name"), PATH_CASES)
    def test_takes_what_is_no_uuid_for_unknown(
        self, world: World, estate: Estate, operation: Operation, kind: str, name: str
    ) -> None:
        real = estate.ids[name]
        spellings = (real.replace("-", ""), f"{{{real}}}", f"urn:uuid:{real}", f"{real}0", real[:-1], f"%20{real}")
        for spelling in (*NO_IDS, *spellings):
            response = send(caller_of(world, estate, kind), operation, self.path(operation, estate, name, spelling))
            assert_refused(response, 404, UNKNOWN[name])

    @pytest.mark.parametrize(
        "path", ["/platforms/{platform_id}", "/users/{user_id}", "/benefits/{benefit_id}", "/mrns/{mrn_id}"]
    )
    def test_reads_ids_in_capitals(self, world: World, estate: Estate, path: str) -> None:
        caller = estate.user.caller if "mrn" in path else world.admin
        lower = made(caller.get(path.format(**estate.ids)), 200)
        upper = made(caller.get(path.format(**{name: value.upper() for name, value in estate.ids.items()})), 200)
        assert upper == lower

    def test_knows_oneself_in_capitals(self, estate: Estate) -> None:
        assert made(estate.user.caller.get(f"/users/{estate.user.id.upper()}"), 200)["id"] == estate.user.id

    def test_looks_at_the_body_first(self, world: World) -> None:
        for path in ("/platforms/unknown", f"/platforms/{uuid7()}", "/users/unknown", f"/benefits/{uuid7()}"):
            assert_refused(world.admin.patch(path, {"no_such_field": 1}), 422, "RQ-101")
            assert_refused(world.admin.delete(path, params={"no_such_parameter": "1"}), 422, "RQ-101")

    @pytest.mark.parametrize("id_of", ["ffffffff-ffff-ffff-ffff-ffffffffffff", "00000000-0000-0000-0000-000000000000"])
    def test_never_takes_garbage_for_a_platform_with_an_odd_id(self, world: World, id_of: str) -> None:
        response = world.admin.post("/platforms", {"name": world.unique("Odd"), "id": id_of})
        assert response.status_code == 201 or response.json()["error"]["code"] == "PL-303"
        assert made(world.admin.get(f"/platforms/{id_of}"), 200)["id"] == id_of
        assert_refused(world.admin.get("/platforms/unknown"), 404, "PL-301")
        assert_refused(world.admin.get("/platforms/unknown/api_keys"), 404, "PL-301")


# What exists but is not the caller's: the kind of caller, what the path names, whose it is.
FOREIGN = [
    pytest.param(operation, kind, name, whose, id=f"{operation} {kind} {whose}'s {name}")
    for name, kind, owners in (
        ("key_id", "A", ["stranger"]),
        ("dependant_id", "A", ["neighbour", "stranger"]),
        ("dependant_id", "U", ["neighbour", "stranger"]),
        ("account_id", "P", ["neighbour", "stranger"]),
        ("account_id", "U", ["neighbour", "stranger"]),
        ("user_id", "P", ["stranger"]),
        ("user_id", "U", ["neighbour", "stranger"]),
        ("benefit_id", "U", ["stranger"]),
        ("mrn_id", "P", ["stranger"]),
        ("mrn_id", "U", ["neighbour", "stranger"]),
    )
    for operation in OPERATIONS
    if kind in operation.callers and f"{{{name}}}" in operation.path
    for whose in owners
]


class TestForeignIdsInPaths:
    @pytest.mark.parametrize(("operation", "kind", "name", "whose"), FOREIGN)
    def test_hides_what_is_not_the_callers(
        self,
        world: World,
        estate: Estate,
        neighbour: Estate,
        stranger: Estate,
        operation: Operation,
        kind: str,
        name: str,
        whose: str,
    ) -> None:
        owner = {"neighbour": neighbour, "stranger": stranger}[whose]
        # Below a foreign user everything is the owner's, so that only the user is what is wrong.
        ids = owner.ids if name == "user_id" else {**estate.ids, name: owner.ids[name]}
        before = belongings_of(owner)
        response = send(caller_of(world, estate, kind), operation, operation.path.format(**ids))
        if name == "user_id" and kind == "U":
            assert_refused(response, 403, "AU-206")
        else:
            assert_refused(response, 404, UNKNOWN[name])
        assert belongings_of(owner) == before

    def test_shows_partners_all_users_of_their_platform(self, estate: Estate, neighbour: Estate) -> None:
        partner = estate.platform.partner
        path = f"{neighbour.user.path}/accounts/{neighbour.account_id}"
        assert made(partner.get(path), 200)["user_id"] == neighbour.user.id
        assert made(partner.get(f"/mrns/{neighbour.mrn_id}"), 200)["user_id"] == neighbour.user.id


def belongings_of(owner: Estate) -> list[object]:
    paths = (owner.user.path, f"{owner.user.path}/dependants", f"{owner.user.path}/accounts", "/mrns")
    return [made(owner.user.caller.get(path), 200) for path in paths]


class TestForeignIdsInBodies:
    @pytest.mark.parametrize("credential", ["api-key", "Basic"])
    def test_refuses_another_platform_for_a_token(self, world: World, credential: str) -> None:
        platform, other = world.platform(), world.platform()
        headers = [("api-key", platform.secret)] if credential == "api-key" else basic(platform.id, platform.secret)
        for platform_id in (other.id, str(uuid7())):
            body = {"phone_number": world.phone_number(), "platform_id": platform_id}
            response = world.http.post("/auth/token", headers=headers, json=body)
            assert_refused(response, 403, "AU-206")
            users = made(world.admin.get("/users", params={"platform_id": platform_id}), 200)
            assert users["items"] == []
        body = {"phone_number": world.phone_number(), "platform_id": platform.id.upper()}
        assert world.http.post("/auth/token", headers=headers, json=body).status_code == 200

    def test_looks_at_the_rest_of_the_body_first(self, world: World) -> None:
        platform, other = world.platform(), world.platform()
        assert_refused(platform.partner.post("/auth/token", {"platform_id": other.id}), 422, "RQ-101")
        body = {"platform_id": "unknown", "phone_number": world.phone_number()}
        assert_refused(platform.partner.post("/auth/token", body), 422, "RQ-101")

    @pytest.mark.parametrize("kind", ["P", "U"])
    @pytest.mark.parametrize("whose", ["neighbour", "stranger", "nobody"])
    def test_links_no_foreign_dependant(
        self, world: World, estate: Estate, neighbour: Estate, stranger: Estate, kind: str, whose: str
    ) -> None:
        owners = {"neighbour": neighbour, "stranger": stranger}
        dependant_id = owners[whose].dependant_id if whose in owners else str(uuid7())
        body = {"dependant_id": dependant_id, "benefit_provider_id": world.provider()["id"], "mrn": "MRN-2"}
        response = caller_of(world, estate, kind).post("/mrns", body)
        if kind == "P" and whose == "neighbour":
            assert made(response, 201)["user_id"] == neighbour.user.id
        else:
            assert_refused(response, 404, "DE-501")

    @pytest.mark.parametrize("field", ["id", "user_id", "platform_id", "status", "version", "created_at"])
    def test_takes_no_owner_for_a_user(self, estate: Estate, neighbour: Estate, field: str) -> None:
        value = {"user_id": neighbour.user.id, "platform_id": estate.platform.id, "version": 1}.get(field, "active")
        assert_refused(estate.user.caller.patch(estate.user.path, {field: value}), 422, "RQ-101")

    @pytest.mark.parametrize("field", ["id", "user_id", "platform_id"])
    def test_takes_no_owner_for_belongings(self, estate: Estate, neighbour: Estate, field: str) -> None:
        owner = neighbour.platform.id if field == "platform_id" else neighbour.user.id
        member = BODIES["POST /users/{user_id}/dependants"]
        account = BODIES["POST /users/{user_id}/accounts"]
        mrn = {"dependant_id": estate.dependant_id, "benefit_provider_id": estate.provider_id, "mrn": "MRN-3"}
        user = estate.user
        for path, body in (
            (f"{user.path}/dependants", member),
            (f"{user.path}/accounts", account),
            ("/mrns", mrn),
        ):
            assert_refused(user.caller.post(path, {**body, field: owner}), 422, "RQ-101")


class TestForeignIdsInQueries:
    def test_refuses_users_another_users_mrns(self, estate: Estate, neighbour: Estate, stranger: Estate) -> None:
        user = estate.user
        for user_id in (neighbour.user.id, stranger.user.id, str(uuid7())):
            assert_refused(user.caller.get("/mrns", params={"user_id": user_id}), 403, "AU-206")
        for own in (user.id, user.id.upper()):
            items = made(user.caller.get("/mrns", params={"user_id": own}), 200)["items"]
            assert [item["id"] for item in items] == [estate.mrn_id]

    def test_looks_at_the_rest_of_the_query_first(self, estate: Estate, neighbour: Estate) -> None:
        query = {"user_id": neighbour.user.id, "page_size": "0"}
        assert_refused(estate.user.caller.get("/mrns", params=query), 422, "RQ-101")
        assert_refused(estate.user.caller.get("/mrns", params={"user_id": "unknown"}), 422, "RQ-101")

    def test_hides_other_platforms_users_from_partners(self, estate: Estate, stranger: Estate) -> None:
        partner = estate.platform.partner
        for user_id in (stranger.user.id, str(uuid7())):
            assert_refused(partner.get("/mrns", params={"user_id": user_id}), 404, "US-401")
        items = made(partner.get("/mrns", params={"user_id": estate.user.id}), 200)["items"]
        assert estate.mrn_id in [item["id"] for item in items]

    def test_finds_nothing_of_others(self, estate: Estate, neighbour: Estate, stranger: Estate) -> None:
        for caller, owners in ((estate.user.caller, (neighbour, stranger)), (estate.platform.partner, (stranger,))):
            for owner in owners:
                for query in (
                    {"dependant_id": owner.dependant_id},
                    {"mrn": "MRN-1", "benefit_provider_id": owner.provider_id},
                ):
                    assert made(caller.get("/mrns", params=query), 200)["items"] == []

    def test_lists_users_only_their_own(self, estate: Estate, neighbour: Estate) -> None:
        items = made(estate.user.caller.get("/mrns"), 200)["items"]
        assert {item["user_id"] for item in items} == {estate.user.id}
        query = {"benefit_provider_id": neighbour.provider_id}
        assert made(estate.user.caller.get("/mrns", params=query), 200)["items"] == []

    def test_lists_users_only_their_platforms_benefits(self, estate: Estate, stranger: Estate) -> None:
        query = {"benefit_provider_id": stranger.provider_id}
        assert made(estate.user.caller.get("/benefits", params=query), 200)["items"] == []
        items = made(stranger.user.caller.get("/benefits", params=query), 200)["items"]
        assert [item["id"] for item in items] == [stranger.benefit_id]

    @pytest.mark.parametrize("path", ["/benefits", "/users/{user_id}/dependants", "/users/{user_id}/accounts"])
    def test_takes_no_filter_by_owner(self, estate: Estate, neighbour: Estate, path: str) -> None:
        for query in ({"user_id": neighbour.user.id}, {"platform_id": neighbour.platform.id}):
            response = estate.user.caller.get(path.format(**estate.ids), params=query)
            assert_refused(response, 422, "RQ-101")
