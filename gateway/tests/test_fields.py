"""What each kind of field takes, turns into its one form, and refuses."""

import json
import unicodedata
from datetime import UTC, datetime

import jsonschema_rs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway import fields
from gateway.json_body import decode_json

ADAPTERS = {
    name: TypeAdapter(value)
    for name, value in vars(fields).items()
    if any(value is declared for declared in (*fields.FIELD_TYPES.values(), fields.Rfc3339))
    or name in ("QueryFlag", "QueryPageSize")
}
QUERY_TYPES = {"QueryFlag", "QueryPageSize", "QuerySequence"}
INT_TYPES = {"TokenTtlSeconds", "MinUserAge", "MaxDependants", "Age", "Paise", "OverlapSeconds"}
TEXT_TYPES = ADAPTERS.keys() - QUERY_TYPES - INT_TYPES - {"JsonObject"}
HUMAN_TYPES = {
    "PersonName", "MiddleName", "FamilyName", "PlaceName", "PlatformName", "Title", "AddressLine", "Sentence",
    "Description", "Reason", "SearchText",
}  # fmt: skip
FORMED_TYPES = {"Uuid", "IsoDate", "Rfc3339"}
CODE_TYPES = TEXT_TYPES - HUMAN_TYPES - FORMED_TYPES

UUID = "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"


def read(name: str, value: object) -> object:
    return ADAPTERS[name].validate_python(value)


def is_refused(name: str, value: object) -> bool:
    try:
        read(name, value)
    except ValidationError:
        return True
    return False


def is_described(schema: dict, text: str) -> bool:
    """Whether text has a schema's pattern, as JSON Schema reads it."""
    return jsonschema_rs.is_valid({"pattern": schema["pattern"]}, text)


class TestJsonTypes:
    """The strictness table: nothing is taken for something else."""

    @pytest.mark.parametrize("name", sorted(TEXT_TYPES))
    @pytest.mark.parametrize("value", [None, 1, 0, 1.5, True, [], ["a"], {}, {"a": "b"}, b"text", 10**40], ids=repr)
    def test_text_is_a_string(self, name, value):
        assert is_refused(name, value)

    @pytest.mark.parametrize("name", sorted(INT_TYPES))
    @pytest.mark.parametrize("value", [None, "1", "", 300.0, 1e2, True, False, [], {}, [1], float("inf")], ids=repr)
    def test_numbers_are_whole_numbers(self, name, value):
        assert is_refused(name, value)

    @pytest.mark.parametrize("value", [None, "{}", "", 1, True, [], [["a", 1]], 1.5], ids=repr)
    def test_metadata_is_an_object(self, value):
        assert is_refused("JsonObject", value)

    @pytest.mark.parametrize("name", sorted(QUERY_TYPES))
    @pytest.mark.parametrize(
        "value", [None, "", " 1", "1 ", "+1", "1.0", "1e2", "٣", "0x1", "yes", 1, True, [], "\x00"], ids=repr
    )
    def test_query_parameters_are_exact_text(self, name, value):
        assert is_refused(name, value)


INVISIBLE = "\x00\x07\t\n\r\x1b\x7f\x85\u2028\u2029\ud800\udfff\u202e\u2066\u200b\u200e\ufeff\u00ad\u2060\U000e0041"


