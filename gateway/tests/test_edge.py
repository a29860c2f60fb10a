"""What every request gets at the edge, whatever the application behind it does."""

import asyncio
import json
import logging

import pytest
from fastapi import FastAPI, Request
from prometheus_client import REGISTRY
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from gateway.edge import MAX_BODY_BYTES, Edge
from gateway.errors import Detail, Refused, error_response
from gateway.load_shedding import AdmissionQueue
from gateway.retry_after import A_SECOND


class Caller:
    """Sends one request through an ASGI application and keeps what comes back."""

    def __init__(self, app) -> None:
        self._app = app
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False
        self.bytes_taken = 0

    async def call(self, *chunks: bytes, headers=(), client=("10.0.0.9", 1234), then="wait", path="/a") -> "Caller":
        pending = [
            {"type": "http.request", "body": chunk, "more_body": then != "end" or position < len(chunks) - 1}
            for position, chunk in enumerate(chunks or (b"",))
        ]

        async def receive():
            if pending:
                message = pending.pop(0)
                self.bytes_taken += len(message["body"])
                return message
            if then == "vanish":
                return {"type": "http.disconnect"}
            return await asyncio.Event().wait()

        async def send(message):
            if message["type"] == "http.response.start":
                assert not self.status, "the answer began twice"
                self.status = message["status"]
                names = [name for name, _ in message["headers"]]
                assert len(set(names)) == len(names)
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                assert self.status
                assert not self.complete
                self.body += message["body"]
                self.complete = not message.get("more_body", False)

        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"sesame=1",
            "headers": list(headers),
            "client": client,
        }
        await self._app(scope, receive, send)
        return self

    @property
    def code(self) -> str:
        error = json.loads(self.body)["error"]
        assert error["request_id"] == self.headers["x-request-id"]
        return error["code"]


async def read_body(scope, receive, send):
    await PlainTextResponse(b"%d" % len(await Request(scope, receive).body()))(scope, receive, send)


async def answer_state(scope, receive, send):
    await PlainTextResponse(json.dumps(scope["state"]))(scope, receive, send)


async def call(app, *chunks: bytes, then="end", **kwargs) -> Caller:
    return await Caller(app).call(*chunks, then=then, **kwargs)


class TestRequestId:
    @pytest.mark.parametrize("sent", [b"a", b"A-b_9", b"x" * 64])
    async def test_takes_a_good_one(self, sent):
        answer = await call(Edge(answer_state), headers=[(b"x-request-id", sent)])
        assert answer.headers["x-request-id"] == json.loads(answer.body)["request_id"] == sent.decode()

    @pytest.mark.parametrize("sent", [(b"",), (b"x" * 65,), (b"a b",), (b"a\n",), (b"\xe9",), (b"a", b"b"), ()])
    async def test_mints_one_otherwise(self, sent):
        answer = await call(Edge(answer_state), headers=[(b"x-request-id", value) for value in sent])
        minted = answer.headers["x-request-id"]
        assert len(minted) == 32
        assert json.loads(answer.body)["request_id"] == minted

    async def test_is_never_the_same(self):
        assert len({(await call(Edge(answer_state))).headers["x-request-id"] for _ in range(50)}) == 50

    async def test_does_not_repeat_the_one_of_an_error(self):
        async def refuse(scope, receive, send):
            raise Refused("US-401")

        answer = await call(Edge(refuse), headers=[(b"x-request-id", b"mine")])
        assert (answer.status, answer.code, answer.headers["x-request-id"]) == (404, "US-401", "mine")


