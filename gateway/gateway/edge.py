"""What holds for every request around the application: its id, its source, its size and time, and no naked failure."""

import asyncio
import ipaddress
import logging
import random
import re
import time
from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import Refused, error_response, refused_response
from gateway.load_shedding import SHED, AdmissionQueue
from gateway.retry_after import RetryAfter
from servicekit.metrics import BUCKETS
from servicekit.trace_context import enter_trace

logger = logging.getLogger(__name__)

REQUESTS = Counter("aarokya_http_requests_total", "Requests that were let in, by their answers.", ("route", "status"))
REQUEST_SECONDS = Histogram(
    "aarokya_http_request_seconds", "Time to answer a request that was let in.", ("route",), buckets=BUCKETS
)

MAX_BODY_BYTES = 256 * 1024
BODY_TIMEOUT_SECONDS = 10.0
# However early the loop is, more requests at once could not be answered in time, and to refuse one costs a small part
# of answering it. There is room for the crowds of two services, and for a line.
MOST_REQUESTS = 600
# Who asks these wants to know about the process, above all when it has too much to do.
NEVER_SHED = frozenset({"/livez", "/readyz"})

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")

# An IPv4 address or an IPv6 address in brackets, each with or without a port, or a bare IPv6 address.
_FORWARDED_ENTRY = re.compile(
    rb"([0-9.]{7,15})(?::[0-9]{1,5})?|\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9A-Fa-f:.]{2,45})"
)

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]


def new_request_id() -> str:
    """Mint an id for a request that brought none, or none that is usable."""
    # Nobody gains by guessing one, and a system call for each would be a good part of what it costs to shed load.
    return f"{random.getrandbits(128):032x}"


def request_id_of(brought: list[bytes]) -> str:
    """Return a request's id: the one that it brought, when that is one and usable."""
    if len(brought) == 1 and _REQUEST_ID.fullmatch(brought[0]):
        return brought[0].decode("ascii")
    return new_request_id()


def messages_of(response: Response) -> tuple[Message, Message]:
    """Return what a server is sent to give an answer that no application has made."""
    headers = response.raw_headers + SECURITY_HEADERS
    return (
        {"type": "http.response.start", "status": response.status_code, "headers": headers},
        {"type": "http.response.body", "body": response.body},
    )


