"""Whom the gatekeeper lets in, in which order it refuses, and that it never refuses by what it only remembers."""

import base64
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from starlette.requests import Request

from aarokya.identity.v1.api_key_pb2 import ApiKeyStatus
from aarokya.identity.v1.live_state_service_pb2 import ApiKeyState, UserState
from aarokya.identity.v1.platform_pb2 import PlatformStatus
from aarokya.identity.v1.user_pb2 import UserStatus
from gateway.credentials import Kind, TokenVerifier
from gateway.errors import Refused
from gateway.guards import (
    ADMIN,
    ADMIN_OR_ONBOARDING_USER,
    ADMIN_OR_USER,
    PARTNER_FOR_TOKENS,
    PARTNER_OR_USER,
    PUBLIC,
    Gatekeeper,
    Guard,
)
from servicekit.caller import Caller, CallerType
from servicekit.settings import NamedSecrets
from tests.e2e.tokens import sign

KEY = "k" * 48
OPERATORS = [("asha", "a" * 32), ("ravi", "r" * 32)]
SECRET = "s" * 43
ROUTE = "GET /users/{user_id}"
USER_ID, OTHER_ID, PLATFORM_ID, KEY_ID = (str(uuid4()) for _ in range(4))
ACTIVE, ONBOARDING, DEACTIVATED = (
    UserStatus.USER_STATUS_ACTIVE,
    UserStatus.USER_STATUS_ONBOARDING,
    UserStatus.USER_STATUS_DEACTIVATED,
)
OPEN, SUSPENDED, ARCHIVED = (
    PlatformStatus.PLATFORM_STATUS_ACTIVE,
    PlatformStatus.PLATFORM_STATUS_SUSPENDED,
    PlatformStatus.PLATFORM_STATUS_ARCHIVED,
)
REVOKED, EXPIRED, GOOD = (
    ApiKeyStatus.API_KEY_STATUS_REVOKED,
    ApiKeyStatus.API_KEY_STATUS_EXPIRED,
    ApiKeyStatus.API_KEY_STATUS_ACTIVE,
)


class LiveState:
    """What is so, and what this process still remembers."""

    def __init__(self) -> None:
        self.users: dict[str, UserState] = {}
        self.keys: dict[str, ApiKeyState] = {}
        self.remembered: dict[str, UserState | ApiKeyState] = {}
        self.asked: list[tuple[str, bool]] = []
        self.is_away = False

    async def user_state(self, user_id, *, fresh=False):
        return self._look(self.users, user_id, fresh)

    async def key_state(self, secret, *, fresh=False):
        return self._look(self.keys, secret, fresh)

    def _look(self, states, key, fresh):
        self.asked.append((key, fresh))
        if not fresh and key in self.remembered:
            return self.remembered[key]
        if self.is_away:
            raise Refused("RQ-111")
        return states.get(key)


