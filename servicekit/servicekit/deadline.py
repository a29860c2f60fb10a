"""How long a call may still take, passed on from each process to the next that it asks.

Whoever asked has gone when the time is over, so nothing should be done for nobody: what a call asks of others gets what
remains, less a margin in which the answer travels back.
"""

import asyncio
from contextvars import ContextVar

from servicekit.errors import ServiceAway

MARGIN_S = 0.02

_ends_at: ContextVar[float | None] = ContextVar("deadline", default=None)


def set_deadline(seconds: float | None) -> None:
    """Say how long the call that runs now may take; None for as long as it likes."""
    _ends_at.set(None if seconds is None else asyncio.get_running_loop().time() + seconds)


def time_left(at_most_s: float) -> float:
    """Return for how many seconds another process may be asked.

    Raises:
        ServiceAway: no time is left.
    """
    ends_at = _ends_at.get()
    if ends_at is None:
        return at_most_s
    left = ends_at - asyncio.get_running_loop().time() - MARGIN_S
    if left <= 0:
        raise ServiceAway
    return min(at_most_s, left)
