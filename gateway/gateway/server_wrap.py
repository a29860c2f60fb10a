"""The one way into the gateway: every route is declared with its guard, and runs behind it.

    @router.post("/mrns", guard=PARTNER_OR_USER, status_code=201, answer=Mrn, codes=("DE-501", "MR-903"), summary="…")
    async def link_mrn(exchange: ExchangeOf, body: CreateMrnBody) -> Response: ...

The guard sees the headers and the path before anything of the body is read. Body and query are then read by their
shapes, and only what passed reaches the function. A route that was added in any other way is found by
`require_declared`, and the gateway does not start.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.credentials import Kind
from gateway.edge import NEVER_SHED
from gateway.errors import Refused
from gateway.exchange import BUDGET_S, Exchange, read_idempotency, read_if_match
from gateway.fields import Answer, Body, Query, is_uuid
from gateway.guards import PUBLIC, Gatekeeper, Guard
from gateway.json_body import decode_json
from gateway.user_agent import printable
from gateway.validation import read_body, read_query
from servicekit.deadline import set_deadline

# The code when the first id of a path is no UUID.
UNKNOWN_CODES = {
    "platform_id": "PL-301",
    "user_id": "US-401",
    "benefit_provider_id": "BP-601",
    "benefit_id": "BE-701",
    "mrn_id": "MR-901",
}
# Takes the place of a later id that is no UUID, so that the service first looks for what the ids before it name. We
# make all ids ourselves, so nothing has this one.
NO_SUCH_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"
ANY_ROUTE_CODES = ("RQ-100", "RQ-101", "RQ-114", "RQ-115")
BODY_CODES = ("RQ-102", "RQ-105", "RQ-106", "RQ-116")
KEY_CODES = ("RQ-108", "RQ-109")
# After so long, in seconds, what a caller may do is looked up again: somebody who sends a body slowly, or was let in
# slowly, must not outlive a revocation.
RECHECK_AFTER_S = 0.25


class NotDeclared(Exception):
    """A route says nothing about who may call it."""


async def _exchange_of(request: Request) -> Exchange:
    exchange: Exchange = request.state.exchange
    return exchange


ExchangeOf = Annotated[Exchange, Depends(_exchange_of)]


@dataclass(frozen=True, slots=True)
class _Declaration:
    """What a route's decorator and the parameters of its function say.

    Attributes:
        endpoint: the function.
        template: the method and the path template.
        guard: who may call it.
        service: which service is asked.
        parameters: the names of the function's parameters.
        body: the parameter for the body, and its shape.
        query: the parameter for the query, and its shape.
        exchange: the parameter for the exchange.
        whole: the parameter for the request itself.
        first_id: the path's first id that has a code of its own for "there is no such thing".
        reads_json: whether there is a body to read.
        takes_key: whether an Idempotency-Key counts.
        is_repeatable: whether a POST may be sent again without a key.
    """

    endpoint: Callable[..., Any]
    template: str
    guard: Guard
    service: str
    parameters: frozenset[str]
    body: tuple[str, Any] | None
    query: tuple[str, Any] | None
    exchange: str | None
    whole: str | None
    first_id: str | None
    reads_json: bool
    takes_key: bool
    is_repeatable: bool

    @classmethod
    def of(cls, route: APIRoute) -> "_Declaration":
        """Read a route's declaration.

        Raises:
            NotDeclared: it names no guard.
        """
        parameters = inspect.signature(route.endpoint).parameters
        method = next(iter(route.methods or ()))
        template = f"{method} {route.path_format}"
        guard = getattr(route.endpoint, "guard", None)
        if not isinstance(guard, Guard):
            raise NotDeclared(f"{template} was not declared with a guard")
        extra = route.openapi_extra or {}
        body = _parameter(parameters, Body)
        takes_key = "RQ-108" in extra["x-error-codes"]
        return cls(
            endpoint=route.endpoint,
            template=template,
            guard=guard,
            service=extra["x-service"],
            parameters=frozenset(parameters),
            body=body,
            query=_parameter(parameters, Query),
            exchange=next((name for name, it in parameters.items() if it.annotation == ExchangeOf), None),
            whole=next((name for name, it in parameters.items() if it.annotation is Request), None),
            first_id=next((name for name in route.param_convertors if name in UNKNOWN_CODES), None),
            reads_json=body is not None or "requestBody" in extra,
            takes_key=takes_key,
            is_repeatable=method == "POST" and not takes_key,
        )


class GuardedRoute(APIRoute):
    """A route with its guard. What FastAPI would do with body and query for itself, `run` does strictly."""

    declared: _Declaration

    def get_route_handler(self) -> Callable[[Request], Any]:
        self.declared = _Declaration.of(self)
        return self.run

    async def run(self, request: Request) -> Response:
        """Let the caller in, read what was sent, and have the function answer.

        Raises:
            Refused: by the guard, for what was sent, or by the function.
        """
        declared = self.declared
        request.app.state.stubs.require_room(declared.service)
        gatekeeper: Gatekeeper = request.app.state.gatekeeper
        clock = asyncio.get_running_loop().time
        began = clock()
        set_deadline(BUDGET_S)
        is_public = declared.guard is PUBLIC
        caller = None if is_public else await gatekeeper.admit(declared.guard, request, declared.template)
        # How long a body takes is the caller's affair; all the rest counts.
        budget_s = BUDGET_S - (clock() - began)
        sent = None
        if declared.reads_json:
            sent = await _read_json(request)
            if not is_public and clock() - began > RECHECK_AFTER_S:
                asked_at = clock()
                set_deadline(budget_s)
                await gatekeeper.admit_still(declared.guard, request, declared.template)
                budget_s -= clock() - asked_at
        arguments = self._read_arguments(request, sent)
        if declared.exchange is not None:
            arguments[declared.exchange] = self._open_exchange(request, caller, sent, budget_s)
        try:
            response: Response = await declared.endpoint(**arguments)
        except Refused as refused:
            # Whether the platform or user that a body names is the caller's own is known only now.
            gatekeeper.note(refused, request, declared.template)
            raise
        return response

    def _read_arguments(self, request: Request, sent: Any) -> dict[str, Any]:
        """Return what the function is called with, but for the exchange.

        Raises:
            Refused: body or query do not have their shape, or the first id of the path is none.
        """
        declared = self.declared
        arguments: dict[str, Any] = {
            name: _id(text) if name.endswith("_id") else text
            for name, text in request.path_params.items()
            if name in declared.parameters
        }
        if declared.body is not None:
            name, shape = declared.body
            arguments[name] = read_body(shape, sent)
        if declared.query is not None:
            name, shape = declared.query
            arguments[name] = read_query(shape, request.query_params.multi_items())
        elif request.url.query:
            read_query(Query, request.query_params.multi_items())
        first_id = declared.first_id
        if first_id is not None and not is_uuid(request.path_params[first_id]):
            raise Refused(UNKNOWN_CODES[first_id])
        if declared.whole is not None:
            arguments[declared.whole] = request
        return arguments

    def _open_exchange(self, request: Request, caller: Any, sent: Any, budget_s: float) -> Exchange:
        """Return what the function asks services by.

        Raises:
            Refused: Idempotency-Key or If-Match cannot be read.
        """
        declared, headers = self.declared, request.headers
        state, app = request.scope["state"], request.app.state
        keys = headers.getlist("idempotency-key") if declared.takes_key else []
        return Exchange(
            caller,
            request_id=state["request_id"],
            source_address=state["source_address"],
            user_agent=printable(headers.get("user-agent")),
            idempotency=read_idempotency(keys, caller, _path_of(request, declared.template), sent),
            if_match=read_if_match(headers.getlist("if-match")),
            deadline=asyncio.get_running_loop().time() + budget_s,
            sent=sent,
            is_basic="authorization" in headers and caller is not None and caller.is_partner,
            is_repeatable=declared.is_repeatable,
            stubs=app.stubs,
            retry_budgets=app.retry_budgets,
            live_state=app.live_state,
            pages=app.pages,
            own_reads=app.own_reads,
        )


def _path_of(request: Request, template: str) -> str:
    """Return a request's path with its ids in their one form."""
    ids = {name: text.lower() for name, text in request.path_params.items()}
    return template.partition(" ")[2].format_map(ids)


