"""Benefits, as operators manage them and as users see them from outside."""

import re
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.e2e.conftest import Caller, User, World, assert_refused, made

FIELDS = {
    *("id", "benefit_provider_id", "provider", "code", "name", "short_description", "description", "type", "status"),
    *("valid_from", "valid_to", "price_paise", "coverage_paise", "eligible_relationships", "min_age", "max_age"),
    *("platform_ids", "terms_url", "translations", "version", "created_at", "updated_at"),
}
REQUIRED = ("benefit_provider_id", "code", "name", "type", "price_paise")
OPTIONAL = {
    "short_description": "One visit a year, without waiting.",
    "description": "Blood pressure, sugar and a doctor's advice.",
    "valid_from": "2020-01-01",
    "valid_to": "2999-12-31",
    "coverage_paise": 50_000_000,
    "eligible_relationships": ["SELF", "SPOUSE", "SON"],
    "min_age": 18,
    "max_age": 65,
    "terms_url": "https://apollo.example/terms",
    "translations": {
        "hi": {"name": "परामर्श", "short_description": "साल में एक बार।"},
        "kn": {"name": "ಸಮಾಲೋಚನೆ", "short_description": None},
    },
}
TYPES = (
    *("CONSULTATION", "TELECONSULTATION", "DIAGNOSTICS", "PHARMACY", "HEALTH_INSURANCE", "ACCIDENT_INSURANCE"),
    *("WELLNESS", "OTHER"),
)
RELATIONSHIPS = [
    *("SELF", "SPOUSE", "SON", "DAUGHTER", "FATHER", "MOTHER", "FATHER_IN_LAW", "MOTHER_IN_LAW", "BROTHER", "SISTER"),
    *("GRANDPARENT", "WARD", "OTHER"),
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNKNOWN = "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"
ZONE = ZoneInfo("Asia/Kolkata")


@pytest.fixture(scope="module")
def user(world: World) -> User:
    """An active user."""
    return world.user()


@pytest.fixture
def provider(world: World) -> dict[str, Any]:
    """A provider that no other test has."""
    return world.provider()


def body_of(provider: dict[str, Any], /, **fields: Any) -> dict[str, Any]:
    return {
        "benefit_provider_id": provider["id"],
        "code": "annual_check",
        "name": "Annual health check",
        "type": "CONSULTATION",
        "price_paise": 49_900,
        **fields,
    }


def path_of(benefit: dict[str, Any]) -> str:
    return f"/benefits/{benefit['id']}"


def seen_by(caller: Caller, provider: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    """Return the benefits of a provider that a caller finds in the list."""
    response = caller.get("/benefits", params={"benefit_provider_id": provider["id"], **params})
    items: list[dict[str, Any]] = made(response, 200)["items"]
    return items


def assert_seen(caller: Caller, benefit: dict[str, Any], is_seen: bool) -> None:
    """Assert that a caller finds a benefit both in the list and by id, or neither here nor there."""
    listed = seen_by(caller, {"id": benefit["benefit_provider_id"]})
    response = caller.get(path_of(benefit))
    if is_seen:
        assert benefit in listed
        assert made(response, 200) == benefit
    else:
        assert benefit["id"] not in [item["id"] for item in listed]
        assert_refused(response, 404, "BE-701")


def fields_at_fault(response: httpx.Response) -> list[str]:
    return [detail["field"] for detail in response.json()["error"]["details"]]


class TestCreateBenefit:
    def test_adds_a_draft_with_the_required_fields(self, world: World, provider: dict[str, Any]) -> None:
        body = body_of(provider)
        response = world.admin.post("/benefits", body)
        benefit = made(response, 201)
        assert set(benefit) == FIELDS
        assert benefit == {
            **dict.fromkeys(FIELDS),
            **body,
            "id": benefit["id"],
            "provider": {
                name: provider[name] for name in ("id", "display_name", "type", "status", "issues_mrn", "mrn_pattern")
            },
            "status": "draft",
            "eligible_relationships": [],
            "platform_ids": [],
            "translations": {},
            "version": 1,
            "created_at": benefit["created_at"],
            "updated_at": benefit["created_at"],
        }
        assert uuid.UUID(benefit["id"]).version == 7
        assert TIME.fullmatch(benefit["created_at"])
        assert response.headers["location"] == path_of(benefit)
        assert response.headers["etag"] == '"1"'
        assert response.headers["cache-control"] == "no-store"
        assert made(world.admin.get(response.headers["location"]), 200) == benefit

    def test_takes_all_optional_fields(self, world: World, provider: dict[str, Any], user: User) -> None:
        fields = {**OPTIONAL, "platform_ids": [user.platform.id], "status": "active"}
        benefit = made(world.admin.post("/benefits", body_of(provider, **fields)), 201)
        assert {name: benefit[name] for name in fields} == fields
        assert_seen(user.caller, benefit, True)

    def test_takes_null_for_optional_fields(self, world: World, provider: dict[str, Any]) -> None:
        names = (
            *("short_description", "description", "valid_from", "valid_to", "coverage_paise", "min_age", "max_age"),
            "terms_url",
        )
        benefit = made(world.admin.post("/benefits", body_of(provider, **dict.fromkeys(names))), 201)
        assert {benefit[name] for name in names} == {None}

    @pytest.mark.parametrize("kind", TYPES)
    def test_takes_every_type(self, world: World, provider: dict[str, Any], kind: str) -> None:
        assert made(world.admin.post("/benefits", body_of(provider, type=kind)), 201)["type"] == kind

    @pytest.mark.parametrize("status", ["draft", "active", "paused", "archived"])
    def test_takes_every_status(self, world: World, provider: dict[str, Any], status: str) -> None:
        assert made(world.admin.post("/benefits", body_of(provider, status=status)), 201)["status"] == status

    def test_takes_every_relationship(self, world: World, provider: dict[str, Any]) -> None:
        benefit = made(world.admin.post("/benefits", body_of(provider, eligible_relationships=RELATIONSHIPS)), 201)
        assert benefit["eligible_relationships"] == RELATIONSHIPS

    def test_shows_the_provider_as_it_is(self, world: World) -> None:
        provider = world.provider(mrn_pattern="AP[0-9]{6}")
        benefit = made(world.admin.post("/benefits", body_of(provider)), 201)
        assert benefit["provider"]["mrn_pattern"] == "AP[0-9]{6}"
        change = {"display_name": "Apollo Plus", "issues_mrn": False, "mrn_pattern": None, "type": "HOSPITAL"}
        made(world.admin.patch(f"/benefit_providers/{provider['id']}", change), 200)
        after = made(world.admin.get(path_of(benefit)), 200)
        assert after == {**benefit, "provider": {**benefit["provider"], **change}}

    def test_takes_a_benefit_of_an_inactive_provider(self, world: World) -> None:
        provider = world.provider(status="inactive")
        made(world.admin.post("/benefits", body_of(provider)), 201)

    @pytest.mark.parametrize("field", REQUIRED)
    @pytest.mark.parametrize("is_null", [False, True])
    def test_requires_five_fields(self, world: World, provider: dict[str, Any], field: str, is_null: bool) -> None:
        body = body_of(provider)
        del body[field]
        response = world.admin.post("/benefits", {**body, field: None} if is_null else body)
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("benefit_provider_id", "no-uuid"),
            ("type", "consultation"),
            ("status", "inactive"),
            ("status", None),
            ("price_paise", -1),
            ("price_paise", "100"),
            ("price_paise", 10.5),
            ("price_paise", True),
            ("price_paise", 2**70),
            ("coverage_paise", -1),
            ("min_age", -1),
            ("min_age", "18"),
            ("max_age", 1000),
            ("valid_from", "2026-02-30"),
            ("valid_from", "2026-02-28T00:00:00Z"),
            ("valid_to", 20261231),
            ("eligible_relationships", ["COUSIN"]),
            ("eligible_relationships", "SELF"),
            ("eligible_relationships", None),
            ("platform_ids", ["no-uuid"]),
            ("platform_ids", None),
            ("translations", None),
            ("translations", []),
            ("translations", {"hi": "name"}),
            ("translations", {"hi": {}}),
            ("translations", {"hi": {"name": None}}),
            ("translations", {"hi": {"name": "a", "description": "b"}}),
            ("name", ""),
            ("name", "a\u0007b"),
            ("id", UNKNOWN),
            ("version", 1),
            ("provider", {}),
            ("created_at", "2026-11-20T09:30:00Z"),
            ("colour", "green"),
        ],
    )
    def test_rejects_wrong_shapes(self, world: World, provider: dict[str, Any], field: str, value: object) -> None:
        response = world.admin.post("/benefits", body_of(provider, **{field: value}))
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response)[0].split(".")[0] == field

    @pytest.mark.parametrize(
        ("fields", "at_fault"),
        [
            ({"valid_from": "2026-01-02", "valid_to": "2026-01-01"}, "valid_to"),
            ({"valid_from": "2026-01-01", "valid_to": "2026-01-01"}, "valid_to"),
            ({"min_age": 40, "max_age": 39}, "max_age"),
            ({"terms_url": "terms"}, "terms_url"),
            ({"terms_url": "javascript:alert(1)"}, "terms_url"),
            ({"translations": {"no language": {"name": "a"}}}, "translations"),
        ],
    )
    def test_rejects_broken_rules(
        self, world: World, provider: dict[str, Any], fields: dict[str, Any], at_fault: str
    ) -> None:
        response = world.admin.post("/benefits", body_of(provider, **fields))
        assert_refused(response, 422, "BE-702")
        assert fields_at_fault(response) == [at_fault]

    def test_prefers_the_shape_when_a_rule_is_broken_too(self, world: World, provider: dict[str, Any]) -> None:
        response = world.admin.post("/benefits", body_of(provider, terms_url="terms", price_paise=-1))
        assert_refused(response, 422, "RQ-101")

    def test_rejects_unknown_provider(self, world: World) -> None:
        assert_refused(world.admin.post("/benefits", body_of({"id": UNKNOWN})), 422, "BP-602")

    def test_rejects_deleted_provider(self, world: World, provider: dict[str, Any]) -> None:
        assert world.admin.delete(f"/benefit_providers/{provider['id']}").status_code == 204
        assert_refused(world.admin.post("/benefits", body_of(provider)), 422, "BP-602")

    def test_rejects_taken_code_of_the_same_provider(self, world: World, provider: dict[str, Any]) -> None:
        benefit = made(world.admin.post("/benefits", body_of(provider)), 201)
        assert_refused(world.admin.post("/benefits", body_of(provider, name="Other")), 409, "BE-703")
        assert world.admin.delete(path_of(benefit)).status_code == 204
        assert_refused(world.admin.post("/benefits", body_of(provider, name="Other")), 409, "BE-703")
        made(world.admin.post("/benefits", body_of(world.provider())), 201)

    def test_adds_once_for_an_idempotency_key(self, world: World, provider: dict[str, Any]) -> None:
        headers = {"idempotency-key": str(uuid.uuid4())}
        first = world.admin.post("/benefits", body_of(provider), headers=headers)
        again = world.admin.post("/benefits", body_of(provider), headers=headers)
        assert made(again, 201) == made(first, 201)
        assert again.headers["idempotency-replayed"] == "true"
        for name in ("location", "etag"):
            assert again.headers[name] == first.headers[name]
        assert_refused(world.admin.post("/benefits", body_of(provider, code="b"), headers=headers), 422, "RQ-108")