class TestSourceAddress:
    PROXIES = ("10.0.0.0/24", "192.0.2.1", "2001:db8::/32")

    @pytest.mark.parametrize(
        ("peer", "forwarded", "source"),
        [
            ("10.0.0.9", [], "10.0.0.9"),
            ("198.51.100.7", ["203.0.113.1"], "198.51.100.7"),
            ("10.0.0.9", ["203.0.113.1"], "203.0.113.1"),
            ("10.0.0.9", ["8.8.8.8, 203.0.113.1"], "203.0.113.1"),
            ("10.0.0.9", ["8.8.8.8, 203.0.113.1, 192.0.2.1,10.0.0.4"], "203.0.113.1"),
            ("10.0.0.9", ["8.8.8.8", "203.0.113.1", "192.0.2.1"], "203.0.113.1"),
            ("10.0.0.9", ["10.0.0.4, 192.0.2.1"], "10.0.0.4"),
            ("10.0.0.9", ["203.0.113.1:4711"], "203.0.113.1"),
            ("10.0.0.9", ["2001:DB9:0::1"], "2001:db9::1"),
            ("10.0.0.9", ["[2001:db9::1]:4711"], "2001:db9::1"),
            ("10.0.0.9", ["203.0.113.1, 2001:db8::5"], "203.0.113.1"),
            ("10.0.0.9", ["::ffff:203.0.113.1"], "203.0.113.1"),
            ("::ffff:10.0.0.9", ["203.0.113.1"], "203.0.113.1"),
            ("2001:db8::1", ["203.0.113.1"], "203.0.113.1"),
            ("10.0.0.9", ["203.0.113.1, unknown"], "10.0.0.9"),
            ("10.0.0.9", ["203.0.113.1, "], "10.0.0.9"),
            ("10.0.0.9", ["203.0.113.1, x, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.9", ["fe80::1%eth0"], "10.0.0.9"),
            ("10.0.0.9", ["999.1.1.1"], "10.0.0.9"),
            ("10.0.0.9", ["0x7f.1"], "10.0.0.9"),
            ("10.0.0.9", ["\xe9"], "10.0.0.9"),
        ],
    )
    async def test_looks_through_trusted_proxies_only(self, peer, forwarded, source):
        headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
        answer = await call(Edge(answer_state, trusted_proxies=self.PROXIES), headers=headers, client=(peer, 1))
        assert json.loads(answer.body)["source_address"] == source

    @pytest.mark.parametrize("client", [("10.0.0.9", 1), None])
    async def test_trusts_nobody_unless_told(self, client):
        answer = await call(Edge(answer_state), headers=[(b"x-forwarded-for", b"203.0.113.1")], client=client)
        assert json.loads(answer.body)["source_address"] == (client[0] if client else "")

    def test_refuses_proxies_that_are_no_addresses(self):
        with pytest.raises(ValueError, match="proxy"):
            Edge(answer_state, trusted_proxies=["proxy.example"])


class TestBody:
    async def test_lets_a_body_of_the_limit_pass(self):
        answer = await call(Edge(read_body), b"a" * 100_000, b"b" * (MAX_BODY_BYTES - 100_000))
        assert (answer.status, answer.body) == (200, b"%d" % MAX_BODY_BYTES)

    async def test_lets_a_body_with_a_length_come_in_pieces(self):
        headers = [(b"content-length", b"200000")]
        answer = await call(Edge(read_body), *[b"a" * 20_000] * 10, headers=headers)
        assert (answer.status, answer.body) == (200, b"200000")

    async def test_refuses_a_larger_one_while_it_comes(self):
        answer = await call(Edge(read_body), *[b"a" * 65_536] * 100)
        assert (answer.status, answer.code) == (413, "RQ-106")
        assert answer.bytes_taken <= MAX_BODY_BYTES + 65_536

    async def test_refuses_a_larger_one_by_its_length_without_reading(self):
        answer = await call(Edge(read_body), b"a", headers=[(b"content-length", b"262145")])
        assert (answer.code, answer.bytes_taken) == ("RQ-106", 0)

    async def test_says_nothing_about_a_body_nobody_reads(self):
        async def unauthenticated(scope, receive, send):
            raise Refused("AU-201")

        answer = await call(Edge(unauthenticated), headers=[(b"content-length", b"99999999")])
        assert (answer.status, answer.code, answer.bytes_taken) == (401, "AU-201", 0)

    @pytest.mark.parametrize("chunks", [(), (b"{",)])
    async def test_gives_up_on_a_slow_one(self, chunks):
        answer = await call(Edge(read_body, body_timeout_seconds=0.05), *chunks, then="wait")
        assert (answer.status, answer.code, answer.headers["connection"]) == (408, "RQ-116", "close")

    async def test_refuses_even_when_the_application_calls_it_something_else(self):
        app = FastAPI()

        @app.post("/a")
        async def post(body: dict) -> None: ...

        answer = await call(Edge(app), headers=[(b"content-length", b"262145"), (b"content-type", b"application/json")])
        assert (answer.status, answer.code) == (413, "RQ-106")

    async def test_waits_for_the_end_of_a_connection_as_long_as_it_takes(self):
        async def wait_for_disconnect(scope, receive, send):
            assert (await receive())["type"] == "http.request"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0.1)
            await PlainTextResponse("done")(scope, receive, send)

        assert (await call(Edge(wait_for_disconnect, body_timeout_seconds=0.01))).body == b"done"

    async def test_is_silent_when_the_client_vanishes(self, caplog):
        answer = await call(Edge(read_body), b"a", then="vanish")
        assert answer.status == 0
        assert caplog.records == []

    async def test_is_silent_when_the_client_vanishes_and_nobody_minds(self, caplog):
        async def give_up(scope, receive, send):
            while (await receive())["type"] != "http.disconnect":
                pass

        assert (await call(Edge(give_up), b"a", then="vanish")).status == 0
        assert caplog.records == []


