"""Lets browsers of the configured origins call the API.

Preflights are answered inside of the edge, which gives them their id like any other request. The headers by which a
browser shows an answer to the page are added outside of it, because the edge refuses some requests by itself.
"""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

METHODS = ("GET", "POST", "PATCH", "DELETE")
EXPOSED = ("ETag", "Location", "X-Request-Id", "Idempotency-Replayed", "Retry-After")


class _Cors(CORSMiddleware):
    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(app, allow_origins=origins, allow_methods=METHODS, allow_headers=["*"], expose_headers=EXPOSED)


class Preflights(_Cors):
    """Answers a browser's preflight from a configured origin; all else goes on to the application.

    So a preflight that is refused gets the 405 in the error envelope that OPTIONS gets everywhere. One is refused, too,
    when it asks for a way from the internet into a private network, which nobody is given.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            is_known = self.is_allowed_origin(headers.get("origin", ""))
            asks_for_more = "access-control-request-private-network" in headers
            if is_known and not asks_for_more and headers.get("access-control-request-method") in METHODS:
                await self.preflight_response(headers)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class CorsHeaders(_Cors):
    """Lets pages of the configured origins read the answers to all but preflights."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["method"] != "OPTIONS":
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)
