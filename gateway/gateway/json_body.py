"""Strict JSON: what two readers could understand differently is refused, before any shape is looked at."""

import json
import math
import re
from typing import Any, NoReturn

from gateway.errors import Refused

MAX_DEPTH = 32

# The longest integer that a double, and so any JSON reader, can hold. It also keeps us far from Python's own limit of
# 4300 digits and from the quadratic cost below it.
_MAX_INTEGER_LENGTH = 308

# The first half of every escape that can end as an unpaired surrogate; most bodies have none and skip the check.
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def decode_json(raw: bytes) -> Any:
    """Decode a request body, or raise `Refused("RQ-102")` with a message that holds nothing of the body.

    Refused are: anything but UTF-8, a byte order mark, repeated keys, NaN and Infinity, numbers beyond a double's
    range, unpaired surrogates in values and keys, nesting deeper than `MAX_DEPTH`, and of course what is not JSON.
    Escaped control characters pass: whether a text may hold them is a question of its field.
    """
    # What is raised below is raised "from None": the original errors hold parts of the body and could reach a log.
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("RQ-102", "The body is not valid UTF-8.") from None
    if text.startswith("\ufeff"):
        raise Refused("RQ-102", "The body begins with a byte order mark.")
    try:
        value = _decoder.decode(text)
    except ValueError:
        raise Refused("RQ-102", "The body is not valid JSON.") from None
    except RecursionError:
        raise _too_deep() from None
    # A text with few opening brackets cannot be deep, so the walk is for the others only.
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper_than(value, MAX_DEPTH):
        raise _too_deep()
    if _SURROGATE_ESCAPE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise Refused("RQ-102", "The body holds an unpaired surrogate.") from None
    return value


def _too_deep() -> Refused:
    return Refused("RQ-102", f"The body is nested deeper than {MAX_DEPTH} levels.")


def _is_deeper_than(value: object, levels: int) -> bool:
    layer = [value]
    for _ in range(levels + 1):
        containers = [item for item in layer if isinstance(item, (dict, list))]
        if not containers:
            return False
        layer = [child for each in containers for child in (each.values() if isinstance(each, dict) else each)]
    return True


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Refused("RQ-102", "An object in the body has the same key twice.")
    return result


def _read_integer(literal: str) -> int:
    if len(literal) > _MAX_INTEGER_LENGTH:
        raise Refused("RQ-102", "A number in the body is too large.")
    return int(literal)


def _read_float(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise Refused("RQ-102", "A number in the body is too large.")
    return number


def _refuse_constant(_name: str) -> NoReturn:
    raise Refused("RQ-102", "The body holds NaN or Infinity, which are not JSON.")


_decoder = json.JSONDecoder(
    object_pairs_hook=_read_object,
    parse_int=_read_integer,
    parse_float=_read_float,
    parse_constant=_refuse_constant,
)
