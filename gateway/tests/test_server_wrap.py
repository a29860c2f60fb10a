"""No route without its guard, no byte of a body before the guard, and nothing unread for a route function."""

import asyncio
import json
from typing import Annotated
from uuid import uuid4

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi import Query as InQuery
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Host, Mount, Route, WebSocketRoute

from gateway import server_wrap
from gateway.app import ROUTERS
from gateway.errors import Refused, refused_response
from gateway.exchange import BUDGET_S
from gateway.fields import Answer, Body, PageQuery
from gateway.guards import ADMIN, ADMIN_OR_USER, PUBLIC, Guard
from gateway.server_wrap import ExchangeOf, GuardedRoute, NotDeclared, ServiceRouter, allowed_methods, require_declared
from servicekit.caller import Caller, CallerType
from servicekit.deadline import time_left
from servicekit.errors import ServiceAway

USER_ID, DEPENDANT_ID = str(uuid4()), str(uuid4())
OPERATOR, USER = Caller(CallerType.ADMIN, "asha"), Caller(CallerType.USER, USER_ID, uuid4())


class Thing(Answer):
    """A thing."""

    name: str = Field(description="Its name.")


class ThingBody(Body):
    """A thing to be made."""

    name: str


class ThingQuery(PageQuery):
    """Which things."""

    kind: str | None = None


async def answer_plainly() -> Response:
    return Response()


class Gatekeeper:
    """Lets everybody in, or refuses; keeps what it was asked, and how much of the body was read by then."""

    def __init__(self, caller: Caller = OPERATOR, refusal: str | None = None) -> None:
        self.caller = caller
        self.refusal = refusal
        self.asked: list[tuple[Guard, str]] = []

        # How long each look-up took, and how long the next process could have been asked then.
        self.takes_s: list[float] = []
        self.had_s: list[float] = []

    async def admit(self, guard: Guard, request: Request, route: str) -> Caller:
        self.asked.append((guard, route))
        if self.refusal:
            raise Refused(self.refusal)
        self.had_s.append(time_left(1000))
        await asyncio.sleep(self.takes_s.pop(0) if self.takes_s else 0)
        return self.caller

    async def admit_still(self, guard: Guard, request: Request, route: str) -> None:
        await self.admit(guard, request, route)


class Things:
    """An application with a route of every sort, and what its route functions were given."""

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self.calls: list[dict[str, object]] = []
        self.bytes_read = 0
        self.deadline = 0.0
        routes = ServiceRouter("records", "Things", "Things to try routes with.")

        @routes.post("/things", guard=ADMIN, summary="Make a thing.", answer=Thing, status_code=201)
        async def make_thing(exchange: ExchangeOf, body: ThingBody) -> Response:
            self.deadline = exchange.deadline
            return self._answer(caller=exchange.caller, name=body.name, sent=exchange.sent)

        @routes.get("/things", guard=ADMIN_OR_USER, summary="List things.", answer=Thing)
        async def list_things(exchange: ExchangeOf, query: Annotated[ThingQuery, InQuery()]) -> Response:
            return self._answer(kind=query.kind, page_size=query.page_size)

        @routes.get("/users/{user_id}/dependants/{dependant_id}", guard=ADMIN_OR_USER, summary="Read.", answer=Thing)
        async def read_thing(exchange: ExchangeOf, user_id: str, dependant_id: str) -> Response:
            return self._answer(user_id=user_id, dependant_id=dependant_id)

        @routes.patch("/users/{user_id}", guard=ADMIN_OR_USER, summary="Change.", answer=Thing)
        async def change_thing(exchange: ExchangeOf, user_id: str, body: ThingBody) -> Response:
            return self._answer(user_id=user_id, name=body.name)

        @routes.delete("/things", guard=ADMIN, summary="Take all things away.")
        async def delete_things(exchange: ExchangeOf) -> Response:
            return self._answer()

        @routes.get("/open", guard=PUBLIC, summary="Look in.", answer=None)
        async def look_in(request: Request) -> Response:
            return self._answer(path=request.url.path)

        async def answer_refused(request: Request, error: Exception) -> Response:
            assert isinstance(error, Refused)
            return refused_response(error, "r1")

        self.app = FastAPI(openapi_url=None, exception_handlers={Refused: answer_refused})
        self.app.include_router(routes.router)
        self.app.state.gatekeeper = gatekeeper
        self.app.state.stubs = self
        self.app.state.live_state = self.app.state.pages = self.app.state.own_reads = None
        self.app.state.retry_budgets = None
        self.full_service = ""

    def require_room(self, service: str) -> None:
        if service == self.full_service:
            raise Refused("RQ-111")

    def _answer(self, **given: object) -> Response:
        self.calls.append(given)
        return JSONResponse({})

    async def send(
        self, method: str, path: str, body: bytes = b"", content_type: str = "application/json", query: str = ""
    ) -> str:
        """Send a request and return the code of the refusal, or "" for an answer."""
        messages = []

        async def receive():
            self.bytes_read += len(body)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            messages.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())],
            "state": {"request_id": "r1", "source_address": "192.0.2.1"},
        }
        await self.app(scope, receive, send)
        answer = json.loads(b"".join(message.get("body", b"") for message in messages))
        return answer["error"]["code"] if "error" in answer else ""


