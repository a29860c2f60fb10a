"""One request and its answer, as routes see them: who calls, questions to the services, answers."""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from starlette.responses import Response

from gateway import messages
from gateway.errors import Detail, Refused, from_rpc_error, is_typed
from gateway.fields import ETAG
from gateway.live_state import LiveState
from gateway.own_reads import OwnReads
from gateway.retry_budget import RetryBudgets
from gateway.stubs import Stubs
from servicekit.caller import METADATA_KEY, Call, Caller, CallerType, Idempotency
from servicekit.deadline import MARGIN_S
from servicekit.page_tokens import PageTokens
from servicekit.server import REPLAYED_KEY, WORTH_ANOTHER_TRY_S
from servicekit.trace_context import onward_trace

BUDGET_S = 5.0
RETRY_PAUSES_S = (0.05, 0.2, 0.5)
# A service that went away: CANCELLED is what one that stops answers to calls that it has not looked at.
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
NO_VERSION = -1  # no resource is ever at this version
JSON_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_ETAG = re.compile(ETAG)


class Exchange:
    """What a route function works with.

    Attributes:
        caller: who the guard let in; None on public routes.
        if_match: the version that the caller saw, None when the request names none.
        sent: the decoded body, before any shape.
        is_basic: whether a partner's secret came as Basic, whose user name is the platform.
        stubs: the services.
        live_state: what this gateway remembers of who may do what; whoever changes that lets it forget.
        pages: the page tokens of lists that the gateway puts together.
        own_reads: what users read of their own.
        deadline: when the time for an answer is over, by the event loop's clock.
    """

    def __init__(
        self,
        caller: Caller | None,
        *,
        request_id: str,
        source_address: str,
        user_agent: str | None,
        idempotency: Idempotency | None,
        if_match: int | None,
        deadline: float,
        sent: Any,
        is_basic: bool,
        is_repeatable: bool,
        stubs: Stubs,
        retry_budgets: RetryBudgets,
        live_state: LiveState,
        pages: PageTokens,
        own_reads: OwnReads,
    ) -> None:
        self.stubs = stubs
        self.live_state = live_state
        self.pages = pages
        self.own_reads = own_reads
        self._caller = caller
        self._call = Call(caller, request_id, source_address, user_agent, idempotency) if caller else None
        self.if_match = if_match
        self.sent = sent
        self.is_basic = is_basic
        self._is_repeatable = is_repeatable
        self._retry_budgets = retry_budgets
        self.deadline = deadline
        self._replayed = False

    @property
    def caller(self) -> Caller:
        """Who calls."""
        assert self._caller is not None
        return self._caller

    async def ask(self, rpc: Any, request: Message) -> Any:
        """Ask a service in the caller's name and return its answer.

        A write is only sent again when that can do no harm, as with an idempotency key: otherwise nobody knows whether
        the service that went away did it or not. And only when it may help: a service that says so late that it lacks
        something has waited for that itself, and would wait as long again. Nor while many of such requests fail.

        Raises:
            Refused: what the service refused, or that it did not answer.
        """
        assert self._call is not None
        metadata = ((METADATA_KEY, self._call.to_bytes()), *onward_trace())
        pauses = iter(RETRY_PAUSES_S if self._call.idempotency or self._is_repeatable else ())
        budget = self._retry_budgets.of(request)
        was_gone = False
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            remaining = self.deadline - began - MARGIN_S
            if remaining <= 0:
                raise Refused("RQ-112")
            call = rpc(request, timeout=remaining, metadata=metadata)
            try:
                answer = await call
                budget.note_success()
                if self._call.idempotency:
                    self._replayed = any(key == REPLAYED_KEY for key, _ in await call.trailing_metadata())
                return answer
            except grpc.aio.AioRpcError as error:
                refused = from_rpc_error(error)
                # What the first attempt began may still be running where it went.
                is_ours = was_gone and refused.code == "RQ-109"
                is_gone = error.code() in GONE
                was_gone = was_gone or is_gone
                if is_gone:
                    budget.note_failure()
                pause = next(pauses, None) if is_ours or (is_gone and budget.allows_retry) else None
                has_waited = is_gone and clock() - began > WORTH_ANOTHER_TRY_S and is_typed(error)
                if pause is None or has_waited or clock() + pause + MARGIN_S >= self.deadline:
                    raise refused from error
                await asyncio.sleep(pause)

    def ok(self, resource: Message, **more: Any) -> Response:
        """Answer 200 with a resource."""
        return self._answer(200, messages.encode(resource, **more), resource)

    def created(self, path: str, resource: Message) -> Response:
        """Answer 201 with a resource and where it is."""
        response = self._answer(201, messages.encode(resource), resource)
        response.headers["Location"] = path
        return response

    def no_content(self) -> Response:
        """Answer 204."""
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    def page(self, resources: Iterable[Message], next_page_token: str) -> Response:
        """Answer 200 with a page of a list."""
        return Response(messages.encode_page(resources, next_page_token), headers=JSON_HEADERS)

    def items(self, resources: Iterable[Message]) -> Response:
        """Answer 200 with a list that has no pages."""
        return Response(messages.encode_items(resources), headers=JSON_HEADERS)

    def _answer(self, status: int, content: bytes, resource: Message) -> Response:
        response = Response(content, status, headers=JSON_HEADERS)
        if "version" in resource.DESCRIPTOR.fields_by_name:
            response.headers["ETag"] = f'"{resource.version}"'  # type: ignore[attr-defined]
        if self._replayed:
            response.headers["Idempotency-Replayed"] = "true"
        return response


def read_if_match(values: list[str]) -> int | None:
    """Return the version that If-Match names: None for no header or ``*``, `NO_VERSION` for what names no version."""
    if not values or values == ["*"]:
        return None
    match = _ETAG.fullmatch(values[0]) if len(values) == 1 else None
    return int(match[0][1:-1]) if match else NO_VERSION


def read_idempotency(values: list[str], caller: Caller, path: str, body: object) -> Idempotency | None:
    """Return what makes a retried POST recognisable, None when it carries no Idempotency-Key.

    Raises:
        Refused: RQ-101, the key is not 1 to 255 printable ASCII characters.
    """
    if not values:
        return None
    if len(values) > 1 or not _KEY.fullmatch(values[0]):
        detail = Detail("Idempotency-Key", "Must be there once, with 1 to 255 printable ASCII characters.")
        raise Refused("RQ-101", details=[detail])
    # Operators are one caller, and a platform is one whichever of its keys it uses.
    who = {CallerType.ADMIN: None, CallerType.PARTNER: str(caller.platform_id)}.get(caller.type, caller.id)
    scope = json.dumps([caller.type, who, path, values[0]])
    fingerprint = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return Idempotency(hashlib.sha256(scope.encode()).digest(), hashlib.sha256(fingerprint.encode()).digest())
