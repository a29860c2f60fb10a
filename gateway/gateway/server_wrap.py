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
BELIEVED_S = 0.25


class NotDeclared(Exception):
    """A route says nothing about who may call it."""


async def _exchange_of(request: Request) -> Exchange:
    exchange: Exchange = request.state.exchange
    return exchange


ExchangeOf = Annotated[Exchange, Depends(_exchange_of)]


class GuardedRoute(APIRoute):
    """A route with its guard. What FastAPI would do with body and query for itself, `_run` does strictly."""

    guard: Guard

    def get_route_handler(self) -> Callable[[Request], Any]:
        endpoint = self.endpoint
        parameters = inspect.signature(endpoint).parameters
        body = _parameter(parameters, Body)
        query = _parameter(parameters, Query)
        exchange = next((name for name, it in parameters.items() if it.annotation == ExchangeOf), None)
        whole = next((name for name, it in parameters.items() if it.annotation is Request), None)
        first_id = next((name for name in self.param_convertors if name in UNKNOWN_CODES), None)
        method = next(iter(self.methods or ()))
        template = f"{method} {self.path_format}"
        guard = getattr(endpoint, "guard", None)
        if not isinstance(guard, Guard):
            raise NotDeclared(f"{template} was not declared with a guard")
        self.guard = guard
        extra = self.openapi_extra or {}
        service = extra["x-service"]
        reads_own_body = "requestBody" in extra
        takes_key = "RQ-108" in extra["x-error-codes"]
        is_repeatable = method == "POST" and not takes_key

        async def run(request: Request) -> Response:
            request.app.state.stubs.require_room(service)
            gatekeeper: Gatekeeper = request.app.state.gatekeeper
            clock = asyncio.get_running_loop().time
            began = clock()
            set_deadline(BUDGET_S)
            caller = None if guard is PUBLIC else await gatekeeper.admit(guard, request, template)
            # How long a body takes is the caller's affair; all the rest counts.
            budget_s = BUDGET_S - (clock() - began)
            arguments: dict[str, Any] = {
                name: _id(text) if name.endswith("_id") else text
                for name, text in request.path_params.items()
                if name in parameters
            }
            value = None
            if body is not None or reads_own_body:
                value = await _read_json(request)
                if guard is not PUBLIC and clock() - began > BELIEVED_S:
                    asked_at = clock()
                    set_deadline(budget_s)
                    await gatekeeper.admit_still(guard, request, template)
                    budget_s -= clock() - asked_at
            if body is not None:
                name, shape = body
                arguments[name] = read_body(shape, value)
            if query is not None:
                name, shape = query
                arguments[name] = read_query(shape, request.query_params.multi_items())
            elif request.url.query:
                read_query(Query, request.query_params.multi_items())
            if first_id is not None and not is_uuid(request.path_params[first_id]):
                raise Refused(UNKNOWN_CODES[first_id])
            if exchange is not None:
                arguments[exchange] = _open_exchange(
                    request,
                    caller,
                    value,
                    takes_key=takes_key,
                    is_repeatable=is_repeatable,
                    template=template,
                    budget_s=budget_s,
                )
            if whole is not None:
                arguments[whole] = request
            try:
                response: Response = await endpoint(**arguments)
            except Refused as refused:
                # Whether the platform or user that a body names is the caller's own is known only now.
                gatekeeper.note(refused, request, template)
                raise
            return response

        return run


def _open_exchange(
    request: Request,
    caller: Any,
    value: Any,
    *,
    takes_key: bool,
    is_repeatable: bool,
    template: str,
    budget_s: float,
) -> Exchange:
    state = request.scope["state"]
    headers = request.headers
    keys = headers.getlist("idempotency-key") if takes_key else []
    return Exchange(
        caller,
        request_id=state["request_id"],
        source_address=state["source_address"],
        user_agent=printable(headers.get("user-agent")),
        idempotency=read_idempotency(keys, caller, _path_of(request, template), value),
        if_match=read_if_match(headers.getlist("if-match")),
        deadline=asyncio.get_running_loop().time() + budget_s,
        sent=value,
        is_basic="authorization" in headers and caller is not None and caller.is_partner,
        is_repeatable=is_repeatable,
        stubs=request.app.state.stubs,
        retry_budgets=request.app.state.retry_budgets,
        live_state=request.app.state.live_state,
        pages=request.app.state.pages,
        own_reads=request.app.state.own_reads,
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