class TestAccess:
    def test_lets_only_operators_write(self, world: World, provider: dict[str, Any], user: User) -> None:
        benefit = world.benefit(provider)
        for method, path, body in (
            ("POST", "/benefits", body_of(provider)),
            ("PATCH", path_of(benefit), {"name": "Other"}),
            ("DELETE", path_of(benefit), None),
        ):
            for caller, status, code in (
                (world.caller(), 401, "AU-201"),
                (user.platform.partner, 403, "AU-204"),
                (user.caller, 403, "AU-204"),
            ):
                assert_refused(caller.request(method, path, json=body), status, code)
        assert seen_by(world.admin, provider) == [benefit]

    def test_lets_only_operators_and_active_users_read(
        self, world: World, provider: dict[str, Any], user: User
    ) -> None:
        benefit = world.benefit(provider)
        onboarding = world.user(user.platform, is_active=False)
        for path in ("/benefits", path_of(benefit)):
            assert_refused(world.caller().get(path), 401, "AU-201")
            assert_refused(user.platform.partner.get(path), 403, "AU-204")
            assert_refused(onboarding.caller.get(path), 403, "AU-207")

    @pytest.mark.parametrize("benefit_id", [UNKNOWN, "no-uuid"])
    def test_rejects_unknown_benefits(self, world: World, user: User, benefit_id: str) -> None:
        path = f"/benefits/{benefit_id}"
        assert_refused(world.admin.get(path), 404, "BE-701")
        assert_refused(user.caller.get(path), 404, "BE-701")
        assert_refused(world.admin.patch(path, {"name": "Other"}), 404, "BE-701")
        assert_refused(world.admin.delete(path), 404, "BE-701")


