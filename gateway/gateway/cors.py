"""Lets browsers of the configured origins call the API."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

METHODS = ("GET", "POST", "PATCH", "DELETE")
EXPOSED = ("ETag", "Location", "X-Request-Id", "Idempotency-Replayed", "Retry-After")


class Cors(CORSMiddleware):
    """Answers a browser's preflight from a configured origin; all else goes on to the application.

    So a preflight that is refused gets the 405 in the error envelope that OPTIONS gets everywhere.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(app, allow_origins=origins, allow_methods=METHODS, allow_headers=["*"], expose_headers=EXPOSED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            is_known = self.is_allowed_origin(headers.get("origin", ""))
            if not is_known or headers.get("access-control-request-method") not in METHODS:
                await self.app(scope, receive, send)
                return
        await super().__call__(scope, receive, send)
