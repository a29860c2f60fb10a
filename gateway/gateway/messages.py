"""How protobuf messages become JSON and how validated bodies become protobuf messages.

Both ways are worked out once for a message type and then kept, because they run in every request.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from functools import cache, lru_cache
from json.encoder import encode_basestring
from typing import Any, TypeVar

from google.api import field_behavior_pb2 as behavior
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel

from servicekit.messages import JSON_TEXT_FIELDS

MessageT = TypeVar("MessageT", bound=Message)
Convert = Callable[[Any], Any]
Text = Callable[[Any], str]

_TIMESTAMP = Timestamp.DESCRIPTOR.full_name
_FIRST_DAY = date(1970, 1, 1)
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def encode(message: Message, **more: Any) -> bytes:
    """The message as an answer's JSON, with more members after its own.

    Every field is there, unset ones as null, and `INPUT_ONLY` ones never.
    """
    text = _object_text(message)
    return (f"{text[:-1]},{_compact(more)[1:]}" if more else text).encode()


def encode_items(messages: Iterable[Message], **more: Any) -> bytes:
    """The messages as the items of an answer, with more members after them."""
    items = ",".join(map(_object_text, messages))
    return (f'{{"items":[{items}],{_compact(more)[1:]}' if more else f'{{"items":[{items}]}}').encode()


def encode_page(messages: Iterable[Message], next_page_token: str) -> bytes:
    """One page of a list as an answer. An empty token says that this is the last page."""
    return encode_items(messages, next_page_token=next_page_token or None)


def to_json(message: Message) -> dict[str, Any]:
    """What `encode` says, as Python values."""
    value: dict[str, Any] = json.loads(_object_text(message))
    return value


def to_message(body: BaseModel, message_type: type[MessageT]) -> MessageT:
    """The message that a body or query describes: what it leaves out or names as null stays unset.

    What the message has no field for is left out: the paging of the audit log is the gateway's own.
    """
    message = message_type()
    _fill(message, body)
    return message


def mask_of(body: BaseModel) -> FieldMask:
    """The fields that a body names, those named as null included: they are to be cleared."""
    return FieldMask(paths=[name for name in type(body).model_fields if name in body.model_fields_set])


def enum_texts(enum_name: str, names: Mapping[int, str]) -> dict[int, str]:
    """The text of each value of an enum by its number, given the values' names in the proto; zero has none."""
    prefix = "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(enum_name)).upper() + "_"
    texts = {number: name.removeprefix(prefix) for number, name in names.items() if number}
    if enum_name.endswith("Status"):
        return {number: text.lower() for number, text in texts.items()}
    return texts


@cache
def _texts_of(enum: EnumDescriptor) -> dict[int, str]:
    return enum_texts(enum.name, {value.number: value.name for value in enum.values})


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_time(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == _TIMESTAMP


def _object_text(message: Message) -> str:
    # Asking for the fields that are set and filling them into a form is half the work of asking each whether it is set.
    members, places = _form(message.DESCRIPTOR)
    members = members.copy()
    for field, value in message.ListFields():
        if field in places:
            place, name, text = places[field]
            members[place] = name + text(value)
    return f"{{{','.join(members)}}}"


@cache
def _form(descriptor: Descriptor) -> tuple[list[str], dict[FieldDescriptor, tuple[int, str, Text]]]:
    """The members of a message with nothing set, and for each field its place among them and how a value is written."""
    answered = [
        field
        for field in descriptor.fields
        if behavior.INPUT_ONLY not in field.GetOptions().Extensions[behavior.field_behavior]
    ]
    members = [f'"{field.name}":{_unset_text(field)}' for field in answered]
    places = {field: (place, f'"{field.name}":', _value_text(field)) for place, field in enumerate(answered)}
    return members, places


def _unset_text(field: FieldDescriptor) -> str:
    if field.is_repeated:
        return "{}" if _is_map(field) else "[]"
    if field.has_presence or field.enum_type is not None:
        return "null"
    if field.name in JSON_TEXT_FIELDS:
        return "{}"
    return _compact(field.default_value)


def _value_text(field: FieldDescriptor) -> Text:
    if field.message_type is not None and _is_map(field):
        value_text = _single_text(field.message_type.fields_by_name["value"])
        # A proto's map has no order of its own; the same message shall always be the same text.
        return lambda entries: (
            f"{{{','.join(f'{encode_basestring(key)}:{value_text(entries[key])}' for key in sorted(entries))}}}"
        )
    item_text = _single_text(field)
    return (lambda items: f"[{','.join(map(item_text, items))}]") if field.is_repeated else item_text


def _single_text(field: FieldDescriptor) -> Text:
    if field.message_type is not None:
        return _time_text if _is_time(field) else _object_text
    if field.enum_type is not None:
        texts = {number: f'"{text}"' for number, text in _texts_of(field.enum_type).items()}
        return lambda number: texts.get(number, "null")
    if field.type == FieldDescriptor.TYPE_STRING:
        # JSON text goes into the answer as it is: whoever stored it has checked it.
        return str if field.name in JSON_TEXT_FIELDS else encode_basestring
    return _compact if field.type == FieldDescriptor.TYPE_BOOL else str


def _time_text(time: Timestamp) -> str:
    day, second = divmod(time.seconds, 86_400)
    minute, second = divmod(second, 60)
    hour, minute = divmod(minute, 60)
    return f'"{_day_text(day)}T{hour:02}:{minute:02}:{second:02}.{time.nanos // 1000:06}Z"'


@lru_cache(maxsize=4096)
def _day_text(days: int) -> str:
    return (_FIRST_DAY + timedelta(days)).isoformat()


def _unchanged(value: Any) -> Any:
    return value


def _fill(message: Message, body: BaseModel) -> None:
    for name, write in _writers(type(body), message.DESCRIPTOR):
        value = getattr(body, name)
        if value is not None:
            write(message, value)


@cache
def _writers(
    body_type: type[BaseModel], descriptor: Descriptor
) -> tuple[tuple[str, Callable[[Message, Any], None]], ...]:
    named = ((name, descriptor.fields_by_name.get(info.alias or name)) for name, info in body_type.model_fields.items())
    return tuple((name, _writer(field)) for name, field in named if field is not None)


def _writer(field: FieldDescriptor) -> Callable[[Message, Any], None]:
    name = field.name
    if _is_time(field):
        return lambda message, value: getattr(message, name).FromDatetime(value)
    if _is_map(field):
        return lambda message, value: _fill_map(getattr(message, name), value)
    if field.message_type is not None:
        return lambda message, value: _fill_part(getattr(message, name), value)
    convert = _to_proto_value(field)
    if field.is_repeated:
        return lambda message, value: getattr(message, name).extend(convert(item) for item in value)
    return lambda message, value: setattr(message, name, convert(value))


def _to_proto_value(field: FieldDescriptor) -> Convert:
    if field.enum_type is not None:
        return {text: number for number, text in _texts_of(field.enum_type).items()}.__getitem__
    return _compact if field.name in JSON_TEXT_FIELDS else _unchanged


def _fill_part(part: Message, body: BaseModel) -> None:
    # A part that is there but empty is not the same as none.
    part.SetInParent()
    _fill(part, body)


def _fill_map(entries: Any, bodies: Mapping[str, BaseModel]) -> None:
    for key, body in bodies.items():
        _fill(entries[key], body)
