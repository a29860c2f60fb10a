"""Comparing and patching proto messages, field by field."""

import json
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

# The proto's string fields that hold JSON text, and are JSON values to the outside.
JSON_TEXT_FIELDS = frozenset({"metadata", "changes"})


def apply_mask(current: M, patch: M, paths: Sequence[str]) -> M:
    """Return a copy of `current` in which the fields named by `paths` are as in `patch`.

    A named field that `patch` leaves unset is cleared; lists, maps and messages are replaced whole. Paths are
    names of top-level fields. Raises ValueError for any other path.
    """
    fields = current.DESCRIPTOR.fields_by_name
    result = type(current)()
    result.CopyFrom(current)
    for path in paths:
        field = fields.get(path)
        if field is None:
            raise ValueError(f"{current.DESCRIPTOR.full_name} has no field of a mask's path")
        result.ClearField(path)
        if field.is_repeated:
            getattr(result, path).MergeFrom(getattr(patch, path))
        elif field.message_type is not None:
            if patch.HasField(path):
                getattr(result, path).CopyFrom(getattr(patch, path))
        elif not field.has_presence or patch.HasField(path):
            setattr(result, path, getattr(patch, path))
    return result


def changed_fields(before: M, after: M) -> list[str]:
    """Return the names of the fields whose presence or value differs, in the proto's order.

    JSON differs when its value does, in whatever order the members of its objects come.
    """
    return [
        field.name
        for field in before.DESCRIPTOR.fields
        if (field.has_presence and before.HasField(field.name) != after.HasField(field.name))
        or (
            getattr(before, field.name) != getattr(after, field.name)
            and not (
                field.name in JSON_TEXT_FIELDS
                and _ordered(getattr(before, field.name)) == _ordered(getattr(after, field.name))
            )
        )
    ]


def _ordered(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True) if text else ""


def has(message: Message, name: str) -> bool:
    """Return whether a field is set, by a name that is only known at run time."""
    return message.HasField(name)
