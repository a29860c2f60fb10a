"""What an operator or a user changes at one gateway holds at every other one, and nothing holds that nobody knows."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from gateway.server_wrap import RECHECK_AFTER_S
from tests.e2e.conftest import Caller, Platform, User, World, assert_refused, made
from tests.e2e.contract import PUBLIC
from tests.e2e.gateways import running_gateway
from tests.e2e.running import OwnSystem, System

# The contract promises a second; the machine that tests may be busy.
PATIENCE_S = 10
THAW_S = 60
REASON = {"reason": "the live state test"}


@dataclass(frozen=True)
class Gateways:
    """Two gateways of one system."""

    first: httpx.Client
    second: httpx.Client

    def both(self, caller: Caller) -> list[Caller]:
        """Return a caller at each gateway."""
        return [Caller(http, caller.headers) for http in (self.first, self.second)]

    def other(self, caller: Caller) -> Caller:
        """Return a caller at the gateway at which nothing is changed."""
        return self.both(caller)[1]


@pytest.fixture(scope="module")
def gateways(system: System, http: httpx.Client) -> Iterator[Gateways]:
    """The system's gateway and another one."""
    with (
        running_gateway(system) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False, event_hooks=http.event_hooks) as second,
    ):
        yield Gateways(http, second)


def wait_for_refusal(ask: Callable[[], httpx.Response], status: int, code: str) -> None:
    """Ask until it is refused; once it is, it stays so.

    Until then a gateway may still let the caller in, and the service behind it may have reasons of its own against it.
    """
    deadline = time.monotonic() + PATIENCE_S
    while (response := ask()).status_code != status and time.monotonic() < deadline:
        time.sleep(0.02)
    assert_refused(response, status, code)
    for _ in range(5):
        assert_refused(ask(), status, code)


def new_token(world: World, user: User) -> Caller:
    """Exchange a user's phone number for a token again."""
    answer = world.token(user.platform, user.phone_number)
    return world.caller({"authorization": f"Bearer {answer['access_token']}"})


def exchange_body(world: World, platform: Platform) -> dict[str, str]:
    return {"phone_number": world.phone_number(), "platform_id": platform.id}


class TestDeactivation:
    @pytest.mark.parametrize("who", ["an operator", "the user"])
    def test_kills_tokens_at_every_gateway(self, world: World, gateways: Gateways, who: str) -> None:
        user = world.user()
        here, there = gateways.both(user.caller)
        made(there.get(user.path), 200)
        assert (world.admin if who == "an operator" else here).delete(user.path).status_code == 204
        assert_refused(here.get(user.path), 403, "AU-207")
        wait_for_refusal(lambda: there.get(user.path), 403, "AU-207")
        assert_refused(there.get("/benefits"), 403, "AU-207")
        assert_refused(there.post("/mrns", {}), 403, "AU-207")

    def test_kills_tokens_for_ever(self, world: World, gateways: Gateways) -> None:
        user = world.user()
        here, there = gateways.both(user.caller)
        made(there.get(user.path), 200)
        assert world.admin.delete(user.path).status_code == 204
        wait_for_refusal(lambda: there.get(user.path), 403, "AU-207")
        assert made(world.admin.post(f"{user.path}/reactivate", REASON), 200)["status"] == "active"
        for caller in gateways.both(new_token(world, user)):
            assert made(caller.get(user.path), 200)["id"] == user.id
        for caller in (here, there):
            assert_refused(caller.get(user.path), 401, "AU-203")
            assert_refused(caller.get("/users"), 401, "AU-203")

    def test_kills_the_tokens_between_two_deactivations_too(self, world: World, gateways: Gateways) -> None:
        user = world.user()
        tokens = [user.caller]
        for _ in range(2):
            assert world.admin.delete(user.path).status_code == 204
            made(world.admin.post(f"{user.path}/reactivate", REASON), 200)
            tokens.append(new_token(world, user))
            made(gateways.other(tokens[-1]).get(user.path), 200)
        *dead, alive = tokens
        for token in dead:
            for caller in gateways.both(token):
                assert_refused(caller.get(user.path), 401, "AU-203")
        made(gateways.other(alive).get(user.path), 200)

    def test_counts_a_reactivation_at_once(self, world: World, gateways: Gateways) -> None:
        user = world.user(is_active=False)
        there = gateways.other(user.caller)
        made(there.patch(user.path, {"first_name": "Ravi"}), 200)
        assert world.admin.delete(user.path).status_code == 204
        wait_for_refusal(lambda: there.patch(user.path, {}), 403, "AU-207")
        assert made(world.admin.post(f"{user.path}/reactivate", REASON), 200)["status"] == "onboarding"
        made(gateways.other(new_token(world, user)).patch(user.path, {}), 200)

    def test_holds_for_an_erased_user(self, world: World, gateways: Gateways) -> None:
        user = world.user()
        there = gateways.other(user.caller)
        made(there.get(user.path), 200)
        assert world.admin.delete(user.path).status_code == 204
        made(world.admin.post(f"{user.path}/erase", REASON), 200)
        wait_for_refusal(lambda: there.get(user.path), 403, "AU-207")


