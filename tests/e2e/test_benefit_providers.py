"""Benefit providers, as operators see them from outside."""

import re
import secrets
import uuid
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import User, World, assert_refused, made

FIELDS = {
    *("id", "code", "legal_name", "display_name", "type", "status", "support_phone", "support_email", "website"),
    *("issues_mrn", "mrn_pattern", "metadata", "version", "created_at", "updated_at"),
}
REQUIRED = ("code", "legal_name", "display_name", "type")
OPTIONAL = {
    "support_phone": "+91 80 4000 4000",
    "support_email": "help@apollo.example",
    "website": "https://apollo.example/help?topic=benefits",
    "issues_mrn": True,
    "mrn_pattern": "AP[0-9]{6}",
    "metadata": {"region": "south", "beds": 120, "rating": 4.5, "tags": ["a", None, True], "nested": {"ü": "é"}},
}
TYPES = ("INSURER", "HOSPITAL", "CLINIC", "DIAGNOSTICS", "PHARMACY", "TELEHEALTH", "WELLNESS", "OTHER")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNKNOWN = "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"
PROVIDERS = "/benefit_providers"


def unused_code() -> str:
    return f"p{secrets.token_hex(8)}"


def body_of(**fields: Any) -> dict[str, Any]:
    return {
        "code": unused_code(),
        "legal_name": "Apollo Clinics Private Limited",
        "display_name": "Apollo",
        "type": "CLINIC",
        **fields,
    }


def path_of(provider: dict[str, Any]) -> str:
    return f"{PROVIDERS}/{provider['id']}"


def fields_at_fault(response: httpx.Response) -> list[str]:
    return [detail["field"] for detail in response.json()["error"]["details"]]


@pytest.fixture(scope="module")
def user(world: World) -> User:
    """An active user."""
    return world.user()


