"""When those whom the gateway had to refuse may come back: not all at once.

Clients that keep to `Retry-After` and were all told one second ask again each second, all of them, for as long as they
are refused. To refuse four hundred a second takes what they are waiting for. So each is given a time of its own, and
these are as far apart as a gateway can take in besides all that comes anew.
"""

import math
import time
from collections.abc import Callable

A_SECOND = 50
LONGEST_S = 10


class Comebacks:
    """The times that have been given, one after the other."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0

    def next_in(self) -> int:
        """Give away the next time; return in how many seconds it is, at least one and at most `LONGEST_S`."""
        now = self._clock()
        given = min(max(self._next, now), now + LONGEST_S)
        self._next = given + 1 / A_SECOND
        return min(max(1, math.ceil(given - now)), LONGEST_S)
