"""That whoever is let in too long, again or by the wrong refusal is noticed when rights end."""

import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from chaos import rights
from chaos.experiment import Scene
from chaos.proxy import Faults
from chaos.rights import LAST, Heard, end_rights, judge
from chaos.tests.gateways import Gateways, refuse, spell
from chaos.workload import Workload

REFUSAL = "401 AU-208"
ENDED_AT = 10.0


def heard(*answers: tuple[float, str]) -> list[Heard]:
    """Return answers, and enough refusals after them."""
    return [*(Heard(*answer) for answer in answers), *(Heard(15.0 + number, REFUSAL) for number in range(LAST))]


def test_takes_a_short_while_and_refusals_that_a_fault_explains() -> None:
    ended = judge("revoke", [heard((9.9, "200"), (10.6, "200"), (10.8, "503 RQ-111")), heard()], ENDED_AT, 12.0)

    assert ended.seconds == pytest.approx(0.6)
    assert not ended.problems
    assert ended.heard["200"] == 2


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([(11.1, "200")], "still allowed after 1.10 s"),
        ([(12.5, "200")], "1 let in after all was mended"),
        ([(10.5, "500 RQ-100")], "answers 500 RQ-100"),
        ([(10.5, "404 US-401")], "answers 404 US-401"),
        ([(10.5, "503 RQ-111 without Retry-After")], "answers 503 RQ-111 without Retry-After"),
        ([(10.5, "no answer: TimeoutError")], "answers no answer: TimeoutError"),
        ([(20.0, "503 RQ-111")], "ended in 401 AU-208, 503 RQ-111 instead of 401 AU-208"),
    ],
)
def test_tells_what_must_not_happen(answers: list[tuple[float, str]], problem: str) -> None:
    ended = judge("revoke", [heard(), heard(*answers)], ENDED_AT, 12.0)

    assert f"revoke: {problem}" in ended.problems


def test_another_code_than_that_of_the_ended_right_is_none() -> None:
    assert judge("suspend", [heard()], ENDED_AT).problems


@pytest.fixture
async def gateways(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    for name, seconds in {"ASKED_ON_S": 0.1, "BROKEN_ON_S": 0.2, "MENDED_ON_S": 0.3, "PATIENCE_S": 2.0}.items():
        monkeypatch.setattr(rights, name, seconds)
    rig = Gateways()
    server = await rig.start()
    yield rig
    server.close()


def scene_of(gateways: Gateways) -> Scene:
    return Scene(cast(Any, gateways), Workload(cast(Any, gateways), 7), 7)


def revokes(gateways: Gateways, lets_in: Any, *, answers_after_s: float = 0.0) -> None:
    """Let the gateways revoke keys, and let their holders in as a rule says that is asked afterwards."""
    is_revoked = False

    def answer(method: str, path: str) -> bytes:
        nonlocal is_revoked
        if method == "DELETE":
            is_revoked, gateways.happened_at = True, time.monotonic() - answers_after_s
            return spell(204)
        if method == "POST":
            return spell(201)
        return refuse(401, "AU-208") if is_revoked and not lets_in() else spell(200)

    gateways.answer = answer


async def test_asks_until_all_refuse(gateways: Gateways) -> None:
    revokes(gateways, lambda: time.monotonic() - gateways.happened_at < 0.2)

    ended = await end_rights(scene_of(gateways), "revoke")

    assert not ended.problems
    assert 0.1 < ended.seconds < 0.4
    assert set(ended.heard) == {"200", REFUSAL}


async def test_counts_from_when_it_happened_and_not_from_the_answer(gateways: Gateways) -> None:
    revokes(gateways, lambda: time.monotonic() - gateways.happened_at < 0.7, answers_after_s=0.5)

    ended = await end_rights(scene_of(gateways), "revoke")

    assert 0.5 < ended.seconds < 1.0


async def test_asks_on_when_what_was_broken_is_mended(gateways: Gateways) -> None:
    was_late = False

    def lets_in() -> bool:
        nonlocal was_late
        was_late |= gateways.edge.faults.delay_answers_s > 0
        # What was remembered is believed again.
        return was_late and not gateways.edge.faults.delay_answers_s and time.monotonic() - gateways.happened_at < 0.3

    revokes(gateways, lets_in)

    ended = await end_rights(scene_of(gateways), "revoke", [gateways.edge], Faults(delay_answers_s=1.0))

    assert any("let in after all was mended" in problem for problem in ended.problems)


async def test_somebody_who_is_never_refused_is_no_endless_run(gateways: Gateways) -> None:
    revokes(gateways, lambda: True)

    ended = await end_rights(scene_of(gateways), "revoke")

    assert any("still allowed after" in problem for problem in ended.problems)
    assert any("ended in 200" in problem for problem in ended.problems)
