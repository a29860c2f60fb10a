"""Every list: pages, newest first, with tokens that are good for their list and caller alone."""

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Caller, World, assert_refused, made
from tests.e2e.contract import OPERATIONS, Operation
from tests.e2e.samples import Samples, make_samples

LISTS = tuple(
    operation for operation in OPERATIONS if operation.method == "GET" and not operation.path.endswith(("}", "/verify"))
)
FILTERED = ("/users", "/users/{user_id}/dependants", "/benefits", "/mrns", "/audit_logs")
SHARED = (
    "/users/{user_id}/dependants",
    "/users/{user_id}/dependants/{dependant_id}/versions",
    "/users/{user_id}/accounts",
    "/benefits",
    "/mrns",
)
ROWS = 5


@dataclass
class Listing:
    """A list, and how to add to it.

    Attributes:
        caller: who reads it.
        path: where it is.
        filters: the query parameters that narrow it.
        add: adds a row and returns what tells it from others.
        key: returns that of an item.
        other_filters: query parameters that make it another list.
        others: who may read the same list, or a list at the same path, with another credential.
    """

    caller: Caller
    path: str
    filters: dict[str, Any]
    add: Callable[[], Any]
    key: Callable[[dict[str, Any]], Any]
    other_filters: dict[str, Any] | None
    others: list[Caller]

    def page(self, **query: Any) -> dict[str, Any]:
        return made(self.caller.get(self.path, params={**self.filters, **query}), 200)

    def walk(self, page_size: int, between: Callable[[], Any] = lambda: None) -> Iterator[Any]:
        """Yield the keys of all items, and do something between pages."""
        token = None
        while True:
            page = self.page(page_size=page_size, page_token=token or "")
            assert page.keys() == {"items", "next_page_token"}
            token = page["next_page_token"]
            assert len(page["items"]) == page_size or token is None
            yield from map(self.key, page["items"])
            if token is None:
                return
            between()


def open_listing(world: World, samples: Samples, operation: Operation) -> Listing:
    """Return a list with rows of its own."""
    path, user, ids = samples.path(operation), samples.user, samples.ids
    admin, partner = world.admin, samples.callers["P"]

    def by_id(item: dict[str, Any]) -> Any:
        return item["id"]

    def listing(caller: Caller, filters: dict[str, Any], add: Callable[[], Any], **more: Any) -> Listing:
        return Listing(
            caller, path, filters, add, more.pop("key", by_id), more.pop("other_filters", None), more.pop("others", [])
        )

    match operation.path:
        case "/platforms":
            return listing(admin, {}, lambda: made(admin.post(path, {"name": world.unique("Rides")}), 201)["id"])
        case "/platforms/{platform_id}/api_keys":
            return listing(admin, {}, lambda: made(admin.post(path, {"name": "test"}), 201)["id"])
        case "/users":
            platform = world.platform()
            filters = {"platform_id": platform.id}
            return listing(
                admin,
                filters,
                lambda: world.token(platform, world.phone_number())["user"]["id"],
                other_filters={**filters, "status": "onboarding"},
            )
        case "/users/{user_id}/dependants":
            owner = world.user(world.platform(max_dependants=20))
            path = f"{owner.path}/dependants"
            return listing(
                owner.caller,
                {},
                lambda: world.dependant(owner, relationship="OTHER")["id"],
                other_filters={"include_removed": "true"},
                others=[admin],
            )
        case "/users/{user_id}/dependants/{dependant_id}/versions":
            person = path.removesuffix("/versions")

            def append() -> int:
                return made(user.caller.patch(person, {"last_name": world.unique("Kumar")}), 200)["version"]

            return listing(user.caller, {}, append, key=lambda item: item["version"], others=[admin])
        case "/benefit_providers":
            return listing(admin, {}, lambda: world.provider()["id"])
        case "/benefits":
            provider = world.provider()
            filters = {"benefit_provider_id": provider["id"]}
            return listing(
                user.caller,
                filters,
                lambda: world.benefit(provider)["id"],
                other_filters={**filters, "type": "CONSULTATION"},
                others=[admin, world.user(user.platform).caller, world.user().caller],
            )
        case "/users/{user_id}/accounts":

            def store() -> str:
                account = {"type": "WALLET", "account_number": world.unique("w")}
                return made(user.caller.post(path, account), 201)["id"]

            return listing(user.caller, {}, store, others=[partner])
        case "/mrns":

            def link() -> str:
                body = {"dependant_id": ids["dependant_id"], "benefit_provider_id": world.provider()["id"], "mrn": "M1"}
                return made(user.caller.post(path, body), 201)["id"]

            filters = {"user_id": user.id, "mrn": "M1"}
            return listing(
                partner,
                filters,
                link,
                other_filters={"user_id": user.id},
                others=[user.caller],
            )
        case "/audit_logs":
            benefit = f"/benefits/{ids['benefit_id']}"

            def change() -> str:
                request_id = world.unique("r")
                body = {"price_paise": made(admin.get(benefit), 200)["price_paise"] + 1}
                made(admin.patch(benefit, body, headers={"x-request-id": request_id}), 200)
                return request_id

            filters = {"entity_id": ids["benefit_id"], "action": "benefit.update"}
            return listing(
                admin,
                filters,
                change,
                key=lambda item: item["request_id"],
                other_filters={"entity_id": ids["benefit_id"]},
            )
    raise AssertionError(f"no rows are known for {operation}")