@pytest.fixture
def gatekeeper() -> Gatekeeper:
    return Gatekeeper()


@pytest.fixture
def things(gatekeeper) -> Things:
    return Things(gatekeeper)


class TestRequireDeclared:
    def test_takes_routes_with_guards(self, things):
        require_declared(things.app)

    def test_takes_all_routes_of_the_gateway(self):
        app = FastAPI(openapi_url=None)
        for routes in ROUTERS:
            app.include_router(routes.router)
        require_declared(app)
        assert all(isinstance(route, GuardedRoute) for routes in ROUTERS for route in routes.router.routes)

    @pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options", "head", "trace"])
    def test_refuses_a_plain_route_of_the_framework(self, things, method):
        getattr(things.app, method)("/plain")(answer_plainly)
        with pytest.raises(NotDeclared, match="/plain"):
            require_declared(things.app)

    @pytest.mark.parametrize(
        "add",
        [
            lambda app: app.add_api_route("/plain", answer_plainly),
            lambda app: app.add_route("/plain", lambda request: None),
            lambda app: app.router.routes.append(Route("/plain", lambda request: None)),
            lambda app: app.mount("/plain", Starlette()),
            lambda app: app.mount("/plain", FastAPI()),
            lambda app: app.router.routes.append(Mount("/plain", routes=[Route("/", lambda request: None)])),
            lambda app: app.router.routes.append(Host("example.org", Starlette(), name="plain")),
            lambda app: app.router.routes.append(WebSocketRoute("/plain", lambda socket: None)),
            lambda app: app.websocket("/plain")(lambda socket: None),
        ],
    )
    def test_refuses_whatever_else_answers(self, things, add):
        add(things.app)
        with pytest.raises(NotDeclared):
            require_declared(things.app)

    def test_refuses_what_an_included_router_brings(self, things):
        inner, outer = APIRouter(), APIRouter()
        inner.get("/plain")(answer_plainly)
        outer.include_router(inner, prefix="/inner")
        things.app.include_router(outer, prefix="/outer")
        with pytest.raises(NotDeclared, match="/plain"):
            require_declared(things.app)

    def test_refuses_a_socket_of_an_included_router(self, things):
        router = APIRouter()

        @router.websocket("/plain")
        async def talk(socket: WebSocket) -> None: ...

        things.app.include_router(router)
        with pytest.raises(NotDeclared):
            require_declared(things.app)

    def test_refuses_the_frameworks_own_documents(self):
        with pytest.raises(NotDeclared):
            require_declared(FastAPI())


class TestServerWrap:
    def test_refuses_a_route_function_without_guard(self):
        routes = ServiceRouter("records", "Things", "Things.")
        with pytest.raises(NotDeclared, match="GET /plain"):
            routes.router.get("/plain")(answer_plainly)

    @pytest.mark.parametrize("guard", [None, True, "ADMIN", frozenset(), object()])
    def test_refuses_what_is_no_guard(self, guard):
        routes = ServiceRouter("records", "Things", "Things.")

        async def do_thing(exchange: ExchangeOf) -> Response:
            return Response()

        do_thing.guard = guard
        with pytest.raises(NotDeclared):
            routes.router.get("/plain")(do_thing)

    def test_has_no_guard_by_default(self):
        routes = ServiceRouter("records", "Things", "Things.")
        with pytest.raises(TypeError, match="guard"):
            routes.get("/plain", summary="Plain.", answer=None)

    @pytest.mark.parametrize(
        ("method", "path", "guard"),
        [
            ("POST", "/things", ADMIN),
            ("GET", "/things", ADMIN_OR_USER),
            ("DELETE", "/things", ADMIN),
            ("PATCH", f"/users/{USER_ID}", ADMIN_OR_USER),
        ],
    )
    async def test_asks_the_guard_of_the_route(self, things, gatekeeper, method, path, guard):
        await things.send(method, path, b'{"name": "a"}')
        template = path.replace(USER_ID, "{user_id}")
        assert gatekeeper.asked == [(guard, f"{method} {template}")]
        assert len(things.calls) == 1

    async def test_does_nothing_for_what_its_service_has_no_room_for(self, things, gatekeeper):
        things.full_service = "catalogue"
        assert await things.send("POST", "/things", b'{"name": "a"}') == ""
        things.full_service = "records"
        gatekeeper.asked.clear()
        things.bytes_read = 0
        assert await things.send("POST", "/things", b'{"name": "b"}') == "RQ-111"
        assert gatekeeper.asked == []
        assert things.bytes_read == 0

    async def test_asks_nobody_about_a_public_route(self, things, gatekeeper):
        assert await things.send("GET", "/open") == ""
        assert gatekeeper.asked == []
        assert things.calls == [{"path": "/open"}]

    @pytest.mark.parametrize("code", ["AU-201", "AU-202", "AU-204", "RQ-107", "RQ-111"])
    @pytest.mark.parametrize(
        ("method", "path", "body", "content_type", "query"),
        [
            ("POST", "/things", b'{"name": "a"}', "application/json", ""),
            ("POST", "/things", b"{", "application/json", "no_such=1"),
            ("POST", "/things", b"x" * 300_000, "text/plain", ""),
            ("PATCH", "/users/unknown", b"", "", ""),
            ("GET", "/things", b"{", "application/json", "page_size=0"),
            ("DELETE", "/things", b"{", "application/json", "no_such=1"),
            ("GET", "/users/unknown/dependants/unknown", b"", "application/json", ""),
        ],
    )
    async def test_reads_nothing_of_the_body_of_whom_it_refuses(
        self, things, gatekeeper, code, method, path, body, content_type, query
    ):
        gatekeeper.refusal = code
        assert await things.send(method, path, body, content_type, query) == code
        assert (things.bytes_read, things.calls) == (0, [])

    async def test_reads_nothing_of_a_body_that_it_does_not_take(self, things):
        for method in ("GET", "DELETE"):
            assert await things.send(method, "/things", b"{", "text/plain") == ""
        assert things.bytes_read == 0

    async def test_takes_what_it_asks_of_others_off_the_time_of_a_request(self, things, gatekeeper, monkeypatch):
        monkeypatch.setattr(server_wrap, "RECHECK_AFTER_S", 0.01)
        gatekeeper.takes_s = [0.2, 0.3]
        assert await things.send("POST", "/things", b'{"name": "a"}') == ""
        assert len(gatekeeper.asked) == 2
        first, second = gatekeeper.had_s
        left = things.deadline - asyncio.get_running_loop().time()
        assert BUDGET_S > first > second + 0.1 > left + 0.2

    async def test_has_no_time_left_for_a_second_look(self, things, gatekeeper, monkeypatch):
        monkeypatch.setattr(server_wrap, "RECHECK_AFTER_S", 0.01)
        monkeypatch.setattr(server_wrap, "BUDGET_S", 0.1)
        gatekeeper.takes_s = [0.2]
        with pytest.raises(ServiceAway):
            await things.send("POST", "/things", b'{"name": "a"}')
        assert not things.calls


