"""The audit log: who did what, in all services, unchangeable and complete."""

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import World, assert_refused, made
from tests.e2e.samples import ACCOUNT, Samples, make_samples
from tests.e2e.writes import POSTS, open_write

FIELDS = {
    "id",
    "service",
    "sequence",
    "occurred_at",
    "actor",
    "action",
    "entity_type",
    "entity_id",
    "user_id",
    "platform_id",
    "changes",
    "reason",
    "request_id",
    "source_address",
    "user_agent",
    "count",
}
SERVICES = ("identity", "catalogue", "records")
SERVICE_OF = {"platforms": "identity", "users": "identity", "benefit_providers": "catalogue", "benefits": "catalogue"}
# A count that follows others within their minute is told when it is over; all else comes within seconds.
WAIT_S = 75.0
CHANGES = {
    "/platforms/{platform_id}": ("name", "Rides"),
    "/users/{user_id}": ("city", "Pune"),
    "/users/{user_id}/dependants/{dependant_id}": ("last_name", "Kumar"),
    "/benefit_providers/{benefit_provider_id}": ("display_name", "Apollo"),
    "/benefits/{benefit_id}": ("name", "Consultation"),
    "/users/{user_id}/accounts/{account_id}": ("holder_name", "Kumar"),
}


@pytest.fixture(scope="module")
def samples(world: World) -> Samples:
    return make_samples(world)


def rows_of(world: World, **filters: Any) -> list[dict[str, Any]]:
    """Return all rows that match, newest first."""
    rows, token = [], None
    while True:
        params = {"page_size": 200, **filters, **({"page_token": token} if token else {})}
        page = made(world.admin.get("/audit_logs", params=params), 200)
        rows += page["items"]
        token = page["next_page_token"]
        if token is None:
            return rows


def row_of(world: World, request_id: str, **filters: Any) -> dict[str, Any]:
    """Return the only row of a request among those that match."""
    (row,) = [row for row in rows_of(world, **filters) if row["request_id"] == request_id]
    return row


