"""What many callers who come at the same moment leave behind."""

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Caller, System, User, World, made
from tests.e2e.contract import Document

FATHER = {"relationship": "FATHER", "first_name": "Mohan", "gender": "MALE", "date_of_birth": "1962-04-09"}
BANK = {"type": "BANK", "account_number": "123456789012", "ifsc": "HDFC0001234"}
UPI = {"type": "UPI", "account_number": "ravi@okbank"}


class Crowd:
    """Sends requests that are all on their way before any is answered, each on a connection of its own.

    A client library would spend so long on each request that most were answered before the last is sent.
    """

    def __init__(self, system: System, document: Document) -> None:
        self._url = httpx.URL(system.url)
        self._document = document

    async def send(
        self, caller: Caller, method: str, path: str, bodies: Sequence[Any], headers: dict[str, str] | None = None
    ) -> list[httpx.Response]:
        """Send each body in a request and return the answers in the same order."""
        more = {**caller.headers, **(headers or {})}
        return await self.send_all([(method, path, body, more) for body in bodies])

    async def send_all(self, calls: Sequence[tuple[str, str, Any, dict[str, str]]]) -> list[httpx.Response]:
        """Send requests, given as method, path, body and headers; none may be answered with a server's failure."""
        requests = [
            httpx.Request(method, self._url.join(path), json=body, headers={**headers, "connection": "close"})
            for method, path, body, headers in calls
        ]
        texts = [_text_of(request) for request in requests]
        address = self._url.host, self._url.port
        connections = await asyncio.gather(*(asyncio.open_connection(*address) for _ in texts))
        for (_, writer), text in zip(connections, texts, strict=True):
            writer.write(text)
        answers = await asyncio.gather(*(reader.read() for reader, _ in connections))
        for _, writer in connections:
            writer.close()
        responses = [_read(answer, request) for answer, request in zip(answers, requests, strict=True)]
        failures = Counter(f"{r.status_code} {r.text}" for r in responses if r.status_code >= 500)
        assert not failures, failures
        for response in responses:
            self._document.check(response)
        return responses


def _text_of(request: httpx.Request) -> bytes:
    head = f"{request.method} {request.url.raw_path.decode()} HTTP/1.1".encode()
    fields = (b": ".join(pair) for pair in request.headers.raw)
    return b"\r\n".join((head, *fields, b"", b"")) + request.content


def _read(answer: bytes, request: httpx.Request) -> httpx.Response:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    fields = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    return httpx.Response(int(first.split()[1]), headers=fields, content=body, request=request)


@pytest.fixture(scope="module")
def crowd(system: System, document: Document) -> Crowd:
    """A crowd before the running system."""
    return Crowd(system, document)


def outcomes(responses: Sequence[httpx.Response]) -> dict[str, int]:
    """Count the answers by status, or by code when they are refusals."""
    return dict(Counter(str(r.status_code) if r.is_success else r.json()["error"]["code"] for r in responses))


def items_of(response: httpx.Response) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = made(response, 200)["items"]
    return items


