"""Versions, ETag and If-Match of the five resources that have them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Caller, World, assert_refused, made

RESOURCES = ("platform", "user", "dependant", "benefit_provider", "benefit")
# None of these names the version that a resource is at.
MISMATCHES = (
    '"0"',
    '"2"',
    '"99999999999999999999"',
    '"-1"',
    '"01"',
    '"1.0"',
    '"1 "',
    '""',
    'W/"1"',
    'w/"1"',
    "1",
    "'1'",
    '"1',
    '1"',
    '"2", "3"',
    "",
    "**",
    '"*"',
    "null",
    '"１"',
    "W/*",
)


@dataclass
class Resource:
    """A thing at version 1."""

    caller: Caller
    path: str
    field: str
    value: Callable[[], Any]
    entity_type: str

    @property
    def id(self) -> str:
        return self.path.rpartition("/")[2]

    def read(self) -> httpx.Response:
        return self.caller.get(self.path)

    def change(self, **headers: str) -> httpx.Response:
        return self.caller.patch(self.path, {self.field: self.value()}, headers=headers_of(headers))

    def delete(self, **headers: str) -> httpx.Response:
        return self.caller.delete(self.path, headers=headers_of(headers))


def headers_of(named: dict[str, str]) -> dict[str, Any]:
    return {name.replace("_", "-"): value.encode() for name, value in named.items()}


def open_resource(world: World, kind: str) -> Resource:
    match kind:
        case "platform":
            created = made(world.admin.post("/platforms", {"name": world.unique("Rides")}), 201)
            path = f"/platforms/{created['id']}"
            return Resource(world.admin, path, "name", lambda: world.unique("Rides"), kind)
        case "user":
            user = world.user(is_active=False)
            return Resource(world.admin, user.path, "city", lambda: world.unique("Pune"), kind)
        case "dependant":
            user = world.user()
            path = f"{user.path}/dependants/{world.dependant(user)['id']}"
            return Resource(user.caller, path, "last_name", lambda: world.unique("Kumar"), kind)
        case "benefit_provider":
            path = f"/benefit_providers/{world.provider()['id']}"
            return Resource(world.admin, path, "display_name", lambda: world.unique("Apollo"), kind)
        case "benefit":
            path = f"/benefits/{world.benefit(world.provider())['id']}"
            return Resource(world.admin, path, "name", lambda: world.unique("Check"), kind)
    raise AssertionError(kind)


@pytest.fixture(params=RESOURCES)
def resource(world: World, request: pytest.FixtureRequest) -> Resource:
    return open_resource(world, request.param)


def assert_at(response: httpx.Response, version: int) -> None:
    assert (response.status_code, response.json()["version"]) == (200, version), response.text
    assert response.headers["etag"] == f'"{version}"'


class TestVersion:
    def test_counts_from_one_and_is_the_etag(self, resource: Resource) -> None:
        assert_at(resource.read(), 1)
        assert_at(resource.change(), 2)
        assert_at(resource.read(), 2)
        assert_at(resource.change(), 3)

    def test_is_told_on_creation(self, world: World) -> None:
        created = world.admin.post("/platforms", {"name": world.unique("Rides")})
        assert (made(created, 201)["version"], created.headers["etag"]) == (1, '"1"')

    def test_is_told_by_actions(self, world: World) -> None:
        path = open_resource(world, "platform").path
        suspended = world.admin.post(f"{path}/suspend", {"reason": "late"})
        assert_at(suspended, 2)
        assert_at(world.admin.post(f"{path}/activate", {"reason": "paid"}), 3)

    def test_stays_when_nothing_changes(self, world: World, resource: Resource) -> None:
        value = resource.value()
        assert_at(resource.caller.patch(resource.path, {resource.field: value}), 2)
        before = resource.read().json()
        for body in ({}, {resource.field: value}):
            response = resource.caller.patch(resource.path, body)
            assert_at(response, 2)
            assert response.json() == before
        filters = {"entity_type": resource.entity_type, "entity_id": resource.id}
        rows = made(world.admin.get("/audit_logs", params=filters), 200)["items"]
        changes = [row["action"] for row in rows if row["action"].endswith(".update")]
        assert len(changes) == 1


class TestIfMatch:
    def test_lets_the_right_version_pass(self, resource: Resource) -> None:
        etag = resource.read().headers["etag"]
        assert_at(resource.change(if_match=etag), 2)
        assert resource.delete(if_match='"2"').status_code == 204

    def test_lets_a_star_pass(self, resource: Resource) -> None:
        assert_at(resource.change(if_match="*"), 2)
        assert resource.delete(if_match="*").status_code == 204

    @pytest.mark.parametrize("text", MISMATCHES)
    def test_refuses_all_else(self, resource: Resource, text: str) -> None:
        before = resource.read().json()
        assert_refused(resource.change(if_match=text), 412, "RQ-110")
        assert_refused(resource.delete(if_match=text), 412, "RQ-110")
        assert resource.read().json() == before

    def test_refuses_two_headers(self, world: World, resource: Resource) -> None:
        own = list(resource.caller.headers.items())
        for values in (('"1"', '"1"'), ("*", '"1"')):
            headers = httpx.Headers([*own, *(("if-match", value) for value in values)])
            response = world.http.request("PATCH", resource.path, json={}, headers=headers)
            assert_refused(response, 412, "RQ-110")

    def test_refuses_a_stale_version(self, resource: Resource) -> None:
        assert_at(resource.change(), 2)
        assert_refused(resource.change(if_match='"1"'), 412, "RQ-110")
        assert_refused(resource.delete(if_match='"1"'), 412, "RQ-110")

    def test_refuses_a_stale_version_of_a_change_that_changes_nothing(self, resource: Resource) -> None:
        response = resource.caller.patch(resource.path, {}, headers={"if-match": '"2"'})
        assert_refused(response, 412, "RQ-110")

    def test_looks_at_the_body_and_the_id_first(self, resource: Resource) -> None:
        headers = {"if-match": '"7"'}
        wrong = resource.caller.patch(resource.path, {resource.field: 1}, headers=headers)
        assert_refused(wrong, 422, "RQ-101")
        unknown = resource.path.replace(resource.id, "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11")
        assert resource.caller.patch(unknown, {}, headers=headers).status_code == 404
        assert resource.caller.delete(unknown, headers=headers).status_code == 404

    def test_means_nothing_to_reading_and_creating(self, world: World, resource: Resource) -> None:
        assert_at(resource.caller.get(resource.path, headers={"if-match": '"7"'}), 1)
        body = {"name": world.unique("Rides")}
        assert world.admin.post("/platforms", body, headers={"if-match": '"7"'}).status_code == 201


class TestUsersOwnVersions:
    def test_honours_if_match_of_users(self, world: World) -> None:
        user = world.user()
        etag = user.caller.get(user.path).headers["etag"]
        changed = user.caller.patch(user.path, {"city": "Pune"}, headers={"if-match": etag})
        assert changed.status_code == 200
        assert_refused(user.caller.patch(user.path, {"city": "Goa"}, headers={"if-match": etag}), 412, "RQ-110")
        assert_refused(user.caller.delete(user.path, headers={"if-match": etag}), 412, "RQ-110")
        assert user.caller.delete(user.path, headers={"if-match": changed.headers["etag"]}).status_code == 204