class Edge:
    """ASGI middleware that puts `request_id` and `source_address` into `scope["state"]` and guards body and answer.

    Nothing of the body is read before the application asks for it, because a bad credential is answered before a bad
    body. A body that is too large or too slow is then raised inside the application as `Refused`; whatever the
    application makes of that exception, the refusal is what the caller gets.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        trusted_proxies: Iterable[str] = (),
        max_body_bytes: int = MAX_BODY_BYTES,
        body_timeout_seconds: float = BODY_TIMEOUT_SECONDS,
        most_requests: int = MOST_REQUESTS,
        admission: AdmissionQueue | None = None,
    ) -> None:
        """`trusted_proxies` are addresses or networks (CIDR) whose X-Forwarded-For is believed.

        Of `most_requests`, those that wait for their caller to send the body do not count.
        """
        self._app = app
        self._load = _Load(most_requests)
        # Whoever asks these again and again takes no room away from others.
        self._never_shed = _Load(most_requests)
        self._admission = admission or AdmissionQueue()
        self._source = _Source(trusted_proxies)
        self._max_body_bytes = max_body_bytes
        self._body_timeout_seconds = body_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_ids: list[bytes] = []
        forwarded: list[bytes] = []
        traces: list[str] = []
        content_length = 0
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                request_ids.append(value)
            elif name == b"x-forwarded-for":
                forwarded.append(value)
            elif name == b"traceparent":
                traces.append(value.decode("latin-1"))
            elif name == b"content-length" and value.isdigit():
                content_length = int(value)
        state = scope.setdefault("state", {})
        request_id = state["request_id"] = request_id_of(request_ids)
        enter_trace(traces)
        state["source_address"] = self._source.address_of(scope.get("client"), forwarded)
        may_be_shed = scope["path"] not in NEVER_SHED
        load = self._load if may_be_shed else self._never_shed
        exchange = _Exchange(
            receive,
            send,
            request_id,
            content_length,
            self._max_body_bytes,
            self._body_timeout_seconds,
            load,
            self._admission.retry_after if may_be_shed else None,
        )
        if may_be_shed and (self._admission.is_overloaded() or load.is_full):
            SHED.inc()
            await exchange.refuse("RQ-111")
            return
        if scope["path"].endswith("\n"):
            # The routes' patterns would take it for the path without.
            await exchange.refuse("RQ-103")
            return
        load.running += 1
        began = time.perf_counter()
        try:
            await exchange.run(self._enter if may_be_shed else self._app, scope)
        finally:
            load.running -= 1
            route = _route_of(scope)
            REQUESTS.labels(route, exchange.status).inc()
            REQUEST_SECONDS.labels(route).observe(time.perf_counter() - began)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._admission.enter()
        await self._app(scope, receive, send)


def _route_of(scope: Scope) -> str:
    """Return method and path template of the route that was taken. What callers make up is not worth a count each."""
    route, method = scope.get("route"), scope["method"]
    # One that only the path fits is there, too.
    return f"{method} {route.path}" if isinstance(route, Route) and method in (route.methods or ()) else "none"


class _Load:
    """The requests that are being answered."""

    __slots__ = ("_most", "running")

    def __init__(self, most: int) -> None:
        self._most = most
        self.running = 0

    @property
    def is_full(self) -> bool:
        return self.running >= self._most


class _Exchange:
    """One request and its answer."""

    __slots__ = (
        "_body_bytes_left",
        "_body_complete",
        "_body_deadline",
        "_body_timeout_seconds",
        "_content_length",
        "_disconnected",
        "_held",
        "_load",
        "_receive",
        "_refused",
        "_request_id",
        "_retry_after",
        "_send",
        "_started",
        "status",
    )

    def __init__(
        self,
        receive: Receive,
        send: Send,
        request_id: str,
        content_length: int,
        max_body_bytes: int,
        body_timeout_seconds: float,
        load: _Load,
        retry_after: RetryAfter | None,
    ) -> None:
        # That of the answer, as text; a caller who left before has none.
        self.status = "none"
        self._load = load
        self._retry_after = retry_after
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._content_length = content_length
        self._body_bytes_left = max_body_bytes
        self._body_timeout_seconds = body_timeout_seconds
        self._body_deadline: float | None = None
        self._body_complete = False
        self._refused: Refused | None = None
        self._started = False
        self._held: list[Message] = []
        self._disconnected = False

    async def refuse(self, code: str) -> None:
        """Answer without asking the application."""
        await self._answer(error_response(code, self._request_id))

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self.receive, self.send)
        except Refused as refused:
            await self._answer(refused_response(refused, self._request_id))
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            # The server gives up running requests when its time for shutting down is over.
            await self._answer(error_response("RQ-111", self._request_id))
            raise
        except Exception:
            if self._refused is None:
                logger.exception("request %s ended in an unexpected error", self._request_id)
                await self._answer(error_response("RQ-100", self._request_id))
        else:
            for message in self._held:
                await self._pass_on(message)
            if self._refused is None and not self._started and not self._disconnected:
                logger.error("request %s was not answered by the application", self._request_id)
                await self._answer(error_response("RQ-100", self._request_id))
        if self._refused is not None:
            await self._answer(refused_response(self._refused, self._request_id))

    async def receive(self) -> Message:
        if self._body_complete:
            return await self._receive()
        if self._body_deadline is None:
            if self._content_length > self._body_bytes_left:
                raise self._refuse("RQ-106")
            self._body_deadline = asyncio.get_running_loop().time() + self._body_timeout_seconds
        self._load.running -= 1
        try:
            async with asyncio.timeout_at(self._body_deadline):
                message = await self._receive()
        except TimeoutError:
            raise self._refuse("RQ-116") from None
        finally:
            self._load.running += 1
        if message["type"] == "http.disconnect":
            self._disconnected = True
            return message
        self._body_bytes_left -= len(message.get("body", b""))
        if self._body_bytes_left < 0:
            raise self._refuse("RQ-106")
        self._body_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._refused is not None and not self._started:
            return
        # Starlette answers its own failures in plain text and then raises them again, so a 500 waits for how it ends.
        if not self._started and (self._held or message.get("status") == 500):
            self._held.append(message)
        else:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self.status = str(message["status"])
            headers = list(message.get("headers", ()))
            if not any(name == b"x-request-id" for name, _ in headers):
                headers.append((b"x-request-id", self._request_id.encode("ascii")))
            message["headers"] = headers + SECURITY_HEADERS
            self._say_when_to_come_back(message)
        await self._send(message)

    def _say_when_to_come_back(self, start: Message) -> None:
        if start["status"] == 503 and self._retry_after is not None:
            headers = [(name, value) for name, value in start["headers"] if name != b"retry-after"]
            start["headers"] = [*headers, (b"retry-after", b"%d" % self._retry_after.next_seconds())]

    def _refuse(self, code: str) -> Refused:
        self._refused = Refused(code)
        return self._refused

    async def _answer(self, response: Response) -> None:
        # An answer that has begun cannot be taken back; the server closes a connection whose answer stays unfinished.
        if self._started:
            return
        self._started = True
        self.status = str(response.status_code)
        start, body = messages_of(response)
        self._say_when_to_come_back(start)
        await self._send(start)
        await self._send(body)


class _Source:
    """Finds the address a request came from, looking through the proxies we trust and no further."""

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(proxy.strip(), strict=False) for proxy in trusted_proxies]
        self._is_trusted = lru_cache(maxsize=1024)(self._is_in_a_trusted_network)

    def address_of(self, peer: tuple[str, int] | None, forwarded: list[bytes]) -> str:
        """Take the last X-Forwarded-For entry that no trusted proxy answers for; without such proxies, the peer."""
        address = peer[0].removeprefix("::ffff:") if peer else ""
        if not self._trusted or not self._is_trusted(address):
            return address
        for entry in reversed(b",".join(forwarded).split(b",")):
            claimed = _read_address(entry)
            if claimed is None:
                break
            address = claimed
            if not self._is_trusted(address):
                break
        return address

    def _is_in_a_trusted_network(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


def _read_address(entry: bytes) -> str | None:
    """Read one X-Forwarded-For entry, which some proxies write with a port, or return None when it is no address."""
    matched = _FORWARDED_ENTRY.fullmatch(entry.strip())
    if matched is None:
        return None
    try:
        address = ipaddress.ip_address((matched[1] or matched[2] or matched[3]).decode("ascii"))
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)