class TestVisibility:
    @pytest.mark.parametrize(
        ("status", "is_seen"), [("draft", False), ("active", True), ("paused", False), ("archived", False)]
    )
    def test_shows_users_only_the_active(
        self, world: World, provider: dict[str, Any], user: User, status: str, is_seen: bool
    ) -> None:
        benefit = world.benefit(provider, status=status)
        assert_seen(user.caller, benefit, is_seen)
        assert_seen(world.admin, benefit, True)

    def test_follows_the_provider(self, world: World, provider: dict[str, Any], user: User) -> None:
        benefit = world.benefit(provider)
        assert_seen(user.caller, benefit, True)
        made(world.admin.patch(f"/benefit_providers/{provider['id']}", {"status": "inactive"}), 200)
        hidden = made(world.admin.get(path_of(benefit)), 200)
        assert hidden["provider"]["status"] == "inactive"
        assert_seen(user.caller, hidden, False)
        assert_seen(world.admin, hidden, True)
        made(world.admin.patch(f"/benefit_providers/{provider['id']}", {"status": "active"}), 200)
        assert_seen(user.caller, benefit, True)

    def test_shows_what_is_offered_to_the_platform(self, world: World, provider: dict[str, Any], user: User) -> None:
        other = world.user()
        for platforms, is_seen, is_seen_by_other in (
            ([], True, True),
            ([user.platform.id], True, False),
            ([other.platform.id], False, True),
            ([other.platform.id, user.platform.id], True, True),
            ([UNKNOWN], False, False),
        ):
            benefit = world.benefit(provider, platform_ids=platforms)
            assert_seen(user.caller, benefit, is_seen)
            assert_seen(other.caller, benefit, is_seen_by_other)
            assert_seen(world.admin, benefit, True)

    def test_follows_a_change_of_platforms(self, world: World, provider: dict[str, Any], user: User) -> None:
        benefit = world.benefit(provider)
        narrowed = made(world.admin.patch(path_of(benefit), {"platform_ids": [UNKNOWN]}), 200)
        assert_seen(user.caller, narrowed, False)
        widened = made(world.admin.patch(path_of(benefit), {"platform_ids": []}), 200)
        assert_seen(user.caller, widened, True)

    def test_counts_both_days_in_the_products_zone(self, world: World, provider: dict[str, Any], user: User) -> None:
        for first, last, is_seen in (
            (None, None, True),
            (0, None, True),
            (None, 0, True),
            (-1, 0, True),
            (0, 1, True),
            (1, None, False),
            (None, -1, False),
            (1, 2, False),
            (-2, -1, False),
        ):
            for today in _days():
                benefit = world.benefit(provider, valid_from=_day_after(today, first), valid_to=_day_after(today, last))
                seen = [item["id"] for item in seen_by(user.caller, provider)]
                status = user.caller.get(path_of(benefit)).status_code
            assert (benefit["id"] in seen, status) == (is_seen, 200 if is_seen else 404), (first, last)
            assert_seen(world.admin, benefit, True)

    def test_filters_by_neither_age_nor_relationship(self, world: World, provider: dict[str, Any], user: User) -> None:
        benefit = world.benefit(provider, min_age=99, max_age=100, eligible_relationships=["GRANDPARENT"])
        assert_seen(user.caller, benefit, True)


