"""MRNs, as users, partners and operators see them from outside."""

import re
import uuid
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Caller, Platform, User, World, assert_refused, made

FIELDS = {"id", "dependant_id", "benefit_provider_id", "mrn", "user_id", "source", "created_at"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNKNOWN = "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"
REASON = {"reason": "Asked for by the user."}


@pytest.fixture(scope="module")
def platform(world: World) -> Platform:
    """The platform of users whose platform does not matter."""
    return world.platform()


@pytest.fixture
def user(world: World, platform: Platform) -> User:
    """An active user."""
    return world.user(platform)


@pytest.fixture
def provider(world: World) -> dict[str, Any]:
    """An active provider that issues MRNs, and that no other test has."""
    return world.provider()


@pytest.fixture
def asha(world: World, user: User) -> dict[str, Any]:
    """A dependant of the user."""
    return world.dependant(user)


@pytest.fixture(scope="module")
def loner(world: World, platform: Platform) -> User:
    """An active user who gets no MRNs."""
    return world.user(platform)


@pytest.fixture(scope="module")
def lonely(world: World, loner: User) -> dict[str, Any]:
    """A dependant who gets no MRNs."""
    return world.dependant(loner)


@pytest.fixture(scope="module")
def unused(world: World) -> dict[str, Any]:
    """An active provider whose MRNs nobody gets."""
    return world.provider()


def body_of(dependant: dict[str, Any], provider: dict[str, Any], mrn: str = "AP004711") -> dict[str, Any]:
    return {"dependant_id": dependant["id"], "benefit_provider_id": provider["id"], "mrn": mrn}


def linked(
    caller: Caller, dependant: dict[str, Any], provider: dict[str, Any], mrn: str = "AP004711"
) -> dict[str, Any]:
    """Link and return the MRN."""
    return made(caller.post("/mrns", body_of(dependant, provider, mrn)), 201)


def found(caller: Caller, **params: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = made(caller.get("/mrns", params=params), 200)["items"]
    return items


def self_of(user: User) -> dict[str, Any]:
    items: list[dict[str, Any]] = made(user.caller.get(f"{user.path}/dependants"), 200)["items"]
    (found_self,) = [item for item in items if item["relationship"] == "SELF"]
    return found_self


def path_of(mrn: dict[str, Any]) -> str:
    return f"/mrns/{mrn['id']}"


def fields_at_fault(response: httpx.Response) -> list[str]:
    return [detail["field"] for detail in response.json()["error"]["details"]]


class TestLinkMrn:
    def test_links(self, user: User, asha: dict[str, Any], provider: dict[str, Any]) -> None:
        for caller, dependant, source in (
            (user.caller, asha, "USER"),
            (user.platform.partner, self_of(user), "PARTNER"),
        ):
            response = caller.post("/mrns", body_of(dependant, provider, f"AP-{source}"))
            mrn = made(response, 201)
            assert set(mrn) == FIELDS
            assert mrn == {
                **body_of(dependant, provider, f"AP-{source}"),
                "id": mrn["id"],
                "user_id": user.id,
                "source": source,
                "created_at": mrn["created_at"],
            }
            assert uuid.UUID(mrn["id"]).version == 7
            assert TIME.fullmatch(mrn["created_at"])
            assert response.headers["location"] == path_of(mrn)
            assert response.headers["cache-control"] == "no-store"
            for reader in (user.caller, user.platform.partner):
                assert made(reader.get(path_of(mrn)), 200) == mrn

    @pytest.mark.parametrize(
        ("mrn", "kept"),
        [
            ("7", "7"),
            ("A" * 64, "A" * 64),
            ("  AP 47/11-x  ", "AP 47/11-x"),
            ("अ-४७११", "अ-४७११"),
            (" " * 10 + "A" * 64, "A" * 64),
        ],
    )
    def test_trims_and_keeps_numbers_as_they_are(
        self, user: User, asha: dict[str, Any], provider: dict[str, Any], mrn: str, kept: str
    ) -> None:
        assert linked(user.caller, asha, provider, mrn)["mrn"] == kept

    @pytest.mark.parametrize("field", ["dependant_id", "benefit_provider_id", "mrn"])
    @pytest.mark.parametrize("is_null", [False, True])
    def test_requires_three_fields(
        self, loner: User, lonely: dict[str, Any], unused: dict[str, Any], field: str, is_null: bool
    ) -> None:
        body = body_of(lonely, unused)
        del body[field]
        response = loner.caller.post("/mrns", {**body, field: None} if is_null else body)
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("dependant_id", "no-uuid"),
            ("dependant_id", 1),
            ("benefit_provider_id", "no-uuid"),
            ("mrn", ""),
            ("mrn", "   "),
            ("mrn", "A" * 65),
            ("mrn", "A\tB"),
            ("mrn", "A\u200dB"),
            ("mrn", "A\u202eB"),
            ("mrn", "A\u0000"),
            ("mrn", 4711),
            ("id", UNKNOWN),
            ("user_id", UNKNOWN),
            ("source", "PARTNER"),
            ("created_at", "2026-11-20T09:30:00Z"),
            ("note", "urgent"),
        ],
    )
    def test_rejects_wrong_shapes(
        self, loner: User, lonely: dict[str, Any], unused: dict[str, Any], field: str, value: object
    ) -> None:
        response = loner.caller.post("/mrns", {**body_of(lonely, unused), field: value})
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == [field]
        assert found(loner.caller) == []

    def test_rejects_second_mrn_for_pair(self, user: User, asha: dict[str, Any], provider: dict[str, Any]) -> None:
        mrn = linked(user.caller, asha, provider)
        for caller in (user.caller, user.platform.partner):
            for number in ("AP004711", "AP004712"):
                assert_refused(caller.post("/mrns", body_of(asha, provider, number)), 409, "MR-903")
        assert found(user.caller) == [mrn]

    def test_rejects_second_mrn_for_pair_in_another_version(
        self, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        linked(user.caller, asha, provider)
        made(user.caller.patch(f"{user.path}/dependants/{asha['id']}", {"last_name": "Kumar"}), 200)
        assert_refused(user.caller.post("/mrns", body_of(asha, provider, "AP004712")), 409, "MR-903")

    def test_links_to_several_providers(self, world: World, user: User, asha: dict[str, Any]) -> None:
        mrns = [linked(user.caller, asha, world.provider()) for _ in range(2)]
        assert found(user.caller) == list(reversed(mrns))

    def test_rejects_number_of_another_dependant(
        self, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        linked(user.caller, asha, provider)
        for caller in (user.caller, user.platform.partner):
            assert_refused(caller.post("/mrns", body_of(self_of(user), provider)), 409, "MR-904")
            assert_refused(caller.post("/mrns", body_of(self_of(user), provider, " AP004711 ")), 409, "MR-904")
        # Compared case-sensitively.
        linked(user.caller, self_of(user), provider, "ap004711")

    def test_prefers_the_pair_to_the_number(self, user: User, asha: dict[str, Any], provider: dict[str, Any]) -> None:
        linked(user.caller, asha, provider, "AP-1")
        linked(user.caller, self_of(user), provider, "AP-2")
        assert_refused(user.caller.post("/mrns", body_of(asha, provider, "AP-2")), 409, "MR-903")

    def test_takes_the_same_number_elsewhere(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        linked(user.caller, asha, provider)
        # Another provider numbers for itself, and another user's dependant may be the same person.
        linked(user.caller, self_of(user), world.provider())
        other = world.user(user.platform)
        linked(other.caller, self_of(other), provider)

    @pytest.mark.parametrize("fields", [{"status": "inactive"}, {"issues_mrn": False}])
    def test_rejects_unusable_provider(
        self, world: World, loner: User, lonely: dict[str, Any], fields: dict[str, Any]
    ) -> None:
        provider = world.provider(**fields)
        for caller in (loner.caller, loner.platform.partner):
            assert_refused(caller.post("/mrns", body_of(lonely, provider)), 422, "MR-902")
        assert found(loner.caller) == []

    def test_rejects_unknown_provider(self, loner: User, lonely: dict[str, Any]) -> None:
        assert_refused(loner.caller.post("/mrns", body_of(lonely, {"id": UNKNOWN})), 422, "MR-902")

    def test_follows_the_provider_at_once(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        path = f"/benefit_providers/{provider['id']}"
        mrn = linked(user.caller, asha, provider)
        made(world.admin.patch(path, {"status": "inactive"}), 200)
        assert_refused(user.caller.post("/mrns", body_of(self_of(user), provider, "AP-2")), 422, "MR-902")
        # What is linked stays readable.
        assert made(user.caller.get(path_of(mrn)), 200) == mrn
        assert found(user.caller) == [mrn]
        made(world.admin.patch(path, {"status": "active", "mrn_pattern": "B[0-9]+"}), 200)
        assert_refused(user.caller.post("/mrns", body_of(self_of(user), provider, "AP-2")), 422, "MR-905")
        linked(user.caller, self_of(user), provider, "B2")

    @pytest.mark.parametrize("mrn", ["AP00471", "AP0047111", "xAP004711", "AP004711x", "ap004711", "AP 004711"])
    def test_rejects_what_the_pattern_does_not_match_whole(
        self, world: World, loner: User, lonely: dict[str, Any], mrn: str
    ) -> None:
        provider = world.provider(mrn_pattern="AP[0-9]{6}")
        response = loner.caller.post("/mrns", body_of(lonely, provider, mrn))
        assert_refused(response, 422, "MR-905")
        assert fields_at_fault(response) == ["mrn"]
        assert found(loner.caller) == []

    @pytest.mark.parametrize(
        ("pattern", "mrn"),
        [
            ("AP[0-9]{6}", "  AP004711 "),
            ("^AP[0-9]{6}$", "AP004711"),
            ("a|ab", "ab"),
            (r"\d{4}", "4711"),
            ("(?i)ap.*", "AP004711"),
            (r"\p{Devanagari}+", "अआ"),
            ("(a+)+b", "a" * 60 + "b"),
        ],
    )
    def test_matches_the_trimmed_value(
        self, world: World, user: User, asha: dict[str, Any], pattern: str, mrn: str
    ) -> None:
        linked(user.caller, asha, world.provider(mrn_pattern=pattern), mrn)

    def test_survives_patterns_that_would_backtrack(self, world: World, loner: User, lonely: dict[str, Any]) -> None:
        provider = world.provider(mrn_pattern="(a+)+b")
        assert_refused(loner.caller.post("/mrns", body_of(lonely, provider, "a" * 64)), 422, "MR-905")

    def test_rejects_unknown_dependant(self, user: User, provider: dict[str, Any]) -> None:
        for caller in (user.caller, user.platform.partner):
            assert_refused(caller.post("/mrns", body_of({"id": UNKNOWN}, provider)), 404, "DE-501")

    def test_hides_dependants_of_others(self, world: World, asha: dict[str, Any], provider: dict[str, Any]) -> None:
        neighbour, stranger = world.user(world.platform()), world.platform()
        assert_refused(neighbour.caller.post("/mrns", body_of(asha, provider)), 404, "DE-501")
        assert_refused(stranger.partner.post("/mrns", body_of(asha, provider)), 404, "DE-501")

    def test_hides_dependants_of_the_same_platforms_other_users(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        neighbour = world.user(user.platform)
        assert_refused(neighbour.caller.post("/mrns", body_of(asha, provider)), 404, "DE-501")

    def test_rejects_removed_dependant(self, user: User, asha: dict[str, Any], provider: dict[str, Any]) -> None:
        assert user.caller.delete(f"{user.path}/dependants/{asha['id']}").status_code == 204
        for caller in (user.caller, user.platform.partner):
            assert_refused(caller.post("/mrns", body_of(asha, provider)), 409, "DE-506")

    @pytest.mark.parametrize("status", ["inactive", "deceased"])
    def test_takes_dependants_who_are_not_removed(
        self, world: World, user: User, provider: dict[str, Any], status: str
    ) -> None:
        linked(user.caller, world.dependant(user, status=status), provider)

    def test_rejects_partners_for_users_who_are_not_active(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        partner = user.platform.partner
        mrn = linked(partner, asha, provider)
        myself = self_of(user)
        assert user.caller.delete(user.path).status_code == 204
        assert_refused(partner.post("/mrns", body_of(myself, provider, "AP-2")), 409, "US-404")
        # Reads always work.
        assert made(partner.get(path_of(mrn)), 200) == mrn
        assert found(partner, user_id=user.id) == [mrn]
        made(world.admin.post(f"{user.path}/reactivate", REASON), 200)
        linked(partner, myself, provider, "AP-2")

    def test_links_once_for_an_idempotency_key(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        headers = {"idempotency-key": str(uuid.uuid4())}
        first = user.caller.post("/mrns", body_of(asha, provider), headers=headers)
        mrn = made(first, 201)
        made(world.admin.patch(f"/benefit_providers/{provider['id']}", {"status": "inactive"}), 200)
        again = user.caller.post("/mrns", body_of(asha, provider), headers=headers)
        assert made(again, 201) == mrn
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
        response = user.caller.post("/mrns", body_of(asha, provider, "AP-2"), headers=headers)
        assert_refused(response, 422, "RQ-108")

    def test_leaves_the_key_of_a_refused_call_free(
        self, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        headers = {"idempotency-key": str(uuid.uuid4())}
        response = user.caller.post("/mrns", body_of({"id": UNKNOWN}, provider), headers=headers)
        assert_refused(response, 404, "DE-501")
        made(user.caller.post("/mrns", body_of(asha, provider), headers=headers), 201)


class TestAccess:
    def test_rejects_who_may_not_call(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        mrn = linked(user.caller, asha, provider)
        onboarding = world.user(user.platform, is_active=False)
        for method, path, body in (
            ("POST", "/mrns", body_of(asha, provider)),
            ("GET", "/mrns", None),
            ("GET", path_of(mrn), None),
        ):
            assert_refused(world.caller().request(method, path, json=body), 401, "AU-201")
            assert_refused(world.admin.request(method, path, json=body), 403, "AU-204")
            assert_refused(onboarding.caller.request(method, path, json=body), 403, "AU-207")
        for caller in (user.caller, user.platform.partner):
            assert_refused(caller.delete(path_of(mrn)), 403, "AU-204")
        assert found(user.caller) == [mrn]

    @pytest.mark.parametrize("mrn_id", [UNKNOWN, "no-uuid"])
    def test_rejects_unknown_mrns(self, world: World, loner: User, mrn_id: str) -> None:
        for caller in (loner.caller, loner.platform.partner):
            assert_refused(caller.get(f"/mrns/{mrn_id}"), 404, "MR-901")
        assert_refused(world.admin.delete(f"/mrns/{mrn_id}"), 404, "MR-901")

    def test_hides_mrns_of_others(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        mrn = linked(user.caller, asha, provider)
        neighbour, stranger = world.user(user.platform), world.user()
        for caller in (neighbour.caller, stranger.caller, stranger.platform.partner):
            assert_refused(caller.get(path_of(mrn)), 404, "MR-901")
        assert made(user.platform.partner.get(path_of(mrn)), 200) == mrn


class TestListMrns:
    def test_answers_users_their_own_newest_first(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        neighbour = world.user(user.platform)
        linked(neighbour.caller, self_of(neighbour), provider)
        mrns = [linked(user.caller, asha, provider), linked(user.caller, self_of(user), provider, "AP-2")]
        response = user.caller.get("/mrns")
        assert made(response, 200) == {"items": list(reversed(mrns)), "next_page_token": None}
        assert response.headers["cache-control"] == "no-store"
        assert found(user.caller, user_id=user.id) == list(reversed(mrns))
        assert found(user.caller, user_id=user.id.upper()) == list(reversed(mrns))

    def test_filters(self, world: World, user: User, asha: dict[str, Any]) -> None:
        one, other = world.provider(), world.provider()
        myself = self_of(user)
        mrns = [
            linked(user.caller, asha, one, "A-1"),
            linked(user.caller, asha, other, "A-1"),
            linked(user.caller, myself, one, "A-2"),
        ]
        for caller, extra in ((user.caller, {}), (user.platform.partner, {"user_id": user.id})):
            for filters, expected in (
                ({}, [2, 1, 0]),
                ({"dependant_id": asha["id"]}, [1, 0]),
                ({"benefit_provider_id": one["id"]}, [2, 0]),
                ({"mrn": "A-1"}, [1, 0]),
                ({"mrn": " A-1 "}, [1, 0]),
                ({"mrn": "a-1"}, []),
                ({"mrn": "A-"}, []),
                ({"mrn": "A-1", "benefit_provider_id": other["id"]}, [1]),
                ({"mrn": "A-2", "dependant_id": asha["id"]}, []),
                ({"dependant_id": myself["id"], "benefit_provider_id": other["id"]}, []),
                ({"dependant_id": UNKNOWN}, []),
                ({"benefit_provider_id": UNKNOWN}, []),
            ):
                assert found(caller, **extra, **filters) == [mrns[place] for place in expected], filters

    def test_lets_partners_find_by_dependant_or_number(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        partner = user.platform.partner
        neighbour = world.user(user.platform)
        theirs = linked(neighbour.caller, self_of(neighbour), provider)
        mrn = linked(partner, asha, provider)
        assert found(partner, dependant_id=asha["id"]) == [mrn]
        # Two users' may be the same person.
        assert found(partner, mrn="AP004711", benefit_provider_id=provider["id"]) == [mrn, theirs]
        number = {"mrn": "AP004711", "benefit_provider_id": provider["id"]}
        assert found(partner, user_id=neighbour.id, **number) == [theirs]

    @pytest.mark.parametrize(
        "filters", [{}, {"benefit_provider_id": UNKNOWN}, {"mrn": "AP004711"}, {"page_size": "10"}]
    )
    def test_requires_partners_to_say_whose(self, platform: Platform, filters: dict[str, str]) -> None:
        response = platform.partner.get("/mrns", params=filters)
        assert_refused(response, 422, "RQ-101")
        assert fields_at_fault(response) == ["user_id"]

    def test_shows_partners_no_other_platforms_mrns(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        linked(user.caller, asha, provider)
        stranger = world.platform().partner
        assert found(stranger, dependant_id=asha["id"]) == []
        assert found(stranger, mrn="AP004711", benefit_provider_id=provider["id"]) == []
        assert_refused(stranger.get("/mrns", params={"user_id": user.id}), 404, "US-401")
        assert_refused(stranger.get("/mrns", params={"user_id": UNKNOWN}), 404, "US-401")

    def test_rejects_users_who_name_others(self, world: World, user: User, asha: dict[str, Any]) -> None:
        neighbour = world.user(user.platform)
        for named in (user.id, UNKNOWN):
            assert_refused(neighbour.caller.get("/mrns", params={"user_id": named}), 403, "AU-206")
        assert found(neighbour.caller, dependant_id=asha["id"]) == []

    def test_walks_pages(self, world: World, user: User, provider: dict[str, Any]) -> None:
        family = [world.dependant(user) for _ in range(5)]
        mrns = [linked(user.caller, member, provider, f"AP-{place}") for place, member in enumerate(family)]
        for caller in (user.caller, user.platform.partner):
            seen: list[dict[str, Any]] = []
            params: dict[str, Any] = {"page_size": 2, "user_id": user.id}
            while params.get("page_token", "") is not None:
                page = made(caller.get("/mrns", params=params), 200)
                seen += page["items"]
                params["page_token"] = page["next_page_token"]
            assert seen == list(reversed(mrns))

    def test_rejects_tokens_of_other_lists(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        linked(user.caller, asha, provider)
        linked(user.caller, self_of(user), provider, "AP-2")
        neighbour = world.user(user.platform)
        token = made(user.caller.get("/mrns", params={"page_size": 1}), 200)["next_page_token"]
        for caller, params in (
            (neighbour.caller, {}),
            (user.platform.partner, {"user_id": user.id}),
            (user.caller, {"dependant_id": asha["id"]}),
            (user.caller, {"benefit_provider_id": provider["id"]}),
            (user.caller, {"mrn": "AP-2"}),
        ):
            assert_refused(caller.get("/mrns", params={**params, "page_token": token}), 400, "RQ-113")

    @pytest.mark.parametrize(
        "query",
        [
            *("user_id=x", "dependant_id=x", "benefit_provider_id=x", "mrn=", "mrn=%00", f"mrn={'a' * 65}"),
            *("page_size=0", "source=USER", "mrn=a&mrn=b"),
        ],
    )
    def test_rejects_wrong_queries(self, loner: User, query: str) -> None:
        assert_refused(loner.caller.get(f"/mrns?{query}"), 422, "RQ-101")


class TestUnlinkMrn:
    def test_unlinks_and_frees_the_pair(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        mrn = linked(user.caller, asha, provider)
        response = world.admin.delete(path_of(mrn), params={"reason": "Typed wrongly."})
        assert (response.status_code, response.content) == (204, b"")
        for caller in (user.caller, user.platform.partner):
            assert_refused(caller.get(path_of(mrn)), 404, "MR-901")
        assert found(user.caller) == []
        assert_refused(world.admin.delete(path_of(mrn)), 404, "MR-901")
        again = linked(user.caller, asha, provider)
        assert again["id"] != mrn["id"]
        assert found(user.caller) == [again]

    def test_frees_the_number_for_the_family(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        mrn = linked(user.caller, asha, provider)
        assert world.admin.delete(path_of(mrn)).status_code == 204
        linked(user.caller, self_of(user), provider)

    def test_notes_who_and_why(self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]) -> None:
        mrn = linked(user.caller, asha, provider)
        assert world.admin.delete(path_of(mrn), params={"reason": "Typed wrongly."}).status_code == 204
        params = {"entity_type": "mrn", "entity_id": mrn["id"]}
        response = world.admin.get("/audit_logs", params=params)
        rows = made(response, 200)["items"]
        assert [(row["action"], row["actor"]["type"], row["reason"]) for row in rows] == [
            ("mrn.unlink", "ADMIN", "Typed wrongly."),
            ("mrn.link", "USER", None),
        ]
        assert {(row["user_id"], row["platform_id"]) for row in rows} == {(user.id, user.platform.id)}
        assert "AP004711" not in response.text

    def test_works_for_users_who_are_not_active(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]
    ) -> None:
        mrn = linked(user.caller, asha, provider)
        assert user.caller.delete(user.path).status_code == 204
        assert world.admin.delete(path_of(mrn)).status_code == 204

    @pytest.mark.parametrize("query", ["reason=", "reason=a&reason=b", "why=typed", "reason=%00"])
    def test_rejects_wrong_queries(
        self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any], query: str
    ) -> None:
        mrn = linked(user.caller, asha, provider)
        assert_refused(world.admin.delete(f"{path_of(mrn)}?{query}"), 422, "RQ-101")
        assert found(user.caller) == [mrn]


class TestErasedUsers:
    def test_answers_no_numbers(self, world: World, user: User, asha: dict[str, Any], provider: dict[str, Any]) -> None:
        partner = user.platform.partner
        mrn = linked(user.caller, asha, provider)
        assert user.caller.delete(user.path).status_code == 204
        made(world.admin.post(f"{user.path}/erase", REASON), 200)
        erased = {**mrn, "mrn": None}
        assert made(partner.get(path_of(mrn)), 200) == erased
        assert found(partner, user_id=user.id) == [erased]
        assert found(partner, dependant_id=asha["id"]) == [erased]
        # The number no longer finds anybody.
        assert found(partner, mrn="AP004711", benefit_provider_id=provider["id"]) == []
        assert found(partner, mrn="AP004711", user_id=user.id) == []
        # That it was there still counts.
        assert_refused(world.admin.delete(f"/benefit_providers/{provider['id']}"), 409, "BP-604")
        assert_refused(partner.post("/mrns", body_of(asha, provider)), 409, "US-404")
        assert world.admin.delete(path_of(mrn)).status_code == 204
