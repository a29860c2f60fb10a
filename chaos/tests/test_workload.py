"""That the history says what each attempt was told, and that what never worked is noticed."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from chaos.experiment import MANY, Before, Finding, Scene, acknowledged_writes, never_acknowledged
from chaos.experiments.freeze_identity import was_let_in
from chaos.experiments.spoilt_edge import LEAST_ANSWERS, seconds_elsewhere, slower
from chaos.tests.gateways import Gateways, refuse
from chaos.workload import Attempt, Operation, Outcome, Person, Workload, phone_number

AWAY = refuse(503, "RQ-111", Retry_After="0")
PERSON = Person("u1", "9000000000", {})


@pytest.fixture
async def gateways() -> AsyncIterator[Gateways]:
    rig = Gateways()
    server = await rig.start()
    yield rig
    server.close()


@pytest.fixture
async def workload(gateways: Gateways) -> AsyncIterator[Workload]:
    workload = Workload(cast(Any, gateways), 7, keyed=1.0)
    yield workload
    workload.close()


def operation(kind: str = "add account", method: str = "POST", **rest: Any) -> Operation:
    return Operation(kind, method, "/x", {}, **rest)


async def test_each_attempt_is_kept_with_its_time(gateways: Gateways, workload: Workload) -> None:
    gateways.answers = [AWAY, AWAY]

    done = await workload.run(workload.new_account(PERSON))

    assert done.statuses == ["503 RQ-111", "503 RQ-111", "201"]
    assert done.outcome is Outcome.OK
    began = [attempt.began for attempt in done.attempts]
    assert began == sorted(began)
    assert sum(attempt.seconds for attempt in done.attempts) <= done.seconds
    assert workload.told == {"503 RQ-111": 2, "201": 1}


async def test_answers_that_nothing_explains_are_problems(gateways: Gateways, workload: Workload) -> None:
    gateways.answers = [AWAY, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]
    before = Before(Scene(cast(Any, gateways), workload, 7))

    await workload.run(workload.new_account(PERSON))
    finding = Finding("")
    before.tell(finding, may_be_silent=False)

    assert finding.told == {"503 RQ-111": 1, "404 without X-Request-Id without envelope": 1}
    assert finding.counts == {"failed": 1}
    assert len(finding.problems) == 1
    assert "404" in finding.problems[0]


def test_what_never_succeeded_is_told() -> None:
    refused = [operation(outcome=Outcome.UNKNOWN) for _ in range(MANY)]
    few = [operation("link mrn", outcome=Outcome.UNKNOWN) for _ in range(MANY - 1)]
    trial = operation(outcome=Outcome.OK, is_trial=True)

    assert never_acknowledged([*refused, *few, trial]) == ["add account"]
    assert never_acknowledged([*refused, operation(outcome=Outcome.OK)]) == []
    assert acknowledged_writes([trial, operation(outcome=Outcome.OK), operation("read user", "GET")]) == {
        "add account": 1
    }


def test_phones_differ_and_belong_to_mobiles() -> None:
    for seed in (1, 8999, 17_999):
        phones = [phone_number(seed, number) for number in range(99_990, 100_020)]
        assert len(set(phones)) == len(phones)
        assert all(len(phone) == 10 and phone.startswith("9") for phone in phones)


def test_a_retry_that_was_let_in_is_seen() -> None:
    early = Attempt("503 RQ-111", 0.5, 0.1)

    assert was_let_in(operation(person=PERSON, attempts=[early, Attempt("201", 1.5, 0.1)]), 1.0, 2.0)
    assert not was_let_in(operation(person=PERSON, attempts=[early, Attempt("201", 1.5, 0.6)]), 1.0, 2.0)
    assert not was_let_in(operation(person=PERSON, attempts=[Attempt("201", 0.9, 0.5)]), 1.0, 2.0)
    assert not was_let_in(operation(attempts=[Attempt("201", 1.5, 0.1)]), 1.0, 2.0)


def test_fast_refusals_do_not_make_a_phase_fast() -> None:
    reads = [
        operation("read user", "GET", attempts=[Attempt("503 RQ-111", 0.0, 0.001), Attempt("200", 0.2, 0.3)]),
        operation("list accounts", "GET", attempts=[Attempt("200", 0.0, 0.9)]),
    ]

    assert seconds_elsewhere(reads) == [0.3]


def test_a_phase_is_slower_only_beyond_a_fifth_and_with_enough_answers() -> None:
    well = [0.030] * LEAST_ANSWERS

    assert not slower({"well": well, "slow": [0.040] * LEAST_ANSWERS})
    assert len(slower({"well": well, "slow": [0.042] * LEAST_ANSWERS, "reset": [0.030] * LEAST_ANSWERS})) == 1
    assert not slower({"well": well, "slow": [0.042] * (LEAST_ANSWERS - 1)})
