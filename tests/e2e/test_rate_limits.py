"""Rate limits and source addresses, at a gateway that has limits and a proxy before it."""

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.conftest import System, World, assert_refused, made
from tests.e2e.contract import Document
from tests.e2e.gateways import running_gateway
from tests.e2e.tokens import claims_of, header_of, sign, signing_key

FAILURES = 30
# A machine may be too busy to be too fast; in the end it is.
PATIENCE_S = 60.0
PIPELINED = 32
CONNECTIONS = 10


@pytest.fixture(scope="module")
def limited(system: System, document: Document) -> Iterator[httpx.Client]:
    """A client of a gateway with limits, which believes what its peer says of where requests come from."""
    hooks = {"response": [document.check]}
    with (
        running_gateway(system, AAROKYA_RATE_LIMITS="on", AAROKYA_TRUSTED_PROXIES="127.0.0.0/8") as url,
        httpx.Client(base_url=url, trust_env=False, event_hooks=hooks) as client,
    ):
        yield client


@pytest.fixture
def address() -> str:
    """An address that no other test comes from."""
    return f"203.0.{secrets.randbelow(256)}.{secrets.randbelow(256)}"


def assert_too_many(response: httpx.Response) -> None:
    assert_refused(response, 429, "RQ-107")
    assert int(response.headers["retry-after"]) >= 1


class TestFailedAuthentications:
    def fail_until_refused(self, send: Callable[[], httpx.Response], code: str = "AU-202") -> int:
        """Return how many failures were told as what they are before one was refused."""
        for failures in range(2 * FAILURES):
            response = send()
            if response.status_code == 429:
                assert_too_many(response)
                return failures
            assert_refused(response, 401, code)
        raise AssertionError("nobody is refused")

    def test_refuses_guessers_and_never_a_good_credential(
        self, world: World, limited: httpx.Client, address: str
    ) -> None:
        user = world.user()
        source = {"x-forwarded-for": address}
        guess = {**source, "admin-api-key": "guess"}
        # Failures of the minute before count by the share of it that is still near, so that one more may pass.
        assert FAILURES <= self.fail_until_refused(lambda: limited.get("/users", headers=guess)) <= FAILURES + 1
        for wrong in ({"api-key": "guess"}, {"authorization": "Bearer guess"}, {"authorization": "Basic Z3Vlc3M="}):
            assert_too_many(limited.post("/auth/token", json={}, headers={**source, **wrong}))
        for good in (world.admin.headers, user.platform.partner.headers, user.caller.headers):
            for _ in range(3):
                response = limited.get("/mrns", params={"user_id": user.id}, headers={**source, **good})
                assert response.status_code == (403 if good is world.admin.headers else 200)
        other = {"x-forwarded-for": "192.0.2.1", "admin-api-key": "guess"}
        assert_refused(limited.get("/users", headers=other), 401, "AU-202")
        # Paths that ask for no credential, and requests without one, are no guesses.
        assert limited.get("/livez", headers=guess).status_code == 200
        assert_refused(limited.get("/users", headers=source), 401, "AU-201")

    def test_counts_revoked_keys(self, world: World, limited: httpx.Client, address: str) -> None:
        platform = world.platform()
        assert world.admin.delete(f"/platforms/{platform.id}/api_keys/{platform.key_id}").status_code == 204
        headers = {"x-forwarded-for": address, **platform.partner.headers}
        assert self.fail_until_refused(lambda: limited.get("/mrns", headers=headers), "AU-208") >= FAILURES

    def test_does_not_count_what_is_no_guess(
        self, system: System, world: World, limited: httpx.Client, address: str
    ) -> None:
        user = world.user()
        now = int(time.time())
        claims = {**claims_of(user.token), "iat": now - 600, "exp": now - 300}
        expired = sign(claims, header_of(user.token), signing_key(system)[1])
        source = {"x-forwarded-for": address}
        for headers, status, code in (
            ({"authorization": f"Bearer {expired}"}, 401, "AU-203"),
            ({}, 401, "AU-201"),
            (user.platform.partner.headers, 403, "AU-204"),
            ({**world.admin.headers, **user.caller.headers}, 400, "AU-205"),
        ):
            for _ in range(FAILURES + 5):
                assert_refused(limited.get("/users", headers={**source, **headers}), status, code)
        assert_refused(limited.get("/users", headers={**source, "api-key": "guess"}), 401, "AU-202")

    def test_goes_by_the_last_address_that_no_trusted_proxy_answers_for(
        self, limited: httpx.Client, address: str
    ) -> None:
        def guess(forwarded: str) -> httpx.Response:
            return limited.get("/users", headers={"x-forwarded-for": forwarded, "admin-api-key": "guess"})

        numbers = iter(range(1, 250))
        # What a client claims itself stands first, and another trusted proxy may stand last.
        self.fail_until_refused(lambda: guess(f"198.51.100.{next(numbers)}, {address}, 127.0.0.9"))
        assert_too_many(guess(address))
        assert_refused(guess("198.51.100.1"), 401, "AU-202")