class TestIssueToken:
    async def test_makes_one_user_of_one_phone(self, world: World, crowd: Crowd) -> None:
        platform, number = world.platform(), world.phone_number()
        # The same number, written in different ways.
        forms = [
            {"phone_country_code": code, "phone_number": written, "platform_id": platform.id}
            for code, written in (
                ("+91", number),
                ("91", f"0{number}"),
                ("", f"+91{number}"),
                (None, f"{number[:5]} {number[5:]}"),
            )
        ]
        responses = await crowd.send(platform.partner, "POST", "/auth/token", forms * 50)
        answers = [made(response, 200) for response in responses]
        (user_id,) = {answer["user"]["id"] for answer in answers}
        assert sum(answer["is_new_user"] for answer in answers) == 1
        assert len({answer["access_token"] for answer in answers}) == 200
        users = items_of(world.admin.get("/users", params={"platform_id": platform.id}))
        assert [(user["id"], user["version"]) for user in users] == [(user_id, 1)]

        profile = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1990-05-17"}
        bearer = world.caller({"authorization": f"Bearer {answers[0]['access_token']}"})
        path = f"/users/{user_id}"
        responses = await crowd.send(bearer, "POST", f"{path}/complete_onboarding", [profile] * 20)
        assert outcomes(responses) == {"200": 1, "US-404": 19}
        family = items_of(bearer.get(f"{path}/dependants"))
        assert [(member["relationship"], member["version"]) for member in family] == [("SELF", 1)]

    async def test_makes_one_user_of_each_phone(self, world: World, crowd: Crowd) -> None:
        platform = world.platform()
        numbers = [world.phone_number() for _ in range(20)]
        bodies = [{"phone_number": number, "platform_id": platform.id} for number in numbers]
        answers = [
            made(response, 200) for response in await crowd.send(platform.partner, "POST", "/auth/token", bodies * 2)
        ]
        assert len({answer["user"]["id"] for answer in answers}) == 20
        assert sum(answer["is_new_user"] for answer in answers) == 20


class TestLinkMrn:
    async def test_links_a_pair_once(self, world: World, crowd: Crowd) -> None:
        user = world.user()
        dependant, provider = world.dependant(user), world.provider()
        bodies = [
            {"dependant_id": dependant["id"], "benefit_provider_id": provider["id"], "mrn": f"AP-{place % 7}"}
            for place in range(100)
        ]
        responses = await crowd.send(user.platform.partner, "POST", "/mrns", bodies)
        assert outcomes(responses) == {"201": 1, "MR-903": 99}
        (linked,) = [response.json() for response in responses if response.status_code == 201]
        assert items_of(user.caller.get("/mrns")) == [linked]

    async def test_links_a_number_to_one_of_a_family(self, world: World, crowd: Crowd) -> None:
        user = world.user(world.platform(max_dependants=20))
        provider = world.provider()
        family = [world.dependant(user) for _ in range(20)]
        bodies = [
            {"dependant_id": member["id"], "benefit_provider_id": provider["id"], "mrn": "AP-1"} for member in family
        ]
        responses = await crowd.send(user.caller, "POST", "/mrns", bodies)
        assert outcomes(responses) == {"201": 1, "MR-904": 19}

    async def test_keeps_a_provider_that_got_an_mrn(self, world: World, crowd: Crowd) -> None:
        """Whoever comes first, a provider is never both deleted and referred to."""
        user = world.user()
        dependant = world.dependant(user)
        for _ in range(5):
            provider = world.provider()
            link = {"dependant_id": dependant["id"], "benefit_provider_id": provider["id"], "mrn": "AP-1"}
            linked, deleted = await crowd.send_all(
                [
                    ("POST", "/mrns", link, user.caller.headers),
                    ("DELETE", f"/benefit_providers/{provider['id']}", None, world.admin.headers),
                ]
            )
            pair = (outcomes([linked]), outcomes([deleted]))
            assert pair in (({"201": 1}, {"BP-604": 1}), ({"MR-902": 1}, {"204": 1}))


