"""Mobile numbers as people write them."""

import pytest

from servicekit.phone_numbers import NotMobile, to_country_code, to_e164


class TestToE164:
    @pytest.mark.parametrize(
        "written",
        [
            "9876543210",
            "09876543210",
            "+919876543210",
            "+91 98765-43210",
            "98765  43210",
            "98765 - 43210",
            " 9876543210 ",
        ],
    )
    def test_brings_all_spellings_to_one(self, written: str) -> None:
        assert to_e164(written, "+91") == "+919876543210"

    def test_takes_a_number_of_another_country_by_its_own_code(self) -> None:
        assert to_e164("+44 7400 123456", "+91") == "+447400123456"

    @pytest.mark.parametrize(
        "written",
        [
            "",
            "+",
            "ravi",
            "98765",
            "98765432101",
            "919876543210",
            "009876543210",
            "08022221111",
            "5876543210",
            "-9876543210",
            "9876543210-",
            "98765\t43210",
            "9876543210\n",
            "९८७६५४३२१०",
            "tel:+919876543210",
            "+919876543210;ext=4",
            "1" * 300,
            "9 " * 100_000,
        ],
    )
    def test_refuses(self, written: str) -> None:
        with pytest.raises(NotMobile):
            to_e164(written, "+91")


class TestToCountryCode:
    @pytest.mark.parametrize(("written", "code"), [("91", "+91"), ("+91", "+91"), ("+1", "+1"), ("971", "+971")])
    def test_has_one_form(self, written: str, code: str) -> None:
        assert to_country_code(written) == code

    @pytest.mark.parametrize("written", ["", "+", "0091", "999", "+91 ", "IN", "९१", "91919"])
    def test_refuses(self, written: str) -> None:
        with pytest.raises(NotMobile):
            to_country_code(written)