class TestCharacters:
    @pytest.mark.parametrize("name", sorted(HUMAN_TYPES | CODE_TYPES))
    @pytest.mark.parametrize("character", list(INVISIBLE), ids=ascii)
    def test_invisible_ones_are_refused(self, name, character):
        visible = "Ravi Kumar Bengaluru 560001 Karnataka"
        assert read(name, visible) == visible
        for text in (visible + character, character + visible, visible.replace(" ", character)):
            assert is_refused(name, text)

    @pytest.mark.parametrize("name", sorted(HUMAN_TYPES))
    def test_people_need_joiners(self, name):
        for text in ("क्‍ष", "ക്‌ഷ", "நஸ்ரின்", "محمد", "Ḏībã", "O'Neil", "张伟"):
            assert read(name, text) == text

    @pytest.mark.parametrize("name", sorted(CODE_TYPES))
    def test_identifiers_hold_no_joiners(self, name):
        assert is_refused(name, "AB\u200dCD" + "x" * 30)
        assert is_refused(name, "AB\u200cCD" + "x" * 30)

    @pytest.mark.parametrize(
        "character", ["\ue000", "\uf8ff", "\ufdd0", "\uffff", "\u0378", "\U000f0000", "\U0010ffff"], ids=ascii
    )
    def test_mrns_hold_none_without_a_meaning(self, character):
        for text in (character, f"AP{character}004711", f"AP004711{character}"):
            assert is_refused("MrnText", text)
            # Newer alphabets look like this to an older Python, and patterns are the services' to judge.
            assert read("PersonName", text) == text
            assert read("Code", text) == text

    @pytest.mark.parametrize("text", ["AP-004711/26", "अ१२३", "क्ष-१", "مريض ٤٢", "病歴42", "№ 7 é\u00a0€😀"])
    def test_mrns_hold_what_can_be_printed(self, text):
        assert read("MrnText", text) == text

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_names_come_out_printable_and_settled(self, text):
        try:
            name = read("PersonName", text)
        except ValidationError:
            return
        assert 1 <= len(name) <= 100
        assert name == name.strip()
        assert read("PersonName", name) == name

    @given(st.text(st.characters()))
    def test_nothing_breaks_the_reader(self, text):
        for name in ADAPTERS:
            is_refused(name, text)


class TestNormalisation:
    def test_human_text_is_composed_and_trimmed(self):
        assert read("PersonName", "  Jose\u0301 \u00a0") == "José"

    def test_other_text_stays_as_it_is(self):
        assert read("EmailText", " Ravi@Example.ORG ") == " Ravi@Example.ORG "
        assert read("Code", "Jose\u0301") == "Jose\u0301"

    def test_mrns_are_trimmed_but_keep_their_case(self):
        assert read("MrnText", " aP-1 ") == "aP-1"

    def test_ids_are_lower_case(self):
        assert read("Uuid", UUID.upper()) == UUID


class TestLengths:
    @pytest.mark.parametrize(
        ("name", "shortest", "longest"),
        [
            ("PersonName", 1, 100),
            ("PlatformName", 2, 120),
            ("Reason", 1, 500),
            ("MrnText", 1, 64),
            ("Secret", 32, 256),
            ("EmailText", 1, 254),
        ],
    )
    def test_are_counted_in_characters(self, name, shortest, longest):
        for letter in "aक😀":
            assert read(name, letter * shortest) == letter * shortest
            assert read(name, letter * longest) == letter * longest
            assert is_refused(name, letter * (shortest - 1))
            assert is_refused(name, letter * (longest + 1))
            assert is_refused(name, letter * 100_000)

    def test_are_those_of_the_cleaned_text(self):
        assert read("PersonName", " " * 90 + "e\u0301" * 100 + " " * 90) == "é" * 100

    @pytest.mark.parametrize("text", ["", " ", "\u3000", "\u200d", "\u200c\u200d", " \u200d "])
    @pytest.mark.parametrize("name", sorted(HUMAN_TYPES))
    def test_what_looks_empty_is_empty(self, name, text):
        assert is_refused(name, text)

    @pytest.mark.parametrize("value", ["12345", "5600011", "abcdef", "A" * 40])
    @pytest.mark.parametrize(
        "name", ["Pincode", "Ifsc", "Code", "AbhaNumber", "AccountNumber", "PhoneNumber", "StateCode"]
    )
    def test_patterns_are_left_to_the_services(self, name, value):
        assert read(name, value) == value

    def test_a_too_long_mrn_pattern_is_left_to_the_catalogue(self):
        assert read("MrnPattern", "a" * 201) == "a" * 201


