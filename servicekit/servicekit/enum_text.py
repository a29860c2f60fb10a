"""How an enum's value is spelt in JSON and in the database."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from google.protobuf.descriptor import EnumDescriptor

if TYPE_CHECKING:
    # What the stubs say that `field.enum_type` is.
    from google._upb._message import EnumDescriptor as FastEnumDescriptor

AnyEnum: TypeAlias = "EnumDescriptor | FastEnumDescriptor"


class EnumTexts(NamedTuple):
    """The spellings of one enum, without its zero value, which is neither stored nor answered."""

    text_by_number: Mapping[int, str]
    number_by_text: Mapping[str, int]


@cache
def enum_texts(descriptor: AnyEnum) -> EnumTexts:
    """Return both directions of the enum's spellings, worked out once per enum.

    The text is the value's name without the enum's prefix: lower case when the enum's name ends in
    `Status`, upper case otherwise. The prefix is read from the zero value, `<PREFIX>UNSPECIFIED`.
    Raises ValueError for an enum that does not begin with such a value.
    """
    zero = descriptor.values_by_number.get(0)
    if zero is None or not zero.name.endswith("UNSPECIFIED"):
        raise ValueError(f"{descriptor.full_name} has no UNSPECIFIED zero value")
    prefix = zero.name.removesuffix("UNSPECIFIED")
    lower = descriptor.name.endswith("Status")
    texts = {
        value.number: text.lower() if lower else text
        for value in descriptor.values
        if value.number != 0
        for text in [value.name.removeprefix(prefix)]
    }
    return EnumTexts(MappingProxyType(texts), MappingProxyType({text: number for number, text in texts.items()}))


def text_of(descriptor: AnyEnum, number: int) -> str:
    """Return the value's text. Raises ValueError for 0 and for numbers that the enum does not have."""
    text = enum_texts(descriptor).text_by_number.get(number)
    if text is None:
        raise ValueError(f"{descriptor.full_name} has no text for {number}")
    return text


def number_of(descriptor: AnyEnum, text: str) -> int:
    """Return the value's number. Raises ValueError for a text that the enum does not have."""
    number = enum_texts(descriptor).number_by_text.get(text)
    if number is None:
        # The text may come from a caller, so it is not repeated here.
        raise ValueError(f"{descriptor.full_name} has no such value")
    return number
