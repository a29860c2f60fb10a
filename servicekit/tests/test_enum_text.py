"""Enum values as text."""

import pytest

from aarokya.identity.v1.user_pb2 import Gender, IdProofType, UserStatus
from aarokya.records.v1.account_pb2 import AccountVerificationStatus
from servicekit.enum_text import number_of, text_of


@pytest.mark.parametrize(
    ("enum", "number", "text"),
    [
        (UserStatus, UserStatus.USER_STATUS_ACTIVE, "active"),
        (AccountVerificationStatus, 1, "unverified"),
        (Gender, Gender.GENDER_FEMALE, "FEMALE"),
        (IdProofType, IdProofType.ID_PROOF_TYPE_VOTER_ID, "VOTER_ID"),
    ],
)
def test_states_are_lower_and_kinds_upper_case(enum, number, text):
    assert text_of(enum.DESCRIPTOR, number) == text
    assert number_of(enum.DESCRIPTOR, text) == number


@pytest.mark.parametrize("number", [0, 99])
def test_rejects_numbers_without_text(number):
    with pytest.raises(ValueError):
        text_of(Gender.DESCRIPTOR, number)


@pytest.mark.parametrize("text", ["", "female", "UNSPECIFIED", "GENDER_FEMALE"])
def test_rejects_texts_of_no_value(text):
    with pytest.raises(ValueError):
        number_of(Gender.DESCRIPTOR, text)
