"""That answers are held against the contract, and only those fit that a fault explains."""

import json
from collections import Counter

import pytest

from chaos.callers import is_fitting
from chaos.experiment import unfitting
from chaos.http import Answer

ENVELOPE = {"code": "RQ-111", "message": "Away.", "request_id": "r1", "details": []}


def answer(status: int, headers: dict[str, str], body: object) -> Answer:
    return Answer(status, headers, json.dumps(body).encode(), 0.1)


@pytest.mark.parametrize(
    ("status", "headers", "body", "label"),
    [
        (200, {"x-request-id": "r1"}, {"id": "1"}, "200"),
        (200, {}, {"id": "1"}, "200 without X-Request-Id"),
        (503, {"x-request-id": "r1", "retry-after": "1"}, {"error": ENVELOPE}, "503 RQ-111"),
        (503, {"x-request-id": "r1"}, {"error": ENVELOPE}, "503 RQ-111 without Retry-After"),
        (503, {"x-request-id": "r2", "retry-after": "1"}, {"error": ENVELOPE}, "503 RQ-111 without envelope"),
        (502, {"x-request-id": "r1"}, "Bad gateway", "502 without envelope"),
        (409, {"x-request-id": "r1"}, {"error": {**ENVELOPE, "code": "RQ-109"}}, "409 RQ-109 without Retry-After"),
        (401, {"x-request-id": "r1"}, {"error": {**ENVELOPE, "code": "AU-202"}}, "401 AU-202"),
    ],
)
def test_says_what_is_missing(status: int, headers: dict[str, str], body: object, label: str) -> None:
    assert answer(status, headers, body).label == label


def test_only_what_a_fault_explains_fits() -> None:
    told = Counter(
        {
            "200": 9,
            "201": 3,
            "503 RQ-111": 2,
            "504 RQ-112": 1,
            "409 RQ-109": 1,
            "500 RQ-100": 1,
            "401 AU-202": 4,
            "503 RQ-111 without Retry-After": 1,
            "200 without X-Request-Id": 1,
        }
    )

    strange = unfitting(told, may_be_silent=False)

    assert strange == {
        "500 RQ-100": 1,
        "401 AU-202": 4,
        "503 RQ-111 without Retry-After": 1,
        "200 without X-Request-Id": 1,
    }


def test_silence_fits_only_where_clients_are_cut_off() -> None:
    told = Counter({"no answer: TimeoutError": 1, "not sent: ConnectionRefusedError": 2})

    assert unfitting(told, may_be_silent=False) == told
    assert not unfitting(told, may_be_silent=True)


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n{}", True),
        (b'HTTP/1.1 503 Away\r\nRetry-After: 1\r\n\r\n{"error": {"code": "RQ-111"}}', True),
        (b'HTTP/1.1 503 Away\r\n\r\n{"error": {"code": "RQ-111"}}', False),
        (b"HTTP/1.1 503 Away\r\nretry-after: 1\r\n\r\nAway", False),
        (b'HTTP/1.1 500 Oh\r\nRetry-After: 1\r\n\r\n{"error": {"code": "RQ-111"}}', False),
    ],
)
def test_cheap_callers_look_at_refusals_too(answered: bytes, expected: bool) -> None:
    assert is_fitting(answered) is expected
