"""Families, as users and operators see them from outside."""

import re
import unicodedata
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Caller, Platform, User, World, assert_refused, made

FIELDS = {
    *("id", "version", "user_id", "platform_id", "relationship", "first_name", "middle_name", "last_name", "gender"),
    *("date_of_birth", "phone_number", "abha_number", "abha_address", "blood_group", "status", "status_reason"),
    *("created_at", "first_created_at", "created_by"),
}
ASHA = {"relationship": "SPOUSE", "first_name": "Asha", "gender": "FEMALE", "date_of_birth": "1992-11-03"}
REQUIRED = tuple(ASHA)
# The user was born on 1990-05-17.
OLDER, YOUNGER = "1962-04-09", "2015-08-15"
FATHER = {"relationship": "FATHER", "first_name": "Mohan", "gender": "MALE", "date_of_birth": OLDER}
SON = {"relationship": "SON", "first_name": "Arun", "gender": "MALE", "date_of_birth": YOUNGER}
BIRTH_DATES = {"FATHER": OLDER, "MOTHER": OLDER, "SON": YOUNGER, "DAUGHTER": YOUNGER}
RELATIONSHIPS = (
    *("SPOUSE", "SON", "DAUGHTER", "FATHER", "MOTHER", "FATHER_IN_LAW", "MOTHER_IN_LAW", "BROTHER", "SISTER"),
    *("GRANDPARENT", "WARD", "OTHER"),
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
AADHAAR = "234123412346"
UNKNOWN = "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"
REASON = {"reason": "Asked for by the user."}


@pytest.fixture(scope="module")
def platform(world: World) -> Platform:
    """The platform of users whose platform does not matter."""
    return world.platform()


@pytest.fixture
def user(world: World, platform: Platform) -> User:
    """An active user, born on 1990-05-17."""
    return world.user(platform)


@pytest.fixture(scope="module")
def loner(world: World, platform: Platform) -> User:
    """An active user who gets no dependants."""
    return world.user(platform)


def family_of(user: User) -> str:
    return f"{user.path}/dependants"


def path_of(user: User, dependant: dict[str, Any]) -> str:
    return f"{family_of(user)}/{dependant['id']}"


def items_of(response: httpx.Response) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = made(response, 200)["items"]
    return items


def members_of(user: User, caller: Caller | None = None, **params: Any) -> list[dict[str, Any]]:
    """Return a family without SELF."""
    items = items_of((caller or user.caller).get(family_of(user), params=params))
    return [item for item in items if item["relationship"] != "SELF"]


def self_of(user: User, caller: Caller | None = None) -> dict[str, Any]:
    items = items_of((caller or user.caller).get(family_of(user)))
    (found,) = [item for item in items if item["relationship"] == "SELF"]
    return found


def history_of(user: User, dependant: dict[str, Any], caller: Caller | None = None) -> list[dict[str, Any]]:
    return items_of((caller or user.caller).get(f"{path_of(user, dependant)}/versions", params={"page_size": 200}))


def moment_of(version: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(version["created_at"])


def fields_at_fault(response: httpx.Response) -> list[str]:
    return [detail["field"] for detail in response.json()["error"]["details"]]


def deactivate(world: World, user: User) -> None:
    assert world.admin.delete(user.path).status_code == 204


class TestCreateDependant:
    def test_adds_a_member_with_the_required_fields(self, user: User) -> None:
        response = user.caller.post(family_of(user), ASHA)
        asha = made(response, 201)
        assert set(asha) == FIELDS
        assert uuid.UUID(asha["id"]).version == 7
        assert asha == {
            **dict.fromkeys(FIELDS),
            **ASHA,
            "id": asha["id"],
            "version": 1,
            "user_id": user.id,
            "platform_id": user.platform.id,
            "status": "active",
            "created_at": asha["created_at"],
            "first_created_at": asha["created_at"],
            "created_by": {"type": "USER", "id": user.id},
        }
        assert TIME.fullmatch(asha["created_at"])
        assert response.headers["location"] == path_of(user, asha)
        assert response.headers["etag"] == '"1"'
        assert response.headers["cache-control"] == "no-store"
        assert made(user.caller.get(response.headers["location"]), 200) == asha

    def test_notes_the_operator_who_adds(self, world: World, user: User) -> None:
        asha = made(world.admin.post(family_of(user), ASHA), 201)
        assert asha["created_by"] == {"type": "ADMIN", "id": "admin"}
        assert members_of(user) == [asha]

    def test_takes_all_optional_fields(self, user: User) -> None:
        optional = {
            "middle_name": "Prasad",
            "last_name": "Kumar",
            "abha_number": "91123456789012",
            "abha_address": "asha@abdm",
            "blood_group": "AB_NEGATIVE",
            "status": "inactive",
            "status_reason": "Lives abroad.",
        }
        asha = made(user.caller.post(family_of(user), {**ASHA, **optional, "phone_number": "098765 43210"}), 201)
        assert {name: asha[name] for name in optional} == optional
        assert asha["phone_number"] == "+919876543210"

    def test_takes_null_for_optional_fields(self, user: User) -> None:
        names = ("middle_name", "last_name", "phone_number", "abha_number", "abha_address", "blood_group")
        asha = made(user.caller.post(family_of(user), {**ASHA, **dict.fromkeys((*names, "status_reason"))}), 201)
        assert {asha[name] for name in names} == {None}

    def test_takes_every_relationship(self, world: World) -> None:
        user = world.user(world.platform(max_dependants=20))
        for relationship in RELATIONSHIPS:
            born = BIRTH_DATES.get(relationship, "1992-11-03")
            body = {**ASHA, "relationship": relationship, "date_of_birth": born}
            assert made(user.caller.post(family_of(user), body), 201)["relationship"] == relationship
        assert [member["relationship"] for member in members_of(user)] == list(reversed(RELATIONSHIPS))

    @pytest.mark.parametrize("gender", ["MALE", "FEMALE", "OTHER"])
    def test_takes_every_gender(self, user: User, gender: str) -> None:
        assert made(user.caller.post(family_of(user), {**ASHA, "gender": gender}), 201)["gender"] == gender

    def test_keeps_joiners_and_normalises_and_trims_names(self, user: User) -> None:
        decomposed = unicodedata.normalize("NFD", "José")
        asha = made(
            user.caller.post(family_of(user), {**ASHA, "first_name": f"  {decomposed} ", "last_name": "क्‍ष"}), 201
        )
        assert (asha["first_name"], asha["last_name"]) == ("José", "क्‍ष")

    @pytest.mark.parametrize("field", REQUIRED)
    @pytest.mark.parametrize("is_null", [False, True])
    def test_requires_four_fields(self, loner: User, field: str, is_null: bool) -> None:
        body = {name: value for name, value in ASHA.items() if name != field}
        response = loner.caller.post(family_of(loner), {**body, field: None} if is_null else body)
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("relationship", "spouse"),
            ("relationship", "COUSIN"),
            ("relationship", 1),
            ("gender", "female"),
            ("blood_group", "X"),
            ("status", "gone"),
            ("status", None),
            ("first_name", ""),
            ("first_name", "  "),
            ("first_name", "a\u0000b"),
            ("first_name", 7),
            ("first_name", "a" * 1000),
            ("phone_number", 9876543210),
            ("phone_number", "98765\u200d43210"),
            ("date_of_birth", "1992-13-03"),
            ("date_of_birth", "1993-02-29"),
            ("date_of_birth", "03-11-1992"),
            ("date_of_birth", "1992-11-03T00:00:00Z"),
            ("date_of_birth", 19921103),
            # Not the caller's to say.
            ("id", UNKNOWN),
            ("version", 7),
            ("user_id", UNKNOWN),
            ("platform_id", UNKNOWN),
            ("created_at", "2026-11-20T09:30:00Z"),
            ("created_by", {"type": "ADMIN", "id": "admin"}),
            ("nickname", "Ashu"),
        ],
    )
    def test_rejects_wrong_shapes(self, loner: User, field: str, value: object) -> None:
        response = loner.caller.post(family_of(loner), {**ASHA, field: value})
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]
        assert members_of(loner) == []

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("phone_number", "12345"),
            ("phone_number", "0801234567"),
            ("phone_number", "not a number"),
            ("abha_number", "1234"),
            ("abha_number", AADHAAR),
            ("abha_number", "9112345678901a"),
            ("abha_address", "no address"),
            ("abha_address", f"{AADHAAR}@abdm"),
            ("date_of_birth", "2999-01-01"),
            ("date_of_birth", "1880-01-01"),
            ("status", "removed"),
        ],
    )
    def test_rejects_broken_rules(self, loner: User, field: str, value: str) -> None:
        response = loner.caller.post(family_of(loner), {**ASHA, field: value})
        assert_refused(response, 422, "DE-502")
        assert fields_at_fault(response) == [field]
        assert members_of(loner) == []

    def test_prefers_the_shape_when_a_rule_is_broken_too(self, loner: User) -> None:
        response = loner.caller.post(family_of(loner), {**ASHA, "abha_number": "1234", "gender": "female"})
        assert_refused(response, 422, "RQ-101")

    def test_prefers_the_shape_to_self(self, loner: User) -> None:
        assert_refused(loner.caller.post(family_of(loner), {"relationship": "SELF"}), 422, "RQ-101")

    def test_rejects_self(self, world: World, loner: User) -> None:
        body = {**ASHA, "relationship": "SELF"}
        assert_refused(loner.caller.post(family_of(loner), body), 409, "DE-504")
        assert_refused(world.admin.post(family_of(loner), body), 409, "DE-504")
        assert len(items_of(loner.caller.get(family_of(loner)))) == 1

    @pytest.mark.parametrize("relationship", ["FATHER", "MOTHER"])
    @pytest.mark.parametrize("status", ["active", "inactive"])
    def test_rejects_second_living_parent(self, user: User, relationship: str, status: str) -> None:
        parent = {**FATHER, "relationship": relationship}
        made(user.caller.post(family_of(user), {**parent, "status": status}), 201)
        response = user.caller.post(family_of(user), {**parent, "first_name": "Suresh"})
        assert_refused(response, 422, "DE-502")

    @pytest.mark.parametrize("relationship", ["FATHER", "MOTHER"])
    def test_takes_another_parent_after_a_death(self, user: User, relationship: str) -> None:
        parent = {**FATHER, "relationship": relationship}
        made(user.caller.post(family_of(user), {**parent, "status": "deceased"}), 201)
        made(user.caller.post(family_of(user), {**parent, "first_name": "Suresh"}), 201)

    def test_takes_another_parent_after_a_removal(self, user: User) -> None:
        father = made(user.caller.post(family_of(user), FATHER), 201)
        assert user.caller.delete(path_of(user, father)).status_code == 204
        made(user.caller.post(family_of(user), {**FATHER, "first_name": "Suresh"}), 201)

    def test_takes_a_dead_parent_beside_a_living_one(self, user: User) -> None:
        made(user.caller.post(family_of(user), FATHER), 201)
        made(user.caller.post(family_of(user), {**FATHER, "first_name": "Suresh", "status": "deceased"}), 201)

    def test_takes_several_of_every_other_relationship(self, user: User) -> None:
        for relationship in ("FATHER_IN_LAW", "SPOUSE", "SON"):
            for name in ("Mohan", "Suresh"):
                born = BIRTH_DATES.get(relationship, OLDER)
                body = {**FATHER, "relationship": relationship, "first_name": name, "date_of_birth": born}
                made(user.caller.post(family_of(user), body), 201)

    @pytest.mark.parametrize("relationship", ["FATHER", "MOTHER"])
    @pytest.mark.parametrize("born", ["1990-05-17", "1990-05-18"])
    def test_rejects_parent_who_is_not_older(self, loner: User, relationship: str, born: str) -> None:
        response = loner.caller.post(family_of(loner), {**FATHER, "relationship": relationship, "date_of_birth": born})
        assert_refused(response, 422, "DE-502")

    @pytest.mark.parametrize("relationship", ["SON", "DAUGHTER"])
    @pytest.mark.parametrize("born", ["1990-05-17", "1990-05-16"])
    def test_rejects_child_who_is_not_younger(self, loner: User, relationship: str, born: str) -> None:
        response = loner.caller.post(family_of(loner), {**SON, "relationship": relationship, "date_of_birth": born})
        assert_refused(response, 422, "DE-502")

    @pytest.mark.parametrize(
        "body", [{**FATHER, "date_of_birth": "1990-05-16"}, {**SON, "date_of_birth": "1990-05-18"}]
    )
    def test_takes_a_difference_of_one_day(self, user: User, body: dict[str, Any]) -> None:
        made(user.caller.post(family_of(user), body), 201)

    def test_takes_newborn(self, user: User) -> None:
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
        made(user.caller.post(family_of(user), {**SON, "date_of_birth": yesterday}), 201)

    def test_rejects_duplicate(self, world: World, user: User) -> None:
        made(user.caller.post(family_of(user), {**ASHA, "last_name": "Kumar"}), 201)
        for caller in (user.caller, world.admin):
            for last_name in ("Kumar", " KUMAR "):
                again = {**ASHA, "last_name": last_name, "gender": "OTHER", "blood_group": "A_POSITIVE"}
                assert_refused(caller.post(family_of(user), again), 409, "DE-503")
        assert len(members_of(user)) == 1

    @pytest.mark.parametrize(
        "difference",
        [
            {"first_name": "Usha"},
            {"last_name": "Rao"},
            {"date_of_birth": "1992-11-04"},
            {"relationship": "SISTER"},
        ],
    )
    def test_takes_one_who_differs(self, user: User, difference: dict[str, str]) -> None:
        made(user.caller.post(family_of(user), ASHA), 201)
        made(user.caller.post(family_of(user), {**ASHA, **difference}), 201)

    def test_holds_the_dead_to_be_duplicates(self, user: User) -> None:
        made(user.caller.post(family_of(user), {**ASHA, "status": "deceased"}), 201)
        assert_refused(user.caller.post(family_of(user), ASHA), 409, "DE-503")

    def test_takes_the_removed_once_more_as_a_new_person(self, user: User) -> None:
        first = made(user.caller.post(family_of(user), ASHA), 201)
        assert user.caller.delete(path_of(user, first)).status_code == 204
        second = made(user.caller.post(family_of(user), ASHA), 201)
        assert (second["id"] != first["id"], second["version"]) == (True, 1)

    def test_allows_another_users_dependant_to_be_the_same(self, world: World, user: User) -> None:
        other = world.user(user.platform)
        first = made(user.caller.post(family_of(user), ASHA), 201)
        assert made(other.caller.post(family_of(other), ASHA), 201)["id"] != first["id"]

    def test_rejects_more_than_the_platform_allows(self, world: World) -> None:
        user = world.user(world.platform(max_dependants=2))
        first = world.dependant(user, status="deceased")
        world.dependant(user, status="inactive")
        for caller in (user.caller, world.admin):
            assert_refused(caller.post(family_of(user), ASHA), 409, "DE-505")
        assert user.caller.delete(path_of(user, first)).status_code == 204
        made(user.caller.post(family_of(user), ASHA), 201)

    def test_allows_eight_by_default(self, world: World, user: User) -> None:
        for _ in range(8):
            world.dependant(user)
        assert_refused(user.caller.post(family_of(user), ASHA), 409, "DE-505")

    def test_rejects_all_when_the_platform_allows_none(self, world: World) -> None:
        user = world.user(world.platform(max_dependants=0))
        assert_refused(user.caller.post(family_of(user), ASHA), 409, "DE-505")
        assert len(items_of(user.caller.get(family_of(user)))) == 1

    def test_follows_a_limit_that_changes(self, world: World) -> None:
        user = world.user(world.platform(max_dependants=1))
        world.dependant(user)
        assert_refused(user.caller.post(family_of(user), ASHA), 409, "DE-505")
        made(world.admin.patch(f"/platforms/{user.platform.id}", {"max_dependants": 2}), 200)
        made(world.admin.post(family_of(user), ASHA), 201)
        made(world.admin.patch(f"/platforms/{user.platform.id}", {"max_dependants": 0}), 200)
        # Those who are there stay, and can be changed.
        asha = members_of(user)[0]
        made(user.caller.patch(path_of(user, asha), {"last_name": "Kumar"}), 200)

    def test_adds_once_for_an_idempotency_key(self, user: User) -> None:
        headers = {"idempotency-key": str(uuid.uuid4())}
        first = user.caller.post(family_of(user), ASHA, headers=headers)
        again = user.caller.post(family_of(user), dict(reversed(ASHA.items())), headers=headers)
        assert made(again, 201) == made(first, 201)
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert [again.headers[name] for name in ("location", "etag")] == [
            first.headers[name] for name in ("location", "etag")
        ]
        assert len(members_of(user)) == 1
        assert_refused(user.caller.post(family_of(user), FATHER, headers=headers), 422, "RQ-108")

    def test_leaves_the_key_of_a_refused_call_free(self, user: User) -> None:
        headers = {"idempotency-key": str(uuid.uuid4())}
        assert_refused(user.caller.post(family_of(user), {**ASHA, "abha_number": "1"}, headers=headers), 422, "DE-502")
        made(user.caller.post(family_of(user), ASHA, headers=headers), 201)

    def test_rejects_unknown_query_parameters(self, loner: User) -> None:
        assert_refused(loner.caller.post(family_of(loner), ASHA, params={"dry_run": "true"}), 422, "RQ-101")

    def test_rejects_operators_for_users_who_are_not_active(self, world: World, platform: Platform) -> None:
        onboarding = world.user(platform, is_active=False)
        assert_refused(world.admin.post(family_of(onboarding), ASHA), 409, "US-404")
        deactivated = world.user(platform)
        deactivate(world, deactivated)
        assert_refused(world.admin.post(family_of(deactivated), ASHA), 409, "US-404")
        made(world.admin.post(f"{deactivated.path}/reactivate", REASON), 200)
        made(world.admin.post(family_of(deactivated), ASHA), 201)

    def test_rejects_unknown_users(self, world: World) -> None:
        for unknown in (UNKNOWN, "no-uuid"):
            assert_refused(world.admin.post(f"/users/{unknown}/dependants", ASHA), 404, "US-401")

    def test_lets_operators_work_while_the_platform_is_suspended(self, world: World) -> None:
        user = world.user()
        made(world.admin.post(f"/platforms/{user.platform.id}/suspend", REASON), 200)
        assert_refused(user.caller.post(family_of(user), ASHA), 403, "AU-209")
        asha = made(world.admin.post(family_of(user), ASHA), 201)
        assert made(world.admin.get(path_of(user, asha)), 200) == asha


