"""HTTP/1.1 on the socket: what is malformed, oversized or dawdling is answered in the error envelope and closed."""

import asyncio
import fcntl
import logging
import re
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.draining import CLOSE
from gateway.edge import NEVER_SHED, SECURITY_HEADERS, request_id_of
from gateway.errors import error_response
from gateway.load_shedding import SHED, AdmissionQueue

logger = logging.getLogger(__name__)

MAX_REQUEST_LINE_BYTES = 8 * 1024
MAX_HEADER_BYTES = 16 * 1024
MAX_HEADERS = 100
MAX_PIPELINED_REQUESTS = 32
# Far below what makes a sender wait, so one more short answer goes out at once.
MOST_UNSENT_BYTES = 16 * 1024

# A registered name, an IPv4 address or an IPv6 address in brackets, each with or without a port.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")

NEVER_SHED_URLS = frozenset(path.encode() for path in NEVER_SHED)
# With these a body follows, or the answer needs CORS headers.
_OF_NO_SIMPLE_REQUEST = frozenset({b"content-length", b"transfer-encoding", b"expect", b"origin"})

# In bytes. Whoever reads less in `write_seconds` does not read, whatever the network is like.
LEAST_READ = 32 * 1024


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How long one connection may keep us waiting, and how many there may be."""

    max_connections: int = 1000
    """Open connections a process serves; when one more comes, the one that has been idle for longest is closed. If none
    is idle, a quarter more are told so (503), and those beyond are dropped."""
    head_seconds: float = 10.0
    """From the opening of a connection, or the first byte of a later request, to the end of its headers."""
    write_seconds: float = 10.0
    """How long a client may leave an answer that fills its buffers unread; one who reads `LEAST_READ` meanwhile may
    take as long again."""
    linger_seconds: float = 2.0
    """How long the rest of a request is discarded after its answer, so that the client gets to read the answer."""


class _UnacceptableRequest(Exception):
    """Stops the parser; `code` is the refusal."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _turned_away() -> tuple[bytes, list[bytes]]:
    """Return the beginning of the head of each RQ-111, and what its body has before and after the request's id."""
    response = error_response("RQ-111", "-")
    differs = (b"content-length", b"x-request-id", b"retry-after")
    headers = [(name, value) for name, value in response.raw_headers if name not in differs] + SECURITY_HEADERS
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return STATUS_LINE[response.status_code] + lines, bytes(response.body).split(b'"-"')