def _id(text: str) -> str:
    return text.lower() if is_uuid(text) else NO_SUCH_ID


async def _read_json(request: Request) -> Any:
    """Return the decoded body. Raises Refused: RQ-105 for another media type or coding, RQ-102 for what is not JSON."""
    values = request.headers.getlist("content-type")
    media_type, *parameters = [part.strip().lower() for part in values[0].split(";")] if len(values) == 1 else [""]
    if media_type != "application/json" or any(
        parameter and parameter not in ("charset=utf-8", 'charset="utf-8"') for parameter in parameters
    ):
        raise Refused("RQ-105")
    if any(coding.strip().lower() != "identity" for coding in request.headers.getlist("content-encoding")):
        raise Refused("RQ-105", "The body must not be compressed.")
    return decode_json(await request.body())


def _parameter(parameters: Mapping[str, inspect.Parameter], shape: type) -> tuple[str, Any] | None:
    for name, parameter in parameters.items():
        annotation = parameter.annotation
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        if inspect.isclass(annotation) and issubclass(annotation, shape):
            return name, annotation
    return None


class ServiceRouter:
    """Declares the routes of one domain; `router` is what the application includes."""

    def __init__(self, service: str, tag: str, description: str) -> None:
        self.service = service
        self.tag = tag
        self.description = description
        self.router = APIRouter(route_class=GuardedRoute, redirect_slashes=False)

    def get(self, path: str, **declaration: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a GET route; see `server_wrap`."""
        return self.server_wrap("GET", path, **declaration)

    def post(self, path: str, **declaration: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a POST route; see `server_wrap`."""
        return self.server_wrap("POST", path, **declaration)

    def patch(self, path: str, **declaration: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a PATCH route; see `server_wrap`."""
        return self.server_wrap("PATCH", path, **declaration)

    def delete(self, path: str, **declaration: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a DELETE route; see `server_wrap`."""
        return self.server_wrap("DELETE", path, status_code=204, answer=None, **declaration)

    def server_wrap(
        self,
        method: str,
        path: str,
        *,
        guard: Guard,
        summary: str,
        answer: type[Answer] | None,
        status_code: int = 200,
        codes: Sequence[str] = (),
        own_body: dict[str, Any] | None = None,
        is_naturally_idempotent: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a route with its guard.

        Args:
            method: the HTTP method.
            path: the path template.
            guard: who may call it; `PUBLIC` for everybody.
            summary: one sentence for the documentation.
            answer: the shape of a success.
            status_code: the status of a success.
            codes: the codes that the domain can answer; those of the guard and of every request are added.
            own_body: the OpenAPI request body of a route that reads ``exchange.sent`` for itself.
            is_naturally_idempotent: whether a POST needs no Idempotency-Key, and ignores one.
        """

        def declare(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            reads_body = own_body is not None or _parameter(inspect.signature(endpoint).parameters, Body)
            all_codes = {*codes, *guard.codes, *ANY_ROUTE_CODES}
            if path not in NEVER_SHED:
                all_codes.add("RQ-111")
            if guard is not PUBLIC:
                all_codes.add("RQ-112")
            if Kind.USER in guard.kinds and "{user_id}" in path:
                all_codes.add("AU-206")
            if reads_body:
                all_codes.update(BODY_CODES)
            if method == "POST" and not is_naturally_idempotent:
                all_codes.update(KEY_CODES)
            endpoint.guard = guard  # type: ignore[attr-defined]
            self.router.add_api_route(
                path,
                endpoint,
                methods=[method],
                status_code=status_code,
                response_model=None,
                response_class=Response,
                responses=_success(status_code, answer),
                summary=summary,
                operation_id=endpoint.__name__,
                tags=[self.tag],
                openapi_extra={
                    "x-service": self.service,
                    "x-error-codes": sorted(all_codes),
                    "security": guard.security,
                    **({"requestBody": own_body} if own_body else {}),
                },
            )
            return endpoint

        return declare


def _success(status_code: int, answer: type[Answer] | None) -> dict[int | str, dict[str, Any]]:
    return {status_code: {"model": answer} if answer else {"description": "Done."}}


def require_declared(app: FastAPI) -> None:
    """Refuse to start with a route that was not declared with its guard.

    Raises:
        NotDeclared: there is one.
    """
    for context in iter_route_contexts(app.routes):
        if not isinstance(context.original_route, GuardedRoute):
            raise NotDeclared(f"{context.path} was not declared with a guard")


def allowed_methods(routes: Sequence[BaseRoute], path: str) -> list[str]:
    """Return all the methods that a path takes."""
    methods: set[str] = set()
    for context in iter_route_contexts(routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.path_regex.fullmatch(path):
            methods |= set(route.methods or ())
    return sorted(methods)