def _days() -> Iterator[datetime]:
    """Yield today in the product's zone, once more if a new day began while it was used."""
    today = datetime.now(ZONE)
    yield today
    if datetime.now(ZONE).date() != today.date():
        yield datetime.now(ZONE)


def _day_after(today: datetime, days: int | None) -> str | None:
    return None if days is None else (today.date() + timedelta(days=days)).isoformat()


class TestListBenefits:
    def test_answers_newest_first(self, world: World, provider: dict[str, Any], user: User) -> None:
        benefits = [world.benefit(provider) for _ in range(3)]
        for caller in (world.admin, user.caller):
            response = caller.get("/benefits", params={"benefit_provider_id": provider["id"]})
            answer = made(response, 200)
            assert answer == {"items": list(reversed(benefits)), "next_page_token": None}
            assert response.headers["cache-control"] == "no-store"

    def test_filters_by_type(self, world: World, provider: dict[str, Any], user: User) -> None:
        benefits = {kind: world.benefit(provider, type=kind) for kind in TYPES}
        for caller in (world.admin, user.caller):
            for kind, benefit in benefits.items():
                assert seen_by(caller, provider, type=kind) == [benefit]

    def test_filters_by_provider(self, world: World, user: User) -> None:
        one, other = world.provider(), world.provider()
        benefit = world.benefit(one)
        world.benefit(other)
        assert seen_by(user.caller, one) == [benefit]
        assert seen_by(user.caller, {"id": UNKNOWN}) == []

    @pytest.mark.parametrize(
        ("q", "names"),
        [
            ("check", ["Annual Health CHECK"]),
            ("HEALTH CH", ["Annual Health CHECK"]),
            ("%", ["100% off_season"]),
            ("0%", ["100% off_season"]),
            ("_", ["100% off_season"]),
            ("f_s", ["100% off_season"]),
            ("a_n", []),
            ("A%h", []),
            ("ÜBUNG", ["Straßen-Übung"]),
            ("\\", []),
            ("परा", ["परामर्श"]),
            ("n", ["Straßen-Übung", "100% off_season", "Annual Health CHECK"]),
        ],
    )
    def test_finds_parts_of_names(self, world: World, user: User, q: str, names: list[str]) -> None:
        provider = world.provider()
        for name in ("Annual Health CHECK", "100% off_season", "Straßen-Übung", "परामर्श"):
            world.benefit(provider, name=name, description="check % _")
        for caller in (world.admin, user.caller):
            assert [item["name"] for item in seen_by(caller, provider, q=q)] == names

    def test_combines_filters(self, world: World, provider: dict[str, Any], user: User) -> None:
        benefit = world.benefit(provider, name="Annual check", type="WELLNESS")
        world.benefit(provider, name="Annual check", type="PHARMACY")
        world.benefit(provider, name="Monthly visit", type="WELLNESS")
        assert seen_by(user.caller, provider, q="annual", type="WELLNESS") == [benefit]

    def test_walks_pages_of_what_the_user_sees(self, world: World, provider: dict[str, Any], user: User) -> None:
        benefits = [world.benefit(provider, status=status) for status in ("active", "draft") * 5]
        expected = [benefit["id"] for benefit in reversed(benefits) if benefit["status"] == "active"]
        seen: list[str] = []
        params: dict[str, Any] = {"benefit_provider_id": provider["id"], "page_size": 2}
        while params.get("page_token", "") is not None:
            page = made(user.caller.get("/benefits", params=params), 200)
            seen += [item["id"] for item in page["items"]]
            params["page_token"] = page["next_page_token"]
            world.benefit(provider)
        assert seen == expected

    def test_rejects_tokens_of_other_lists(self, world: World, provider: dict[str, Any], user: User) -> None:
        world.benefit(provider)
        world.benefit(provider)
        params = {"benefit_provider_id": provider["id"], "page_size": 1}
        token = made(user.caller.get("/benefits", params=params), 200)["next_page_token"]
        other = world.user(user.platform)
        for caller, filters in (
            (other.caller, {"benefit_provider_id": provider["id"]}),
            (world.admin, {"benefit_provider_id": provider["id"]}),
            (user.caller, {}),
            (user.caller, {"benefit_provider_id": provider["id"], "q": "a"}),
            (user.caller, {"benefit_provider_id": provider["id"], "type": "OTHER"}),
        ):
            response = caller.get("/benefits", params={**filters, "page_token": token})
            assert_refused(response, 400, "RQ-113")

    @pytest.mark.parametrize(
        "query",
        [
            *("type=consultation", "type=", "benefit_provider_id=x", "q=", "q=%00", "q=a&q=b", "page_size=0"),
            *("status=active", "platform_id=x", "provider=x"),
        ],
    )
    def test_rejects_wrong_queries(self, world: World, user: User, query: str) -> None:
        for caller in (world.admin, user.caller):
            assert_refused(caller.get(f"/benefits?{query}"), 422, "RQ-101")


