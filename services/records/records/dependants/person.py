"""What may be said of a person by itself, without a look at the rest of the family."""

import unicodedata
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import date

from aarokya.records.v1.dependant_pb2 import Dependant
from servicekit.calendar_days import age_on
from servicekit.errors import Detail
from servicekit.id_numbers import fault_of_abha_address, fault_of_abha_number
from servicekit.messages import has
from servicekit.phone_numbers import NotMobile, to_e164

OLDEST = 120
COUNTRY_CODE = "+91"


def broken_rules(person: Dependant, fields: Collection[str], today: date) -> list[Detail]:
    """Return what is wrong with the given fields; unset fields break no rule."""
    broken = ((field, rule(person, today)) for field, rule in _RULES.items() if field in fields and has(person, field))
    return [Detail(field, message) for field, message in broken if message is not None]


def with_e164(person: Dependant) -> Dependant:
    """Return the person with the phone number in E.164, or as it is when no mobile phone can have it."""
    result = Dependant()
    result.CopyFrom(person)
    if person.HasField("phone_number"):
        with suppress(NotMobile):
            result.phone_number = to_e164(person.phone_number, COUNTRY_CODE)
    return result


def is_same(one: Dependant, other: Dependant) -> bool:
    """Return whether two are probably one person, entered twice."""
    return _identity(one) == _identity(other)


def _identity(person: Dependant) -> tuple[object, ...]:
    names = (person.first_name, person.middle_name, person.last_name)
    return (person.relationship, person.date_of_birth, *map(_name_key, names))


def _name_key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _date_of_birth(person: Dependant, today: date) -> str | None:
    born = date.fromisoformat(person.date_of_birth)
    if born > today:
        return "The birth date must not be in the future."
    return f"The age must be at most {OLDEST}." if age_on(today, born) > OLDEST else None


def _phone_number(person: Dependant, _: date) -> str | None:
    try:
        to_e164(person.phone_number, COUNTRY_CODE)
    except NotMobile:
        return "No mobile phone can have this number."
    return None


_RULES: dict[str, Callable[[Dependant, date], str | None]] = {
    "date_of_birth": _date_of_birth,
    "phone_number": _phone_number,
    "abha_number": lambda person, _: fault_of_abha_number(person.abha_number),
    "abha_address": lambda person, _: fault_of_abha_address(person.abha_address),
}