class TestAccess:
    """Each operation, for those who may not call it."""

    def calls(self, user: User, dependant: dict[str, Any]) -> list[tuple[str, str, Any]]:
        path = path_of(user, dependant)
        return [
            ("GET", family_of(user), None),
            ("POST", family_of(user), ASHA),
            ("GET", path, None),
            ("PATCH", path, {"last_name": "Kumar"}),
            ("DELETE", path, None),
            ("GET", f"{path}/versions", None),
        ]

    def test_rejects_partners_and_other_users(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        other = world.user(user.platform)
        onboarding = world.user(user.platform, is_active=False)
        for method, path, body in self.calls(user, asha):
            for caller, status, code in (
                (world.caller(), 401, "AU-201"),
                (user.platform.partner, 403, "AU-204"),
                (other.caller, 403, "AU-206"),
                (onboarding.caller, 403, "AU-207"),
            ):
                assert_refused(caller.request(method, path, json=body), status, code)
        assert members_of(user) == [asha]

    def test_hides_dependants_of_others_behind_ones_own_path(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        other = world.user(user.platform)
        for caller in (other.caller, world.admin):
            for method, path, body in self.calls(other, asha)[2:]:
                assert_refused(caller.request(method, path, json=body), 404, "DE-501")
        assert members_of(user) == [asha]

    @pytest.mark.parametrize("dependant_id", [UNKNOWN, "no-uuid"])
    def test_rejects_unknown_dependants(self, world: World, loner: User, dependant_id: str) -> None:
        for caller in (loner.caller, world.admin):
            for method, path, body in self.calls(loner, {"id": dependant_id})[2:]:
                assert_refused(caller.request(method, path, json=body), 404, "DE-501")

    @pytest.mark.parametrize("user_id", [UNKNOWN, "no-uuid"])
    def test_rejects_unknown_users(self, world: World, user_id: str) -> None:
        for method, suffix, body in (
            ("GET", "", None),
            ("GET", f"/{UNKNOWN}", None),
            ("GET", f"/{UNKNOWN}/versions", None),
            ("PATCH", f"/{UNKNOWN}", {"last_name": "Kumar"}),
            ("DELETE", f"/{UNKNOWN}", None),
        ):
            response = world.admin.request(method, f"/users/{user_id}/dependants{suffix}", json=body)
            assert_refused(response, 404, "US-401")


class TestUpdateDependant:
    def test_appends_a_version(self, world: World, user: User) -> None:
        asha = made(user.caller.post(family_of(user), {**ASHA, "last_name": "Kumar"}), 201)
        response = world.admin.patch(path_of(user, asha), {"last_name": "Rao", "blood_group": "O_POSITIVE"})
        changed = made(response, 200)
        assert changed == {
            **asha,
            "last_name": "Rao",
            "blood_group": "O_POSITIVE",
            "version": 2,
            "created_at": changed["created_at"],
            "created_by": {"type": "ADMIN", "id": "admin"},
        }
        assert moment_of(changed) > moment_of(asha)
        assert response.headers["etag"] == '"2"'
        assert made(user.caller.get(path_of(user, asha)), 200) == changed
        assert members_of(user) == [changed]
        assert history_of(user, asha) == [changed, asha]

    def test_tells_absent_from_null(self, user: User) -> None:
        optional = {"middle_name": "Prasad", "last_name": "Kumar", "phone_number": "+919876543210"}
        asha = made(user.caller.post(family_of(user), {**ASHA, **optional}), 201)
        changed = made(user.caller.patch(path_of(user, asha), {"last_name": None, "phone_number": None}), 200)
        assert [changed[name] for name in optional] == ["Prasad", None, None]
        assert changed["first_name"] == "Asha"

    @pytest.mark.parametrize("field", [*REQUIRED, "status"])
    def test_rejects_null_for_what_is_always_there(self, world: World, user: User, field: str) -> None:
        asha = world.dependant(user)
        response = user.caller.patch(path_of(user, asha), {field: None})
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]

    def test_answers_the_present_version_when_nothing_changes(self, user: User) -> None:
        asha = made(user.caller.post(family_of(user), {**ASHA, "phone_number": "+919876543210"}), 201)
        for body in ({}, {"first_name": "Asha"}, {"phone_number": "98765-43210", "last_name": None}, ASHA):
            response = user.caller.patch(path_of(user, asha), body)
            assert made(response, 200) == asha
            assert response.headers["etag"] == '"1"'
        assert history_of(user, asha) == [asha]

    def test_writes_no_audit_row_when_nothing_changes(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        made(user.caller.patch(path_of(user, asha), {}), 200)
        rows = items_of(world.admin.get("/audit_logs", params={"entity_type": "dependant", "entity_id": asha["id"]}))
        assert [row["action"] for row in rows] == ["dependant.create"]

    @pytest.mark.parametrize("status", ["inactive", "deceased"])
    def test_sets_the_status_and_back(self, world: World, user: User, status: str) -> None:
        asha = world.dependant(user)
        body = {"status": status, "status_reason": "Told by the family."}
        changed = made(user.caller.patch(path_of(user, asha), body), 200)
        assert (changed["status"], changed["status_reason"]) == (status, "Told by the family.")
        back = made(user.caller.patch(path_of(user, asha), {"status": "active", "status_reason": None}), 200)
        assert (back["status"], back["status_reason"], back["version"]) == ("active", None, 3)

    def test_rejects_removed_as_a_status(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        for caller in (user.caller, world.admin):
            response = caller.patch(path_of(user, asha), {"status": "removed"})
            assert_refused(response, 422, "DE-502")
            assert fields_at_fault(response) == ["status"]
        assert history_of(user, asha) == [asha]

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"first_name": 7}, "RQ-101"),
            ({"date_of_birth": "1992-02-30"}, "RQ-101"),
            ({"version": 1}, "RQ-101"),
            ({"id": UNKNOWN}, "RQ-101"),
            ({"user_id": UNKNOWN}, "RQ-101"),
            ({"created_by": None}, "RQ-101"),
            ({"abha_number": "1", "nickname": "Ashu"}, "RQ-101"),
            ({"abha_number": AADHAAR}, "DE-502"),
            ({"abha_address": "?"}, "DE-502"),
            ({"phone_number": "12"}, "DE-502"),
            ({"date_of_birth": "2999-01-01"}, "DE-502"),
        ],
    )
    def test_rejects_what_creation_rejects(self, world: World, user: User, body: dict[str, Any], code: str) -> None:
        asha = world.dependant(user)
        assert_refused(user.caller.patch(path_of(user, asha), body), 422, code)
        assert history_of(user, asha) == [asha]

    def test_rejects_self(self, world: World, user: User) -> None:
        myself, asha = self_of(user), world.dependant(user)
        for caller in (user.caller, world.admin):
            assert_refused(caller.patch(path_of(user, myself), {"first_name": "Raju"}), 409, "DE-504")
            assert_refused(caller.patch(path_of(user, asha), {"relationship": "SELF"}), 409, "DE-504")
        for body in ({}, {"first_name": myself["first_name"]}):
            assert made(user.caller.patch(path_of(user, myself), body), 200) == myself
        assert self_of(user) == myself

    def test_rejects_parent_and_child_out_of_order(self, user: User) -> None:
        father = made(user.caller.post(family_of(user), FATHER), 201)
        son = made(user.caller.post(family_of(user), SON), 201)
        for member, body in (
            (father, {"date_of_birth": YOUNGER}),
            (father, {"relationship": "SON"}),
            (son, {"date_of_birth": OLDER}),
            (son, {"relationship": "MOTHER"}),
        ):
            assert_refused(user.caller.patch(path_of(user, member), body), 422, "DE-502")
        changed = made(user.caller.patch(path_of(user, son), {"relationship": "MOTHER", "date_of_birth": OLDER}), 200)
        assert (changed["relationship"], changed["version"]) == ("MOTHER", 2)

    def test_rejects_second_living_parent(self, user: User) -> None:
        first = made(user.caller.post(family_of(user), FATHER), 201)
        other = made(user.caller.post(family_of(user), {**FATHER, "relationship": "OTHER"}), 201)
        dead = made(user.caller.post(family_of(user), {**FATHER, "first_name": "Suresh", "status": "deceased"}), 201)
        assert_refused(user.caller.patch(path_of(user, other), {"relationship": "FATHER"}), 422, "DE-502")
        assert_refused(user.caller.patch(path_of(user, dead), {"status": "inactive"}), 422, "DE-502")
        made(user.caller.patch(path_of(user, first), {"status": "deceased"}), 200)
        made(user.caller.patch(path_of(user, dead), {"status": "active"}), 200)
        assert_refused(user.caller.patch(path_of(user, first), {"status": "active"}), 422, "DE-502")

    def test_rejects_becoming_a_duplicate(self, user: User) -> None:
        made(user.caller.post(family_of(user), ASHA), 201)
        usha = made(user.caller.post(family_of(user), {**ASHA, "first_name": "Usha"}), 201)
        assert_refused(user.caller.patch(path_of(user, usha), {"first_name": "Asha"}), 409, "DE-503")
        assert history_of(user, usha) == [usha]

    def test_judges_the_change_alone(self, world: World, user: User) -> None:
        """A child who has become older than the user, because the user's birth date was wrong, can still be changed."""
        son = made(user.caller.post(family_of(user), {**SON, "date_of_birth": "2003-01-01"}), 201)
        made(user.caller.patch(user.path, {"date_of_birth": "2004-01-01"}), 200)
        assert made(user.caller.patch(path_of(user, son), {"last_name": "Kumar"}), 200)["version"] == 2
        assert_refused(user.caller.patch(path_of(user, son), {"date_of_birth": "2003-01-02"}), 422, "DE-502")

    def test_rejects_the_removed(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        assert user.caller.delete(path_of(user, asha)).status_code == 204
        for caller in (user.caller, world.admin):
            for body in ({"last_name": "Kumar"}, {"status": "active"}):
                assert_refused(caller.patch(path_of(user, asha), body), 409, "DE-506")
        assert len(history_of(user, asha)) == 2

    @pytest.mark.parametrize("header", ['"1"', "*"])
    def test_honours_if_match(self, world: World, user: User, header: str) -> None:
        asha = world.dependant(user)
        response = user.caller.patch(path_of(user, asha), {"last_name": "Rao"}, headers={"if-match": header})
        assert made(response, 200)["version"] == 2

    @pytest.mark.parametrize("header", ['"2"', '"0"', 'W/"1"', "1", "", '"1', '"1", "2"', '"one"', f'"{"9" * 30}"'])
    def test_rejects_other_versions(self, world: World, user: User, header: str) -> None:
        asha = world.dependant(user)
        for method in ("PATCH", "DELETE"):
            response = user.caller.request(
                method, path_of(user, asha), json={"last_name": "Rao"}, headers={"if-match": header}
            )
            assert_refused(response, 412, "RQ-110")
        assert members_of(user) == [asha]

    def test_rejects_the_version_before(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        made(user.caller.patch(path_of(user, asha), {"last_name": "Rao"}), 200)
        response = user.caller.patch(path_of(user, asha), {"last_name": "Nair"}, headers={"if-match": '"1"'})
        assert_refused(response, 412, "RQ-110")
        # Even when it would change nothing.
        response = user.caller.patch(path_of(user, asha), {}, headers={"if-match": '"1"'})
        assert_refused(response, 412, "RQ-110")

    def test_rejects_operators_for_users_who_are_not_active(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        deactivate(world, user)
        assert_refused(world.admin.patch(path_of(user, asha), {"last_name": "Rao"}), 409, "US-404")
        assert_refused(world.admin.delete(path_of(user, asha)), 409, "US-404")
        assert made(world.admin.get(path_of(user, asha)), 200) == asha


class TestDeleteDependant:
    def test_appends_a_removed_version(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        response = user.caller.delete(path_of(user, asha))
        assert (response.status_code, response.content) == (204, b"")
        response = user.caller.get(path_of(user, asha))
        removed = made(response, 200)
        assert removed == {**asha, "version": 2, "status": "removed", "created_at": removed["created_at"]}
        assert response.headers["etag"] == '"2"'
        assert history_of(user, asha) == [removed, asha]

    def test_leaves_the_removed_out_of_lists(self, world: World, user: User) -> None:
        asha, usha = world.dependant(user), world.dependant(user)
        assert world.admin.delete(path_of(user, asha)).status_code == 204
        for caller in (user.caller, world.admin):
            assert [member["id"] for member in members_of(user, caller)] == [usha["id"]]
            assert [member["id"] for member in members_of(user, caller, include_removed="false")] == [usha["id"]]
            shown = members_of(user, caller, include_removed="true")
            assert [(member["id"], member["status"]) for member in shown] == [
                (usha["id"], "active"),
                (asha["id"], "removed"),
            ]

    def test_rejects_a_second_time(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        assert user.caller.delete(path_of(user, asha)).status_code == 204
        for caller in (user.caller, world.admin):
            assert_refused(caller.delete(path_of(user, asha)), 409, "DE-506")
        assert len(history_of(user, asha)) == 2

    def test_rejects_self(self, world: World, user: User) -> None:
        for caller in (user.caller, world.admin):
            assert_refused(caller.delete(path_of(user, self_of(user))), 409, "DE-504")

    def test_honours_if_match(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        response = user.caller.delete(path_of(user, asha), headers={"if-match": '"1"'})
        assert response.status_code == 204

    def test_keeps_the_mrns(self, world: World, user: User) -> None:
        asha, provider = world.dependant(user), world.provider()
        link = {"dependant_id": asha["id"], "benefit_provider_id": provider["id"], "mrn": "AP-1"}
        mrn = made(user.caller.post("/mrns", link), 201)
        assert user.caller.delete(path_of(user, asha)).status_code == 204
        assert items_of(user.caller.get("/mrns", params={"dependant_id": asha["id"]})) == [mrn]


class TestListDependants:
    def test_answers_newest_first(self, world: World, user: User) -> None:
        members = [world.dependant(user) for _ in range(3)]
        # A change does not move a person.
        made(user.caller.patch(path_of(user, members[0]), {"last_name": "Kumar"}), 200)
        response = user.caller.get(family_of(user))
        answer = made(response, 200)
        assert set(answer) == {"items", "next_page_token"}
        assert answer["next_page_token"] is None
        assert response.headers["cache-control"] == "no-store"
        ids = [item["id"] for item in answer["items"]]
        assert ids == [*(member["id"] for member in reversed(members)), self_of(user)["id"]]

    def test_walks_pages_without_gap_while_rows_are_added(self, world: World, user: User) -> None:
        members = [world.dependant(user) for _ in range(5)]
        expected = [*(member["id"] for member in reversed(members)), self_of(user)["id"]]
        seen, params = [], {"page_size": 2}
        while True:
            page = made(user.caller.get(family_of(user), params=params), 200)
            assert len(page["items"]) <= 2
            seen += [item["id"] for item in page["items"]]
            if page["next_page_token"] is None:
                break
            params = {"page_size": 2, "page_token": page["next_page_token"]}
            if len(seen) == 2:
                world.dependant(user)
        assert seen == expected

    def test_lets_the_page_size_change(self, world: World, user: User) -> None:
        for _ in range(3):
            world.dependant(user)
        token = made(user.caller.get(family_of(user), params={"page_size": 1}), 200)["next_page_token"]
        rest = made(user.caller.get(family_of(user), params={"page_size": 200, "page_token": token}), 200)
        assert (len(rest["items"]), rest["next_page_token"]) == (3, None)

    def test_lowers_larger_pages(self, loner: User) -> None:
        assert len(items_of(loner.caller.get(family_of(loner), params={"page_size": 1000}))) == 1

    def test_rejects_tokens_of_other_lists(self, world: World, user: User) -> None:
        world.dependant(user)
        other = world.user(user.platform)
        token = made(user.caller.get(family_of(user), params={"page_size": 1}), 200)["next_page_token"]
        versions = f"{path_of(user, self_of(user))}/versions"
        for caller, path, params in (
            (other.caller, family_of(other), {}),
            (world.admin, family_of(user), {}),
            (user.caller, family_of(user), {"include_removed": "true"}),
            (user.caller, family_of(user), {"as_of": "2999-01-01T00:00:00Z"}),
            (user.caller, versions, {}),
        ):
            assert_refused(caller.get(path, params={**params, "page_token": token}), 400, "RQ-113")
        for broken in (token[:-1], token[1:], token + "A", token[:-2] + "AA", "x", "é", "A" * 5000):
            assert_refused(user.caller.get(family_of(user), params={"page_token": broken}), 400, "RQ-113")

    @pytest.mark.parametrize(
        "query",
        [
            *("page_size=0", "page_size=-1", "page_size=ten", "page_size=", "page_size=1.5", "page_size=1&page_size=1"),
            *("include_removed=yes", "include_removed=1", "include_removed=", "include_removed=TRUE"),
            *("as_of=", "as_of=yesterday", "as_of=2026-11-20", "as_of=2026-11-20T09:30:00", "as_of=1700000000"),
            *("status=active", "user_id=x", "Page_size=1"),
        ],
    )
    def test_rejects_wrong_queries(self, loner: User, query: str) -> None:
        assert_refused(loner.caller.get(f"{family_of(loner)}?{query}"), 422, "RQ-101")

    def test_shows_families_of_users_in_every_status_to_operators(self, world: World, platform: Platform) -> None:
        onboarding = world.user(platform, is_active=False)
        assert items_of(world.admin.get(family_of(onboarding))) == []
        deactivated = world.user(platform)
        asha = world.dependant(deactivated)
        deactivate(world, deactivated)
        assert members_of(deactivated, world.admin) == [asha]
        assert history_of(deactivated, asha, world.admin) == [asha]


class TestAsOf:
    def test_answers_the_family_as_it_was(self, world: World, user: User) -> None:
        before = world.dependant(user, first_name="Asha")
        usha = world.dependant(user, first_name="Usha")
        changed = made(user.caller.patch(path_of(user, before), {"last_name": "Kumar"}), 200)
        assert user.caller.delete(path_of(user, usha)).status_code == 204
        gone = made(user.caller.get(path_of(user, usha)), 200)
        moments = {
            moment_of(self_of(user)) - timedelta(microseconds=1): [],
            moment_of(before) - timedelta(microseconds=1): [],
            moment_of(before): [before],
            moment_of(usha): [usha, before],
            moment_of(changed) - timedelta(microseconds=1): [usha, before],
            moment_of(changed): [usha, changed],
            moment_of(gone): [changed],
            datetime(2999, 1, 1, tzinfo=UTC): [changed],
        }
        for moment, expected in moments.items():
            for caller in (user.caller, world.admin):
                assert members_of(user, caller, as_of=moment.isoformat().replace("+00:00", "Z")) == expected
        assert items_of(user.caller.get(family_of(user), params={"as_of": "1990-01-01T00:00:00Z"})) == []

    def test_shows_the_removed_of_that_time(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        assert user.caller.delete(path_of(user, asha)).status_code == 204
        gone = made(user.caller.get(path_of(user, asha)), 200)
        assert members_of(user, include_removed="true", as_of=asha["created_at"]) == [asha]
        assert members_of(user, include_removed="true", as_of=gone["created_at"]) == [gone]

    def test_takes_other_offsets(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        there = moment_of(asha).astimezone(timezone(timedelta(hours=5, minutes=30)))
        assert members_of(user, as_of=there.isoformat()) == [asha]
        assert members_of(user, as_of=(there - timedelta(microseconds=1)).isoformat()) == []

    def test_walks_pages(self, world: World, user: User) -> None:
        members = [world.dependant(user) for _ in range(3)]
        params = {"as_of": members[1]["created_at"], "page_size": 1}
        seen = []
        while params.get("page_token", "") is not None:
            page = made(user.caller.get(family_of(user), params=params), 200)
            seen += [item["id"] for item in page["items"]]
            params["page_token"] = page["next_page_token"]
        assert seen == [members[1]["id"], members[0]["id"], self_of(user)["id"]]


class TestListDependantVersions:
    def test_answers_the_whole_history(self, world: World, user: User) -> None:
        versions = [world.dependant(user)]
        for name in ("Rao", "Nair", "Iyer"):
            versions.append(made(user.caller.patch(path_of(user, versions[0]), {"last_name": name}), 200))
        newest_first = list(reversed(versions))
        for caller in (user.caller, world.admin):
            assert history_of(user, versions[0], caller) == newest_first
        assert {version["first_created_at"] for version in versions} == {versions[0]["created_at"]}
        moments = [moment_of(version) for version in versions]
        assert moments == sorted(set(moments))

    def test_walks_pages(self, world: World, user: User) -> None:
        asha = world.dependant(user)
        for name in ("Rao", "Nair", "Iyer"):
            made(user.caller.patch(path_of(user, asha), {"last_name": name}), 200)
        path, params, seen = f"{path_of(user, asha)}/versions", {"page_size": 3}, []
        page = made(user.caller.get(path, params=params), 200)
        seen += page["items"]
        # A version that is added meanwhile is neither in the rest nor does it repeat one.
        made(user.caller.patch(path_of(user, asha), {"last_name": "Menon"}), 200)
        page = made(user.caller.get(path, params={**params, "page_token": page["next_page_token"]}), 200)
        seen += page["items"]
        assert [version["version"] for version in seen] == [4, 3, 2, 1]
        assert page["next_page_token"] is None

    @pytest.mark.parametrize("query", ["page_size=0", "include_removed=true", "as_of=2026-11-20T09:30:00Z"])
    def test_rejects_wrong_queries(self, user: User, query: str) -> None:
        response = user.caller.get(f"{path_of(user, self_of(user))}/versions?{query}")
        assert_refused(response, 422, "RQ-101")


class TestSelf:
    def test_is_there_when_onboarding_returns(self, user: User) -> None:
        (myself,) = items_of(user.caller.get(family_of(user)))
        assert set(myself) == FIELDS
        assert myself == {
            **dict.fromkeys(FIELDS),
            "id": myself["id"],
            "version": 1,
            "user_id": user.id,
            "platform_id": user.platform.id,
            "relationship": "SELF",
            "first_name": "Ravi",
            "gender": "MALE",
            "date_of_birth": "1990-05-17",
            "phone_number": user.phone_number,
            "status": "active",
            "created_at": myself["created_at"],
            "first_created_at": myself["created_at"],
            "created_by": {"type": "SYSTEM", "id": "identity"},
        }

    def test_is_not_there_before(self, world: World, platform: Platform) -> None:
        onboarding = world.user(platform, is_active=False)
        assert items_of(world.admin.get(family_of(onboarding))) == []

    def test_follows_the_profile(self, world: World, user: User) -> None:
        before = self_of(user)
        profile = {
            "first_name": "Ravindra",
            "middle_name": "Prasad",
            "last_name": "Kumar",
            "gender": "OTHER",
            "date_of_birth": "1991-06-18",
            "abha_number": "91123456789012",
            "abha_address": "ravi@abdm",
        }
        made(user.caller.patch(user.path, profile), 200)
        after = self_of(user)
        assert after == {**before, **profile, "version": 2, "created_at": after["created_at"]}
        made(world.admin.patch(user.path, {"last_name": None}), 200)
        cleared = self_of(user)
        assert (cleared["last_name"], cleared["middle_name"], cleared["version"]) == (None, "Prasad", 3)
        phone_number = f"+91{world.phone_number()}"
        made(world.admin.patch(user.path, {"phone_number": phone_number}), 200)
        assert self_of(user)["phone_number"] == phone_number
        assert [version["version"] for version in history_of(user, before)] == [4, 3, 2, 1]

    def test_stays_when_nothing_of_it_changes(self, user: User) -> None:
        before = self_of(user)
        made(user.caller.patch(user.path, {"first_name": "Ravi"}), 200)
        made(user.caller.patch(user.path, {}), 200)
        assert self_of(user) == before

    def test_stays_the_same_person_over_a_deactivation(self, world: World, user: User) -> None:
        before = self_of(user)
        deactivate(world, user)
        assert self_of(user, world.admin) == before
        made(world.admin.post(f"{user.path}/reactivate", REASON), 200)
        made(world.admin.patch(user.path, {"first_name": "Ravindra"}), 200)
        after = self_of(user, world.admin)
        assert (after["id"], after["first_name"], after["version"]) == (before["id"], "Ravindra", 2)


class TestErasedUsers:
    def test_answers_nothing_personal_in_any_version(self, world: World, user: User) -> None:
        asha = made(
            user.caller.post(family_of(user), {**ASHA, "phone_number": "9876543210", "status_reason": "Ill."}), 201
        )
        made(user.caller.patch(path_of(user, asha), {"last_name": "Kumar", "blood_group": "A_POSITIVE"}), 200)
        usha = world.dependant(user)
        assert user.caller.delete(path_of(user, usha)).status_code == 204
        deactivate(world, user)
        made(world.admin.post(f"{user.path}/erase", REASON), 200)
        personal = {
            *("first_name", "middle_name", "last_name", "gender", "date_of_birth", "phone_number", "abha_number"),
            *("abha_address", "blood_group", "status_reason"),
        }
        family = items_of(world.admin.get(family_of(user), params={"include_removed": "true"}))
        # Who was there still counts.
        assert [member["id"] for member in family[:2]] == [usha["id"], asha["id"]]
        assert len(family) == 3
        versions = [*family, made(world.admin.get(path_of(user, asha)), 200), *history_of(user, asha, world.admin)]
        assert all(version[name] is None for version in versions for name in personal)
        assert all(version["status"] is not None and version["relationship"] for version in versions)
        assert [version["version"] for version in history_of(user, asha, world.admin)] == [2, 1]
        as_it_was = world.admin.get(family_of(user), params={"as_of": asha["created_at"]})
        assert all(member["first_name"] is None for member in items_of(as_it_was))
        assert_refused(world.admin.patch(path_of(user, asha), {"last_name": "Rao"}), 409, "US-404")
        assert_refused(world.admin.delete(path_of(user, asha)), 409, "US-404")
        assert_refused(world.admin.post(family_of(user), ASHA), 409, "US-404")