class TestForms:
    @pytest.mark.parametrize(
        "value",
        [
            "", "x", UUID.replace("-", ""), f"{{{UUID}}}", f"urn:uuid:{UUID}", UUID + " ", UUID[:-1], UUID + "0",
            UUID.replace("1", "g"), UUID.replace("1", "１"), UUID + "\n", "%s",
        ],
    )  # fmt: skip
    def test_ids_are_canonical_uuids(self, value):
        assert is_refused("Uuid", value)

    @pytest.mark.parametrize("value", ["1994-02-28", "2024-02-29", "0001-01-01", "9999-12-31"])
    def test_dates_that_exist(self, value):
        assert read("IsoDate", value) == value

    @pytest.mark.parametrize(
        "value",
        [
            "", "2023-02-29", "1994-2-28", "19940228", "1994-W01-1", "28-02-1994", "0000-01-01", "1994-13-01",
            "1994-02-28T00:00:00Z", " 1994-02-28", "1994-02-28\n", "١٩٩٤-٠٢-٢٨", "10000-01-01", "-1994-02-28",
        ],
    )  # fmt: skip
    def test_dates_that_do_not(self, value):
        assert is_refused("IsoDate", value)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("2026-11-20T09:30:00Z", datetime(2026, 11, 20, 9, 30, tzinfo=UTC)),
            ("2026-11-20t09:30:00.5z", datetime(2026, 11, 20, 9, 30, 0, 500_000, tzinfo=UTC)),
            ("2026-11-20T15:00:00+05:30", datetime(2026, 11, 20, 9, 30, tzinfo=UTC)),
            ("2026-11-20T09:30:00.123456789Z", datetime(2026, 11, 20, 9, 30, 0, 123_456, tzinfo=UTC)),
            ("2026-11-20T00:00:00-00:00", datetime(2026, 11, 20, tzinfo=UTC)),
        ],
    )
    def test_times_become_utc(self, value, expected):
        read_time = read("Rfc3339", value)
        assert read_time == expected
        assert read_time.tzinfo is UTC

    @pytest.mark.parametrize(
        "value",
        [
            "", "2026-11-20", "2026-11-20T09:30:00", "2026-11-20 09:30:00Z", "2026-11-20T09:30Z",
            "2026-11-20T24:00:00Z", "2026-11-20T09:30:60Z", "2026-02-30T00:00:00Z", "1790000000",
            "2026-11-20T09:30:00.Z", "2026-11-20T09:30:00+5", "2026-11-20T09:30:00+25:00", "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00", "2026-11-20T09:30:00.1234567890Z", "2026-11-20T09:30:00Z\n",
        ],
    )  # fmt: skip
    def test_other_times_are_refused(self, value):
        assert is_refused("Rfc3339", value)


class TestRanges:
    @pytest.mark.parametrize(
        ("name", "least", "most"),
        [
            ("TokenTtlSeconds", 300, 86_400),
            ("MinUserAge", 0, 120),
            ("MaxDependants", 0, 20),
            ("Age", 0, 150),
            ("Paise", 0, 2**53 - 1),
            ("OverlapSeconds", 0, 604_800),
        ],
    )
    def test_ends_are_inside(self, name, least, most):
        assert read(name, least) == least
        assert read(name, most) == most
        for outside in (least - 1, most + 1, 2**63, -(2**63) - 1, 10**300):
            assert is_refused(name, outside)

    def test_a_large_page_is_lowered(self):
        assert read("QueryPageSize", "1") == 1
        assert read("QueryPageSize", "200") == 200
        assert read("QueryPageSize", "9" * 400) == 200

    @pytest.mark.parametrize("value", ["0", "-1", "-" + "9" * 400, "9" * 5000])
    def test_a_page_holds_something(self, value):
        assert is_refused("QueryPageSize", value)

    def test_a_flag_is_true_or_false(self):
        assert read("QueryFlag", "true") is True
        assert read("QueryFlag", "false") is False
        for value in ("True", "TRUE", "1", "0", "on", ""):
            assert is_refused("QueryFlag", value)

    def test_a_sequence_fits_into_64_bits(self):
        assert read("QuerySequence", str(2**63 - 1)) == 2**63 - 1
        assert is_refused("QuerySequence", str(2**63))
        assert is_refused("QuerySequence", "0")