TURNED_AWAY_HEAD, TURNED_AWAY_BODY = _turned_away()


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    The parser (llhttp, strict) already refuses most of what two servers could read differently: both lengths at once,
    repeated or odd lengths, bare line feeds, folded headers, space before a colon, control characters, bad chunks.
    Refused here on top of it are any other transfer coding than `chunked`, targets that are not a path, versions but
    1.0 and 1.1, a missing, repeated or malformed Host, websocket upgrades, and too much of anything.
    Other upgrades (Java's HTTP client offers `h2c` with its first request) are ignored, as RFC 9110 allows.
    Trailers are dropped: by then the request has been judged by its headers.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
        admission: AdmissionQueue | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._admission = admission
        self._running: RequestResponseCycle | None = None
        self._owes_refusal = False
        # Of requests that arrive together, one at most is refused early; the others wait for their turn.
        self._has_turned_away = False
        # Uvicorn would write its access log, query strings included, whenever some handler listens.
        self.access_log = False
        self._limits = limits
        # From here on nothing is read any more, only discarded: the connection ends after the answers it still owes.
        self._deaf = False
        self._in_head = False
        self._in_body = False
        self._fresh_bytes = 0
        self._bytes_without_yield = 0
        self._header_bytes = 0
        self._answered_at = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.max_connections:
            self._make_room()
        excess = len(self.connections) - self._limits.max_connections
        if excess > self._limits.max_connections // 4:
            transport.abort()
        elif excess > 0:
            logger.warning("refused a connection: %d are open", self._limits.max_connections)
            self._answer_and_close("RQ-111")
        else:
            self._set_deadline(self._limits.head_seconds, self._give_up_waiting_for_head)

    def _make_room(self) -> None:
        """Close the connection that has been idle for longest, so that kept ones do not shut new callers out."""
        idle = [one for one in self.connections if isinstance(one, HttpProtocol) and one.timeout_keep_alive_task]
        if idle:
            longest = min(idle, key=lambda protocol: protocol._answered_at)
            longest._unset_keepalive_if_required()
            # Its last answer may still be unread, however long that takes; but there is no more room for it.
            longest.transport.abort()
            # It takes the loop's next round to go by itself.
            self.connections.discard(longest)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._has_turned_away = False
        try:
            # The parser keeps an unfinished header or trailer to itself, so bytes that yield nothing are counted, too.
            if self._in_head or self._in_body:
                self._bytes_without_yield += len(data)
            else:
                self._fresh_bytes = len(data)
            self._feed(data)
            if self._bytes_without_yield > MAX_REQUEST_LINE_BYTES + MAX_HEADER_BYTES:
                raise _UnacceptableRequest("RQ-115")
        except _UnacceptableRequest as unacceptable:
            self._refuse(unacceptable.code)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.code if isinstance(cause, _UnacceptableRequest) else "RQ-114")
        else:
            answered = self.timeout_keep_alive_task is not None
            idle = not self._in_body and (self.cycle is None or self.cycle.response_complete) and not answered
            if self._deadline is None and (self._in_head or idle):
                self._set_deadline(self._limits.head_seconds, self._give_up_waiting_for_head)

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # The parser takes what follows an upgrade for another protocol, so a new one reads the same head
                # without the offer, and then the body.
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name not in (b"upgrade", b"connection"):
                lines.append(b"%s: %s" % (name, value))
            elif name == b"connection" and b"close" in value.lower():
                lines.append(b"connection: close")
        return b"\r\n".join((*lines, b"", b""))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_unless_written()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_deadline()
        self.resume_writing()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self.pipeline.clear()
        for cycle in (self._running, self.cycle):
            if cycle is None:
                continue
            # Uvicorn tells only the newest of the requests that came together.
            cycle.disconnected = not cycle.response_complete
            cycle.message_event.set()
            # Otherwise connection and request would keep one another until the garbage collector comes round.
            cycle.transport = self.transport
            cycle.on_response = lambda: None

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._close()
        else:
            self.cycle.keep_alive = False

    def on_message_begin(self) -> None:
        # One before it may have been answered at once.
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self._in_head = True
        self._bytes_without_yield, self._fresh_bytes = self._fresh_bytes, 0
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_REQUEST_LINE_BYTES:
            raise _UnacceptableRequest("RQ-115")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            return
        super().on_header(name, value)
        # Four bytes for the colon, a space and the end of the line.
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            raise _UnacceptableRequest("RQ-115")

    def on_headers_complete(self) -> None:
        if not self._is_acceptable():
            raise _UnacceptableRequest("RQ-114")
        if self.transport.is_closing():
            # It came behind one whose refusal was the connection's last answer.
            raise _UnacceptableRequest("RQ-111")
        if self.parser.should_upgrade():
            return
        self._in_head = False
        self._in_body = True
        self._bytes_without_yield = 0
        self._unset_deadline()
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            raise _UnacceptableRequest("RQ-111")
        if self._admission is not None and self._is_simple() and self._admission.should_shed_early():
            self._owes_refusal = True
            return
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, _CycleTransport(self))

    def on_body(self, body: bytes) -> None:
        self._bytes_without_yield = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_body = False
        self._bytes_without_yield = 0
        self._unset_deadline()
        if self._owes_refusal:
            self._owes_refusal = False
            self._has_turned_away = True
            self._turn_away()
        else:
            super().on_message_complete()

    def _turn_away(self) -> None:
        """Answer RQ-111 as any answer is given, but without a task or a scope, which cost most of a refusal."""
        assert self._admission is not None
        SHED.inc()
        headers = self.server_state.default_headers
        keeps_alive = self.parser.should_keep_alive() and CLOSE not in headers
        request_id = request_id_of([value for name, value in self.headers if name == b"x-request-id"]).encode()
        body = (b'"%b"' % request_id).join(TURNED_AWAY_BODY)
        head = [TURNED_AWAY_HEAD, *(b"%b: %b\r\n" % header for header in headers)]
        if not keeps_alive and CLOSE not in headers:
            head.append(b"connection: close\r\n")
        differs = (self._admission.retry_after.next_seconds(), request_id, len(body))
        head.append(b"retry-after: %d\r\nx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % differs)
        self.transport.write(b"".join((*head, body)))
        if not keeps_alive:
            self.close_when_read()
        self.on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self._admission is not None and cycle.scope["path"] not in NEVER_SHED:
            self._admission.note_arrival()
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_simple(self) -> bool:
        """Whether a request comes alone, has no body, may be shed, and its refusal is the same for every caller."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self._has_turned_away
            and not self.flow.write_paused
            and self.transport.get_write_buffer_size() <= MOST_UNSENT_BYTES
            and self.parser.get_method() != b"HEAD"
            and self.parser.get_http_version() != "1.0"
            and self._may_be_shed()
            and not any(name in _OF_NO_SIMPLE_REQUEST for name, _ in self.headers)
        )

    def _may_be_shed(self) -> bool:
        path = self.url.partition(b"?")[0]
        return path not in NEVER_SHED_URLS and b"%" not in path

    def _is_acceptable(self) -> bool:
        version = self.parser.get_http_version()
        if self.parser.get_method() == b"CONNECT":
            return False
        if version not in ("1.1", "1.0") or not self.url.startswith(b"/") or b"#" in self.url:
            return False
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
                if not _HOST.fullmatch(value):
                    return False
            elif name == b"transfer-encoding":
                if version == "1.0" or value.lower() != b"chunked":
                    return False
            elif name == b"upgrade" and value.lower() == b"websocket":
                return False
        return hosts == 1 or (hosts == 0 and version == "1.0")

    def on_response_complete(self) -> None:
        if self._deaf:
            # Requests that were read before what made us deaf are still owed their answers.
            if self.pipeline:
                super().on_response_complete()
            else:
                self.server_state.total_requests += 1
            return
        super().on_response_complete()
        self._answered_at = time.perf_counter()
        if self.pipeline:
            # Otherwise every answer would let in another buffer full of requests.
            self.flow.pause_reading()
        elif self._in_body and self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._set_deadline(self._limits.linger_seconds, self._close)

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _give_up_waiting_for_head(self) -> None:
        # A connection that was opened and never used has asked nothing, so there is nothing to answer.
        self._deadline = None
        if self._in_head:
            self._refuse("RQ-116")
        else:
            self._close()

    def _refuse(self, code: str) -> None:
        """Answer what cannot be read on with `code`, unless the answer to an earlier request has to come first."""
        logger.debug("refused a request: %s", code)
        owes_answer = self.cycle is not None and not self.cycle.response_complete
        if not owes_answer:
            self._answer_and_close(code)
        elif self.cycle.more_body and not self.pipeline and not self.cycle.response_started:
            # The body of the request that is being handled is broken: the application learns that the client is gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._answer_and_close(code)
        else:
            self._stop_listening()

    def _stop_listening(self) -> None:
        self._deaf = True
        self.cycle.keep_alive = False

    def _answer_and_close(self, code: str) -> None:
        headers = {"Connection": "close", **self._when_to_come_back(code)}
        # Whose request it is that cannot be read to its end.
        brought = self.headers if self._in_head or self._in_body else ()
        request_id = request_id_of([value for name, value in brought if name == b"x-request-id"])
        response = error_response(code, request_id, headers=headers)
        head = [STATUS_LINE[response.status_code]]
        for name, value in (*self.server_state.default_headers, *response.raw_headers, *SECURITY_HEADERS):
            head.extend((name, b": ", value, b"\r\n"))
        self.transport.write(b"".join((*head, b"\r\n", response.body)))
        self._deaf = True
        self.close_when_read()

    def _when_to_come_back(self, code: str) -> dict[str, str]:
        if code != "RQ-111" or self._admission is None:
            return {}
        return {"Retry-After": str(self._admission.retry_after.next_seconds())}

    def close_when_read(self) -> None:
        """Close; if the client is still sending, end our side and discard the rest for a moment.

        A socket that is closed with unread bytes makes the client's kernel throw away the answer, too.
        """
        # What came behind the last answer is not begun: nobody could be told.
        self.pipeline.clear()
        if not (self._in_body or self._deaf) or self.transport.is_closing() or not self.transport.can_write_eof():
            self._close()
            return
        self._deaf = True
        self._unset_keepalive_if_required()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._set_deadline(self._limits.linger_seconds, self._close)

    def _close(self) -> None:
        self._unset_deadline()
        self.transport.close()
        if self.transport.get_write_buffer_size() > 0:
            self._abort_unless_written()

    def _abort_unless_written(self) -> None:
        if self._write_deadline is None:
            self._wait_until_written()

    def _wait_until_written(self) -> None:
        self._write_deadline = self.loop.call_later(
            self._limits.write_seconds, self._abort_unless_read, self._unread_bytes()
        )

    def _abort_unless_read(self, unread_before: int) -> None:
        # Who asks for more meanwhile takes the place of others.
        is_waited_for = any(cycle and not cycle.response_complete for cycle in (self._running, self.cycle))
        if is_waited_for or unread_before - self._unread_bytes() < LEAST_READ:
            self.transport.abort()
        else:
            self._wait_until_written()

    def _unread_bytes(self) -> int:
        """Return how much waits here and in the kernel, which takes more only when a third of its buffer is free."""
        in_kernel = bytearray(4)
        with suppress(OSError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, in_kernel)
        return self.transport.get_write_buffer_size() + int.from_bytes(in_kernel, sys.byteorder)

    def _set_deadline(self, seconds: float, action: Callable[[], None]) -> None:
        self._unset_deadline()
        self._deadline = self.loop.call_later(seconds, action)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _CycleTransport:
    """What a request's cycle sees of the transport: its close gives the client time to read the answer."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: HttpProtocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        self._protocol.transport.write(data)

    def close(self) -> None:
        self._protocol.close_when_read()

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()


def server_config(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    limits: ConnectionLimits | None = None,
    admission: AdmissionQueue | None = None,
    keep_alive_seconds: int = 75,
    graceful_shutdown_seconds: int = 10,
) -> uvicorn.Config:
    """Configure the server: this protocol, no access log (it would hold query strings), no trust in proxy headers.

    Idle connections live longer than the 60 seconds of common load balancers, which otherwise reuse a closed one.
    `admission` is asked at the earliest moment whether a request is one too many, and again by the edge.
    """
    return uvicorn.Config(
        cast(Any, app),
        host=host,
        port=port,
        http=cast(Any, partial(HttpProtocol, limits=limits or ConnectionLimits(), admission=admission)),
        loop="auto",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=graceful_shutdown_seconds,
    )