@pytest.fixture(scope="module")
def samples(world: World) -> Samples:
    return make_samples(world)


@pytest.fixture(params=LISTS, ids=str)
def listing(world: World, samples: Samples, request: pytest.FixtureRequest) -> Listing:
    return open_listing(world, samples, request.param)


class TestEveryList:
    def test_answers_newest_first_and_nothing_twice_while_rows_are_added(self, listing: Listing) -> None:
        rows = [listing.add() for _ in range(ROWS)]
        seen = []
        for key in listing.walk(2, between=listing.add):
            seen.append(key)
            # A list that all tests share may be long; what is older than our first row is not ours.
            if key == rows[0]:
                break
        assert [key for key in seen if key in rows] == rows[::-1]
        assert len(set(seen)) == len(seen)

    def test_takes_another_page_size_with_a_token(self, listing: Listing) -> None:
        rows = [listing.add() for _ in range(ROWS)]
        first = listing.page(page_size=1)
        rest = listing.page(page_size=ROWS - 1, page_token=first["next_page_token"])
        assert [listing.key(item) for item in first["items"] + rest["items"]] == rows[::-1]

    def test_reads_a_page_again(self, listing: Listing) -> None:
        for _ in range(ROWS):
            listing.add()
        token = listing.page(page_size=2)["next_page_token"]
        once = listing.page(page_size=2, page_token=token)
        again = listing.page(page_size=2, page_token=token)
        assert [listing.key(item) for item in once["items"]] == [listing.key(item) for item in again["items"]]

    def test_ends_with_null_when_the_last_page_is_full(self, listing: Listing) -> None:
        listing.add()
        while (page := listing.page(page_size=200))["next_page_token"]:
            listing = Listing(
                **{**vars(listing), "filters": {**listing.filters, "page_token": page["next_page_token"]}}
            )
        if len(page["items"]) < 200:
            exact = listing.page(page_size=len(page["items"]))
            assert (len(exact["items"]), exact["next_page_token"]) == (len(page["items"]), None)

    def test_takes_page_sizes_from_one_and_lowers_large_ones(self, listing: Listing) -> None:
        listing.add()
        assert len(listing.page(page_size=1)["items"]) == 1
        for size in (200, 201, 10**9, 10**30):
            assert 1 <= len(listing.page(page_size=size)["items"]) <= 200
        for size in (0, -1, -(10**30)):
            response = listing.caller.get(listing.path, params={**listing.filters, "page_size": size})
            assert_refused(response, 422, "RQ-101")

    def test_refuses_tokens_that_were_changed_or_made_up(self, listing: Listing) -> None:
        for _ in range(2):
            listing.add()
        token = listing.page(page_size=1)["next_page_token"]
        assert isinstance(token, str)

        def changed(place: int) -> str:
            return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]

        wrong = [changed(place) for place in (*range(0, len(token), 7), len(token) - 1)]
        wrong += [token[:-4], token[4:], f"{token}AAAA", token * 2, token.swapcase(), f"{token}="]
        wrong += ["a", "!", "null", "0", "é", " ", base64.b64encode(b'["2026-11-20T00:00:00Z"]').decode(), "A" * 3_000]
        for text in wrong:
            assert_refused(self.ask(listing.caller, listing, text, listing.filters), 400, "RQ-113")

    @pytest.mark.parametrize("listing", [o for o in LISTS if o.path in FILTERED], ids=str, indirect=True)
    def test_refuses_tokens_of_other_filters(self, listing: Listing) -> None:
        for _ in range(2):
            listing.add()
        token = listing.page(page_size=1)["next_page_token"]
        assert_refused(self.ask(listing.caller, listing, token, listing.other_filters), 400, "RQ-113")

    @pytest.mark.parametrize("listing", [o for o in LISTS if o.path in SHARED], ids=str, indirect=True)
    def test_refuses_tokens_of_other_callers(self, listing: Listing) -> None:
        for _ in range(2):
            listing.add()
        token = listing.page(page_size=1)["next_page_token"]
        assert listing.others
        for other in listing.others:
            assert_refused(self.ask(other, listing, token, listing.filters), 400, "RQ-113")

    def test_refuses_tokens_of_other_lists(self, world: World, samples: Samples, listing: Listing) -> None:
        for _ in range(2):
            listing.add()
        token = listing.page(page_size=1)["next_page_token"]
        for operation in LISTS:
            path = samples.path(operation)
            if path == listing.path:
                continue
            caller = samples.callers[operation.callers[0]]
            params = {"page_token": token, **({"user_id": samples.user.id} if path == "/mrns" else {})}
            assert_refused(caller.get(path, params=params), 400, "RQ-113")

    def ask(self, caller: Caller, listing: Listing, token: str, filters: dict[str, Any]) -> httpx.Response:
        return caller.get(listing.path, params={**filters, "page_token": token})