class Limits:
    """Counts, and refuses when told to."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, str]] = []
        self.is_over = False

    async def check_partner(self, key_id):
        self._count("partner", key_id)

    async def check_user(self, user_id):
        self._count("user", user_id)

    def _count(self, kind, whose):
        self.counted.append((kind, whose))
        if self.is_over:
            raise Refused("RQ-107", headers={"Retry-After": "1"})

    async def count_failure(self, source_address):
        self.counted.append(("failure", source_address))
        return self.is_over

    def too_many_failures(self):
        return Refused("RQ-107", headers={"Retry-After": "60"})


class Refusals:
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.noted: list[tuple[object, ...]] = []

    def note(self, *facts):
        self.noted.append(facts)


class Gate:
    """A gatekeeper and all that it asks."""

    def __init__(self) -> None:
        self.live_state, self.limits, self.refusals = LiveState(), Limits(), Refusals()
        self.live_state.users[USER_ID] = user_state()
        self.live_state.keys[SECRET] = key_state()
        tokens = TokenVerifier(NamedSecrets(f"local-1:{KEY}", shortest=32, setting="S"), "aarokya", "aarokya")
        self._gatekeeper = Gatekeeper(OPERATORS, tokens, self.live_state, self.limits, self.refusals)

    async def admit(self, guard: Guard, *headers: tuple[str, str], path=None) -> Caller:
        return await self._gatekeeper.admit(guard, self._request(headers, path), ROUTE)

    async def admit_still(self, guard: Guard, *headers: tuple[str, str]) -> None:
        await self._gatekeeper.admit_still(guard, self._request(headers), ROUTE)

    def _request(self, headers, path=None) -> Request:
        async def receive():
            raise AssertionError("the body was read")

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
            "path_params": path or {},
            "state": {"source_address": "192.0.2.1", "request_id": "r1"},
        }
        return Request(scope, receive)

    async def refuse(self, guard: Guard, *headers: tuple[str, str], path=None) -> str:
        with pytest.raises(Refused) as caught:
            await self.admit(guard, *headers, path=path)
        return caught.value.code


@pytest.fixture
def gate() -> Gate:
    return Gate()


def user_state(**changes) -> UserState:
    state = {"user_id": USER_ID, "platform_id": PLATFORM_ID, "status": ACTIVE, "platform_status": OPEN}
    return UserState(**{**state, "token_generation": 2, **changes})


def key_state(expires_in_s: float | None = None, **changes) -> ApiKeyState:
    state = {"key_id": KEY_ID, "platform_id": PLATFORM_ID, "status": GOOD, "platform_status": OPEN, **changes}
    key = ApiKeyState(**state)
    if expires_in_s is not None:
        key.expires_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=expires_in_s))
    return key


def token(secret: str = KEY, **changes) -> tuple[str, str]:
    now = int(time.time())
    claims = {"iss": "aarokya", "aud": "aarokya", "sub": USER_ID, "platform_id": PLATFORM_ID, "status": "active"}
    # Parameters are made when tests are collected, and the last test runs long after that.
    claims |= {"iat": now, "exp": now + 86_400, "jti": "2.x", **changes}
    return "authorization", "Bearer " + sign(claims, {"alg": "HS256", "kid": "local-1", "typ": "JWT"}, secret.encode())


def expired() -> tuple[str, str]:
    now = int(time.time())
    return token(iat=now - 60, exp=now - 1)


def basic(platform_id: str = PLATFORM_ID, secret: str = SECRET) -> tuple[str, str]:
    return "authorization", "Basic " + base64.b64encode(f"{platform_id}:{secret}".encode()).decode()


ADMIN_KEY, PARTNER_KEY = ("admin-api-key", "r" * 32), ("api-key", SECRET)


class TestGuard:
    def test_documents_its_alternatives(self):
        assert PUBLIC.security == []
        assert ADMIN.security == [{"admin_api_key": []}]
        assert ADMIN_OR_USER.security == [{"admin_api_key": []}, {"user_token": []}]
        assert PARTNER_OR_USER.security == [{"api_key": []}, {"user_token": []}]
        assert PARTNER_FOR_TOKENS.security == [{"api_key": []}, {"partner_basic": []}]

    def test_lists_what_it_can_refuse_with(self):
        any_route = {"AU-201", "AU-202", "AU-203", "AU-204", "AU-205", "AU-208", "RQ-107", "RQ-111"}
        assert PUBLIC.codes == []
        assert set(ADMIN.codes) == any_route
        assert set(PARTNER_FOR_TOKENS.codes) == any_route | {"AU-209"}
        assert set(ADMIN_OR_USER.codes) == set(PARTNER_OR_USER.codes) == any_route | {"AU-207", "AU-209"}


class TestAdmit:
    async def test_names_the_operator(self, gate):
        assert await gate.admit(ADMIN, ADMIN_KEY) == Caller(CallerType.ADMIN, "ravi")
        assert gate.limits.counted == gate.live_state.asked == []

    async def test_names_the_partners_key_and_platform(self, gate):
        partner = Caller(CallerType.PARTNER, KEY_ID, UUID(PLATFORM_ID))
        assert await gate.admit(PARTNER_OR_USER, PARTNER_KEY) == partner
        assert await gate.admit(PARTNER_FOR_TOKENS, basic()) == partner
        assert await gate.admit(PARTNER_FOR_TOKENS, basic(PLATFORM_ID.upper())) == partner
        assert gate.limits.counted == [("partner", KEY_ID)] * 3

    async def test_names_the_user_and_platform(self, gate):
        user = Caller(CallerType.USER, USER_ID, UUID(PLATFORM_ID))
        assert await gate.admit(PARTNER_OR_USER, token()) == user
        assert await gate.admit(PARTNER_OR_USER, token(), path={"user_id": USER_ID.upper()}) == user
        # What is no id names nobody; the route says that it is not there.
        assert await gate.admit(PARTNER_OR_USER, token(), path={"user_id": "unknown"}) == user
        assert gate.limits.counted == [("user", USER_ID)] * 3

    async def test_lets_a_key_live_until_it_expires(self, gate):
        gate.live_state.keys[SECRET] = key_state(expires_in_s=60)
        assert (await gate.admit(PARTNER_OR_USER, PARTNER_KEY)).id == KEY_ID
        gate.live_state.remembered[SECRET] = key_state(expires_in_s=-1)
        gate.live_state.keys[SECRET] = key_state(expires_in_s=-1, status=EXPIRED)
        assert await gate.refuse(PARTNER_OR_USER, PARTNER_KEY) == "AU-208"

    async def test_leaves_it_to_identitys_clock_when_a_key_expires(self, gate):
        gate.live_state.keys[SECRET] = key_state(expires_in_s=-1)
        assert (await gate.admit(PARTNER_OR_USER, PARTNER_KEY)).id == KEY_ID

    @pytest.mark.parametrize(
        ("status", "guard", "code"),
        [
            (ACTIVE, ADMIN_OR_USER, None),
            (ACTIVE, ADMIN_OR_ONBOARDING_USER, None),
            (ONBOARDING, ADMIN_OR_USER, "AU-207"),
            (ONBOARDING, ADMIN_OR_ONBOARDING_USER, None),
            (DEACTIVATED, ADMIN_OR_USER, "AU-207"),
            (DEACTIVATED, ADMIN_OR_ONBOARDING_USER, "AU-207"),
            (0, ADMIN_OR_USER, "AU-207"),
            (99, ADMIN_OR_ONBOARDING_USER, "AU-207"),
        ],
    )
    async def test_asks_for_the_users_status(self, gate, status, guard, code):
        gate.live_state.users[USER_ID] = user_state(status=status)
        if code:
            assert await gate.refuse(guard, token()) == code
        else:
            assert (await gate.admit(guard, token())).id == USER_ID

    @pytest.mark.parametrize("status", [SUSPENDED, ARCHIVED, 0, 99])
    async def test_asks_for_the_platforms_status(self, gate, status):
        gate.live_state.users[USER_ID] = user_state(platform_status=status)
        gate.live_state.keys[SECRET] = key_state(platform_status=status)
        assert await gate.refuse(PARTNER_OR_USER, token()) == "AU-209"
        assert await gate.refuse(PARTNER_OR_USER, PARTNER_KEY) == "AU-209"
        assert await gate.refuse(PARTNER_FOR_TOKENS, basic()) == "AU-209"

    @pytest.mark.parametrize("status", [REVOKED, EXPIRED, 0, 99])
    async def test_asks_for_the_keys_status(self, gate, status):
        gate.live_state.keys[SECRET] = key_state(status=status)
        assert await gate.refuse(PARTNER_OR_USER, PARTNER_KEY) == "AU-208"
        assert await gate.refuse(PARTNER_FOR_TOKENS, basic()) == "AU-208"

    @pytest.mark.parametrize("generation", [0, 1, 3])
    async def test_refuses_tokens_of_another_generation(self, gate, generation):
        assert await gate.refuse(ADMIN_OR_USER, token(jti=f"{generation}.x")) == "AU-203"

    async def test_refuses_a_token_whose_user_is_of_another_platform(self, gate):
        assert await gate.refuse(ADMIN_OR_USER, token(platform_id=OTHER_ID)) == "AU-202"

    async def test_refuses_a_basic_credential_of_another_platform(self, gate):
        assert await gate.refuse(PARTNER_FOR_TOKENS, basic(OTHER_ID)) == "AU-202"

    async def test_looks_at_nothing_of_a_basic_credential_elsewhere(self, gate):
        assert await gate.refuse(PARTNER_OR_USER, ("authorization", "Basic *")) == "AU-204"
        assert gate.live_state.asked == []


class TestOrder:
    """Everything is wrong at once, and then one thing after the other is put right."""

    @pytest.mark.parametrize(
        ("headers", "guard", "platform", "status", "code"),
        [
            ([token("x" * 48), PARTNER_KEY], ADMIN, SUSPENDED, DEACTIVATED, "AU-205"),
            ([], ADMIN, SUSPENDED, DEACTIVATED, "AU-201"),
            ([token("x" * 48)], ADMIN, SUSPENDED, DEACTIVATED, "AU-202"),
            ([expired()], ADMIN, SUSPENDED, DEACTIVATED, "AU-203"),
            ([token()], ADMIN, SUSPENDED, DEACTIVATED, "AU-204"),
            ([token()], ADMIN_OR_USER, SUSPENDED, DEACTIVATED, "AU-209"),
            ([token()], ADMIN_OR_USER, SUSPENDED, ONBOARDING, "AU-209"),
            ([token()], ADMIN_OR_USER, OPEN, DEACTIVATED, "AU-207"),
            ([token()], ADMIN_OR_USER, OPEN, ONBOARDING, "AU-207"),
            ([token()], ADMIN_OR_USER, OPEN, ACTIVE, "AU-206"),
            ([token(jti="1.x")], ADMIN, SUSPENDED, ACTIVE, "AU-203"),
            ([token(jti="1.x")], ADMIN_OR_USER, OPEN, DEACTIVATED, "AU-207"),
        ],
    )
    async def test_of_users(self, gate, headers, guard, platform, status, code):
        gate.live_state.users[USER_ID] = user_state(platform_status=platform, status=status)
        assert await gate.refuse(guard, *headers, path={"user_id": OTHER_ID}) == code

    @pytest.mark.parametrize(
        ("header", "guard", "key", "platform", "code"),
        [
            (("api-key", "unknown"), ADMIN, REVOKED, SUSPENDED, "AU-202"),
            (PARTNER_KEY, ADMIN, REVOKED, SUSPENDED, "AU-208"),
            (PARTNER_KEY, ADMIN, GOOD, SUSPENDED, "AU-204"),
            (PARTNER_KEY, PARTNER_OR_USER, GOOD, SUSPENDED, "AU-209"),
            (basic(OTHER_ID), ADMIN, REVOKED, SUSPENDED, "AU-204"),
            (basic(OTHER_ID), PARTNER_FOR_TOKENS, REVOKED, SUSPENDED, "AU-202"),
            (basic(), PARTNER_FOR_TOKENS, REVOKED, SUSPENDED, "AU-208"),
            (basic(), PARTNER_FOR_TOKENS, GOOD, SUSPENDED, "AU-209"),
        ],
    )
    async def test_of_partners(self, gate, header, guard, key, platform, code):
        gate.live_state.keys[SECRET] = key_state(status=key, platform_status=platform)
        assert await gate.refuse(guard, header) == code

    @pytest.mark.parametrize(
        ("secret", "guard", "code"),
        [("garbage", PARTNER_OR_USER, "AU-202"), ("garbage", ADMIN, "AU-202"), ("a" * 32, PARTNER_OR_USER, "AU-204")],
    )
    async def test_of_operators(self, gate, secret, guard, code):
        assert await gate.refuse(guard, ("admin-api-key", secret)) == code


class TestFreshLook:
    """Rights that were narrow when this process last looked may be wider now."""

    @pytest.mark.parametrize(
        "remembered",
        [
            user_state(status=DEACTIVATED),
            user_state(status=ONBOARDING),
            user_state(platform_status=SUSPENDED),
            user_state(token_generation=1),
        ],
    )
    async def test_before_a_user_is_refused(self, gate, remembered):
        gate.live_state.remembered[USER_ID] = remembered
        assert (await gate.admit(ADMIN_OR_USER, token())).id == USER_ID
        assert gate.live_state.asked == [(USER_ID, False), (USER_ID, True)]
        assert gate.refusals.noted == []

    @pytest.mark.parametrize(
        "remembered", [key_state(status=REVOKED), key_state(platform_status=SUSPENDED), key_state(expires_in_s=-1)]
    )
    async def test_before_a_partner_is_refused(self, gate, remembered):
        gate.live_state.remembered[SECRET] = remembered
        assert (await gate.admit(PARTNER_OR_USER, PARTNER_KEY)).id == KEY_ID
        assert gate.live_state.asked == [(SECRET, False), (SECRET, True)]

    async def test_tells_what_is_so_and_not_what_was(self, gate):
        gate.live_state.remembered[USER_ID] = user_state(status=ONBOARDING)
        gate.live_state.users[USER_ID] = user_state(platform_status=SUSPENDED)
        assert await gate.refuse(ADMIN_OR_USER, token()) == "AU-209"
        gate.live_state.remembered[SECRET] = key_state(platform_status=SUSPENDED)
        gate.live_state.keys[SECRET] = key_state(status=REVOKED)
        assert await gate.refuse(PARTNER_OR_USER, PARTNER_KEY) == "AU-208"

    async def test_tells_of_a_user_or_key_that_is_gone(self, gate):
        gate.live_state.remembered = {USER_ID: user_state(status=ONBOARDING), SECRET: key_state(status=REVOKED)}
        gate.live_state.users.clear()
        gate.live_state.keys.clear()
        assert await gate.refuse(ADMIN_OR_USER, token()) == "AU-202"
        assert await gate.refuse(PARTNER_OR_USER, PARTNER_KEY) == "AU-202"

    async def test_is_not_taken_where_all_is_well(self, gate):
        await gate.admit(ADMIN_OR_USER, token())
        await gate.admit(PARTNER_OR_USER, PARTNER_KEY)
        assert gate.live_state.asked == [(USER_ID, False), (SECRET, False)]


class TestIdentityAway:
    @pytest.mark.parametrize("header", [token(), PARTNER_KEY, token(sub=OTHER_ID)])
    @pytest.mark.parametrize("guard", [ADMIN, PARTNER_OR_USER])
    async def test_lets_nobody_in_and_calls_it_nobodys_fault(self, gate, header, guard):
        gate.live_state.is_away = True
        assert await gate.refuse(guard, header) == "RQ-111"
        assert gate.refusals.noted == gate.limits.counted == []

    async def test_refuses_nobody_by_what_it_remembers(self, gate):
        gate.live_state.is_away = True
        gate.live_state.remembered = {USER_ID: user_state(status=DEACTIVATED), SECRET: key_state(status=REVOKED)}
        assert await gate.refuse(ADMIN_OR_USER, token()) == "RQ-111"
        assert await gate.refuse(PARTNER_OR_USER, PARTNER_KEY) == "RQ-111"

    async def test_is_of_no_matter_to_operators_and_forgers(self, gate):
        gate.live_state.is_away = True
        assert (await gate.admit(ADMIN, ADMIN_KEY)).id == "ravi"
        assert await gate.refuse(ADMIN_OR_USER, token("x" * 48)) == "AU-202"
        assert await gate.refuse(ADMIN_OR_USER, expired()) == "AU-203"


class TestNotes:
    @pytest.mark.parametrize(
        ("headers", "guard", "code", "fails"),
        [
            ([], ADMIN, "AU-201", False),
            ([ADMIN_KEY, PARTNER_KEY], ADMIN, "AU-205", False),
            ([("admin-api-key", "garbage")], ADMIN, "AU-202", True),
            ([("api-key", "garbage")], PARTNER_OR_USER, "AU-202", True),
            ([token("x" * 48)], ADMIN_OR_USER, "AU-202", True),
            ([basic(OTHER_ID)], PARTNER_FOR_TOKENS, "AU-202", True),
            ([expired()], ADMIN_OR_USER, "AU-203", False),
            ([token()], ADMIN, "AU-204", False),
            ([token(sub=OTHER_ID)], ADMIN_OR_USER, "AU-202", True),
        ],
    )
    async def test_every_refusal_and_counts_failures(self, gate, headers, guard, code, fails):
        assert await gate.refuse(guard, *headers, ("user-agent", "app/1")) == code
        assert gate.refusals.noted == [(code, "192.0.2.1", ROUTE, "r1", "app/1")]
        counted = [what for what in gate.limits.counted if what[0] == "failure"]
        assert counted == ([("failure", "192.0.2.1")] if fails else [])

    async def test_a_revoked_key_as_a_failure(self, gate):
        gate.live_state.keys[SECRET] = key_state(status=REVOKED)
        assert await gate.refuse(PARTNER_OR_USER, PARTNER_KEY) == "AU-208"
        assert gate.limits.counted == [("failure", "192.0.2.1")]

    async def test_none_of_whom_it_lets_in(self, gate):
        await gate.admit(ADMIN, ADMIN_KEY)
        await gate.admit(ADMIN_OR_USER, token())
        assert gate.refusals.noted == []

    async def test_says_429_above_the_limit_of_failures(self, gate):
        gate.limits.is_over = True
        with pytest.raises(Refused) as caught:
            await gate.admit(ADMIN, ("admin-api-key", "garbage"))
        assert (caught.value.code, caught.value.headers) == ("RQ-107", {"Retry-After": "60"})
        assert [noted[0] for noted in gate.refusals.noted] == ["AU-202"]
        assert (await gate.admit(ADMIN, ADMIN_KEY)).id == "ravi"

    @pytest.mark.parametrize("header", [token(), PARTNER_KEY])
    async def test_says_429_above_the_callers_own_limit(self, gate, header):
        gate.limits.is_over = True
        assert await gate.refuse(PARTNER_OR_USER, header) == "RQ-107"
        assert gate.refusals.noted == []

    async def test_counts_the_requests_of_good_credentials_that_are_refused_for_something_else(self, gate):
        gate.live_state.users[USER_ID] = user_state(status=ONBOARDING)
        await gate.refuse(ADMIN_OR_USER, token())
        await gate.refuse(ADMIN, PARTNER_KEY)
        assert gate.limits.counted == [("user", USER_ID), ("partner", KEY_ID)]

    @pytest.mark.parametrize("header", [token(), PARTNER_KEY, ADMIN_KEY])
    async def test_looks_again_without_counting(self, gate, header):
        everybody = Guard(frozenset(Kind))
        await gate.admit_still(everybody, header)
        assert gate.limits.counted == []

    async def test_refuses_whose_rights_ended_meanwhile(self, gate):
        gate.live_state.users[USER_ID] = user_state(status=DEACTIVATED)
        gate.live_state.keys[SECRET] = key_state(status=REVOKED)
        with pytest.raises(Refused, match="AU-207"):
            await gate.admit_still(ADMIN_OR_USER, token())
        with pytest.raises(Refused, match="AU-208"):
            await gate.admit_still(PARTNER_OR_USER, PARTNER_KEY)
        assert [noted[0] for noted in gate.refusals.noted] == ["AU-207", "AU-208"]

    @pytest.mark.parametrize("kind", Kind)
    async def test_every_kind_has_a_scheme(self, kind):
        assert Guard(frozenset({kind})).security
