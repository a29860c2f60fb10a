"""Questions to services within a request's time, what makes a retried POST recognisable, and the form of answers."""

import asyncio
import contextlib
import json
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest

from aarokya.identity.v1.platform_service_pb2 import GetPlatformRequest, GetPlatformResponse
from aarokya.identity.v1.user_pb2 import User
from aarokya.records.v1.dependant_service_pb2 import GetDependantRequest
from aarokya.records.v1.mrn_pb2 import Mrn
from gateway import exchange as module
from gateway.errors import Refused
from gateway.exchange import NO_VERSION, Exchange, read_idempotency, read_if_match
from gateway.retry_budget import TOKENS_A_SECOND, RetryBudgets
from servicekit.caller import METADATA_KEY, Call, Caller, CallerType, Idempotency
from servicekit.channel import RETRY_TOKENS, TOKENS_FOR_SUCCESS
from servicekit.errors import KeyStillRunning, ServiceAway

PLATFORM_ID, OTHER_PLATFORM_ID = uuid4(), uuid4()
ADMIN, OTHER_ADMIN = Caller(CallerType.ADMIN, "asha"), Caller(CallerType.ADMIN, "ravi")
PARTNER = Caller(CallerType.PARTNER, "key-1", PLATFORM_ID)
USER = Caller(CallerType.USER, str(uuid4()), PLATFORM_ID)
KEY = Idempotency(b"s" * 32, b"f" * 32)
REQUEST, ANSWER = GetPlatformRequest(platform_id="p"), GetPlatformResponse()
STILL_RUNNING, AWAY = KeyStillRunning().to_status(), ServiceAway().to_status()


class Rpc:
    """An RPC that answers one thing after the other: a status is a failure, anything else is the answer."""

    def __init__(self, *outcomes, trailers=()) -> None:
        self.outcomes = list(outcomes)
        self.trailers = trailers
        self.calls: list[tuple[object, float, object]] = []

    def __call__(self, request, *, timeout, metadata):
        self.calls.append((request, timeout, metadata))
        return self

    def __await__(self):
        return self._answer().__await__()

    async def _answer(self):
        outcome = self.outcomes.pop(0)
        if outcome in (STILL_RUNNING, AWAY):
            trailers = grpc.aio.Metadata(*outcome.trailing_metadata)
            raise grpc.aio.AioRpcError(outcome.code, grpc.aio.Metadata(), trailers)
        if isinstance(outcome, grpc.StatusCode):
            raise grpc.aio.AioRpcError(outcome, grpc.aio.Metadata(), grpc.aio.Metadata())
        return outcome

    async def trailing_metadata(self):
        return self.trailers


def make_exchange(
    caller: Caller | None = ADMIN, *, idempotency=None, is_repeatable=False, seconds: float = 5.0, retry_budgets=None
) -> Exchange:
    return Exchange(
        caller,
        request_id="r1",
        source_address="192.0.2.1",
        user_agent="app/1",
        idempotency=idempotency,
        if_match=None,
        deadline=asyncio.get_running_loop().time() + seconds,
        sent=None,
        is_basic=False,
        is_repeatable=is_repeatable,
        stubs=None,
        retry_budgets=retry_budgets or RetryBudgets(),
        live_state=None,
        pages=None,
        own_reads=None,
    )


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(module, "RETRY_PAUSES_S", (0.0, 0.0))