class TestDependants:
    @pytest.fixture
    def user(self, world: World) -> User:
        """An active user who may have twenty dependants."""
        return world.user(world.platform(max_dependants=20))

    async def test_loses_no_update(self, world: World, crowd: Crowd, user: User) -> None:
        """Thirty-two writers, each with a value or a field of its own."""
        dependant = world.dependant(user)
        path = f"{user.path}/dependants/{dependant['id']}"
        names = [f"Kumar the {place}th" for place in range(28)]
        others = [
            {"blood_group": "O_POSITIVE"},
            {"middle_name": "Prasad"},
            {"phone_number": "+919876543210"},
            {"abha_number": "91123456789012"},
        ]
        bodies = [{"last_name": name} for name in names] + others
        responses = await crowd.send(user.caller, "PATCH", path, bodies)
        answers = [made(response, 200) for response in responses]
        assert sorted(answer["version"] for answer in answers) == list(range(2, 34))
        for body, answer in zip(bodies, answers, strict=True):
            assert answer.items() >= body.items()
        versions = items_of(user.caller.get(f"{path}/versions", params={"page_size": 200}))
        assert [version["version"] for version in versions] == list(range(33, 0, -1))
        # Each version is the one before it and one change more.
        for after, before in itertools.pairwise(versions):
            told = ("version", "created_at", "created_by")
            changed = [name for name in after if name not in told and after[name] != before[name]]
            assert len(changed) == 1
            assert after["created_at"] > before["created_at"]
        newest = made(user.caller.get(path), 200)
        assert newest == versions[0]
        assert newest["last_name"] in names
        for body in others:
            assert newest.items() >= body.items()

    async def test_lets_one_through_for_each_version(self, world: World, crowd: Crowd, user: User) -> None:
        dependant = world.dependant(user)
        path = f"{user.path}/dependants/{dependant['id']}"
        bodies = [{"last_name": f"Kumar the {place}th"} for place in range(20)]
        responses = await crowd.send(user.caller, "PATCH", path, bodies, {"if-match": '"1"'})
        assert outcomes(responses) == {"200": 1, "RQ-110": 19}
        assert made(user.caller.get(path), 200)["version"] == 2

    async def test_adds_one_father(self, crowd: Crowd, user: User) -> None:
        bodies = [{**FATHER, "first_name": f"Mohan the {place}th"} for place in range(20)]
        responses = await crowd.send(user.caller, "POST", f"{user.path}/dependants", bodies)
        assert outcomes(responses) == {"201": 1, "DE-502": 19}
        family = items_of(user.caller.get(f"{user.path}/dependants"))
        assert [member["relationship"] for member in family] == ["FATHER", "SELF"]

    async def test_adds_a_person_once(self, crowd: Crowd, user: User) -> None:
        body = {**FATHER, "relationship": "OTHER"}
        responses = await crowd.send(user.caller, "POST", f"{user.path}/dependants", [body] * 20)
        assert outcomes(responses) == {"201": 1, "DE-503": 19}

    async def test_adds_no_more_than_the_platform_allows(self, world: World, crowd: Crowd) -> None:
        user = world.user(world.platform(max_dependants=3))
        bodies = [{**FATHER, "relationship": "OTHER", "first_name": f"Mohan the {place}th"} for place in range(20)]
        responses = await crowd.send(user.caller, "POST", f"{user.path}/dependants", bodies)
        assert outcomes(responses) == {"201": 3, "DE-505": 17}
        assert len(items_of(user.caller.get(f"{user.path}/dependants"))) == 4

    async def test_removes_once(self, world: World, crowd: Crowd, user: User) -> None:
        path = f"{user.path}/dependants/{world.dependant(user)['id']}"
        responses = await crowd.send(user.caller, "DELETE", path, [None] * 10)
        assert outcomes(responses) == {"204": 1, "DE-506": 9}
        versions = items_of(user.caller.get(f"{path}/versions"))
        assert [version["status"] for version in versions] == ["removed", "active"]

    async def test_lets_self_follow_every_change(self, crowd: Crowd, user: User) -> None:
        names = [f"Ravi the {place}th" for place in range(16)]
        responses = await crowd.send(user.caller, "PATCH", user.path, [{"first_name": name} for name in names])
        answers = [made(response, 200) for response in responses]
        first = min(answer["version"] for answer in answers)
        assert sorted(answer["version"] for answer in answers) == list(range(first, first + 16))
        profile = made(user.caller.get(user.path), 200)
        # An answer waits only a moment for records, which may have more to do just then.
        for _ in range(100):
            (myself,) = items_of(user.caller.get(f"{user.path}/dependants"))
            if myself["first_name"] == profile["first_name"]:
                break
            await asyncio.sleep(0.1)
        assert myself["first_name"] == profile["first_name"]
        versions = items_of(user.caller.get(f"{user.path}/dependants/{myself['id']}/versions"))
        assert [version["version"] for version in versions] == list(range(myself["version"], 0, -1))