class TestUsers:
    def test_may_call_twenty_times_a_second(self, world: World, limited: httpx.Client) -> None:
        user, other = world.user(), world.user()
        refused = None
        deadline = time.monotonic() + PATIENCE_S
        with ThreadPoolExecutor(8) as pool:
            while refused is None:
                assert time.monotonic() < deadline, "nobody is refused"
                answers = list(pool.map(lambda _: limited.get(user.path, headers=user.caller.headers), range(40)))
                assert {answer.status_code for answer in answers} <= {200, 429}
                assert len([answer for answer in answers if answer.status_code == 200]) >= 1
                refused = next((answer for answer in answers if answer.status_code == 429), None)
        assert_too_many(refused)
        assert limited.get(other.path, headers=other.caller.headers).status_code == 200
        assert limited.get(user.path, headers=world.admin.headers).status_code == 200

    def test_are_not_limited_by_what_others_of_their_platform_do(self, world: World, limited: httpx.Client) -> None:
        platform = world.platform()
        for user in [world.user(platform) for _ in range(5)]:
            for _ in range(10):
                assert limited.get(user.path, headers=user.caller.headers).status_code == 200


class TestPartners:
    def test_may_call_two_hundred_times_a_second(self, world: World, limited: httpx.Client) -> None:
        platform, other = world.platform(), world.platform()
        where = urlsplit(str(limited.base_url))
        # Refused for its media type as soon as the caller is let in, and so as quickly as can be.
        request = f"POST /mrns HTTP/1.1\r\nHost: localhost\r\napi-key: {platform.secret}\r\nContent-Length: 0\r\n"
        burst = (f"{request}\r\n" * (PIPELINED - 1) + f"{request}Connection: close\r\n\r\n").encode()

        def send(_: int) -> bytes:
            received = b""
            with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
                connection.sendall(burst)
                while part := connection.recv(65536):
                    received += part
            return received

        received = b""
        deadline = time.monotonic() + PATIENCE_S
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            while b"RQ-107" not in received:
                assert time.monotonic() < deadline, "nobody is refused"
                received = b"".join(pool.map(send, range(CONNECTIONS)))
                assert received.count(b"HTTP/1.1 ") == PIPELINED * CONNECTIONS
        assert received.count(b"HTTP/1.1 429 ") == received.count(b"RQ-107")
        assert received.count(b"HTTP/1.1 415 ") >= 1
        body = {"phone_number": world.phone_number(), "platform_id": other.id}
        assert made(limited.post("/auth/token", json=body, headers=other.partner.headers), 200)["is_new_user"]


class TestAdmins:
    def test_have_no_limit(self, world: World, limited: httpx.Client) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda _: limited.get("/platforms/1", headers=world.admin.headers), range(250))
            assert {answer.status_code for answer in answers} == {404}


class TestSourceAddress:
    """Where a request came from, as the audit log tells it."""

    def source_of(self, world: World, client: httpx.Client, forwarded: str) -> str:
        headers = {**world.admin.headers, "x-forwarded-for": forwarded}
        body = {"name": world.unique("Rides")}
        platform = made(client.post("/platforms", json=body, headers=headers), 201)
        (row,) = made(world.admin.get("/audit_logs", params={"entity_id": platform["id"]}), 200)["items"]
        source: str = row["source_address"]
        return source

    @pytest.mark.parametrize(
        ("forwarded", "source"),
        [
            ("203.0.113.7", "203.0.113.7"),
            ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, 127.0.0.2, 127.0.0.3", "203.0.113.7"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("203.0.113.7, unknown", "127.0.0.1"),
            ("unknown", "127.0.0.1"),
        ],
    )
    def test_is_what_a_trusted_proxy_says(
        self, world: World, limited: httpx.Client, forwarded: str, source: str
    ) -> None:
        assert self.source_of(world, limited, forwarded) == source

    def test_is_the_peer_where_no_proxy_is_trusted(self, world: World) -> None:
        assert self.source_of(world, world.http, "203.0.113.7") == "127.0.0.1"
