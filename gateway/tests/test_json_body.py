"""What decode_json takes, and what it refuses without repeating a byte of it."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Refused
from gateway.json_body import MAX_DEPTH, decode_json


def refusal(raw: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        decode_json(raw)
    assert caught.value.code == "RQ-102"
    assert caught.value.__cause__ is None
    assert caught.value.details == []
    return caught.value


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**300), 10**300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children),
    max_leaves=20,
)


class TestAccepts:
    @given(json_values, st.booleans())
    def test_reads_what_json_writes(self, value, ensure_ascii):
        assert decode_json(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value

    @pytest.mark.parametrize(
        ("raw", "value"),
        [
            (b'  {"a": 1}\r\n\t', {"a": 1}),
            (rb'"\ud83d\ude00"', "😀"),
            (rb'"\\ud800"', r"\ud800"),
            (rb'"\u0000"', "\x00"),
            (b"1" * 308, int("1" * 308)),
            (b"1.7976931348623157e308", 1.7976931348623157e308),
            (b"1e-999", 0.0),
            (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)),
            (b"[" + b"[]," * 5000 + b"[]]", [[]] * 5001),
            (b'"' + b"[" * 5000 + b'"', "[" * 5000),
        ],
        ids=str,
    )
    def test_reads_the_edges(self, raw, value):
        assert decode_json(raw) == value

    def test_keeps_apart_what_json_keeps_apart(self):
        assert [type(item) for item in decode_json(b"[1, 1.0, true, null]")] == [int, float, bool, type(None)]


class TestRefuses:
    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            (b"", "not valid JSON"),
            (b" ", "not valid JSON"),
            (b"{", "not valid JSON"),
            (b"{}{}", "not valid JSON"),
            (b"{'a': 1}", "not valid JSON"),
            (b'{"a": 1,}', "not valid JSON"),
            (b'{"a": 01}', "not valid JSON"),
            (b'{"a": 0x1}', "not valid JSON"),
            (b"{} // done", "not valid JSON"),
            (b'"a\nb"', "not valid JSON"),
            (b'"\x00"', "not valid JSON"),
            (rb'"\x41"', "not valid JSON"),
            (rb'"\u12"', "not valid JSON"),
            (b"\xc2\xa0{}", "not valid JSON"),
            (b"a=1&b=2", "not valid JSON"),
            (b"\xef\xbb\xbf{}", "byte order mark"),
            ('{"a": 1}'.encode("utf-16"), "UTF-8"),
            (b'"\xff"', "UTF-8"),
            (b'"\xed\xa0\x80"', "UTF-8"),
            (b'"\xc0\x80"', "UTF-8"),
            (b'{"a": 1, "a": 1}', "same key twice"),
            (rb'{"a": 1, "\u0061": 2}', "same key twice"),
            (b'[{"b": {"a": 1, "a": 2}}]', "same key twice"),
            (b"NaN", "NaN"),
            (b'{"a": [Infinity]}', "Infinity"),
            (b"-Infinity", "Infinity"),
            (b"1e999", "too large"),
            (b"-1e999", "too large"),
            (b"1" * 310 + b".0", "too large"),
            (b"1" * 309, "too large"),
            (b"1" * 4301, "too large"),
            (b"-" + b"9" * 200_000, "too large"),
            (rb'"\ud800"', "surrogate"),
            (rb'"\uDFFF"', "surrogate"),
            (rb'"\ude00\ud83d"', "surrogate"),
            (rb'{"a": ["\uD83D \uDE00"]}', "surrogate"),
            (rb'{"\udc00": 1}', "surrogate"),
            (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "deeper"),
            (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "deeper"),
            (b"[" * 100_000 + b"]" * 100_000, "deeper"),
            (b'{"a":' * 40_000, "deeper"),
        ],
        ids=lambda value: repr(value[:20]),
    )
    def test_refuses_the_ambiguous_and_the_broken(self, raw, message):
        assert message in (refusal(raw).message or "")

    @given(st.binary(max_size=60))
    def test_never_fails_in_another_way(self, raw):
        with contextlib.suppress(Refused):
            decode_json(raw)

    def test_repeats_nothing_of_the_body(self):
        for raw in (b'{"sesame": 1, "sesame": 2}', b'{"sesame": NaN}', b'{"sesame"', b'"sesame\xff"'):
            assert "sesame" not in str(refusal(raw)) + (refusal(raw).message or "")