class TestCreateBenefitProvider:
    def test_adds_a_provider_with_the_required_fields(self, world: World) -> None:
        body = body_of()
        response = world.admin.post(PROVIDERS, body)
        provider = made(response, 201)
        assert set(provider) == FIELDS
        assert provider == {
            **dict.fromkeys(FIELDS),
            **body,
            "id": provider["id"],
            "status": "active",
            "issues_mrn": False,
            "version": 1,
            "created_at": provider["created_at"],
            "updated_at": provider["created_at"],
        }
        assert uuid.UUID(provider["id"]).version == 7
        assert TIME.fullmatch(provider["created_at"])
        assert response.headers["location"] == path_of(provider)
        assert response.headers["etag"] == '"1"'
        assert response.headers["cache-control"] == "no-store"
        assert made(world.admin.get(response.headers["location"]), 200) == provider

    def test_takes_all_optional_fields(self, world: World) -> None:
        provider = made(world.admin.post(PROVIDERS, body_of(**OPTIONAL, status="inactive")), 201)
        assert {name: provider[name] for name in OPTIONAL} == OPTIONAL
        assert provider["status"] == "inactive"

    def test_takes_null_for_optional_fields(self, world: World) -> None:
        names = ("support_phone", "support_email", "website", "mrn_pattern", "metadata")
        provider = made(world.admin.post(PROVIDERS, body_of(**dict.fromkeys(names))), 201)
        assert [provider[name] for name in names] == [None] * 5

    @pytest.mark.parametrize("kind", TYPES)
    def test_takes_every_type(self, world: World, kind: str) -> None:
        assert made(world.admin.post(PROVIDERS, body_of(type=kind)), 201)["type"] == kind

    @pytest.mark.parametrize("length", [2, 32])
    def test_takes_the_shortest_and_the_longest_code(self, world: World, length: int) -> None:
        # Of two characters there are few codes; whether one is free is not what is asked.
        code = f"a{secrets.token_hex(16)}"[:length]
        response = world.admin.post(PROVIDERS, body_of(code=code))
        assert response.status_code == 201 or response.json()["error"]["code"] == "BP-603"

    @pytest.mark.parametrize("field", REQUIRED)
    @pytest.mark.parametrize("is_null", [False, True])
    def test_requires_four_fields(self, world: World, field: str, is_null: bool) -> None:
        body = body_of()
        del body[field]
        response = world.admin.post(PROVIDERS, {**body, field: None} if is_null else body)
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("type", "clinic"),
            ("type", "SPA"),
            ("status", "ACTIVE"),
            ("status", "archived"),
            ("status", None),
            ("issues_mrn", "true"),
            ("issues_mrn", 1),
            ("issues_mrn", None),
            ("code", 7),
            ("code", "a\u0000b"),
            ("code", "ab\u200dc"),
            ("legal_name", ""),
            ("legal_name", "a" * 5000),
            ("display_name", " "),
            ("mrn_pattern", True),
            ("metadata", "text"),
            ("metadata", []),
            ("metadata", {"a": "b" * 9000}),
            ("id", UNKNOWN),
            ("version", 1),
            ("created_at", "2026-11-20T09:30:00Z"),
            ("updated_at", None),
            ("slogan", "We care."),
        ],
    )
    def test_rejects_wrong_shapes(self, world: World, field: str, value: object) -> None:
        response = world.admin.post(PROVIDERS, body_of(**{field: value}))
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            *(
                ("code", code)
                for code in ("a", "1abc", "_abc", "Abc", "aB", "a-b", "a b", "é_x", "a" * 33, " ab", "ab\u00e9")
            ),
            *(("mrn_pattern", pattern) for pattern in ("(", "[a", "a{2,1}", "(?=a)", r"(a)\1", "*", "a" * 201)),
            ("support_phone", "call us"),
            ("support_email", "nobody"),
            ("website", "apollo"),
            ("website", "javascript:alert(1)"),
        ],
    )
    def test_rejects_broken_rules(self, world: World, field: str, value: str) -> None:
        response = world.admin.post(PROVIDERS, body_of(**{field: value}))
        assert_refused(response, 422, "BP-605")
        assert fields_at_fault(response) == [field]

    def test_takes_a_pattern_of_200_characters(self, world: World) -> None:
        made(world.admin.post(PROVIDERS, body_of(mrn_pattern="a" * 200)), 201)

    def test_lists_all_that_is_wrong(self, world: World) -> None:
        response = world.admin.post(PROVIDERS, body_of(code="1", mrn_pattern="(", website="?"))
        assert_refused(response, 422, "BP-605")
        assert sorted(fields_at_fault(response)) == ["code", "mrn_pattern", "website"]

    def test_prefers_the_shape_when_a_rule_is_broken_too(self, world: World) -> None:
        assert_refused(world.admin.post(PROVIDERS, body_of(code="1", type="SPA")), 422, "RQ-101")

    def test_rejects_taken_code(self, world: World) -> None:
        provider = world.provider()
        assert_refused(world.admin.post(PROVIDERS, body_of(code=provider["code"])), 409, "BP-603")

    def test_takes_the_code_of_a_deleted_provider(self, world: World) -> None:
        provider = world.provider()
        assert world.admin.delete(path_of(provider)).status_code == 204
        again = made(world.admin.post(PROVIDERS, body_of(code=provider["code"])), 201)
        assert again["id"] != provider["id"]

    def test_adds_once_for_an_idempotency_key(self, world: World) -> None:
        body, headers = body_of(), {"idempotency-key": str(uuid.uuid4())}
        first = world.admin.post(PROVIDERS, body, headers=headers)
        again = world.admin.post(PROVIDERS, body, headers=headers)
        assert made(again, 201) == made(first, 201)
        assert again.headers["idempotency-replayed"] == "true"
        for name in ("location", "etag"):
            assert again.headers[name] == first.headers[name]
        assert_refused(world.admin.post(PROVIDERS, body_of(), headers=headers), 422, "RQ-108")