class TestPageSize:
    def test_is_50_unless_said_and_200_at_most(self, world: World) -> None:
        # Each reading of a user by an operator is a row of the audit log: nothing else is made as quickly.
        user = world.user()
        with ThreadPoolExecutor(4) as pool:
            for answer in pool.map(lambda _: world.admin.get(user.path), range(201)):
                made(answer, 200)
        for size, expected in ((None, 50), (200, 200), (201, 200), (10**12, 200)):
            params = {"entity_id": user.id, **({"page_size": size} if size else {})}
            page = made(world.admin.get("/audit_logs", params=params), 200)
            assert (len(page["items"]), page["next_page_token"] is not None) == (expected, True)


class TestTokens:
    def test_goes_on_with_another_key_of_the_same_platform(self, world: World, samples: Samples) -> None:
        partner, path = samples.callers["P"], f"{samples.user.path}/accounts"
        for _ in range(2):
            account = {"type": "WALLET", "account_number": world.unique("w")}
            made(partner.post(path, account), 201)
        first = made(partner.get(path, params={"page_size": 1}), 200)
        key = made(world.admin.post(f"/platforms/{samples.ids['platform_id']}/api_keys", {"name": "new"}), 201)
        other = world.caller({"api-key": key["secret"]})
        rest = made(other.get(path, params={"page_token": first["next_page_token"]}), 200)
        assert first["items"][0]["id"] not in [item["id"] for item in rest["items"]]
        assert rest["items"]

    def test_refuses_the_token_of_another_user_of_the_same_path(self, world: World, samples: Samples) -> None:
        for _ in range(2):
            world.dependant(samples.user)
        path = f"{samples.user.path}/dependants"
        token = made(world.admin.get(path, params={"page_size": 1}), 200)["next_page_token"]
        other = world.user()
        assert_refused(world.admin.get(f"{other.path}/dependants", params={"page_token": token}), 400, "RQ-113")