class TestOnboarding:
    def test_counts_at_once_when_it_is_complete(self, world: World, gateways: Gateways) -> None:
        user = world.user(is_active=False)
        here, there = gateways.both(user.caller)
        assert_refused(there.get(user.path), 403, "AU-207")
        profile = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1990-05-17"}
        made(here.post(f"{user.path}/complete_onboarding", profile), 200)
        assert made(there.get(user.path), 200)["status"] == "active"
        assert made(there.get("/benefits"), 200)


class TestRevocation:
    def test_stops_a_key_at_every_gateway(self, world: World, gateways: Gateways) -> None:
        platform = world.platform()
        here, there = gateways.both(platform.partner)
        made(there.post("/auth/token", exchange_body(world, platform)), 200)
        assert world.admin.delete(f"/platforms/{platform.id}/api_keys/{platform.key_id}").status_code == 204
        assert_refused(here.post("/auth/token", exchange_body(world, platform)), 401, "AU-208")
        wait_for_refusal(lambda: there.post("/auth/token", exchange_body(world, platform)), 401, "AU-208")
        assert_refused(there.get("/mrns"), 401, "AU-208")

    def test_leaves_the_platforms_users_and_other_keys(self, world: World, gateways: Gateways) -> None:
        platform = world.platform()
        user = world.user(platform)
        other = made(world.admin.post(f"/platforms/{platform.id}/api_keys", {"name": "other"}), 201)
        there = gateways.other(platform.partner)
        made(there.post("/auth/token", exchange_body(world, platform)), 200)
        assert world.admin.delete(f"/platforms/{platform.id}/api_keys/{platform.key_id}").status_code == 204
        wait_for_refusal(lambda: there.post("/auth/token", exchange_body(world, platform)), 401, "AU-208")
        for caller in gateways.both(world.caller({"api-key": other["secret"]})):
            made(caller.post("/auth/token", exchange_body(world, platform)), 200)
        for caller in gateways.both(user.caller):
            made(caller.get(user.path), 200)

    def test_stops_the_old_secret_of_a_rotated_key(self, world: World, gateways: Gateways) -> None:
        platform = world.platform()
        there = gateways.other(platform.partner)
        made(there.post("/auth/token", exchange_body(world, platform)), 200)
        path = f"/platforms/{platform.id}/api_keys/{platform.key_id}/rotate"
        secret = made(world.admin.post(path, {"overlap_seconds": 0}), 200)["secret"]
        for caller in gateways.both(world.caller({"api-key": secret})):
            made(caller.post("/auth/token", exchange_body(world, platform)), 200)
        wait_for_refusal(lambda: there.post("/auth/token", exchange_body(world, platform)), 401, "AU-208")

    def test_leaves_the_old_secret_its_overlap(self, world: World, gateways: Gateways) -> None:
        platform = world.platform()
        path = f"/platforms/{platform.id}/api_keys/{platform.key_id}/rotate"
        secret = made(world.admin.post(path, {"overlap_seconds": 600}), 200)["secret"]
        for partner in (platform.partner, world.caller({"api-key": secret})):
            for caller in gateways.both(partner):
                made(caller.post("/auth/token", exchange_body(world, platform)), 200)

    def test_needs_nobody_when_a_keys_time_is_over(self, world: World, gateways: Gateways) -> None:
        platform = world.platform()
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
        key = made(world.admin.post(f"/platforms/{platform.id}/api_keys", {"name": "short", "expires_at": moment}), 201)
        callers = gateways.both(world.caller({"api-key": key["secret"]}))
        for caller in callers:
            made(caller.post("/auth/token", exchange_body(world, platform)), 200)
        for caller in callers:
            ask = lambda caller=caller: caller.post("/auth/token", exchange_body(world, platform))  # noqa: E731
            wait_for_refusal(ask, 401, "AU-208")


