"""No token but those that identity wrote is accepted, and what it says of a user's status is never believed."""

import time
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import System, User, World, assert_refused, made
from tests.e2e.forgeries import FORGERIES, Forgery, Material
from tests.e2e.tokens import claims_of, header_of, sign, signing_key


@pytest.fixture(scope="session")
def user(world: World) -> User:
    """The user whom all forgers want to be."""
    return world.user(world.platform())


@pytest.fixture(scope="session")
def material(world: World, system: System, user: User) -> Material:
    """What forgeries are made of."""
    other = world.user()
    known_secrets = (user.platform.secret, system.admin_key)
    return Material(user.token, signing_key(system)[1], other.id, other.platform.id, known_secrets)


@pytest.fixture
def sign_for(system: System) -> Any:
    """Sign a user's claims with some of them changed, with the right key."""
    key = signing_key(system)[1]

    def sign_for(user: User, **claims: Any) -> str:
        return sign({**claims_of(user.token), **claims}, header_of(user.token), key)

    return sign_for


def send(world: World, token: str, path: str) -> httpx.Response:
    return world.http.get(path, headers=[(b"authorization", b"Bearer " + token.encode("latin-1"))])


class TestForgery:
    def test_is_tried_in_many_ways(self) -> None:
        assert len({forgery.name for forgery in FORGERIES}) == len(FORGERIES) > 60

    @pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
    def test_is_refused(self, world: World, user: User, material: Material, forgery: Forgery) -> None:
        response = send(world, forgery.make(material), user.path)
        assert_refused(response, 401, forgery.code)
        assert response.headers["www-authenticate"] == 'Bearer realm="aarokya", error="invalid_token"'
        assert user.token not in response.text

    def test_is_refused_when_it_is_longer_than_any_header(self, world: World, user: User) -> None:
        assert_refused(send(world, "A" * 20_000, user.path), 431, "RQ-115")

    def test_leaves_the_genuine_token_good(self, world: World, user: User, material: Material) -> None:
        assert made(send(world, material.token, user.path), 200)["id"] == user.id
        # What the forgeries are signed with is the right key, so it is what they say that is refused.
        assert made(send(world, material.with_claims(), user.path), 200)["id"] == user.id


class TestGenuineToken:
    """What identity could have written, signed here with its key."""

    @pytest.mark.parametrize("status", ["active", "onboarding", "deactivated", "admin", ""])
    def test_says_nothing_about_the_status_that_counts(
        self, world: World, user: User, sign_for: Any, status: str
    ) -> None:
        assert made(send(world, sign_for(user, status=status), user.path), 200)["status"] == "active"
        newcomer = world.user(user.platform, is_active=False)
        assert_refused(send(world, sign_for(newcomer, status=status), newcomer.path), 403, "AU-207")
        leaver = world.user(user.platform)
        assert world.admin.delete(leaver.path).status_code == 204
        assert_refused(send(world, sign_for(leaver, status=status), leaver.path), 403, "AU-207")

    def test_gives_nobody_another_users_path(self, world: World, user: User, sign_for: Any) -> None:
        another = world.user(user.platform)
        token = sign_for(user, sub=another.id)
        assert_refused(send(world, token, user.path), 403, "AU-206")
        assert made(send(world, token, another.path), 200)["id"] == another.id

    def test_may_be_issued_by_a_clock_that_is_a_little_ahead(self, world: World, user: User, sign_for: Any) -> None:
        now = int(time.time())
        assert made(send(world, sign_for(user, iat=now + 5, exp=now + 300), user.path), 200)["id"] == user.id

    def test_may_carry_claims_that_nobody_knows(self, world: World, user: User, sign_for: Any) -> None:
        token = sign_for(user, nbf=int(time.time()), scope="admin", role=["admin"], admin=True)
        assert made(send(world, token, user.path), 200)["id"] == user.id
        assert_refused(send(world, token, "/users"), 403, "AU-204")
