"""Mobile numbers as people write them, brought to E.164."""

import re

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberType

# phonenumbers by itself takes extensions, tel: links and the digits of all scripts.
_WRITTEN = re.compile(r"\+?[0-9](?:[ -]*[0-9]){4,18}", re.ASCII)
_COUNTRY_CODE = re.compile(r"\+?[1-9][0-9]{0,2}", re.ASCII)
_MOBILE = frozenset({PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE})


class NotMobile(ValueError):
    """The text is not a number that a mobile phone can have."""


def to_country_code(text: str) -> str:
    """Return a country code as ``+91``, from ``91`` or ``+91``.

    Raises:
        NotMobile: no country has this code.
    """
    if not _COUNTRY_CODE.fullmatch(text):
        raise NotMobile
    digits = text.removeprefix("+")
    if int(digits) not in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
        raise NotMobile
    return f"+{digits}"


def to_e164(text: str, country_code: str) -> str:
    """Return a mobile number in E.164, such as ``+919876543210``.

    Args:
        text: national digits or E.164; spaces and hyphens between digits and one leading 0 are tolerated.
        country_code: the code, such as ``+91``, of a number that does not bring its own.

    Raises:
        NotMobile: no mobile phone can have this number.
    """
    written = text.strip(" ")
    if not _WRITTEN.fullmatch(written):
        raise NotMobile
    digits = re.sub("[ -]", "", written)
    if digits.startswith("00"):
        # phonenumbers would take away as many zeros as it finds.
        raise NotMobile
    if not digits.startswith("+"):
        digits = country_code + digits.removeprefix("0")
    try:
        number = phonenumbers.parse(digits)
    except NumberParseException as error:
        raise NotMobile from error
    if not phonenumbers.is_valid_number(number) or phonenumbers.number_type(number) not in _MOBILE:
        raise NotMobile
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
