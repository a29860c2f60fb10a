"""When something happened that another process dates by a clock of its own, proved by questions and answers only.

Who asks at t on our clock, and is told that the question was seen at s on the other's, knows that s was not before t.
So whatever the other dates x happened at x + (t - s) on our clock, or later: how long questions take can make it look
older than it is, never newer, and nothing is assumed of where clocks start. The quickest question gives the best bound.

Clocks do not run equally fast, so a bound gets worse with its age: by `DRIFT`, which is what two clocks differ by when
the kernel slews each as fast as it can, in opposite directions. A bound that is the best after that stays the best, so
one number for each process is all that is kept.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

Clock = Callable[[], float]

DRIFT = 0.001
# Replicas come and go; those that answered last are of interest.
MOST_REPLICAS = 256


class ReplicaMoment(Protocol):
    """A moment on the clock of another process."""

    @property
    def replica_id(self) -> str:
        """Which process; after a restart it is another one."""
        ...

    @property
    def clock_us(self) -> int:
        """Whole microseconds that have passed on its clock."""
        ...


class Moment(NamedTuple):
    """Such a moment when no message holds it."""

    replica_id: str
    clock_us: int


class _Bound(NamedTuple):
    # Our clock less the other's is at least this, less DRIFT for each second on our clock.
    ahead: float
    learned_at: float


class RemoteClocks:
    """The clocks of the processes that answer our questions."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._bounds: OrderedDict[str, _Bound] = OrderedDict()

    def now(self) -> float:
        """Return the moment on our own clock."""
        return self._clock()

    def learn(self, asked_at: float, seen_at: ReplicaMoment) -> None:
        """Take note of when a question was asked, on our clock, and seen, on the other's."""
        # What was seen within a microsecond was seen before its end.
        ahead = asked_at - (seen_at.clock_us + 1) / 1_000_000 + DRIFT * asked_at
        known = self._bounds.pop(seen_at.replica_id, None)
        self._bounds[seen_at.replica_id] = (
            _Bound(ahead, asked_at)
            if known is None
            else _Bound(max(ahead, known.ahead), max(asked_at, known.learned_at))
        )
        if len(self._bounds) > MOST_REPLICAS:
            self._bounds.popitem(last=False)

    def age(self, replica_id: str) -> float:
        """Return for how long nothing was learned of a process's clock, in seconds."""
        known = self._bounds.get(replica_id)
        return float("inf") if known is None else self._clock() - known.learned_at

    def earliest(self, moment: ReplicaMoment) -> float | None:
        """Return a moment on our clock that another's, which is over, is not before.

        Returns:
            None when nothing is known of that clock.
        """
        known = self._bounds.get(moment.replica_id)
        if known is None:
            return None
        now = self._clock()
        earliest = moment.clock_us / 1_000_000 + known.ahead - DRIFT * now
        if earliest > now:
            # It is over and cannot be to come. Our clock stood still with the machine, or drifts more than clocks may.
            del self._bounds[moment.replica_id]
            return None
        # The clocks may also have drifted between the moment and the question, if that came later.
        return earliest - 2 * DRIFT * (now - earliest)
