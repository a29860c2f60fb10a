"""Reads bodies and query parameters into their shapes, and says what is wrong with them in our own words.

What a caller sent never comes back in an error: not the value, and of a field's name only what looks like one.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.errors import Detail, Refused
from gateway.fields import Body, Query
from servicekit.errors import MOST_DETAILS

BodyT = TypeVar("BodyT", bound=Body)
QueryT = TypeVar("QueryT", bound=Query)

# Our own field names and the keys of our maps (language tags) look like this. An unknown field's name is the caller's.
_SAFE_NAME = re.compile(r"[A-Za-z][A-Za-z_-]{0,63}")
# A body may hold 30,000 mistakes, and listing them to show twenty would hold up everybody else.
_MAX_LISTED = 1000
_CHOICE = re.compile(r"'([^']*)'")

_MESSAGES: Mapping[str, str] = {
    "missing": "Is required.",
    "extra_forbidden": "Is not accepted here.",
    "string_type": "Must be a string.",
    "int_type": "Must be a whole number.",
    "bool_type": "Must be true or false.",
    "list_type": "Must be an array.",
    "dict_type": "Must be an object.",
    "model_type": "Must be an object.",
    "model_attributes_type": "Must be an object.",
    "too_long": "Must hold at most {max_length} items.",
    "greater_than_equal": "Must be at least {ge}.",
    "less_than_equal": "Must be at most {le}.",
}


def read_body(body_type: type[BodyT], value: Any) -> BodyT:
    """The decoded body in its shape, or `Refused` with RQ-101."""
    try:
        return body_type.model_validate(value)
    except ValidationError as error:
        # "from None", because the error holds what was sent and could reach a log.
        raise Refused("RQ-101", details=_details_of(error)) from None


def read_valid_fields(body_type: type[BodyT], value: Mapping[str, Any]) -> BodyT:
    """The fields that fit the shape, which must require none; all others are left out without a word."""
    known = {name: item for name, item in value.items() if name in body_type.model_fields}
    try:
        return body_type.model_validate(known)
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors(include_url=False, include_input=False)}
    return body_type.model_validate({name: item for name, item in known.items() if name not in wrong})


def read_query(query_type: type[QueryT], pairs: Sequence[tuple[str, str]]) -> QueryT:
    """The query parameters in their shape, or `Refused` with RQ-101. One that is there twice is refused."""
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if repeated:
        details = [Detail(_safe(name), "Must be there only once.") for name in repeated[:MOST_DETAILS]]
        raise Refused("RQ-101", details=details)
    try:
        return query_type.model_validate(dict(pairs))
    except ValidationError as error:
        raise Refused("RQ-101", details=_details_of(error)) from None


def _details_of(error: ValidationError) -> list[Detail]:
    """What is wrong, field by field, as the details of RQ-101."""
    if error.error_count() > _MAX_LISTED:
        return [Detail("body", "Has too many mistakes to name them.")]
    problems = error.errors(include_url=False)[:MOST_DETAILS]
    return [Detail(_path(problem["loc"]), _message(problem)) for problem in problems]


def _path(location: Iterable[str | int]) -> str:
    # Pydantic marks a map's key, as opposed to its value, by "[key]"; the key itself is named already.
    path = ".".join(_safe(part) for part in location if part != "[key]")
    return path or "body"


def _safe(part: str | int) -> str:
    return str(part) if isinstance(part, int) or _SAFE_NAME.fullmatch(part) else "?"


def _message(problem: ErrorDetails) -> str:
    kind = problem["type"]
    if kind.startswith("field_"):
        return problem["msg"]
    if kind not in ("missing", "extra_forbidden") and problem["input"] is None:
        return "Must not be null."
    if kind == "literal_error":
        return f"Must be one of {', '.join(_CHOICE.findall(problem['ctx']['expected']))}."
    return _MESSAGES.get(kind, "Is not valid.").format(**problem.get("ctx", {}))