class TestAccess:
    def test_rejects_all_but_operators(self, world: World, user: User) -> None:
        provider = world.provider()
        for method, path, body in (
            ("POST", PROVIDERS, body_of()),
            ("GET", PROVIDERS, None),
            ("GET", path_of(provider), None),
            ("PATCH", path_of(provider), {"display_name": "Other"}),
            ("DELETE", path_of(provider), None),
        ):
            for caller, status, code in (
                (world.caller(), 401, "AU-201"),
                (world.caller({"admin-api-key": "guess"}), 401, "AU-202"),
                (user.platform.partner, 403, "AU-204"),
                (user.caller, 403, "AU-204"),
            ):
                assert_refused(caller.request(method, path, json=body), status, code)
        assert made(world.admin.get(path_of(provider)), 200) == provider

    @pytest.mark.parametrize("provider_id", [UNKNOWN, "no-uuid", "0"])
    def test_rejects_unknown_providers(self, world: World, provider_id: str) -> None:
        path = f"{PROVIDERS}/{provider_id}"
        assert_refused(world.admin.get(path), 404, "BP-601")
        assert_refused(world.admin.patch(path, {"display_name": "Other"}), 404, "BP-601")
        assert_refused(world.admin.delete(path), 404, "BP-601")
        # The body comes first.
        assert_refused(world.admin.patch(path, {"slogan": "We care."}), 422, "RQ-101")


class TestUpdateBenefitProvider:
    def test_changes_all_fields(self, world: World) -> None:
        provider = world.provider(issues_mrn=False)
        fields = {
            **OPTIONAL,
            "code": unused_code(),
            "legal_name": "Fortis Limited",
            "display_name": "Fortis",
            "type": "HOSPITAL",
            "status": "inactive",
        }
        response = world.admin.patch(path_of(provider), fields)
        changed = made(response, 200)
        assert changed == {**provider, **fields, "version": 2, "updated_at": changed["updated_at"]}
        assert changed["updated_at"] > provider["updated_at"]
        assert response.headers["etag"] == '"2"'
        assert made(world.admin.get(path_of(provider)), 200) == changed

    def test_tells_absent_from_null(self, world: World) -> None:
        provider = world.provider(**OPTIONAL)
        cleared = dict.fromkeys(("website", "mrn_pattern", "metadata"))
        changed = made(world.admin.patch(path_of(provider), cleared), 200)
        assert changed == {**provider, **cleared, "version": 2, "updated_at": changed["updated_at"]}

    def test_replaces_metadata_whole(self, world: World) -> None:
        provider = world.provider(metadata={"a": 1, "b": 2})
        changed = made(world.admin.patch(path_of(provider), {"metadata": {"b": 3}}), 200)
        assert changed["metadata"] == {"b": 3}
        assert made(world.admin.patch(path_of(provider), {"metadata": {}}), 200)["metadata"] == {}

    @pytest.mark.parametrize("field", [*REQUIRED, "status", "issues_mrn"])
    def test_rejects_null_for_what_is_always_there(self, world: World, field: str) -> None:
        response = world.admin.patch(path_of(world.provider()), {field: None})
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]

    def test_answers_the_present_version_when_nothing_changes(self, world: World) -> None:
        provider = world.provider(**OPTIONAL)
        writable = {name: provider[name] for name in (*REQUIRED, *OPTIONAL, "status")}
        for body in ({}, {"display_name": provider["display_name"]}, writable):
            response = world.admin.patch(path_of(provider), body)
            assert made(response, 200) == provider
            assert response.headers["etag"] == '"1"'
        params = {"entity_type": "benefit_provider", "entity_id": provider["id"]}
        rows = made(world.admin.get("/audit_logs", params=params), 200)["items"]
        assert [row["action"] for row in rows] == ["benefit_provider.create"]

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"id": UNKNOWN}, "RQ-101"),
            ({"version": 2}, "RQ-101"),
            ({"type": "SPA"}, "RQ-101"),
            ({"code": "1"}, "BP-605"),
            ({"mrn_pattern": "("}, "BP-605"),
            ({"website": "?"}, "BP-605"),
        ],
    )
    def test_rejects_what_creation_rejects(self, world: World, body: dict[str, Any], code: str) -> None:
        provider = world.provider()
        assert_refused(world.admin.patch(path_of(provider), body), 422, code)
        assert made(world.admin.get(path_of(provider)), 200) == provider

    def test_rejects_taken_code(self, world: World) -> None:
        one, other = world.provider(), world.provider()
        assert_refused(world.admin.patch(path_of(other), {"code": one["code"]}), 409, "BP-603")
        # Its own is not taken.
        assert made(world.admin.patch(path_of(one), {"code": one["code"]}), 200) == one

    @pytest.mark.parametrize("header", ['"2"', 'W/"1"', "1", "", '"one"'])
    def test_rejects_other_versions(self, world: World, header: str) -> None:
        provider = world.provider()
        for method in ("PATCH", "DELETE"):
            response = world.admin.request(
                method, path_of(provider), json={"display_name": "Other"}, headers={"if-match": header}
            )
            assert_refused(response, 412, "RQ-110")
        assert made(world.admin.get(path_of(provider)), 200) == provider

    @pytest.mark.parametrize("header", ['"1"', "*"])
    def test_honours_if_match(self, world: World, header: str) -> None:
        provider, headers = world.provider(), {"if-match": header}
        changed = made(world.admin.patch(path_of(provider), {"display_name": "Other"}, headers=headers), 200)
        assert changed["version"] == 2


