"""The trace that a request is part of, as its caller's `traceparent` names it (W3C Trace Context).

We make no spans of our own: the header goes on, as it came, with every question that the request leads to, and the
trace's id stands in what is logged meanwhile. A header that is malformed or there twice names no trace.
"""

import re
from collections.abc import Sequence
from contextvars import ContextVar

import structlog

TRACE_KEY = "traceparent"
# Ids of zeros are none, version ff is none, and only versions to come may say more after the flags.
_FORM = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{0,200})?"
)
_FIRST_VERSION = "00"

_trace: ContextVar[tuple[str, str] | None] = ContextVar("trace", default=None)


def enter_trace(headers: Sequence[str]) -> None:
    """Say which trace what runs now is part of, given all its `traceparent` headers."""
    found = _FORM.fullmatch(headers[0]) if len(headers) == 1 else None
    if found is None or (found[1] == _FIRST_VERSION and found[3] is not None):
        _trace.set(None)
    else:
        _trace.set((headers[0], found[2]))


def onward_trace() -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata by which another process learns of the trace, none outside of any."""
    trace = _trace.get()
    return () if trace is None else ((TRACE_KEY, trace[0]),)


def add_trace_id(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the trace's id to a log line; a structlog processor."""
    trace = _trace.get()
    if trace is not None:
        event["trace_id"] = trace[1]
    return event
