"""A service's gRPC server: who may call what, how refusals leave, how it starts and stops.

No RPC can be reached without a declaration: a servicer's methods carry `allow_peers`, and `serve` refuses to
start when one has none.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from servicekit.background import persist
from servicekit.caller import METADATA_KEY, Call, CallerType
from servicekit.deadline import set_deadline
from servicekit.errors import Refusal, ServiceBusy
from servicekit.gc_tuning import freeze_startup_objects
from servicekit.metrics import CALL_SECONDS, CALLS
from servicekit.trace_context import TRACE_KEY, enter_trace

GATEWAY = "gateway"
REPLAYED_KEY = "aarokya-replayed"
LARGEST_REQUEST = 512 * 1024
# A page of the audit log: each of its 200 rows may tell the old and the new value of a benefit's longest lists.
LARGEST_ANSWER = 8 * 1024 * 1024
GRACE_S = 10
LEAVING_S = 2
READY_PERIOD_S = 0.5
BALANCER_WAIT_S = 0.5
# More could not be answered in time. Streams, which wait most of their time, and health checks do not count.
MOST_CALLS_AT_ONCE = 512
# What was refused only after so long, in seconds, because something else does not answer, is not asked again by
# gRPC itself: each further try would take as long, and pile up with all the others.
WORTH_ANOTHER_TRY_S = 0.25
NO_MORE_TRIES = ("grpc-retry-pushback-ms", "-1")
# Every peer may ask these two; they know nothing of the domain.
OPEN_TO_ALL_PEERS = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_REQUEST),
    ("grpc.max_send_message_length", LARGEST_ANSWER),
    # Connections end now and then, so that replicas started later get their share: within 10 s, with a tenth of jitter
    # and the clients' second between two looks at the name service.
    ("grpc.max_connection_age_ms", 7_000),
    # New calls go elsewhere by then, and none lasts long but watched streams: whose end costs the watcher all it knows.
    ("grpc.max_connection_age_grace_ms", 3_600_000),
    ("grpc.so_reuseport", 0),
)

log = structlog.get_logger()
replayed: ContextVar[bool] = ContextVar("replayed")
Method = TypeVar("Method", bound=Callable[..., Any])


class NotDeclared(Exception):
    """An RPC says nothing about who may call it."""


class Servicer(Protocol):
    """A servicer class as this module needs it: it names its service."""

    DESCRIPTOR: ServiceDescriptor


def allow_peers(*peers: str) -> Callable[[Method], Method]:
    """Declare which processes may call an RPC, by the DNS name in their certificate."""

    def declare(method: Method) -> Method:
        method.allowed_peers = frozenset(peers)  # type: ignore[attr-defined]
        return method

    return declare


def call_of(context: grpc.aio.ServicerContext[Any, Any]) -> Call:
    """Return who asked and from where, as the peer says; `_Guard` has made sure that it may."""
    for key, value in context.invocation_metadata() or ():
        if key == METADATA_KEY:
            assert isinstance(value, bytes)
            return Call.from_bytes(value)
    raise ValueError("the call does not say who asks")


def _request_id_of(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """Return the id that the caller was told, for the log; None for a call that is not made for a request."""
    try:
        return call_of(context).request_id
    except (ValueError, AssertionError):
        return None


def _traces_of(context: grpc.aio.ServicerContext[Any, Any]) -> list[str]:
    return [str(value) for key, value in context.invocation_metadata() or () if key == TRACE_KEY]


def _peers_of(context: grpc.aio.ServicerContext[Any, Any]) -> frozenset[str]:
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return frozenset(name.decode() for name in names)


class _Guard(grpc.aio.ServerInterceptor):
    """Lets the declared peers through, lets only the gateway speak for others, and turns exceptions into statuses."""

    def __init__(self, peers: dict[str, frozenset[str]], draining: asyncio.Event) -> None:
        self._peers = peers
        self._draining = draining
        self._running = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OPEN_TO_ALL_PEERS):
            return handler
        allowed = self._peers[method]
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, handler.unary_stream, allowed),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler.unary_unary, allowed), handler.request_deserializer, handler.response_serializer
        )

    def _unary(self, method: str, behaviour: Any, allowed: frozenset[str]) -> Any:
        async def run(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            began = time.perf_counter()
            status = grpc.StatusCode.INTERNAL
            replayed.set(False)
            set_deadline(context.time_remaining())
            enter_trace(_traces_of(context))
            self._running += 1
            try:
                await _admit(context, allowed)
                if self._running > MOST_CALLS_AT_ONCE:
                    raise ServiceBusy
                response = await behaviour(request, context)
                status = grpc.StatusCode.OK
                if replayed.get():
                    context.set_trailing_metadata(((REPLAYED_KEY, "1"),))
                return response
            except Refusal as refusal:
                status = refusal.status
                answer = refusal.to_status()
                if time.perf_counter() - began > WORTH_ANOTHER_TRY_S:
                    answer = answer._replace(trailing_metadata=(*answer.trailing_metadata, NO_MORE_TRIES))
                await context.abort_with_status(answer)
            except asyncio.CancelledError:
                status = grpc.StatusCode.CANCELLED
                raise
            except grpc.aio.AbortError:
                status = grpc.StatusCode.PERMISSION_DENIED
                raise
            except Exception:
                log.exception("rpc failed", method=method, request_id=_request_id_of(context))
                await context.abort(grpc.StatusCode.INTERNAL, "internal")
            finally:
                self._running -= 1
                CALLS.labels(method, status.name).inc()
                CALL_SECONDS.labels(method).observe(time.perf_counter() - began)

        return run

    def _streaming(self, method: str, behaviour: Any, allowed: frozenset[str]) -> Any:
        async def run(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                await _admit(context, allowed)
                async with aclosing(_until(self._draining, behaviour(request, context))) as responses:
                    async for response in responses:
                        yield response
            except Refusal as refusal:
                await context.abort_with_status(refusal.to_status())
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception:
                log.exception("rpc failed", method=method, request_id=_request_id_of(context))
                await context.abort(grpc.StatusCode.INTERNAL, "internal")

        return run


async def _until(ending: asyncio.Event, responses: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Yield responses until the server drains: a stream that never ends by itself would hold up every stop."""
    end = asyncio.ensure_future(ending.wait())
    following: asyncio.Future[Any] = end
    try:
        while not end.done():
            following = asyncio.ensure_future(anext(responses))
            await asyncio.wait((end, following), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                yield following.result()
    except StopAsyncIteration:
        return
    finally:
        end.cancel()
        following.cancel()
        await asyncio.wait((following,))
        await responses.aclose()


async def _admit(context: grpc.aio.ServicerContext[Any, Any], allowed: frozenset[str]) -> None:
    """Abort unless the peer may call, and speaks for others only if it is the gateway."""
    peers = _peers_of(context)
    if not peers & allowed:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this peer may not call this method")
    if GATEWAY in peers:
        return
    caller = call_of(context).caller
    if caller.type is not CallerType.SYSTEM or caller.id not in peers:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this peer may not speak for a caller")


def declared_peers(servicers: Iterable[Servicer]) -> dict[str, frozenset[str]]:
    """Return which peers may call which method.

    Raises:
        NotDeclared: a method has no `allow_peers`.
    """
    peers: dict[str, frozenset[str]] = {}
    for servicer in servicers:
        service = servicer.DESCRIPTOR
        for method in service.methods:
            declared = getattr(getattr(servicer, method.name), "allowed_peers", None)
            if not declared:
                raise NotDeclared(f"{service.full_name}.{method.name} does not say which peers may call it")
            peers[f"/{service.full_name}/{method.name}"] = declared
    return peers


async def serve(
    listen: str,
    credentials: grpc.ServerCredentials,
    servicers: Sequence[Servicer],
    add: Callable[[grpc.aio.Server], None],
    *,
    get_ready: Callable[[], Awaitable[None]],
    tasks: Sequence[Callable[[], Awaitable[None]]] = (),
    hand_over: Callable[[], Awaitable[None]] | None = None,
    with_reflection: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain: say NOT_SERVING, let balancers notice, finish what runs, stop.

    A service that can do nothing yet, because its database was never reached, says NOT_SERVING and is sent nothing.
    Once it could, it says SERVING until it drains, also while its database is away: its callers are told what is
    away, and when all replicas withdrew at once nobody would be left to tell them.

    Args:
        listen: ``host:port``.
        credentials: the process's certificate; peers must show one of the same authority.
        servicers: all the servicers, for their declarations.
        add: registers them with the server.
        get_ready: returns when the service can do its work; raises when it cannot, and is asked again.
        tasks: work that runs beside the server until it stops; one that ends by an exception stops the process.
        hand_over: called before the server drains and while it serves as ever, so that whoever watches a stream can
            find another replica. Returns soon, whether they did or not.
        with_reflection: lets tools list the services; for development.

    Raises:
        NotDeclared: an RPC does not say who may call it.
    """
    draining = asyncio.Event()
    server = grpc.aio.server(interceptors=[_Guard(declared_peers(servicers), draining)], options=OPTIONS)
    health = HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    add(server)
    if with_reflection:
        from grpc_reflection.v1alpha import reflection

        names = [servicer.DESCRIPTOR.full_name for servicer in servicers]
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    server.add_secure_port(listen, credentials)
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    await server.start()

    async def become_ready() -> None:
        await persist(get_ready, lambda: asyncio.sleep(READY_PERIOD_S), "not ready to serve")
        freeze_startup_objects()
        await health.set("", health_pb2.HealthCheckResponse.SERVING)
        log.info("serving", listen=listen)

    becoming_ready = asyncio.ensure_future(become_ready())
    running = [asyncio.ensure_future(task()) for task in tasks]
    try:
        waiting = asyncio.ensure_future(stopping.wait())
        await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
        if hand_over is not None and waiting.done():
            try:
                await hand_over()
            except Exception:
                log.exception("streams could not be handed over")
        await health.enter_graceful_shutdown()
        await asyncio.sleep(BALANCER_WAIT_S if waiting.done() else 0)
        draining.set()
        await server.stop(GRACE_S)
        for task in running:
            if task.done():
                task.result()
    finally:
        for task in (becoming_ready, *running):
            task.cancel()
        # They may have something to leave in order in the database, which is closed next.
        await asyncio.wait((becoming_ready, *running), timeout=LEAVING_S)
    log.info("stopped")