class TestSuspension:
    def test_stops_all_credentials_at_every_gateway(self, world: World, gateways: Gateways) -> None:
        platform = world.platform()
        user, newcomer = world.user(platform), world.user(platform, is_active=False)
        asks = [
            lambda: gateways.other(platform.partner).post("/auth/token", exchange_body(world, platform)),
            lambda: gateways.other(platform.partner).get(f"{user.path}/accounts"),
            lambda: gateways.other(user.caller).get(user.path),
            lambda: gateways.other(newcomer.caller).patch(newcomer.path, {}),
        ]
        for ask in asks:
            made(ask(), 200)
        made(world.admin.post(f"/platforms/{platform.id}/suspend", REASON), 200)
        for ask in asks:
            wait_for_refusal(ask, 403, "AU-209")
        assert_refused(gateways.first.get(user.path, headers=user.caller.headers), 403, "AU-209")
        made(world.admin.post(f"/platforms/{platform.id}/activate", REASON), 200)
        for ask in asks:
            made(ask(), 200)

    def test_holds_for_an_archived_platform(self, world: World, gateways: Gateways) -> None:
        platform = world.platform()
        user = world.user(platform)
        there = gateways.other(platform.partner)
        made(there.get(f"{user.path}/accounts"), 200)
        assert world.admin.delete(user.path).status_code == 204
        assert world.admin.delete(f"/platforms/{platform.id}").status_code == 204
        wait_for_refusal(lambda: there.get(f"{user.path}/accounts"), 403, "AU-209")
        wait_for_refusal(lambda: gateways.other(user.caller).get(user.path), 403, "AU-209")

    def test_leaves_other_platforms(self, world: World, gateways: Gateways) -> None:
        platform, other = world.platform(), world.user()
        made(world.admin.post(f"/platforms/{platform.id}/suspend", REASON), 200)
        there = gateways.other(platform.partner)
        wait_for_refusal(lambda: there.post("/auth/token", exchange_body(world, platform)), 403, "AU-209")
        made(gateways.other(other.caller).get(other.path), 200)


