"""Puts the gateway together: routes, documents, the answers to what no route takes, and the edge around it all."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from threading import Lock

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from gateway.bulkhead import bounded
from gateway.cors import CorsHeaders, Preflights
from gateway.credentials import TokenVerifier
from gateway.edge import Edge
from gateway.errors import Refused, error_response, refused_response
from gateway.guards import Gatekeeper
from gateway.live_state import LiveState
from gateway.load_shedding import AdmissionQueue
from gateway.openapi import build_openapi, fragment_of
from gateway.own_reads import OwnReads
from gateway.rate_limits import RateLimits
from gateway.readiness import Readiness
from gateway.refusals import Refusals
from gateway.retry_budget import RetryBudgets
from gateway.routes import (
    accounts,
    audit_logs,
    auth,
    benefit_providers,
    benefits,
    dependants,
    infrastructure,
    mrns,
    platforms,
    users,
)
from gateway.server_wrap import ServiceRouter, allowed_methods, require_declared
from gateway.settings import GatewaySettings
from gateway.stubs import Stubs
from servicekit.gc_tuning import freeze_startup_objects
from servicekit.page_tokens import PageTokens
from servicekit.settings import key_bytes

VERSION = "1.0.0"
ROUTERS: tuple[ServiceRouter, ...] = (
    auth.routes,
    platforms.routes,
    users.routes,
    dependants.routes,
    benefit_providers.routes,
    benefits.routes,
    accounts.routes,
    mrns.routes,
    audit_logs.routes,
    infrastructure.routes,
)


def create_app(settings: GatewaySettings, draining: asyncio.Event, admission: AdmissionQueue | None = None) -> ASGIApp:
    """Return the whole gateway, which is unready from when `draining` is set; without an admission queue it makes one.

    Raises:
        NotDeclared: a route does not say who may call it.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        _connect(app, settings, draining)
        freeze_startup_objects()
        background = [asyncio.create_task(app.state.live_state.run()), asyncio.create_task(app.state.refusals.run())]
        yield
        for task in background:
            task.cancel()
        # Whatever they ended by, what follows has to be done.
        await asyncio.gather(*background, return_exceptions=True)
        # What was being sent at that moment is put back first.
        await app.state.refusals.flush()
        await app.state.limits.close()
        await app.state.stubs.close()

    app = FastAPI(
        title="Aarokya",
        version=VERSION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={Refused: _answer_refused, HTTPException: _answer_http_exception},
    )
    for routes in ROUTERS:
        app.include_router(routes.router)
    require_declared(app)
    # To build them takes longer than all the rest of starting, and few ask for them; a test finds what clashes.
    app.state.openapi_of = _documents_when_asked()
    origins = settings.cors_origins
    app.state.admission = admission or AdmissionQueue()
    edge = Edge(
        Preflights(app, origins) if origins else app,
        trusted_proxies=settings.trusted_proxies,
        admission=app.state.admission,
    )
    return CorsHeaders(edge, origins) if origins else edge


def _connect(app: FastAPI, settings: GatewaySettings, draining: asyncio.Event) -> None:
    """Make what needs a running event loop."""
    state = app.state
    state.stubs = Stubs(settings, on_full=state.admission.start_shedding)
    state.admission.limit_by(lambda: state.stubs.room)
    state.own_reads = OwnReads(state.stubs)
    state.retry_budgets = RetryBudgets()
    # Anybody can make up keys, so asking about them takes nothing away from users.
    state.live_state = LiveState(bounded(state.stubs.identity), keys=bounded(state.stubs.identity))
    state.refusals = Refusals(state.stubs.identity)
    state.readiness = Readiness(state.stubs, state.live_state, draining)
    state.pages = PageTokens(key_bytes(settings.page_token_key))
    state.limits = RateLimits(
        enabled=settings.rate_limits == "on",
        redis_url=settings.redis_url.get_secret_value() if settings.redis_url else None,
    )
    tokens = TokenVerifier(settings.jwt_key_ring, settings.jwt_issuer, settings.jwt_audience)
    state.gatekeeper = Gatekeeper(settings.operators, tokens, state.live_state, state.limits, state.refusals)


def _documents_when_asked() -> Callable[[str | None], bytes]:
    """Return what looks up a document, and builds all of them once, however many threads ask for the first."""
    documents = cache(build_documents)
    building = Lock()

    def document_of(service: str | None) -> bytes:
        with building:
            return documents()[service]

    return document_of


def build_documents() -> dict[str | None, bytes]:
    """Return the OpenAPI document by service, and the whole one under None.

    Raises:
        OpenApiClash: two routes say different things under one name.
    """
    services = dict.fromkeys(routes.service for routes in ROUTERS)
    fragments = [
        fragment_of(
            service,
            [route for routes in ROUTERS if routes.service == service for route in routes.router.routes],
            {routes.tag: routes.description for routes in ROUTERS if routes.service == service},
        )
        for service in services
    ]
    return {
        service: json.dumps(build_openapi(fragments, VERSION, service), ensure_ascii=False).encode()
        for service in (None, *services)
    }


async def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return refused_response(error, request.scope["state"]["request_id"])


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router itself refuses: a path or a method that nobody takes."""
    assert isinstance(error, HTTPException)
    request_id = request.scope["state"]["request_id"]
    if error.status_code == 405:
        # The URL's path would be without the tabs and line ends that are in it.
        methods = allowed_methods(request.app.routes, request.scope["path"])
        return error_response("RQ-104", request_id, headers={"Allow": ", ".join(methods)})
    return error_response("RQ-103" if error.status_code == 404 else "RQ-100", request_id)