class TestRun:
    """What is left of a request for the route function, and the order in which the rest of it is refused."""

    @pytest.mark.parametrize(
        ("content_type", "body", "query", "path", "code"),
        [
            ("text/plain", b"{", "no_such=1", "unknown", "RQ-105"),
            ("application/json", b"{", "no_such=1", "unknown", "RQ-102"),
            ("application/json", b'{"name": 1}', "no_such=1", "unknown", "RQ-101"),
            ("application/json", b'{"name": "a"}', "no_such=1", "unknown", "RQ-101"),
            ("application/json", b'{"name": "a"}', "", "unknown", "US-401"),
            ("application/json", b'{"name": "a"}', "", USER_ID, ""),
        ],
    )
    async def test_refuses_in_order(self, things, content_type, body, query, path, code):
        assert await things.send("PATCH", f"/users/{path}", body, content_type, query) == code
        assert len(things.calls) == (not code)

    async def test_gives_body_query_and_path_in_their_shapes(self, things):
        await things.send("POST", "/things", b'{"name": "a"}')
        await things.send("GET", "/things", query="kind=b&page_size=500")
        await things.send("GET", f"/users/{USER_ID.upper()}/dependants/{DEPENDANT_ID.upper()}")
        assert things.calls == [
            {"caller": OPERATOR, "name": "a", "sent": {"name": "a"}},
            {"kind": "b", "page_size": 200},
            {"user_id": USER_ID, "dependant_id": DEPENDANT_ID},
        ]

    @pytest.mark.parametrize("caller", [OPERATOR, USER])
    async def test_answers_404_for_a_first_id_that_is_none(self, things, gatekeeper, caller):
        gatekeeper.caller = caller
        assert await things.send("GET", f"/users/unknown/dependants/{DEPENDANT_ID}") == "US-401"
        assert things.calls == []

    async def test_leaves_a_later_id_that_is_none_to_the_service(self, things):
        await things.send("GET", f"/users/{USER_ID}/dependants/unknown")
        assert things.calls == [{"user_id": USER_ID, "dependant_id": "ffffffff-ffff-ffff-ffff-ffffffffffff"}]

    @pytest.mark.parametrize("query", ["kind=a&kind=a", "page_size=0", "no_such=1", "page_size=1&page_size=2"])
    async def test_refuses_odd_queries(self, things, query):
        assert await things.send("GET", "/things", query=query) == "RQ-101"

    async def test_refuses_any_query_on_a_route_that_takes_none(self, things):
        assert await things.send("DELETE", "/things", query="reason=a") == "RQ-101"
        assert await things.send("GET", "/open", query="a=") == "RQ-101"


class TestAllowedMethods:
    def test_lists_all_methods_of_a_path(self, things):
        assert allowed_methods(things.app.routes, "/things") == ["DELETE", "GET", "POST"]
        assert allowed_methods(things.app.routes, f"/users/{USER_ID}") == ["PATCH"]
        assert allowed_methods(things.app.routes, "/nowhere") == []