class TestDeleteBenefitProvider:
    def test_removes_a_provider_that_nothing_refers_to(self, world: World) -> None:
        provider = world.provider()
        response = world.admin.delete(path_of(provider))
        assert (response.status_code, response.content) == (204, b"")
        assert_refused(world.admin.get(path_of(provider)), 404, "BP-601")
        assert_refused(world.admin.delete(path_of(provider)), 404, "BP-601")

    def test_rejects_provider_of_a_benefit(self, world: World) -> None:
        provider = world.provider()
        benefit = world.benefit(provider)
        assert_refused(world.admin.delete(path_of(provider)), 409, "BP-604")
        assert world.admin.delete(f"/benefits/{benefit['id']}").status_code == 204
        assert_refused(world.admin.delete(path_of(provider)), 409, "BP-604")
        assert made(world.admin.get(path_of(provider)), 200) == provider

    def test_rejects_provider_of_an_mrn(self, world: World, user: User) -> None:
        provider = world.provider()
        asha = world.dependant(user)
        link = {"dependant_id": asha["id"], "benefit_provider_id": provider["id"], "mrn": "AP-1"}
        mrn = made(user.caller.post("/mrns", link), 201)
        assert_refused(world.admin.delete(path_of(provider)), 409, "BP-604")
        assert world.admin.delete(f"/mrns/{mrn['id']}").status_code == 204
        assert_refused(world.admin.delete(path_of(provider)), 409, "BP-604")
        # That an MRN was issued is no change of the provider's.
        assert made(world.admin.get(path_of(provider)), 200) == provider

    def test_honours_if_match(self, world: World) -> None:
        provider = world.provider()
        assert world.admin.delete(path_of(provider), headers={"if-match": '"1"'}).status_code == 204


class TestListBenefitProviders:
    def test_answers_newest_first(self, world: World) -> None:
        providers = [world.provider() for _ in range(3)]
        response = world.admin.get(PROVIDERS, params={"page_size": 200})
        ids = [item["id"] for item in made(response, 200)["items"]]
        places = [ids.index(provider["id"]) for provider in providers]
        assert places == sorted(places, reverse=True)
        assert response.headers["cache-control"] == "no-store"

    def test_walks_pages_without_gap_while_rows_are_added(self, world: World) -> None:
        providers = [world.provider() for _ in range(5)]
        seen: list[dict[str, Any]] = []
        params: dict[str, Any] = {"page_size": 2}
        while providers[0]["id"] not in [item["id"] for item in seen]:
            page = made(world.admin.get(PROVIDERS, params=params), 200)
            assert 1 <= len(page["items"]) <= 2
            seen += page["items"]
            params["page_token"] = page["next_page_token"]
            world.provider()
        ids = [item["id"] for item in seen]
        assert len(set(ids)) == len(ids)
        assert [item for item in seen if item in providers] == list(reversed(providers))

    def test_rejects_tokens_of_other_lists(self, world: World) -> None:
        world.provider()
        world.provider()
        token = made(world.admin.get(PROVIDERS, params={"page_size": 1}), 200)["next_page_token"]
        assert_refused(world.admin.get("/benefits", params={"page_token": token}), 400, "RQ-113")
        assert_refused(world.admin.get(PROVIDERS, params={"page_token": f"{token}x"}), 400, "RQ-113")

    @pytest.mark.parametrize("query", ["page_size=0", "page_size=a", "status=active", "page_token=a&page_token=a"])
    def test_rejects_wrong_queries(self, world: World, query: str) -> None:
        assert_refused(world.admin.get(f"{PROVIDERS}?{query}"), 422, "RQ-101")