class TestAccounts:
    async def test_leaves_one_primary(self, world: World, crowd: Crowd) -> None:
        user = world.user()
        bodies = [{**BANK, "account_number": f"12345678{place:04}", "is_primary": True} for place in range(16)]
        responses = await crowd.send(user.caller, "POST", f"{user.path}/accounts", bodies)
        accounts = [made(response, 201) for response in responses]
        assert sum(account["is_primary"] for account in items_of(user.caller.get(f"{user.path}/accounts"))) == 1
        responses = await crowd.send_all(
            [
                ("PATCH", f"{user.path}/accounts/{account['id']}", {"is_primary": True}, caller.headers)
                for account in accounts
                for caller in (user.caller, user.platform.partner)
            ]
        )
        assert outcomes(responses) == {"200": 32}
        assert sum(account["is_primary"] for account in items_of(user.caller.get(f"{user.path}/accounts"))) == 1

    async def test_makes_one_of_the_first_primary(self, world: World, crowd: Crowd) -> None:
        user = world.user()
        responses = await crowd.send(user.caller, "POST", f"{user.path}/accounts", [BANK, UPI])
        assert sum(made(response, 201)["is_primary"] for response in responses) == 1

    async def test_stores_an_account_once(self, world: World, crowd: Crowd) -> None:
        user = world.user()
        responses = await crowd.send(user.caller, "POST", f"{user.path}/accounts", [BANK] * 20)
        assert outcomes(responses) == {"201": 1, "AC-803": 19}
        assert len(items_of(user.caller.get(f"{user.path}/accounts"))) == 1

    async def test_always_leaves_a_primary_when_accounts_go(self, world: World, crowd: Crowd) -> None:
        user = world.user()
        accounts = [
            made(user.caller.post(f"{user.path}/accounts", {**BANK, "account_number": f"12345678{place:04}"}), 201)
            for place in range(8)
        ]
        paths = [f"{user.path}/accounts/{account['id']}" for account in accounts[:7]]
        responses = await crowd.send_all([("DELETE", path, None, user.caller.headers) for path in paths])
        assert outcomes(responses) == {"204": 7}
        (left,) = items_of(user.caller.get(f"{user.path}/accounts"))
        assert (left["id"], left["is_primary"]) == (accounts[7]["id"], True)


class TestIdempotencyKeys:
    async def test_stores_an_account_once(self, world: World, crowd: Crowd) -> None:
        user = world.user()
        path, headers = f"{user.path}/accounts", {"idempotency-key": str(uuid.uuid4())}
        responses = await crowd.send(user.caller, "POST", path, [BANK] * 50, headers)
        self.assert_one_effect(responses)
        (account,) = items_of(user.caller.get(path))
        assert account["id"] == responses[0].json().get("id", account["id"])
        last = user.caller.post(path, BANK, headers=headers)
        assert (made(last, 201), last.headers["idempotency-replayed"]) == (account, "true")

    async def test_opens_a_platform_once(self, world: World, crowd: Crowd) -> None:
        body, headers = {"name": world.unique("Rides")}, {"idempotency-key": str(uuid.uuid4())}
        self.assert_one_effect(await crowd.send(world.admin, "POST", "/platforms", [body] * 50, headers))

    async def test_adds_a_benefit_once(self, world: World, crowd: Crowd) -> None:
        provider = world.provider()
        body = {
            "benefit_provider_id": provider["id"],
            "code": "check",
            "name": "Annual check",
            "type": "OTHER",
            "price_paise": 0,
        }
        headers = {"idempotency-key": str(uuid.uuid4())}
        self.assert_one_effect(await crowd.send(world.admin, "POST", "/benefits", [body] * 50, headers))
        assert len(items_of(world.admin.get("/benefits", params={"benefit_provider_id": provider["id"]}))) == 1

    async def test_takes_one_body(self, world: World, crowd: Crowd) -> None:
        user = world.user()
        path, headers = f"{user.path}/accounts", {"idempotency-key": str(uuid.uuid4())}
        bodies = [{**BANK, "account_number": f"12345678{place:04}"} for place in range(20)]
        responses = await crowd.send(user.caller, "POST", path, bodies, headers)
        counted = outcomes(responses)
        assert counted.pop("201") == 1
        assert set(counted) <= {"RQ-108", "RQ-109"}
        assert len(items_of(user.caller.get(path))) == 1

    def assert_one_effect(self, responses: Sequence[httpx.Response]) -> None:
        """Assert that one call had its effect, and that each other was told its answer or to come again."""
        counted = outcomes(responses)
        assert set(counted) <= {"201", "RQ-109"}
        answered = [response for response in responses if response.status_code == 201]
        assert len({response.text for response in answered}) == 1
        assert sum("idempotency-replayed" not in response.headers for response in answered) == 1
        for response in responses:
            if response.status_code == 409:
                assert response.headers["retry-after"] == "1"