class Frozen:
    """A system that can be frozen in part, and what is asked of its two gateways meanwhile."""

    def __init__(self, world: World, gateways: Gateways, pid: int) -> None:
        self.world = world
        self.gateways = gateways
        self._pid = pid
        self.platform = platform = world.platform()
        self.user = user = world.user(platform)
        newcomer = world.user(platform, is_active=False)
        partner, member = platform.partner, user.caller
        self.calls: list[tuple[Caller, str, str, object]] = [
            (caller, method, path, body)
            for both, method, path, body in (
                (partner, "POST", "/auth/token", exchange_body(world, platform)),
                (partner, "GET", f"{user.path}/accounts", None),
                (partner, "POST", "/mrns", {"no_such_field": 1}),
                (partner, "GET", "/users", None),
                (member, "GET", user.path, None),
                (member, "GET", "/benefits", None),
                (member, "GET", f"{user.path}/dependants", None),
                (member, "GET", newcomer.path, None),
                (member, "POST", "/platforms", {"no_such_field": 1}),
                (member, "DELETE", user.path, None),
                (newcomer.caller, "PATCH", newcomer.path, {}),
            )
            for caller in gateways.both(both)
        ]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop identity in the middle of whatever it does, until the block ends."""
        try:
            os.kill(self._pid, signal.SIGSTOP)
            self._wait_until_nothing_is_remembered()
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)
            self._wait_until_ready()

    @contextmanager
    def thawed(self) -> Iterator[None]:
        """Let identity go on until the block ends."""
        os.kill(self._pid, signal.SIGCONT)
        self._wait_until_ready()
        yield
        os.kill(self._pid, signal.SIGSTOP)
        self._wait_until_nothing_is_remembered()

    def ask_all(self) -> list[httpx.Response]:
        """Make all calls at once."""
        with ThreadPoolExecutor(len(self.calls)) as pool:
            return list(pool.map(lambda call: call[0].request(call[1], call[2], json=call[3]), self.calls))

    def _wait_until_nothing_is_remembered(self) -> None:
        """Wait until both gateways have stopped to let in whom they have learned of."""
        deadline = time.monotonic() + PATIENCE_S
        for caller in self.gateways.both(self.user.caller):
            while caller.get("/benefits").status_code != 503:
                assert time.monotonic() < deadline, "identity is frozen, and nobody minds"

    def _wait_until_ready(self) -> None:
        """Wait until both gateways hear identity again."""
        deadline = time.monotonic() + THAW_S
        for http in (self.gateways.first, self.gateways.second):
            while http.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline, "identity is not heard"
                time.sleep(0.05)


@pytest.fixture(scope="module")
def frozen(breakable: OwnSystem, breakable_world: World, http: httpx.Client) -> Iterator[Frozen]:
    """A frozen identity and its two gateways, which remember all that they could before it stood still."""
    system = breakable.system
    pid = system.runtime["services"]["identity"]["pid"]
    with (
        running_gateway(system) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False, event_hooks=http.event_hooks) as second,
    ):
        frozen = Frozen(breakable_world, Gateways(breakable_world.http, second), pid)
        for caller in frozen.gateways.both(frozen.user.caller):
            made(caller.get(frozen.user.path), 200)
        with frozen.frozen():
            yield frozen


class TestFrozenIdentity:
    """A frozen process keeps its connections, and so looks alive to whoever does not ask for a sign of life."""

    def test_lets_in_nobody_whose_state_cannot_be_learned(self, frozen: Frozen) -> None:
        for _ in range(2):
            for response in frozen.ask_all():
                assert_refused(response, 503, "RQ-111")
                assert int(response.headers["retry-after"]) >= 1

    def test_leaves_public_paths(self, frozen: Frozen) -> None:
        for http in (frozen.gateways.first, frozen.gateways.second):
            for path in PUBLIC:
                response = http.get(path, headers=frozen.user.caller.headers)
                assert response.status_code == (503 if path == "/readyz" else 200), path

    def test_tells_bad_credentials_without_asking(self, frozen: Frozen) -> None:
        for http in (frozen.gateways.first, frozen.gateways.second):
            for headers, status, code in (
                ({}, 401, "AU-201"),
                ({"api-key": "a", "admin-api-key": "b"}, 400, "AU-205"),
                ({"admin-api-key": "garbage"}, 401, "AU-202"),
                ({"authorization": "Bearer garbage"}, 401, "AU-202"),
                ({"authorization": f"{frozen.user.caller.headers['authorization'][:-2]}"}, 401, "AU-202"),
            ):
                assert_refused(http.get(frozen.user.path, headers=headers), status, code)

    def test_leaves_operators_what_identity_is_not_needed_for(self, frozen: Frozen) -> None:
        made(frozen.world.admin.get("/benefit_providers"), 200)
        assert_refused(frozen.world.admin.get("/platforms"), 504, "RQ-112")

    def test_goes_on_as_before_when_it_is_back(self, frozen: Frozen) -> None:
        with frozen.thawed():
            for caller in frozen.gateways.both(frozen.user.caller):
                made(caller.get(frozen.user.path), 200)
            for caller in frozen.gateways.both(frozen.platform.partner):
                made(caller.post("/auth/token", exchange_body(frozen.world, frozen.platform)), 200)


class TestSlowBodies:
    """Whoever sends a body slowly has no longer than others."""

    def send(
        self, http: httpx.Client, caller: Caller, path: str, body: dict[str, object], meanwhile: Callable[[], None]
    ) -> httpx.Response:
        """Send the head, wait until something else has happened, and send the rest."""

        def parts() -> Iterator[bytes]:
            yield b"{"
            meanwhile()
            # More than a gateway believes for.
            time.sleep(2 * RECHECK_AFTER_S)
            yield json.dumps(body).encode()[1:]

        headers = {**caller.headers, "content-type": "application/json"}
        return http.post(path, content=parts(), headers=headers)

    def test_get_no_token_for_a_key_that_was_revoked(self, world: World, http: httpx.Client) -> None:
        platform = world.platform()
        body = exchange_body(world, platform)

        def revoke() -> None:
            path = f"/platforms/{platform.id}/api_keys/{platform.key_id}"
            assert world.admin.delete(path).status_code == 204

        response = self.send(http, platform.partner, "/auth/token", dict(body), revoke)
        assert_refused(response, 401, "AU-208")
        users = made(world.admin.get("/users", params={"platform_id": platform.id}), 200)
        assert users["items"] == []

    def test_change_nothing_for_a_user_who_was_deactivated(self, world: World, http: httpx.Client) -> None:
        user = world.user()
        path = f"{user.path}/accounts"

        def deactivate() -> None:
            assert world.admin.delete(user.path).status_code == 204

        body: dict[str, object] = {"type": "WALLET", "account_number": world.unique("w")}
        assert_refused(self.send(http, user.caller, path, body, deactivate), 403, "AU-207")
        assert made(user.platform.partner.get(path), 200)["items"] == []

    def test_change_nothing_on_a_platform_that_was_suspended(self, world: World, http: httpx.Client) -> None:
        user = world.user()
        provider, dependant = world.provider(), world.dependant(user)
        body: dict[str, object] = {
            "dependant_id": dependant["id"],
            "benefit_provider_id": provider["id"],
            "mrn": world.unique("m"),
        }

        def suspend() -> None:
            made(world.admin.post(f"/platforms/{user.platform.id}/suspend", REASON), 200)

        assert_refused(self.send(http, user.platform.partner, "/mrns", body, suspend), 403, "AU-209")
        made(world.admin.post(f"/platforms/{user.platform.id}/activate", REASON), 200)
        assert made(user.caller.get("/mrns"), 200)["items"] == []

    def test_are_taken_from_everybody_else(self, world: World, http: httpx.Client) -> None:
        user = world.user()
        body: dict[str, object] = {"type": "WALLET", "account_number": world.unique("w")}
        made(self.send(http, user.caller, f"{user.path}/accounts", body, lambda: None), 201)