def wait_for(find: Callable[[], Any]) -> Any:
    """Return what is found, as soon as it is."""
    deadline = time.monotonic() + WAIT_S
    while not (found := find()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


class TestChanges:
    @pytest.mark.parametrize("path", POSTS)
    def test_tells_of_every_post(self, world: World, path: str) -> None:
        write = open_write(world, path)
        request_id = world.unique("r")
        headers = {"x-request-id": request_id, "user-agent": "test/1.0"}
        done = write.caller.post(write.path, write.body, headers=headers)
        assert done.is_success, done.text
        row = row_of(world, request_id, entity_id=done.json()["id"])
        assert row.keys() == FIELDS
        assert (row["count"], row["user_agent"]) == (1, "test/1.0")
        assert row["source_address"] in ("127.0.0.1", "::1")
        is_admin = write.caller.headers.keys() == {"admin-api-key"}
        assert row["actor"]["type"] == ("ADMIN" if is_admin else "USER")
        assert row["reason"] == write.body.get("reason")
        assert row["changes"]

    @pytest.mark.parametrize("path", POSTS)
    def test_tells_nothing_of_refused_posts(self, world: World, path: str) -> None:
        write = open_write(world, path)
        request_id = world.unique("r")
        start = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
        refused = write.caller.post(write.path, write.refused[0], headers={"x-request-id": request_id})
        assert refused.is_error
        rows = rows_of(world, **{"from": start})
        # A link's check lets the catalogue remember that the provider issues numbers, whatever becomes of the link.
        told = [row for row in rows if row["request_id"] == request_id and row["actor"]["type"] != "SYSTEM"]
        assert told == []

    @pytest.mark.parametrize("path", CHANGES)
    def test_tells_of_every_patch_that_changes_something(self, world: World, samples: Samples, path: str) -> None:
        field, word = CHANGES[path]
        where, ids = path.format(**samples.ids), samples.ids
        caller = samples.callers["U" if path.startswith("/users/{user_id}/") else "A"]
        entity_id = ids[path.rpartition("{")[2].rstrip("}")]
        request_id, nothing = world.unique("r"), world.unique("r")
        value = world.unique(word)
        made(caller.patch(where, {field: value}, headers={"x-request-id": request_id}), 200)
        made(caller.patch(where, {field: value}, headers={"x-request-id": nothing}), 200)
        made(caller.patch(where, {}, headers={"x-request-id": nothing}), 200)
        row = row_of(world, request_id, entity_id=entity_id)
        assert row["action"].endswith(".update")
        assert field in row["changes"]
        assert nothing not in [row["request_id"] for row in rows_of(world, entity_id=entity_id)]

    def test_tells_of_every_delete_once(self, world: World) -> None:
        samples = make_samples(world)
        ids, user = samples.ids, samples.user
        empty = made(world.admin.post("/platforms", {"name": world.unique("Rides")}), 201)["id"]
        unused = world.provider()["id"]
        for caller, path, again in (
            (world.admin, f"/mrns/{ids['mrn_id']}", 404),
            (user.caller, f"{user.path}/accounts/{ids['account_id']}", 404),
            (user.caller, f"{user.path}/dependants/{ids['dependant_id']}", 409),
            (world.admin, f"/benefits/{ids['benefit_id']}", 204),
            (world.admin, f"/benefit_providers/{unused}", 404),
            (world.admin, f"/platforms/{user.platform.id}/api_keys/{user.platform.key_id}", 204),
            (world.admin, user.path, 204),
            (world.admin, f"/platforms/{empty}", 204),
        ):
            request_id, second = world.unique("r"), world.unique("r")
            assert caller.delete(path, headers={"x-request-id": request_id}).status_code == 204
            assert caller.delete(path, headers={"x-request-id": second}).status_code == again
            entity_id = path.rpartition("/")[2]
            assert row_of(world, request_id, entity_id=entity_id)["changes"]
            assert second not in [row["request_id"] for row in rows_of(world, entity_id=entity_id)]

    def test_tells_old_and_new_of_states_and_settings_alone(self, world: World) -> None:
        platform = world.platform()
        path = f"/platforms/{platform.id}"
        made(world.admin.patch(path, {"token_ttl_seconds": 600, "contact_email": "ops@example.org"}), 200)
        user = world.user(platform)
        made(user.caller.patch(user.path, {"first_name": "Asha", "email": "asha@example.org"}), 200)
        assert world.admin.delete(user.path).status_code == 204
        (settings,) = rows_of(world, entity_id=platform.id, action="platform.update")
        assert settings["changes"]["token_ttl_seconds"] == [3600, 600]
        (profile,) = rows_of(world, entity_id=user.id, action="user.update")
        assert profile["changes"] == {"first_name": None, "email": None}
        (left,) = rows_of(world, entity_id=user.id, action="user.deactivate")
        assert left["changes"]["status"] == ["active", "deactivated"]

    def test_holds_no_personal_data(self, world: World) -> None:
        user = world.user(first_name="Zebulon", last_name="Quxley", email="zebulon@example.org")
        made(user.caller.post(f"{user.path}/accounts", {**ACCOUNT, "holder_name": "Zebulon Quxley"}), 201)
        person = world.dependant(user, first_name="Ozymandia", phone_number="+919812345678")
        link = {"dependant_id": person["id"], "benefit_provider_id": world.provider()["id"], "mrn": "MRN-ZQX-1"}
        made(user.caller.post("/mrns", link), 201)
        told = str(rows_of(world, user_id=user.id))
        for word in (
            "Zebulon",
            "Quxley",
            "Ozymandia",
            "MRN-ZQX",
            "9812345678",
            user.phone_number,
            ACCOUNT["account_number"],
            "1990-05-17",
            user.token,
            user.platform.secret,
        ):
            assert word not in told

    def test_names_who_acted(self, world: World) -> None:
        user = world.user()
        (signed_in,) = rows_of(world, entity_id=user.id, action="user.create")
        assert signed_in["actor"] == {"type": "PARTNER", "id": user.platform.key_id}
        (onboarded,) = rows_of(world, entity_id=user.id, action="user.complete_onboarding")
        assert onboarded["actor"] == {"type": "USER", "id": user.id}
        (opened,) = rows_of(world, entity_id=user.platform.id, action="platform.create")
        assert opened["actor"]["type"] == "ADMIN"
        assert opened["actor"]["id"]
        family = made(user.caller.get(f"{user.path}/dependants"), 200)["items"]
        (self_row,) = rows_of(world, entity_id=family[0]["id"])
        assert self_row["actor"]["type"] == "SYSTEM"
        for row in (signed_in, onboarded, self_row):
            assert (row["user_id"], row["platform_id"]) == (user.id, user.platform.id)

    def test_keeps_the_reason(self, world: World, samples: Samples) -> None:
        provider = world.provider()["id"]
        link = {"dependant_id": samples.ids["dependant_id"], "benefit_provider_id": provider, "mrn": "MRN-7"}
        mrn = made(samples.user.caller.post("/mrns", link), 201)["id"]
        assert world.admin.delete(f"/mrns/{mrn}", params={"reason": "typed wrongly"}).status_code == 204
        (unlinked,) = rows_of(world, entity_id=mrn, action="mrn.unlink")
        assert unlinked["reason"] == "typed wrongly"

    def test_writes_no_row_for_tokens_of_existing_users(self, world: World) -> None:
        user = world.user()
        before = [row["id"] for row in rows_of(world, user_id=user.id)]
        world.token(user.platform, user.phone_number)
        assert [row["id"] for row in rows_of(world, user_id=user.id)] == before

    def test_tells_of_reading_a_person(self, world: World, samples: Samples) -> None:
        user, person = samples.user, samples.ids["dependant_id"]
        for path, entity_type in (
            (user.path, "user"),
            (f"{user.path}/dependants", "dependant"),
            (f"{user.path}/dependants/{person}", "dependant"),
            (f"{user.path}/dependants/{person}/versions", "dependant"),
        ):
            request_id, own = world.unique("r"), world.unique("r")
            made(world.admin.get(path, headers={"x-request-id": request_id}), 200)
            made(user.caller.get(path, headers={"x-request-id": own}), 200)
            row = row_of(world, request_id, user_id=user.id)
            assert (row["entity_type"], row["actor"]["type"], row["changes"]) == (entity_type, "ADMIN", {})
            # What users read of themselves is nobody's business.
            assert own not in [row["request_id"] for row in rows_of(world, user_id=user.id)]


class TestFilters:
    @pytest.fixture
    def user_rows(self, world: World, samples: Samples) -> list[dict[str, Any]]:
        return rows_of(world, user_id=samples.user.id)

    def test_user_id_finds_the_rows_of_all_services(self, samples: Samples, user_rows: list[dict[str, Any]]) -> None:
        assert {row["service"] for row in user_rows} == {"identity", "records"}
        assert {row["user_id"] for row in user_rows} == {samples.user.id}
        actions = {row["action"] for row in user_rows}
        assert actions >= {"user.create", "user.complete_onboarding", "dependant.create", "account.create", "mrn.link"}

    def test_entity_finds_one_thing(self, world: World, samples: Samples) -> None:
        benefit = samples.ids["benefit_id"]
        rows = rows_of(world, entity_type="benefit", entity_id=benefit)
        assert {(row["service"], row["entity_type"], row["entity_id"]) for row in rows} == {
            ("catalogue", "benefit", benefit)
        }
        assert rows_of(world, entity_type="platform", entity_id=benefit) == []

    def test_actor_id_finds_what_somebody_did(self, world: World, samples: Samples) -> None:
        rows = rows_of(world, actor_id=samples.user.id)
        assert {row["actor"]["id"] for row in rows} == {samples.user.id}
        assert {row["service"] for row in rows} == {"identity", "records"}
        (created,) = rows_of(world, actor_id=samples.user.platform.key_id)
        assert created["action"] == "user.create"

    def test_platform_id_finds_its_users_and_keys(self, world: World, samples: Samples) -> None:
        rows = rows_of(world, platform_id=samples.user.platform.id)
        assert {row["platform_id"] for row in rows} == {samples.user.platform.id}
        assert {row["entity_type"] for row in rows} >= {"platform", "api_key", "user", "dependant", "account", "mrn"}

    def test_action_and_others_together(self, world: World, samples: Samples) -> None:
        rows = rows_of(world, action="dependant.create", user_id=samples.user.id)
        assert len(rows) == 2
        assert {row["action"] for row in rows} == {"dependant.create"}
        assert rows_of(world, action="dependant.create", user_id=samples.user.id, actor_id=samples.user.id)
        assert rows_of(world, action="no.such_action", user_id=samples.user.id) == []

    def test_from_and_to_cut_the_time(self, world: World, samples: Samples, user_rows: list[dict[str, Any]]) -> None:
        moments = sorted(row["occurred_at"] for row in user_rows)
        middle = moments[len(moments) // 2]
        late = rows_of(world, user_id=samples.user.id, **{"from": middle})
        early = rows_of(world, user_id=samples.user.id, to=middle)
        assert late
        assert early
        assert all(row["occurred_at"] >= middle for row in late)
        assert all(row["occurred_at"] < middle for row in early)
        assert [row["id"] for row in late + early][-len(user_rows) :] == [row["id"] for row in user_rows]
        zoned = datetime.fromisoformat(middle).astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
        assert rows_of(world, user_id=samples.user.id, to=zoned) == early

    @pytest.mark.parametrize(
        "query",
        [
            {"user_id": "1"},
            {"platform_id": "rides"},
            {"entity_id": "1"},
            {"from": "yesterday"},
            {"to": "2026-11-20"},
            {"service": "identity"},
            {"code": "AU-202"},
            {"sequence": "1"},
        ],
    )
    def test_refuses_others(self, world: World, query: dict[str, str]) -> None:
        assert_refused(world.admin.get("/audit_logs", params=query), 422, "RQ-101")


class TestOrder:
    def test_is_newest_first_across_services_and_pages(self, world: World, samples: Samples) -> None:
        whole = rows_of(world, platform_id=samples.user.platform.id)
        moments = [row["occurred_at"] for row in whole]
        assert moments == sorted(moments, reverse=True)
        assert {row["service"] for row in whole} == {"identity", "records"}
        rows, token = [], None
        while True:
            params = {
                "platform_id": samples.user.platform.id,
                "page_size": 1,
                **({"page_token": token} if token else {}),
            }
            page = made(world.admin.get("/audit_logs", params=params), 200)
            rows += page["items"]
            token = page["next_page_token"]
            if token is None:
                break
        assert [row["id"] for row in rows] == [row["id"] for row in whole]


class TestRefusals:
    """Refused requests are counted by code, address, route and minute, and told a moment later."""

    @pytest.fixture
    def stranger(self, world: World) -> Iterator[httpx.Client]:
        """A client with an address of its own, where the machine has more than one."""
        address = f"127.{secrets.randbelow(250) + 1}.{secrets.randbelow(250) + 1}.{secrets.randbelow(250) + 1}"
        try:
            with socket.socket() as probe:
                probe.bind((address, 0))
        except OSError:
            address = "127.0.0.1"
        transport = httpx.HTTPTransport(local_address=address)
        with httpx.Client(base_url=world.system.url, transport=transport) as client:
            yield client

    def test_tells_of_refused_authentications_and_authorisations(
        self, world: World, samples: Samples, stranger: httpx.Client
    ) -> None:
        guess, request_id, agent = world.unique("guess"), world.unique("r"), world.unique("agent")
        partner, user = samples.callers["P"].headers, samples.user.caller.headers
        foreign = {"phone_number": world.phone_number(), "platform_id": world.platform().id}
        other, gone = world.user(), world.user()
        assert gone.caller.delete(gone.path).status_code == 204
        departed = {"phone_number": gone.phone_number, "platform_id": gone.platform.id}
        refusals: list[tuple[str, str, str, dict[str, Any]]] = [
            ("AU-201", "GET /benefits", "/benefits", {}),
            ("AU-202", "GET /benefits", f"/benefits?{guess}", {"headers": {"admin-api-key": guess}}),
            ("AU-202", "PATCH /users/{user_id}", other.path, {"headers": {"api-key": guess}}),
            ("AU-204", "GET /audit_logs/verify", "/audit_logs/verify", {"headers": partner}),
            ("AU-205", "GET /mrns", "/mrns", {"headers": {**partner, **user}}),
            ("AU-206", "GET /users/{user_id}", other.path, {"headers": user}),
            ("AU-206", "POST /auth/token", "/auth/token", {"headers": partner, "json": foreign}),
            ("AU-206", "GET /mrns", f"/mrns?user_id={other.id}", {"headers": user}),
            ("US-406", "POST /auth/token", "/auth/token", {"headers": gone.platform.partner.headers, "json": departed}),
        ]
        for code, route, path, arguments in refusals:
            headers = {**arguments.get("headers", {}), "x-request-id": request_id, "user-agent": agent}
            for _ in range(3):
                response = stranger.request(route.split(" ")[0], path, **{**arguments, "headers": headers})
                assert response.json()["error"]["code"] == code

        def told() -> dict[tuple[str, str], int]:
            counts: dict[tuple[str, str], int] = {}
            for row in rows_of(world, action="request.refuse", **{"from": start}):
                if row["request_id"] == request_id:
                    key = (row["changes"]["code"][1], row["changes"]["route"][1])
                    counts[key] = counts.get(key, 0) + row["count"]
                    assert row.keys() == FIELDS
                    assert (row["service"], row["user_agent"]) == ("identity", agent)
                    assert row["source_address"].startswith("127.")
                    assert guess not in str(row)
            return counts

        start = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
        expected = {(code, route): 3 for code, route, _, _ in refusals}
        wait_for(lambda: told() == expected)

    def test_tells_nothing_of_other_refusals(self, world: World, stranger: httpx.Client) -> None:
        request_id = world.unique("r")
        for path in ("/nothing", "/platforms/1", "/platforms?page_size=0"):
            headers = {**world.admin.headers, "x-request-id": request_id}
            assert stranger.get(path, headers=headers).status_code in (404, 422)
        # What is refused after them is told after them.
        last = world.unique("r")
        stranger.get("/platforms", headers={"x-request-id": last})
        start = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()

        def told() -> set[str]:
            return {row["request_id"] for row in rows_of(world, action="request.refuse", **{"from": start})}

        wait_for(lambda: last in told())
        assert request_id not in told()


class TestChain:
    def test_numbers_rows_within_moments(self, world: World) -> None:
        user = world.user()
        sealed = wait_for(
            lambda: (
                (rows := rows_of(world, user_id=user.id)) and all(row["sequence"] is not None for row in rows) and rows
            )
        )
        by_service: dict[str, list[int]] = {}
        for row in sealed:
            by_service.setdefault(row["service"], []).append(row["sequence"])
        assert by_service.keys() == {"identity", "records"}
        for sequences in by_service.values():
            assert len(set(sequences)) == len(sequences)
            assert min(sequences) >= 1

    def test_is_intact_in_all_services(self, world: World) -> None:
        items = made(world.admin.get("/audit_logs/verify"), 200)["items"]
        assert {item["service"] for item in items} == set(SERVICES)
        for item in items:
            assert item.keys() == {
                "service",
                "rows",
                "head_hash",
                "intact",
                "first_broken_sequence",
                "next_from_sequence",
            }
            assert item["intact"] is True
            assert item["first_broken_sequence"] is None
            assert item["rows"] >= 0

    @pytest.mark.parametrize("service", SERVICES)
    def test_verifies_one_service_from_a_sequence(self, world: World, service: str) -> None:
        world.benefit(world.provider())
        world.user()

        def verify(**query: Any) -> dict[str, Any]:
            params = {"service": service, **query}
            (item,) = made(world.admin.get("/audit_logs/verify", params=params), 200)["items"]
            assert (item["service"], item["intact"]) == (service, True)
            found: dict[str, Any] = item
            return found

        wait_for(lambda: verify()["rows"] >= 2)
        whole = verify()
        rest = verify(from_sequence=2)
        assert rest["rows"] >= whole["rows"] - 1
        assert len(whole["head_hash"]) == 64
        beyond = verify(from_sequence=10**12)
        assert (beyond["rows"], beyond["head_hash"], beyond["next_from_sequence"]) == (0, None, None)

    def test_refuses_other_questions(self, world: World) -> None:
        for query in ({"service": "gateway"}, {"from_sequence": 0}, {"from_sequence": -1}, {"from_sequence": "x"}):
            assert_refused(world.admin.get("/audit_logs/verify", params=query), 422, "RQ-101")