class TestMetadata:
    @given(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats(allow_nan=False, allow_infinity=False),
            max_size=20,
        )
    )
    def test_is_kept_as_it_is(self, value):
        assert read("JsonObject", value) == value

    def test_is_at_most_8_kib_of_utf_8(self):
        assert read("JsonObject", {"a": "x" * (8192 - 8)})
        assert is_refused("JsonObject", {"a": "x" * (8192 - 7)})
        assert read("JsonObject", {"a": "अ" * 2700})
        assert is_refused("JsonObject", {"a": "अ" * 2800})

    def test_is_bounded_in_depth(self):
        def nested(levels: int) -> object:
            value: object = 1
            for _ in range(levels):
                value = {"a": value}
            return value

        assert read("JsonObject", nested(16))
        assert is_refused("JsonObject", nested(17))
        assert is_refused("JsonObject", nested(100_000))
        assert is_refused("JsonObject", {"a": json.loads("[" * 500 + "]" * 500)})

    @pytest.mark.parametrize(
        "value",
        [
            {"a": "\x00"}, {"a\n": 1}, {"a": ["b", {"c": "\x07"}]}, {"a": "\ud800"}, {"\udfff": 1}, {"a": float("nan")},
            {"a": float("inf")}, {"a": 2**63}, {"a": -(2**63) - 1}, {"a": 10**4000},
        ],
        ids=["nul", "key", "deep", "surrogate", "surrogate key", "nan", "inf", "int", "negative int", "giant int"],
    )  # fmt: skip
    def test_hostile_values_are_refused(self, value):
        assert is_refused("JsonObject", value)

    def test_what_the_decoder_lets_through_never_breaks_it(self):
        assert is_refused("JsonObject", decode_json(b'{"a": "\\u0000"}'))
        assert is_refused("JsonObject", decode_json(b'{"a": ' + b"1" * 300 + b"}"))


class TestDocumentation:
    @pytest.mark.parametrize("name", sorted(ADAPTERS))
    def test_examples_are_of_their_type(self, name):
        for example in ADAPTERS[name].json_schema().get("examples", []):
            read(name, example)

    def test_the_schema_says_what_is_checked(self):
        described = ADAPTERS["PersonName"].json_schema()
        assert described.pop("pattern")
        assert described == {"type": "string", "minLength": 1, "maxLength": 100, "examples": ["Ravi"]}
        assert ADAPTERS["QueryPageSize"].json_schema() == {"type": "integer", "minimum": 1}

    @pytest.mark.parametrize("name", sorted({*HUMAN_TYPES, "Identifier", "MrnText"}))
    @given(st.text(min_size=1, max_size=60))
    def test_patterns_tell_good_text_from_bad(self, name, text):
        unwritten = ("Cf", "Co", "Cn") if name == "MrnText" else ("Cf",)
        text = "".join(character for character in text if unicodedata.category(character) not in unwritten)
        schema = ADAPTERS[name].json_schema()
        assume(len(text.strip()) >= schema["minLength"] or not text.strip())
        assert is_described(schema, text) != is_refused(name, text)

    @pytest.mark.parametrize("name", sorted({*HUMAN_TYPES, "Identifier", "MrnText"}))
    @pytest.mark.parametrize(
        "invisible", ["\x00", "\x1f", "\x7f", "\x9f", "\xad", "\u200b", "\u2028", "\u2060", "\ufeff"]
    )
    def test_patterns_rule_out_what_is_invisible(self, name, invisible):
        text = f"Ravi{invisible}Kumar" + "." * 32
        assert is_refused(name, text)
        assert not is_described(ADAPTERS[name].json_schema(), text)
