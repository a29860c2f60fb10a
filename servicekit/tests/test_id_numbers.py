"""Numbers of Indian identity documents."""

import pytest

from servicekit.id_numbers import is_aadhaar, masked


class TestIsAadhaar:
    @pytest.mark.parametrize(
        "text",
        ["234123412346", "2341 2341 2346", "2341-2341-2346", "2341/2341/2346", "2341.2341.2346", " 234123412346"],
    )
    def test_knows_one_whatever_separates_its_digits(self, text: str) -> None:
        assert is_aadhaar(text)

    @pytest.mark.parametrize("text", ["234123412345", "23412341234", "2341234123460", "KA234123412346", "", "१" * 12])
    def test_takes_nothing_else_for_one(self, text: str) -> None:
        assert not is_aadhaar(text)

    def test_notices_every_wrong_digit(self) -> None:
        right = "234123412346"
        wrong = [
            right[:place] + digit + right[place + 1 :]
            for place in range(12)
            for digit in "0123456789"
            if digit != right[place]
        ]
        assert not any(map(is_aadhaar, wrong))


class TestMasked:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [("KA0120190001234", "••••1234"), ("123456", "••••456"), ("12", "••••2"), ("1", "••••"), ("", "••••")],
    )
    def test_shows_the_end_and_never_more_than_half(self, text: str, shown: str) -> None:
        assert masked(text) == shown
