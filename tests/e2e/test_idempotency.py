"""Idempotency-Key on every POST: the effect happens once, and its answer is given again."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

from tests.e2e.conftest import System, World, assert_refused, made
from tests.e2e.samples import ACCOUNT
from tests.e2e.writes import POSTS, Write, open_write

CREATES = (
    "/platforms",
    "/platforms/{platform_id}/api_keys",
    "/users/{user_id}/dependants",
    "/benefit_providers",
    "/benefits",
    "/users/{user_id}/accounts",
    "/mrns",
)
BLOCKED_S = 10.0
# Everything that is printable, and as much of it as fits.
KEYS = ("k", "a b", "".join(map(chr, range(0x21, 0x7F))), "k" * 255, "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11", '"quoted"')
MALFORMED = (b"", b"k" * 256, b"cl\xe9", "schlüssel".encode(), b"a\tb", "ключ".encode())


def audit_rows(world: World, entity_id: str) -> list[str]:
    """Return what the audit log tells of a thing, but for who has read it."""
    rows = made(world.admin.get("/audit_logs", params={"entity_id": entity_id, "page_size": 200}), 200)["items"]
    return [row["id"] for row in rows if not row["action"].endswith((".read", ".get"))]


@pytest.fixture(params=POSTS)
def write(world: World, request: pytest.FixtureRequest) -> Write:
    return open_write(world, request.param)


class TestReplay:
    def test_answers_the_first_success_again(self, world: World, write: Write) -> None:
        key = world.unique("k")
        first = write.send(key)
        assert first.is_success, first.text
        assert "idempotency-replayed" not in first.headers
        rows = audit_rows(world, first.json()["id"])
        for _ in range(2):
            again = write.send(key)
            assert again.status_code == first.status_code
            assert again.json() == {**first.json(), **dict.fromkeys(write.secrets)}
            assert again.headers["idempotency-replayed"] == "true"
            for name in ("location", "etag", "content-type", "cache-control"):
                assert again.headers.get(name) == first.headers.get(name)
        assert audit_rows(world, first.json()["id"]) == rows

    def test_compares_what_bodies_say_and_not_how(self, world: World, write: Write) -> None:
        key = world.unique("k")
        first = write.send(key)
        reordered = dict(reversed(write.body.items()))
        content = ",\n".join(
            f'"\\u{ord(name[0]):04x}{name[1:]}" : {json.dumps(value)}' for name, value in reordered.items()
        )
        headers = {"idempotency-key": key, "content-type": "application/json; charset=utf-8"}
        again = write.caller.request("POST", write.path, content=f"\n{{ {content} }}\n", headers=headers)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json()["id"] == first.json()["id"]

    def test_refuses_another_body(self, world: World, write: Write) -> None:
        key = world.unique("k")
        assert write.send(key).is_success
        assert_refused(write.send(key, write.other), 422, "RQ-108")
        assert write.send(key).headers["idempotency-replayed"] == "true"

    def test_leaves_the_key_free_when_it_refuses(self, world: World, write: Write) -> None:
        key = world.unique("k")
        body, code = write.refused
        for _ in range(2):
            refused = write.send(key, body)
            assert refused.json()["error"]["code"] == code
            assert "idempotency-replayed" not in refused.headers
        success = write.send(key)
        assert success.is_success, success.text
        assert "idempotency-replayed" not in success.headers

    def test_refuses_malformed_keys(self, world: World, write: Write) -> None:
        for key in MALFORMED:
            response = write.send(key)
            assert_refused(response, 422, "RQ-101")
            assert [detail["field"] for detail in response.json()["error"]["details"]] == ["Idempotency-Key"]
        twice = httpx.Headers([*write.caller.headers.items(), ("idempotency-key", "a"), ("idempotency-key", "a")])
        assert_refused(write.caller.http.post(write.path, json=write.body, headers=twice), 422, "RQ-101")
        assert write.send(world.unique("k")).is_success


class TestKeys:
    @pytest.mark.parametrize("key", KEYS)
    def test_takes_all_printable_ascii(self, world: World, key: str) -> None:
        # Another provider's path would be another key; the caller is the same for all tests.
        write = open_write(world, "/users/{user_id}/accounts")
        first = write.send(key)
        assert "idempotency-replayed" not in first.headers
        assert made(write.send(key), 201)["id"] == made(first, 201)["id"]

    def test_tells_letter_cases_apart(self, world: World) -> None:
        write = open_write(world, "/platforms")
        key = world.unique("k")
        first = made(write.send(key), 201)
        other = made(write.send(key.upper(), write.other), 201)
        assert first["id"] != other["id"]

    def test_belongs_to_a_path(self, world: World) -> None:
        key = world.unique("k")
        for path in POSTS:
            response = open_write(world, path).send(key)
            assert response.is_success, response.text
            assert "idempotency-replayed" not in response.headers

    def test_belongs_to_a_caller(self, world: World) -> None:
        write = open_write(world, "/users/{user_id}/dependants")
        key = world.unique("k")
        mine = made(write.send(key), 201)
        theirs = write.send(key, write.other, caller=world.admin)
        assert made(theirs, 201)["id"] != mine["id"]
        assert "idempotency-replayed" not in theirs.headers
        assert write.send(key).json()["id"] == mine["id"]
        assert write.send(key, write.other, caller=world.admin).json()["id"] == theirs.json()["id"]

    def test_belongs_to_one_platform_of_many(self, world: World) -> None:
        key, body = world.unique("k"), {"type": "WALLET", "account_number": "wallet-1"}
        for _ in range(2):
            user = world.user()
            link = {
                "dependant_id": world.dependant(user)["id"],
                "benefit_provider_id": world.provider()["id"],
                "mrn": "MRN-1",
            }
            for path, sent in (("/mrns", link), (f"{user.path}/accounts", body)):
                response = user.platform.partner.post(path, sent, headers={"idempotency-key": key})
                assert response.status_code == 201, response.text
                assert "idempotency-replayed" not in response.headers

    def test_belongs_to_the_platform_whichever_its_key(self, world: World) -> None:
        user = world.user()
        path, key = f"{user.path}/accounts", world.unique("k")
        issued = made(world.admin.post(f"/platforms/{user.platform.id}/api_keys", {"name": "new"}), 201)
        first = user.platform.partner.post(path, ACCOUNT, headers={"idempotency-key": key})
        again = world.caller({"api-key": issued["secret"]}).post(path, ACCOUNT, headers={"idempotency-key": key})
        assert made(again, 201) == made(first, 201)
        assert again.headers["idempotency-replayed"] == "true"

    def test_belongs_to_the_user_whichever_the_token(self, world: World) -> None:
        write = open_write(world, "/users/{user_id}/accounts")
        user = world.user()
        path, key = f"{user.path}/accounts", world.unique("k")
        first = user.caller.post(path, write.body, headers={"idempotency-key": key})
        token = world.token(user.platform, user.phone_number)["access_token"]
        bearer = world.caller({"authorization": f"Bearer {token}"})
        again = bearer.post(path, write.body, headers={"idempotency-key": key})
        assert made(again, 201)["id"] == made(first, 201)["id"]
        assert again.headers["idempotency-replayed"] == "true"

    def test_means_nothing_to_other_methods(self, world: World) -> None:
        user = world.user()
        headers = {"idempotency-key": world.unique("k")}
        first = user.caller.patch(user.path, {"city": "Pune"}, headers=headers)
        second = user.caller.patch(user.path, {"city": "Goa"}, headers=headers)
        assert (made(first, 200)["city"], made(second, 200)["city"]) == ("Pune", "Goa")
        assert "idempotency-replayed" not in second.headers
        assert user.caller.get(user.path, headers={"idempotency-key": "k" * 256}).status_code == 200


class TestAnswers:
    def test_are_those_of_the_first_time(self, world: World) -> None:
        """A retry wants to know what its request did, not what became of it since."""
        write = open_write(world, "/benefit_providers")
        key = world.unique("k")
        first = write.send(key)
        provider = first.headers["location"]
        made(world.admin.patch(provider, {"display_name": "Manipal"}), 200)
        again = write.send(key)
        assert (again.json(), again.headers["etag"]) == (first.json(), '"1"')
        assert world.admin.delete(provider).status_code == 204
        assert made(write.send(key), 201) == first.json()
        assert world.admin.get(provider).status_code == 404

    def test_hold_no_secret_when_a_key_is_created_again(self, world: World) -> None:
        write = open_write(world, "/platforms/{platform_id}/api_keys")
        key = world.unique("k")
        secret = made(write.send(key), 201)["secret"]
        assert secret.startswith("ark_")
        assert made(write.send(key), 201)["secret"] is None
        keys = made(world.admin.get(write.path), 200)["items"]
        assert len([it for it in keys if it["name"] == "test"]) == 2

    def test_hold_no_secret_when_a_key_is_rotated_again(self, world: World) -> None:
        write = open_write(world, "/platforms/{platform_id}/api_keys/{key_id}/rotate")
        key = world.unique("k")
        secret = made(write.send(key), 200)["secret"]
        assert made(write.send(key), 200)["secret"] is None
        # It was not rotated again.
        assert_refused(world.caller({"api-key": secret}).get("/mrns/1"), 404, "MR-901")


class TestToken:
    def test_ignores_the_key(self, world: World) -> None:
        platform = world.platform()
        tokens = set()
        for number in (world.phone_number(), world.phone_number()):
            for key in (b"the same", *MALFORMED):
                body = {"phone_number": number, "platform_id": platform.id}
                answer = platform.partner.post("/auth/token", body, headers={"idempotency-key": key})
                tokens.add(made(answer, 200)["access_token"])
                assert "idempotency-replayed" not in answer.headers
        assert len(tokens) == 2 * (1 + len(MALFORMED))


class Blocked:
    """Holds a row's lock, so that a request that needs it is still running."""

    def __init__(self, system: System, database: str, statement: str, value: str) -> None:
        self._connection = psycopg.connect(system.runtime["databases"][database]["owner_dsn"])
        assert self._connection.execute(statement, (value,)).rowcount == 1

    def wait(self) -> None:
        """Return when somebody waits for the lock."""
        deadline = time.monotonic() + BLOCKED_S
        waiting = "SELECT 1 FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        while not self._connection.execute(waiting).fetchall():
            assert time.monotonic() < deadline, "nobody came to wait for the lock"
            time.sleep(0.02)

    def release(self) -> None:
        self._connection.close()


