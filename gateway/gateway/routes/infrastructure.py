"""What anybody may ask: whether the gateway lives and is ready, and how the API is used."""

import asyncio
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import fastapi_offline
from fastapi import Path as InPath
from fastapi import Query as InQuery
from fastapi import Request
from fastapi.openapi.docs import get_swagger_ui_html
from pydantic import Field
from starlette.responses import JSONResponse, Response

from gateway.errors import REGISTRY, Refused
from gateway.fields import Answer, Query
from gateway.guards import PUBLIC
from gateway.server_wrap import ServiceRouter

routes = ServiceRouter("gateway", "Infrastructure", "Open to everybody.")

ASSETS = Path(fastapi_offline.__file__).parent / "static"
MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


class Health(Answer):
    """Whether the gateway lives or is ready."""

    status: Literal["alive", "ready"] = Field(description="What it is.")


class ErrorCodeAnswer(Answer):
    """One code of the registry."""

    code: str = Field(description="The code, whose meaning never changes.", examples=["MR-903"])
    http_status: int = Field(description="The HTTP status that it comes with.", examples=[409])
    meaning: str = Field(description="What it says.")
    action: str = Field(description="What the caller should do.")


class ErrorCodeList(Answer):
    """All codes."""

    items: list[ErrorCodeAnswer] = Field(description="The codes, in order.")


class OpenApiQuery(Query):
    """Which part of the document."""

    service: Literal["identity", "catalogue", "records", "gateway"] | None = Field(
        default=None, description="Only this service's part."
    )


@routes.get("/livez", guard=PUBLIC, summary="Say whether the gateway lives.", answer=Health)
async def livez() -> Response:
    return JSONResponse({"status": "alive"})


@routes.get(
    "/readyz",
    guard=PUBLIC,
    summary="Say whether the gateway can do its work.",
    answer=Health,
    codes=("RQ-111",),
)
async def readyz(request: Request) -> Response:
    if not await request.app.state.readiness.is_ready():
        raise Refused("RQ-111")
    return JSONResponse({"status": "ready"})


@routes.get(
    "/api_docs/openapi.json",
    guard=PUBLIC,
    summary="Read this document, whole or one service's part of it.",
    answer=None,
)
async def read_openapi(request: Request, query: Annotated[OpenApiQuery, InQuery()]) -> Response:
    # The first one takes so long that others would notice.
    document = await asyncio.to_thread(request.app.state.openapi_of, query.service)
    return Response(document, media_type="application/json")


@routes.get("/api_docs/errors", guard=PUBLIC, summary="List all error codes.", answer=ErrorCodeList)
async def list_error_codes() -> Response:
    entries = sorted(REGISTRY.values(), key=lambda entry: entry.code)
    return JSONResponse(
        {
            "items": [
                {
                    "code": entry.code,
                    "http_status": entry.http_status,
                    "meaning": entry.meaning,
                    "action": entry.action,
                }
                for entry in entries
            ]
        }
    )


@routes.get("/api_docs/ui", guard=PUBLIC, summary="Browse and try the API.", answer=None)
async def browse_api() -> Response:
    return get_swagger_ui_html(
        openapi_url="/api_docs/openapi.json",
        title="Aarokya API",
        swagger_js_url="/api_docs/assets/swagger-ui-bundle.js",
        swagger_css_url="/api_docs/assets/swagger-ui.css",
        swagger_favicon_url="/api_docs/assets/favicon.png",
    )


@routes.get(
    "/api_docs/assets/{name}", guard=PUBLIC, summary="Fetch a file of the API browser.", answer=None, codes=("RQ-103",)
)
async def get_asset(
    name: Annotated[str, InPath(description="The file's name.", json_schema_extra={"enum": [*MEDIA_TYPES]})],
) -> Response:
    if name not in MEDIA_TYPES:
        raise Refused("RQ-103")
    # Starlette's own answer with a file reads the body, and refuses ranges in words of its own.
    content = await asyncio.to_thread(_read_asset, name)
    return Response(content, media_type=MEDIA_TYPES[name], headers={"Cache-Control": "max-age=86400"})


@cache
def _read_asset(name: str) -> bytes:
    return (ASSETS / name).read_bytes()