class TestFailures:
    async def test_answers_an_unexpected_exception_and_logs_it(self, caplog):
        async def fail(scope, receive, send):
            raise ZeroDivisionError

        with caplog.at_level(logging.ERROR):
            answer = await call(Edge(fail), headers=[(b"x-request-id", b"mine")])
        assert (answer.status, answer.code) == (500, "RQ-100")
        assert "ZeroDivisionError" in caplog.text
        assert "mine" in caplog.text
        assert "sesame" not in caplog.text

    async def test_answers_for_an_application_that_does_not(self, caplog):
        async def forget(scope, receive, send):
            return

        answer = await call(Edge(forget))
        assert (answer.status, answer.code) == (500, "RQ-100")
        assert "was not answered" in caplog.text

    async def test_leaves_an_answer_that_has_begun_unfinished(self, caplog):
        async def fail_late(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            raise ZeroDivisionError

        answer = await call(Edge(fail_late))
        assert (answer.status, answer.body, answer.complete) == (200, b"a", False)
        assert "ZeroDivisionError" in caplog.text

    async def test_overrules_the_framework_that_answers_its_own_failure(self, caplog):
        inside, around = FastAPI(), FastAPI()
        inside.add_middleware(Edge)
        for app, whole in ((inside, inside), (around, Edge(around))):

            @app.post("/a")
            async def post() -> None:
                raise ZeroDivisionError

            answer = await call(whole)
            assert (answer.status, answer.code, answer.complete) == (500, "RQ-100", True)
        assert caplog.text.count("ended in an unexpected error") == 2

    async def test_passes_on_a_500_that_is_an_answer(self):
        async def answer_500(scope, receive, send):
            await PlainTextResponse("mine", 500)(scope, receive, send)

        answer = await call(Edge(answer_500))
        assert (answer.status, answer.body, answer.complete) == (500, b"mine", True)

    async def test_answers_when_the_server_gives_up(self):
        async def take_long(scope, receive, send):
            await asyncio.Event().wait()

        caller = Caller(Edge(take_long))
        task = asyncio.create_task(caller.call())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (caller.status, caller.code) == (503, "RQ-111")

    async def test_builds_the_refusal_that_was_raised(self):
        async def refuse(scope, receive, send):
            raise Refused("RQ-104", "Not so.", [Detail("method", "is wrong")], {"Allow": "GET"})

        answer = await call(Edge(refuse))
        assert (answer.status, answer.code, answer.headers["allow"]) == (405, "RQ-104", "GET")
        assert json.loads(answer.body)["error"]["details"] == [{"field": "method", "message": "is wrong"}]

    async def test_hides_a_client_that_left_from_the_log(self, caplog):
        async def leave(scope, receive, send):
            raise ClientDisconnect

        assert (await call(Edge(leave))).status == 0
        assert caplog.records == []


class TestAnswers:
    async def test_carry_the_security_headers(self):
        for app in (read_body, None):
            answer = await call(Edge(app))
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["referrer-policy"] == "no-referrer"

    async def test_lets_other_scopes_pass(self):
        seen = []

        async def app(scope, receive, send):
            seen.append(scope)

        await Edge(app)({"type": "lifespan"}, None, None)
        assert seen == [{"type": "lifespan"}]


class TestMetrics:
    @staticmethod
    def answers(route: str, status: str) -> float:
        return REGISTRY.get_sample_value("aarokya_http_requests_total", {"route": route, "status": status}) or 0.0

    async def test_count_answers_by_route_and_status(self):
        app = FastAPI()

        @app.post("/rides/{ride_id}")
        async def make(ride_id: str) -> str:
            if ride_id == "left":
                raise ClientDisconnect
            if ride_id == "unknown":
                raise Refused("PL-301")
            return ride_id

        edge = Edge(app)

        @app.get("/read-only")
        async def read() -> None: ...

        for path in ("/rides/1", "/rides/2", "/rides/unknown", "/rides/left", "/made-up", "/read-only"):
            await call(edge, path=path)
        route = "POST /rides/{ride_id}"
        assert [self.answers(route, status) for status in ("200", "404", "none")] == [2, 1, 1]
        assert REGISTRY.get_sample_value("aarokya_http_request_seconds_count", {"route": route}) == 4
        counted = {sample.labels.get("route", "") for metric in REGISTRY.collect() for sample in metric.samples}
        assert not any("made-up" in each or "read-only" in each for each in counted)

    async def test_count_those_who_were_refused_for_there_was_too_much_to_do(self):
        before = REGISTRY.get_sample_value("aarokya_http_requests_shed_total")
        await call(Edge(answer_state, most_requests=0))
        assert REGISTRY.get_sample_value("aarokya_http_requests_shed_total") == before + 1


class TestLoad:
    async def test_refuses_at_once_what_cannot_be_answered_in_time(self):
        goes_on = asyncio.Event()

        async def wait(scope, receive, send):
            await goes_on.wait()
            await answer_state(scope, receive, send)

        edge = Edge(wait, most_requests=2)
        running = [asyncio.create_task(call(edge)) for _ in range(2)]
        await asyncio.sleep(0)

        refused = await call(edge)

        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "RQ-111", "1")
        goes_on.set()
        assert [(await task).status for task in running] == [200, 200]
        assert (await call(edge)).status == 200

    async def test_refuses_who_comes_too_late_but_tells_whether_it_lives(self):
        class Late(AdmissionQueue):
            def is_overloaded(self):
                return True

        edge = Edge(answer_state, admission=Late())
        refused = await call(edge)
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "RQ-111", "1")
        for path in ("/livez", "/readyz"):
            assert (await call(edge, path=path)).status == 200

    @pytest.mark.parametrize("by", ["the admission queue", "a handler", "an exception"])
    async def test_tells_a_crowd_that_is_refused_to_come_back_one_after_the_other(self, by):
        class Late(AdmissionQueue):
            def is_overloaded(self):
                return super().is_overloaded() or by == "the admission queue"

        async def away(scope, receive, send):
            if by == "an exception":
                raise Refused("RQ-111")
            await error_response("RQ-111", scope["state"]["request_id"])(scope, receive, send)

        edge = Edge(away, admission=Late())
        told = [int((await call(edge)).headers["retry-after"]) for _ in range(3 * A_SECOND)]
        assert (told[0], told[-1]) == (1, 3)
        assert told == sorted(told)

    async def test_tells_nobody_else_when_to_come_back(self):
        async def answer(scope, receive, send):
            await PlainTextResponse("", 504 if scope["path"] == "/late" else 503)(scope, receive, send)

        edge = Edge(answer)
        assert "retry-after" not in (await call(edge, path="/late")).headers
        assert "retry-after" not in (await call(edge, path="/readyz")).headers

    async def test_takes_no_room_for_those_who_ask_whether_it_lives(self):
        goes_on = asyncio.Event()

        async def wait(scope, receive, send):
            if scope["path"] == "/readyz":
                await goes_on.wait()
            await answer_state(scope, receive, send)

        edge = Edge(wait, most_requests=1)
        asking = [asyncio.create_task(call(edge, path="/readyz")) for _ in range(3)]
        await asyncio.sleep(0)
        assert (await call(edge)).status == 200
        goes_on.set()
        assert [(await task).status for task in asking] == [200] * 3

    async def test_answers_who_still_waits_in_line_when_the_server_gives_up(self):
        class Closed(AdmissionQueue):
            async def enter(self):
                await asyncio.Event().wait()

        caller = Caller(Edge(answer_state, admission=Closed()))
        task = asyncio.create_task(caller.call())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (caller.status, caller.code) == (503, "RQ-111")

    async def test_does_not_count_who_waits_for_a_body(self):
        edge = Edge(read_body, most_requests=1)
        sending = asyncio.create_task(call(edge, b"half", then="wait"))
        await asyncio.sleep(0.01)

        assert (await call(edge)).status == 200
        sending.cancel()