class TestWhileRunning:
    @pytest.mark.parametrize(
        ("path", "database", "statement", "locked"),
        [
            (
                "/platforms/{platform_id}/suspend",
                "identity",
                "SELECT 1 FROM platforms WHERE id = %s FOR UPDATE",
                lambda write: write.path.split("/")[2],
            ),
            (
                "/benefits",
                "catalogue",
                "SELECT 1 FROM benefit_providers WHERE id = %s FOR UPDATE",
                lambda write: write.body["benefit_provider_id"],
            ),
            (
                "/users/{user_id}/accounts",
                "records",
                "SELECT pg_advisory_xact_lock(hashtextextended('accounts:' || %s, 0))",
                lambda write: write.path.split("/")[2],
            ),
        ],
    )
    def test_says_so_at_once(
        self,
        system: System,
        world: World,
        path: str,
        database: str,
        statement: str,
        locked: Callable[[Write], str],
    ) -> None:
        write = open_write(world, path)
        key = world.unique("k")
        blocked = Blocked(system, database, statement, locked(write))
        with ThreadPoolExecutor() as pool:
            try:
                running = pool.submit(write.send, key)
                blocked.wait()
                for body in (write.body, write.other):
                    refused = write.send(key, body)
                    assert_refused(refused, 409, "RQ-109")
                    assert refused.headers["retry-after"] == "1"
                    assert "idempotency-replayed" not in refused.headers
                assert not running.done()
            finally:
                blocked.release()
            first = running.result()
        assert first.is_success, first.text
        assert write.send(key).headers["idempotency-replayed"] == "true"

    @pytest.mark.parametrize("path", CREATES)
    def test_creates_once_of_many_at_once(self, world: World, path: str) -> None:
        write = open_write(world, path)
        key = world.unique("k")
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: write.send(key), range(10)))
        successes = [answer for answer in answers if answer.is_success]
        for answer in answers:
            if answer not in successes:
                assert_refused(answer, 409, "RQ-109")
                assert answer.headers["retry-after"] == "1"
        assert {answer.status_code for answer in successes} == {201}
        assert len({answer.json()["id"] for answer in successes}) == 1
        assert len([answer for answer in successes if "idempotency-replayed" not in answer.headers]) == 1


class TestAfterADay:
    def test_forgets(self, system: System, world: World) -> None:
        write = open_write(world, "/users/{user_id}/dependants")
        key = world.unique("k")
        made(write.send(key), 201)
        with psycopg.connect(system.runtime["databases"]["records"]["owner_dsn"]) as connection:
            older = "UPDATE idempotency_keys SET created_at = created_at - interval '24 hours' WHERE owner_id = %s"
            assert connection.execute(older, (write.path.split("/")[2],)).rowcount == 1
        assert_refused(write.send(key), 409, "DE-503")
        second = write.send(key, write.other)
        made(second, 201)
        assert "idempotency-replayed" not in second.headers