class TestUniqueNames:
    async def test_opens_one_platform_of_a_name(self, world: World, crowd: Crowd) -> None:
        name = world.unique("Rides")
        bodies = [{"name": name}, {"name": name.upper()}, {"name": f" {name.lower()} "}] * 10
        responses = await crowd.send(world.admin, "POST", "/platforms", bodies)
        assert outcomes(responses) == {"201": 1, "PL-303": 29}

    async def test_adds_one_provider_of_a_code(self, world: World, crowd: Crowd) -> None:
        code = world.unique("p")
        body = {"code": code, "legal_name": "Apollo Limited", "display_name": "Apollo", "type": "CLINIC"}
        responses = await crowd.send(world.admin, "POST", "/benefit_providers", [body] * 30)
        assert outcomes(responses) == {"201": 1, "BP-603": 29}

    async def test_adds_one_benefit_of_a_code(self, world: World, crowd: Crowd) -> None:
        provider = world.provider()
        body = {"benefit_provider_id": provider["id"], "code": "check", "name": "Check", "type": "OTHER"}
        responses = await crowd.send(world.admin, "POST", "/benefits", [{**body, "price_paise": 0}] * 30)
        assert outcomes(responses) == {"201": 1, "BE-703": 29}

    async def test_gives_a_phone_to_one_user(self, world: World, crowd: Crowd) -> None:
        platform = world.platform()
        users = [world.user(platform) for _ in range(8)]
        body = {"phone_number": f"+91{world.phone_number()}"}
        responses = await crowd.send_all([("PATCH", user.path, body, world.admin.headers) for user in users])
        assert outcomes(responses) == {"200": 1, "US-403": 7}


class TestBenefitProviders:
    async def test_loses_no_update(self, world: World, crowd: Crowd) -> None:
        provider = world.provider()
        path = f"/benefit_providers/{provider['id']}"
        bodies = [{"display_name": f"Apollo {place}"} for place in range(20)]
        answers = [made(response, 200) for response in await crowd.send(world.admin, "PATCH", path, bodies)]
        assert sorted(answer["version"] for answer in answers) == list(range(2, 22))

    async def test_is_deleted_or_referred_to(self, world: World, crowd: Crowd) -> None:
        for _ in range(5):
            provider = world.provider()
            body = {"benefit_provider_id": provider["id"], "code": "check", "name": "Check", "type": "OTHER"}
            added, deleted = await crowd.send_all(
                [
                    ("POST", "/benefits", {**body, "price_paise": 0}, world.admin.headers),
                    ("DELETE", f"/benefit_providers/{provider['id']}", None, world.admin.headers),
                ]
            )
            assert (outcomes([added]), outcomes([deleted])) in (
                ({"201": 1}, {"BP-604": 1}),
                ({"BP-602": 1}, {"204": 1}),
            )