class TestAsk:
    @pytest.mark.parametrize("caller", [ADMIN, PARTNER, USER])
    async def test_tells_the_service_who_calls(self, caller):
        rpc = Rpc(ANSWER)
        assert await make_exchange(caller, idempotency=KEY).ask(rpc, REQUEST) is ANSWER
        [(request, timeout, ((key, value),))] = rpc.calls
        assert (request, key) == (REQUEST, METADATA_KEY)
        assert Call.from_bytes(value) == Call(caller, "r1", "192.0.2.1", "app/1", KEY)
        assert 0 < timeout <= 5

    async def test_asks_nobody_when_the_time_is_over(self):
        rpc = Rpc(ANSWER)
        with pytest.raises(Refused) as caught:
            await make_exchange(seconds=-0.001).ask(rpc, REQUEST)
        assert (caught.value.code, rpc.calls) == ("RQ-112", [])

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (grpc.StatusCode.UNAVAILABLE, "RQ-111"),
            (grpc.StatusCode.CANCELLED, "RQ-111"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "RQ-111"),
            (grpc.StatusCode.DEADLINE_EXCEEDED, "RQ-112"),
            (grpc.StatusCode.INTERNAL, "RQ-100"),
            (grpc.StatusCode.PERMISSION_DENIED, "RQ-100"),
        ],
    )
    async def test_asks_once_without_an_idempotency_key(self, status, code):
        rpc = Rpc(status, ANSWER)
        with pytest.raises(Refused) as caught:
            await make_exchange().ask(rpc, REQUEST)
        assert (caught.value.code, len(rpc.calls)) == (code, 1)

    @pytest.mark.parametrize("failures", [1, 2])
    async def test_asks_again_with_one_when_the_service_was_away(self, failures):
        rpc = Rpc(*[grpc.StatusCode.UNAVAILABLE] * failures, ANSWER)
        assert await make_exchange(idempotency=KEY).ask(rpc, REQUEST) is ANSWER
        assert len({metadata for _, _, metadata in rpc.calls}) == 1
        assert len(rpc.calls) == failures + 1

    async def test_asks_again_what_can_do_no_harm(self):
        rpc = Rpc(grpc.StatusCode.CANCELLED, ANSWER)
        assert await make_exchange(is_repeatable=True).ask(rpc, REQUEST) is ANSWER
        assert len(rpc.calls) == 2

    async def test_does_not_tell_a_caller_of_its_own_attempt_that_still_runs(self):
        rpc = Rpc(grpc.StatusCode.CANCELLED, STILL_RUNNING, ANSWER)
        assert await make_exchange(idempotency=KEY).ask(rpc, REQUEST) is ANSWER

    async def test_tells_of_another_request_that_still_runs(self):
        rpc = Rpc(STILL_RUNNING, ANSWER)
        with pytest.raises(Refused, match="RQ-109"):
            await make_exchange(idempotency=KEY).ask(rpc, REQUEST)

    async def test_does_not_repeat_what_a_service_has_waited_for_itself(self, monkeypatch):
        monkeypatch.setattr(module, "WORTH_ANOTHER_TRY_S", 0.0)
        rpc = Rpc(AWAY, ANSWER)
        with pytest.raises(Refused, match="RQ-111"):
            await make_exchange(idempotency=KEY).ask(rpc, REQUEST)
        assert len(rpc.calls) == 1

    async def test_repeats_what_a_service_refuses_at_once_for_another(self):
        rpc = Rpc(AWAY, ANSWER)
        assert await make_exchange(idempotency=KEY).ask(rpc, REQUEST) is ANSWER

    async def test_repeats_what_broke_off_however_late(self, monkeypatch):
        monkeypatch.setattr(module, "WORTH_ANOTHER_TRY_S", 0.0)
        rpc = Rpc(grpc.StatusCode.UNAVAILABLE, ANSWER)
        assert await make_exchange(idempotency=KEY).ask(rpc, REQUEST) is ANSWER

    async def test_tells_what_it_knows_when_there_is_no_time_to_ask_again(self, monkeypatch):
        monkeypatch.setattr(module, "RETRY_PAUSES_S", (10.0,))
        rpc = Rpc(grpc.StatusCode.UNAVAILABLE, ANSWER)
        with pytest.raises(Refused, match="RQ-111"):
            await make_exchange(idempotency=KEY).ask(rpc, REQUEST)
        assert len(rpc.calls) == 1

    async def test_gives_up_after_a_third_time(self):
        rpc = Rpc(*[grpc.StatusCode.UNAVAILABLE] * 3, ANSWER)
        with pytest.raises(Refused, match="RQ-111"):
            await make_exchange(idempotency=KEY).ask(rpc, REQUEST)
        assert len(rpc.calls) == 3

    async def test_repeats_nothing_while_much_fails(self):
        budgets = RetryBudgets(lambda: 0.0)

        async def attempts(*outcomes) -> int:
            rpc = Rpc(*outcomes)
            with contextlib.suppress(Refused):
                await make_exchange(idempotency=KEY, retry_budgets=budgets).ask(rpc, REQUEST)
            return len(rpc.calls)

        sent = [await attempts(*[grpc.StatusCode.UNAVAILABLE] * 3) for _ in range(40)]
        assert (sent[0], sent[-1]) == (3, 1)
        # Half of the tokens, and one more for each call.
        assert sum(sent) == RETRY_TOKENS / 2 + sent.count(1)
        successes = [await attempts(ANSWER) for _ in range(int(sent.count(1) / TOKENS_FOR_SUCCESS) + 20)]
        assert set(successes) == {1}
        assert await attempts(grpc.StatusCode.UNAVAILABLE, ANSWER) == 2

    async def test_repeats_again_after_some_time_without_calls(self):
        now = 0.0
        budget = RetryBudgets(lambda: now).of(REQUEST)
        for _ in range(RETRY_TOKENS):
            budget.note_failure()
        now = RETRY_TOKENS / 2 / TOKENS_A_SECOND
        assert not budget.allows_retry
        now += 1
        assert budget.allows_retry
        # No more than all of them come back.
        now += 10 * RETRY_TOKENS
        for _ in range(RETRY_TOKENS // 2):
            budget.note_failure()
        assert not budget.allows_retry

    async def test_goes_on_repeating_what_else_is_asked(self):
        budgets = RetryBudgets(lambda: 0.0)
        for _ in range(RETRY_TOKENS):
            budgets.of(REQUEST).note_failure()
        assert not budgets.of(REQUEST).allows_retry
        assert budgets.of(GetDependantRequest()).allows_retry

    @pytest.mark.parametrize("status", [grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL])
    async def test_asks_again_for_no_other_reason(self, status):
        rpc = Rpc(status, ANSWER)
        with pytest.raises(Refused):
            await make_exchange(idempotency=KEY).ask(rpc, REQUEST)
        assert len(rpc.calls) == 1


class TestAnswers:
    async def test_ok_carries_the_version(self):
        response = make_exchange().ok(User(id="u", version=7))
        assert (response.status_code, response.headers["etag"]) == (200, '"7"')
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["content-type"] == "application/json"
        assert json.loads(response.body)["version"] == 7

    async def test_ok_has_no_etag_without_a_version(self):
        assert "etag" not in make_exchange().ok(Mrn(id="m")).headers

    async def test_ok_adds_members(self):
        assert json.loads(make_exchange().ok(Mrn(id="m"), token_type="Bearer").body)["token_type"] == "Bearer"

    async def test_created_says_where(self):
        response = make_exchange().created("/mrns/m", Mrn(id="m"))
        assert (response.status_code, response.headers["location"]) == (201, "/mrns/m")
        assert "idempotency-replayed" not in response.headers

    async def test_no_content_says_nothing(self):
        response = make_exchange().no_content()
        assert (response.status_code, response.body, response.headers["cache-control"]) == (204, b"", "no-store")

    async def test_lists_carry_their_next_page(self):
        exchange = make_exchange()
        assert json.loads(exchange.page([Mrn(id="m")], "next").body)["next_page_token"] == "next"
        last = exchange.page([], "")
        assert json.loads(last.body) == {"items": [], "next_page_token": None}
        assert last.headers["cache-control"] == "no-store"
        assert json.loads(exchange.items([Mrn(id="m")]).body).keys() == {"items"}

    @pytest.mark.parametrize("is_replayed", [True, False])
    async def test_tells_a_replay(self, is_replayed):
        exchange = make_exchange(idempotency=KEY)
        await exchange.ask(Rpc(ANSWER, trailers=(("aarokya-replayed", "1"),) if is_replayed else ()), REQUEST)
        for response in (exchange.ok(Mrn()), exchange.created("/mrns/m", Mrn())):
            assert response.headers.get("idempotency-replayed") == ("true" if is_replayed else None)

    async def test_believes_no_replay_that_was_not_asked_for(self):
        exchange = make_exchange()
        await exchange.ask(Rpc(ANSWER, trailers=(("aarokya-replayed", "1"),)), REQUEST)
        assert "idempotency-replayed" not in exchange.ok(Mrn()).headers


class TestReadIfMatch:
    @pytest.mark.parametrize(
        ("values", "version"),
        [([], None), (["*"], None), (['"1"'], 1), (['"42"'], 42), (['"999999999999999999"'], 999999999999999999)],
    )
    def test_reads_a_version(self, values, version):
        assert read_if_match(values) == version

    @pytest.mark.parametrize(
        "values",
        [
            *(
                [value]
                for value in ("", "1", '"', '""', "'1'", 'W/"1"', '"1" ', ' "1"', '"1", "2"', '"-1"', '"x"', '"1')
            ),
            *([value] for value in ('"1.0"', '"٣"', '"1"\n', "**", '"*"', '"' + "9" * 5000 + '"')),
            ['"1"', '"1"'],
            ["*", "*"],
            ["*", '"1"'],
        ],
    )
    def test_takes_anything_else_for_a_version_that_nothing_has(self, values):
        assert read_if_match(values) == NO_VERSION


class TestReadIdempotency:
    def read(self, caller=USER, path="/mrns", key="k", body=None) -> Idempotency:
        read = read_idempotency([key], caller, path, {"a": 1} if body is None else body)
        assert read is not None
        assert (len(read.scope), len(read.fingerprint)) == (32, 32)
        return read

    def test_is_none_without_a_key(self):
        assert read_idempotency([], USER, "/mrns", {}) is None

    @pytest.mark.parametrize("key", [" ", "k", "~" * 255, "a b", '"\\'])
    def test_takes_printable_ascii(self, key):
        assert self.read(key=key).scope != self.read(key="another").scope

    @pytest.mark.parametrize("keys", [[""], ["x" * 256], ["é"], ["a\tb"], ["a\x7f"], ["k", "k"], ["k\n"]])
    def test_refuses_any_other(self, keys):
        with pytest.raises(Refused) as caught:
            read_idempotency(keys, USER, "/mrns", {})
        assert (caught.value.code, caught.value.details[0].field) == ("RQ-101", "Idempotency-Key")

    def test_takes_operators_for_one_caller(self):
        assert self.read(ADMIN) == self.read(OTHER_ADMIN)

    def test_takes_a_platforms_keys_for_one_caller(self):
        assert self.read(PARTNER) == self.read(Caller(CallerType.PARTNER, "key-2", PLATFORM_ID))
        assert self.read(PARTNER).scope != self.read(Caller(CallerType.PARTNER, "key-1", OTHER_PLATFORM_ID)).scope

    def test_tells_users_and_kinds_of_callers_apart(self):
        callers = (
            ADMIN,
            PARTNER,
            USER,
            Caller(CallerType.USER, str(uuid4()), PLATFORM_ID),
            Caller(CallerType.USER, str(PLATFORM_ID), PLATFORM_ID),
            Caller(CallerType.PARTNER, "key-1", UUID(USER.id)),
        )
        assert len({self.read(caller).scope for caller in callers}) == len(callers)

    def test_tells_paths_and_keys_apart(self):
        scopes = {
            self.read(path=path, key=key).scope for path in ("/mrns", "/mrnsk", "/mrn") for key in ("k", "sk", "s")
        }
        assert len(scopes) == 9

    def test_compares_bodies_by_what_they_say(self):
        assert self.read(body={"a": 1, "b": [1, {"c": None}]}) == self.read(body={"b": [1, {"c": None}], "a": 1})
        bodies = (
            {},
            {"a": 1},
            {"a": "1"},
            {"a": 1.0},
            {"a": True},
            {"a": None},
            {"a": [1]},
            {"b": 1},
            [],
            None,
            "",
            "{}",
        )
        fingerprints = {read_idempotency(["k"], USER, "/mrns", body).fingerprint for body in bodies}
        assert len(fingerprints) == len(bodies)
        assert len({self.read(body=body).scope for body in ({}, {"a": 1})}) == 1
