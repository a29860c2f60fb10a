"""When those whom the gateway had to refuse may come back: not all at once.

Clients that keep to `Retry-After` and were all told one second ask again each second, all of them, for as long as they
are refused. To refuse four hundred a second takes what they are waiting for. So times are given out one after the
other, as far apart as a gateway can take in besides all that comes anew. Of a crowd that is larger than there are times
within `LONGEST_S`, each gets any second of the later half of them. Why somebody was refused makes no difference.
"""

import math
import random
import time
from collections.abc import Callable

A_SECOND = 50
LONGEST_S = 10


class RetryAfter:
    """The times that have been given out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0

    def next_seconds(self) -> int:
        """Give out the next time; return in how many seconds it is, at least one and at most `LONGEST_S`."""
        now = self._clock()
        given = max(self._next, now)
        if given - now >= LONGEST_S:
            return random.randint(LONGEST_S // 2 + 1, LONGEST_S)  # noqa: S311 - nobody gains by knowing it.
        self._next = given + 1 / A_SECOND
        return max(1, math.ceil(given - now))
