"""What questions prove of another process's clock, against a truth that the test knows."""

import random
from collections.abc import Callable

import pytest

from servicekit import remote_clock
from servicekit.remote_clock import DRIFT, MOST_REPLICAS, Moment, RemoteClocks


class Truth:
    """Our clock, and another that started elsewhere and may run a little faster or slower."""

    def __init__(self, ours: float = 1000.0, theirs: float = 77.0) -> None:
        self.ours = ours
        self.theirs = theirs
        self.rate = 1.0

    def pass_by(self, seconds: float) -> None:
        self.ours += seconds
        self.theirs += seconds * self.rate

    def moment(self, replica_id: str = "a") -> Moment:
        return Moment(replica_id, int(self.theirs * 1_000_000))


@pytest.fixture
def truth() -> Truth:
    return Truth()


@pytest.fixture
def clocks(truth: Truth) -> RemoteClocks:
    return RemoteClocks(lambda: truth.ours)


@pytest.fixture
def ask(truth: Truth, clocks: RemoteClocks) -> Callable[..., None]:
    def ask(*, seen_after_s: float, replica_id: str = "a") -> None:
        asked_at = truth.ours
        truth.pass_by(seen_after_s)
        clocks.learn(asked_at, truth.moment(replica_id))

    return ask


def lag(truth: Truth, clocks: RemoteClocks) -> float:
    """Return how much older than it is this moment looks."""
    earliest = clocks.earliest(truth.moment())
    assert earliest is not None
    return truth.ours - earliest


class TestEarliest:
    def test_of_an_unknown_clock_is_none(self, truth: Truth, clocks: RemoteClocks) -> None:
        assert clocks.earliest(truth.moment()) is None

    def test_is_off_by_what_the_question_took(
        self, truth: Truth, clocks: RemoteClocks, ask: Callable[..., None]
    ) -> None:
        ask(seen_after_s=0.2)
        assert lag(truth, clocks) == pytest.approx(0.2, rel=0.01)

    def test_is_told_by_the_quickest_question(
        self, truth: Truth, clocks: RemoteClocks, ask: Callable[..., None]
    ) -> None:
        for seconds in (3.0, 0.01, 2.0):
            ask(seen_after_s=seconds)
        assert lag(truth, clocks) == pytest.approx(0.01, abs=2.1 * DRIFT)

    def test_of_another_process_is_another(self, truth: Truth, clocks: RemoteClocks, ask: Callable[..., None]) -> None:
        ask(seen_after_s=0.01, replica_id="b")
        assert clocks.earliest(truth.moment("a")) is None
        ask(seen_after_s=2.0)
        assert lag(truth, clocks) == pytest.approx(2.0, rel=0.01)

    def test_gets_worse_with_the_age_of_the_question(
        self, truth: Truth, clocks: RemoteClocks, ask: Callable[..., None]
    ) -> None:
        ask(seen_after_s=0.0)
        truth.pass_by(100)
        assert lag(truth, clocks) == pytest.approx(100 * DRIFT, rel=0.01)

    def test_prefers_a_slower_question_to_one_that_is_too_old(
        self, truth: Truth, clocks: RemoteClocks, ask: Callable[..., None]
    ) -> None:
        ask(seen_after_s=0.0)
        truth.pass_by(1000)
        ask(seen_after_s=0.3)
        assert lag(truth, clocks) == pytest.approx(0.3, rel=0.01)

    def test_allows_for_what_is_not_a_whole_microsecond(
        self, truth: Truth, clocks: RemoteClocks, ask: Callable[..., None]
    ) -> None:
        truth.pass_by(0.9e-6)
        ask(seen_after_s=0.0)
        truth.pass_by(0.2e-6)
        assert lag(truth, clocks) > 0

    def test_forgets_a_clock_that_would_be_ahead_of_now(
        self, truth: Truth, clocks: RemoteClocks, ask: Callable[..., None]
    ) -> None:
        ask(seen_after_s=0.01)
        # Our machine was suspended, and its clock with it.
        truth.theirs += 10
        assert clocks.earliest(truth.moment()) is None
        assert clocks.age("a") == float("inf")
        ask(seen_after_s=0.02)
        assert lag(truth, clocks) == pytest.approx(0.02, rel=0.01)

    @pytest.mark.parametrize("seed", range(30))
    def test_is_never_after_the_moment(self, seed: int) -> None:
        rng = random.Random(seed)
        truth = Truth(ours=rng.uniform(0, 1e7), theirs=rng.uniform(0, 1e7))
        clocks = RemoteClocks(lambda: truth.ours)
        asked: list[float] = []
        seen: list[tuple[float, Moment]] = []
        dated: list[tuple[float, Moment]] = []
        is_known = False
        for _ in range(2000):
            truth.pass_by(10 ** rng.uniform(-5, rng.choice((-1, 1.5))))
            match rng.randrange(6):
                case 0:
                    asked.append(truth.ours)
                case 1 if asked:
                    seen.append((asked.pop(rng.randrange(len(asked))), truth.moment()))
                case 2 if seen:
                    clocks.learn(*seen.pop(rng.randrange(len(seen))))
                    is_known = True
                case 3:
                    dated.append((truth.ours, truth.moment()))
                case 4 if dated:
                    happened_at, moment = dated[-rng.randrange(min(20, len(dated))) - 1]
                    earliest = clocks.earliest(moment)
                    assert (earliest is not None) is is_known
                    assert earliest is None or earliest <= happened_at
                case 5:
                    # Measured on our clock, as what is allowed for is.
                    truth.rate = 1 + rng.choice((-1, 1, rng.uniform(-1, 1))) * DRIFT


class TestAge:
    def test_counts_from_the_last_question(self, truth: Truth, clocks: RemoteClocks, ask: Callable[..., None]) -> None:
        assert clocks.age("a") == float("inf")
        ask(seen_after_s=0.0)
        truth.pass_by(20)
        ask(seen_after_s=5.0)
        assert clocks.age("a") == 5.0

    def test_is_not_that_of_an_answer_that_was_overtaken(self, truth: Truth, clocks: RemoteClocks) -> None:
        clocks.learn(truth.ours, truth.moment())
        clocks.learn(truth.ours - 10, truth.moment())
        assert clocks.age("a") == 0


def test_keeps_the_clocks_that_were_learned_of_last(
    truth: Truth, clocks: RemoteClocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_REPLICAS > 2
    monkeypatch.setattr(remote_clock, "MOST_REPLICAS", 2)
    for replica_id in ("a", "b", "a", "c"):
        clocks.learn(truth.ours, truth.moment(replica_id))
    assert [clocks.age(replica_id) for replica_id in ("a", "b", "c")] == [0, float("inf"), 0]
