"""Errors name the field and the rule, in the same few words, and never repeat what was sent."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Refused
from gateway.schemas import audit, catalogue, identity, records
from gateway.validation import read_body, read_query, read_valid_fields
from servicekit.errors import MOST_DETAILS

BENEFIT = {
    "benefit_provider_id": "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11",
    "code": "checkup",
    "name": "Check-up",
    "type": "DIAGNOSTICS",
    "price_paise": 0,
}


def refusal(call, *arguments) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert caught.value.code == "RQ-101"
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return [(detail.field, detail.message) for detail in caught.value.details]


class TestReadBody:
    @pytest.mark.parametrize(
        ("changes", "field", "message"),
        [
            ({"name": None}, "name", "Must not be null."),
            ({"name": 1}, "name", "Must be a string."),
            ({"name": ""}, "name", "Must be 1 to 200 characters long."),
            ({"price_paise": True}, "price_paise", "Must be a whole number."),
            ({"price_paise": 1.0}, "price_paise", "Must be a whole number."),
            ({"price_paise": "1"}, "price_paise", "Must be a whole number."),
            ({"price_paise": -1}, "price_paise", "Must be at least 0."),
            ({"price_paise": 10**300}, "price_paise", "Must be at most 9007199254740991."),
            ({"status": "gone"}, "status", "Must be one of draft, active, paused, archived."),
            ({"status": 1}, "status", "Must be one of draft, active, paused, archived."),
            ({"status": None}, "status", "Must not be null."),
            ({"platform_ids": {}}, "platform_ids", "Must be an array."),
            ({"platform_ids": None}, "platform_ids", "Must not be null."),
            ({"platform_ids": ["x"]}, "platform_ids.0", "Must be a UUID, written with hyphens."),
            ({"platform_ids": ["x"] * 1001}, "platform_ids", "Must hold at most 1000 items."),
            ({"translations": []}, "translations", "Must be an object."),
            ({"translations": {"hi": 1}}, "translations.hi", "Must be an object."),
            ({"translations": {"hi": {}}}, "translations.hi.name", "Is required."),
            ({"valid_from": "2023-02-29"}, "valid_from", "Must be a date that exists, written as YYYY-MM-DD."),
            ({"colour": None}, "colour", "Is not accepted here."),
            ({"version": 2}, "version", "Is not accepted here."),
            ({"<script>": 1}, "?", "Is not accepted here."),
            ({"a" * 65: 1}, "?", "Is not accepted here."),
        ],
        ids=str,
    )
    def test_says_what_is_wrong(self, changes, field, message):
        assert refusal(read_body, catalogue.CreateBenefitBody, {**BENEFIT, **changes}) == [(field, message)]

    def test_says_what_is_wrong_with_a_flag(self):
        assert refusal(read_body, records.UpdateAccountBody, {"is_primary": 1}) == [
            ("is_primary", "Must be true or false.")
        ]

    @pytest.mark.parametrize("body", [[], "x", 1, True, 1.5], ids=repr)
    def test_takes_objects_only(self, body):
        assert refusal(read_body, identity.UpdateUserBody, body) == [("body", "Must be an object.")]

    def test_unpaired_surrogates_do_not_break_it(self):
        assert refusal(read_body, identity.UpdateUserBody, {"\ud800": 1}) == [("body", "Is not valid.")]

    def test_null_is_no_body(self):
        assert refusal(read_body, identity.UpdateUserBody, None) == [("body", "Must not be null.")]

    def test_names_several_fields_but_not_too_many(self):
        assert refusal(read_body, records.CreateMrnBody, {}) == [
            ("dependant_id", "Is required."),
            ("benefit_provider_id", "Is required."),
            ("mrn", "Is required."),
        ]
        assert len(refusal(read_body, identity.UpdateUserBody, dict.fromkeys("abcdefghijklmnopqrstuvwxyz", 1))) == (
            MOST_DETAILS
        )
        many = {f"field_{number}": 1 for number in range(20_000)}
        assert refusal(read_body, identity.UpdateUserBody, many) == [("body", "Has too many mistakes to name them.")]

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda children: (
            st.lists(children, max_size=3) | st.dictionaries(st.text(st.characters()), children, max_size=3)
        ),
        max_leaves=10,
    )

    @given(
        st.sampled_from([identity.UpdateUserBody, catalogue.UpdateBenefitBody, records.CreateAccountBody]), st.data()
    )
    def test_anything_is_read_or_refused(self, body_type, data):
        names = st.sampled_from(list(body_type.model_fields)) | st.text(st.characters())
        body = data.draw(st.dictionaries(names, self.json_values, max_size=5))
        with contextlib.suppress(Refused):
            read_body(body_type, body)

    @pytest.mark.parametrize("name", list(identity.CreatePlatformBody.model_fields))
    @pytest.mark.parametrize("wrap", [str, lambda marker: [marker], lambda marker: {marker: marker}])
    def test_repeats_nothing_that_was_sent(self, name, wrap):
        marker = "mark3r<" + "x" * 20_000
        with pytest.raises(Refused) as caught:
            read_body(identity.CreatePlatformBody, {name: wrap(marker), marker: wrap(marker)})
        assert "mark3r" not in repr(caught.value.details)


class TestReadQuery:
    def test_reads_what_is_there(self):
        query = read_query(records.ListDependantsQuery, [("include_removed", "true"), ("page_size", "7")])
        assert (query.include_removed, query.page_size, query.page_token, query.as_of) == (True, 7, None, None)

    @pytest.mark.parametrize(
        ("pairs", "field", "message"),
        [
            ([("page_size", "0")], "page_size", "Must be at least 1."),
            ([("page_size", "")], "page_size", "Must be a whole number."),
            ([("page_size", "5"), ("page_size", "5")], "page_size", "Must be there only once."),
            ([("<b>", "5"), ("<b>", "5")], "?", "Must be there only once."),
            ([("action", "a\x00")], "action", "Must not hold control characters or invisible formatting characters."),
            ([("user_id", "1")], "user_id", "Must be a UUID, written with hyphens."),
            (
                [("from", "yesterday")],
                "from",
                "Must be an RFC 3339 time with its offset, such as 2026-11-20T09:30:00Z.",
            ),
            ([("from_", "2026-11-20T09:30:00Z")], "from_", "Is not accepted here."),
            ([("page", "2")], "page", "Is not accepted here."),
            ([("", "2")], "?", "Is not accepted here."),
        ],
        ids=str,
    )
    def test_says_what_is_wrong(self, pairs, field, message):
        assert refusal(read_query, audit.ListAuditLogsQuery, pairs) == [(field, message)]

    def test_filters_by_known_states_only(self):
        assert read_query(identity.ListUsersQuery, [("status", "active")]).status == "active"
        assert refusal(read_query, identity.ListUsersQuery, [("status", "ACTIVE")]) == [
            ("status", "Must be one of onboarding, active, deactivated.")
        ]

    @given(st.lists(st.tuples(st.sampled_from(["q", "page_size", "type"]) | st.text(), st.text()), max_size=4))
    def test_anything_is_read_or_refused(self, pairs):
        with contextlib.suppress(Refused):
            read_query(catalogue.ListBenefitsQuery, pairs)


class TestReadValidFields:
    def test_leaves_out_what_does_not_fit(self):
        body = read_valid_fields(
            identity.UpdateUserBody,
            {
                "first_name": " Ravi ",
                "last_name": None,
                "gender": "male",
                "date_of_birth": "17-05-1990",
                "address_line": "x" * 301,
                "id_proof": {"proof_type": "PAN"},
                "city": 1,
                "unknown": "x",
            },
        )
        assert body.model_dump(exclude_unset=True) == {"first_name": "Ravi", "last_name": None}