class TestUpdateBenefit:
    def test_changes_all_but_the_provider(self, world: World, provider: dict[str, Any]) -> None:
        benefit = world.benefit(provider, status="draft")
        fields = {
            **OPTIONAL,
            "code": "other_code",
            "name": "Other name",
            "type": "WELLNESS",
            "status": "active",
            "price_paise": 1,
            "platform_ids": [UNKNOWN],
        }
        response = world.admin.patch(path_of(benefit), fields)
        changed = made(response, 200)
        assert changed == {**benefit, **fields, "version": 2, "updated_at": changed["updated_at"]}
        assert changed["updated_at"] > benefit["updated_at"]
        assert response.headers["etag"] == '"2"'
        assert made(world.admin.get(path_of(benefit)), 200) == changed

    def test_tells_absent_from_null(self, world: World, provider: dict[str, Any]) -> None:
        benefit = world.benefit(provider, **OPTIONAL)
        cleared = dict.fromkeys(("valid_to", "coverage_paise", "min_age", "terms_url", "description"))
        changed = made(world.admin.patch(path_of(benefit), cleared), 200)
        assert changed == {**benefit, **cleared, "version": 2, "updated_at": changed["updated_at"]}

    def test_replaces_translations_and_lists_whole(self, world: World, provider: dict[str, Any]) -> None:
        benefit = world.benefit(provider, **OPTIONAL)
        fields = {"translations": {"ta": {"name": "ஆலோசனை", "short_description": None}}, "eligible_relationships": []}
        changed = made(world.admin.patch(path_of(benefit), fields), 200)
        assert {name: changed[name] for name in fields} == fields
        assert made(world.admin.patch(path_of(benefit), {"translations": {}}), 200)["translations"] == {}

    @pytest.mark.parametrize(
        "field",
        ["code", "name", "type", "status", "price_paise", "eligible_relationships", "platform_ids", "translations"],
    )
    def test_rejects_null_for_what_is_always_there(self, world: World, provider: dict[str, Any], field: str) -> None:
        response = world.admin.patch(path_of(world.benefit(provider)), {field: None})
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]

    def test_answers_the_present_version_when_nothing_changes(self, world: World, provider: dict[str, Any]) -> None:
        benefit = world.benefit(provider, **OPTIONAL)
        for body in ({}, {"name": benefit["name"]}, {name: benefit[name] for name in OPTIONAL}):
            response = world.admin.patch(path_of(benefit), body)
            assert made(response, 200) == benefit
            assert response.headers["etag"] == '"1"'
        params = {"entity_type": "benefit", "entity_id": benefit["id"]}
        rows = made(world.admin.get("/audit_logs", params=params), 200)["items"]
        assert [row["action"] for row in rows] == ["benefit.create"]

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"id": UNKNOWN}, "RQ-101"),
            ({"benefit_provider_id": UNKNOWN}, "RQ-101"),
            ({"provider": {}}, "RQ-101"),
            ({"version": 2}, "RQ-101"),
            ({"price_paise": -1}, "RQ-101"),
            ({"terms_url": "?"}, "BE-702"),
            ({"valid_to": "2019-12-31"}, "BE-702"),
            ({"valid_from": "2999-12-31"}, "BE-702"),
            ({"max_age": 17}, "BE-702"),
            ({"min_age": 66}, "BE-702"),
        ],
    )
    def test_rejects_broken_rules(
        self, world: World, provider: dict[str, Any], body: dict[str, Any], code: str
    ) -> None:
        benefit = world.benefit(provider, **OPTIONAL)
        assert_refused(world.admin.patch(path_of(benefit), body), 422, code)
        assert made(world.admin.get(path_of(benefit)), 200) == benefit

    def test_rejects_taken_code(self, world: World, provider: dict[str, Any]) -> None:
        one, other = world.benefit(provider), world.benefit(provider)
        assert_refused(world.admin.patch(path_of(other), {"code": one["code"]}), 409, "BE-703")

    @pytest.mark.parametrize("header", ['"2"', 'W/"1"', "1", "", '"one"'])
    def test_rejects_other_versions(self, world: World, provider: dict[str, Any], header: str) -> None:
        benefit = world.benefit(provider)
        for method in ("PATCH", "DELETE"):
            response = world.admin.request(
                method, path_of(benefit), json={"name": "Other"}, headers={"if-match": header}
            )
            assert_refused(response, 412, "RQ-110")
        assert made(world.admin.get(path_of(benefit)), 200) == benefit

    @pytest.mark.parametrize("header", ['"1"', "*"])
    def test_honours_if_match(self, world: World, provider: dict[str, Any], header: str) -> None:
        benefit = world.benefit(provider)
        response = world.admin.patch(path_of(benefit), {"name": "Other"}, headers={"if-match": header})
        assert made(response, 200)["version"] == 2


class TestDeleteBenefit:
    def test_archives(self, world: World, provider: dict[str, Any], user: User) -> None:
        benefit = world.benefit(provider)
        response = world.admin.delete(path_of(benefit))
        assert (response.status_code, response.content) == (204, b"")
        archived = made(world.admin.get(path_of(benefit)), 200)
        assert archived == {**benefit, "status": "archived", "version": 2, "updated_at": archived["updated_at"]}
        assert_seen(user.caller, archived, False)
        assert_seen(world.admin, archived, True)

    def test_changes_nothing_a_second_time(self, world: World, provider: dict[str, Any]) -> None:
        benefit = world.benefit(provider)
        assert world.admin.delete(path_of(benefit)).status_code == 204
        archived = made(world.admin.get(path_of(benefit)), 200)
        assert world.admin.delete(path_of(benefit)).status_code == 204
        assert made(world.admin.get(path_of(benefit)), 200) == archived

    def test_honours_if_match(self, world: World, provider: dict[str, Any]) -> None:
        benefit = world.benefit(provider)
        assert world.admin.delete(path_of(benefit), headers={"if-match": '"1"'}).status_code == 204
