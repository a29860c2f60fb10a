"""What each field's JSON value must look like, declared once and attached by field name.

Only what `RQ-101` stands for is decided here: JSON type, length, range, control characters, and the form of ids, dates
and times. Patterns and every other rule of the domains belong to the services, which refuse with their own codes; where
a pattern is given here it is documentation, so lengths of such texts are generous.
"""

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

# Lists and maps in bodies hold at most this many things, whatever they are.
MAX_ITEMS = 1000
MAX_METADATA_BYTES = 8 * 1024
MAX_METADATA_DEPTH = 16
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200

_JOINERS = "\u200c\u200d"
# What documented patterns rule out: control characters, and the invisible ones that occur in practice. A few more that
# are refused too can't be written in a way that every engine of regular expressions reads, and what has no meaning
# isn't the same for all of them.
_CONTROLS = r"\u0000-\u001f\u007f-\u009f"
_INVISIBLE_BUT_JOINERS = rf"{_CONTROLS}\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
_INVISIBLE = rf"{_INVISIBLE_BUT_JOINERS}\u200c\u200d"
_INVISIBLE_OR_SPACE = rf"{_INVISIBLE} \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_ANY_LINE = rf"^[^{_INVISIBLE}]+$"
_TRIMMED_LINE = rf"^[^{_INVISIBLE}]*[^{_INVISIBLE_OR_SPACE}][^{_INVISIBLE}]*$"
_HUMAN_LINE = rf"^[^{_INVISIBLE_BUT_JOINERS}]*[^{_INVISIBLE_OR_SPACE}][^{_INVISIBLE_BUT_JOINERS}]*$"
_NEVER_IN_TEXT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Characters for private use, and those that have no meaning, or none that this Python knows: names may need the latter.
_NEVER_PRINTABLE = _NEVER_IN_TEXT | {"Co", "Cn"}
_NEVER_IN_METADATA = frozenset({"Cc", "Cs"})
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# Long enough for every number of use, short enough for `int()`, which gives up at 4300 digits.
_DIGITS = re.compile(r"-?[0-9]{1,1000}")
_INT64 = 2**63


class Body(BaseModel):
    """A request's body. A value of another JSON type is refused, never converted, and so is an unknown field."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class Query(BaseModel):
    """A request's query parameters. They arrive as text; types named `Query…` below read them."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)


class Answer(BaseModel):
    """An answer's shape, for the documentation only: answers are written by `gateway.messages` and not validated."""


def absent() -> Any:
    """The default of a field that may be left out. Whether it was is told by `model_fields_set`, not by this None."""
    return None


@dataclass(frozen=True)
class Text:
    """A line of text, checked and cleaned in one pass.

    Human text is NFC-normalised, trimmed, and may hold the zero-width joiners that Indic scripts need. Other text (ids,
    codes, numbers written as text) is left as it is, unless `trimmed`, and may hold no invisible character; what is
    `printable` may hold none without a common meaning either.
    """

    shortest: int
    longest: int
    human: bool = False
    trimmed: bool = False
    printable: bool = False
    example: str | None = None
    documented_pattern: str | None = None
    documented_format: str | None = None

    def clean(self, value: str) -> str:
        # NFC makes text at most four times shorter. What is longer still isn't worth reading character by character.
        if len(value) <= 4 * self.longest:
            if not value.isprintable():
                self._refuse_invisible(value)
            if self.human and not value.isascii():
                value = unicodedata.normalize("NFC", value)
            if self.human or self.trimmed:
                value = value.strip()
        # A text of joiners alone would look empty, so it is.
        length = len(value) if value.strip(_JOINERS) else 0
        if not self.shortest <= length <= self.longest:
            raise PydanticCustomError(
                "field_length",
                "Must be {shortest} to {longest} characters long.",
                {"shortest": self.shortest, "longest": self.longest},
            )
        return value

    def _refuse_invisible(self, value: str) -> None:
        allowed = _JOINERS if self.human else ""
        never = _NEVER_PRINTABLE if self.printable else _NEVER_IN_TEXT
        if any(unicodedata.category(c) in never and c not in allowed for c in value):
            raise PydanticCustomError(
                "field_characters",
                "Must hold printable characters only."
                if self.printable
                else "Must not hold control characters or invisible formatting characters.",
            )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.clean, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described: JsonSchemaValue = {"type": "string", "minLength": self.shortest, "maxLength": self.longest}
        described["pattern"] = self.documented_pattern or (
            _HUMAN_LINE if self.human else _TRIMMED_LINE if self.trimmed else _ANY_LINE
        )
        if self.documented_format is not None:
            described["format"] = self.documented_format
        if self.example is not None:
            described["examples"] = [self.example]
        return described


def is_uuid(text: str) -> bool:
    """Return whether a text is a UUID in its usual spelling."""
    return _UUID.fullmatch(text) is not None


def _read_uuid(value: str) -> str:
    if not is_uuid(value):
        raise PydanticCustomError("field_id", "Must be a UUID, written with hyphens.")
    return value.lower()


def _check_date(value: str) -> str:
    try:
        if _DATE.fullmatch(value) is not None:
            date.fromisoformat(value)
            return value
    except ValueError:
        pass
    raise PydanticCustomError("field_date", "Must be a date that exists, written as YYYY-MM-DD.")


def _read_time(value: Any) -> datetime:
    try:
        if isinstance(value, str) and (match := _TIME.fullmatch(value)) is not None:
            day, clock, fraction, offset = match.groups()
            micros = (fraction or "").ljust(6, "0")[:6]
            return datetime.fromisoformat(f"{day}T{clock}.{micros}{offset.upper()}").astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise PydanticCustomError("field_time", "Must be an RFC 3339 time with its offset, such as 2026-11-20T09:30:00Z.")


def _check_json_object(value: dict[str, Any]) -> dict[str, Any]:
    """Refuses what could not be stored or read back as the same JSON, before anything recurses into it."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_METADATA_DEPTH + 1:
            raise PydanticCustomError("field_depth", "Must not be nested deeper than 16 levels.")
        match item:
            case dict():
                waiting.extend((part, depth + 1) for pair in item.items() for part in pair)
            case list():
                waiting.extend((part, depth + 1) for part in item)
            case str() if not item.isprintable() and any(unicodedata.category(c) in _NEVER_IN_METADATA for c in item):
                raise PydanticCustomError("field_characters", "Must not hold control characters.")
            case float() if not math.isfinite(item):
                raise PydanticCustomError("field_number", "Must hold finite numbers only.")
            case int() if not -_INT64 <= item < _INT64:
                raise PydanticCustomError("field_number", "Must hold whole numbers of at most 64 bits only.")
    if len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_METADATA_BYTES:
        raise PydanticCustomError("field_length", "Must be at most 8 KiB of JSON.")
    return value


def _read_digits(value: Any) -> Any:
    if isinstance(value, str) and _DIGITS.fullmatch(value) is not None:
        return int(value)
    raise PydanticCustomError("field_number", "Must be a whole number.")


def _read_flag(value: Any) -> Any:
    if value in ("true", "false"):
        return value == "true"
    raise PydanticCustomError("field_flag", "Must be true or false.")


def _lower_page_size(value: int) -> int:
    return min(value, MAX_PAGE_SIZE)


# Text that people read.
PersonName = Annotated[str, Text(1, 100, human=True, example="Ravi")]
MiddleName = Annotated[str, Text(1, 100, human=True, example="Prasad")]
FamilyName = Annotated[str, Text(1, 100, human=True, example="Kumar")]
PlaceName = Annotated[str, Text(1, 100, human=True, example="Bengaluru")]
PlatformName = Annotated[str, Text(2, 120, human=True, example="Namma Rides")]
Title = Annotated[str, Text(1, 200, human=True, example="Annual health check")]
AddressLine = Annotated[str, Text(1, 300, human=True, example="12 MG Road")]
Sentence = Annotated[str, Text(1, 300, human=True, example="One visit a year, without waiting.")]
Description = Annotated[str, Text(1, 10_000, human=True, example="Blood pressure, sugar and a doctor's advice.")]
Reason = Annotated[str, Text(1, 500, human=True, example="Asked for by the partner, ticket 4711.")]
SearchText = Annotated[str, Text(1, 100, human=True, example="health")]

# Text that identifies something. The services know the patterns; all but a few lengths follow from these.
Identifier = Annotated[str, Text(1, 255, example="UTR4711")]
ProfileFieldName = Annotated[str, Text(1, 255, example="first_name")]
CountryCode = Annotated[str, Text(1, 255, example="+91", documented_pattern=r"^\+?[1-9][0-9]{0,2}$")]
PhoneNumber = Annotated[str, Text(1, 255, example="+919876543210")]
SupportPhone = Annotated[
    str, Text(1, 255, example="1800 123 4567", documented_pattern=r"^\+?([ ().-]*[0-9]){3,15}[ ().-]*$")
]
LanguageTag = Annotated[str, Text(1, 255, example="hi", documented_pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")]
StateCode = Annotated[str, Text(1, 255, example="KA", documented_pattern="^[A-Z]{2}$")]
Pincode = Annotated[str, Text(1, 255, example="560001", documented_pattern="^[1-9][0-9]{5}$")]
IdProofNumber = Annotated[str, Text(1, 255, example="KA0120190001234")]
AbhaNumber = Annotated[str, Text(1, 255, example="91123456789012", documented_pattern="^[0-9]{14}$")]
AbhaAddress = Annotated[
    str,
    Text(
        1,
        255,
        example="ravi@abdm",
        documented_pattern="^[A-Za-z0-9][A-Za-z0-9._]{1,28}[A-Za-z0-9]@[a-z]{2,20}$",
    ),
]
AccountNumber = Annotated[str, Text(1, 255, example="123456789012")]
Ifsc = Annotated[str, Text(1, 255, example="HDFC0001234", documented_pattern="^[A-Z]{4}0[A-Z0-9]{6}$")]
Code = Annotated[str, Text(1, 255, example="apollo", documented_pattern="^[a-z][a-z0-9_]{1,31}$")]
BenefitCode = Annotated[str, Text(1, 255, example="annual_check", documented_pattern="^[A-Za-z0-9_.-]{1,64}$")]
EmailText = Annotated[str, Text(1, 254, example="ravi@example.org", documented_format="email")]
Url = Annotated[str, Text(1, 2048, example="https://example.org", documented_format="uri")]
# The longest pattern is 200 characters, but a longer one is the catalogue's to refuse.
MrnPattern = Annotated[str, Text(1, 1000, example="AP[0-9]{6}")]
MrnText = Annotated[str, Text(1, 64, trimmed=True, printable=True, example="AP004711")]
Secret = Annotated[str, Text(32, 256, example="ark_019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11_example")]
Action = Annotated[str, Text(1, 255, example="user.deactivate")]
EntityType = Annotated[str, Text(1, 255, example="user")]
ActorId = Annotated[str, Text(1, 255, example="asha")]

# Text that is only ever answered.
SecretPrefix = Annotated[str, Text(1, 255, example="ark_019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11")]
Masked = Annotated[str, Text(1, 255, example="••••1234")]
ServiceName = Annotated[str, Text(1, 255, example="identity")]
RequestId = Annotated[str, Text(1, 64, example="k7Qm2Yx0")]
SourceAddress = Annotated[str, Text(1, 255, example="203.0.113.7")]
UserAgent = Annotated[str, Text(1, 2048, example="okhttp/5.1.0")]
Hash = Annotated[str, Text(1, 255, example="9f86d081884c7d659a2feaa0c55ad015")]
NextPageToken = Annotated[
    str | None,
    Field(description="Where the next page begins; null at the end.", json_schema_extra={"examples": [None]}),
]

# Values with a form of their own.
Uuid = Annotated[str, Field(strict=True, json_schema_extra={"format": "uuid"}), AfterValidator(_read_uuid)]
IsoDate = Annotated[
    str,
    Field(strict=True, json_schema_extra={"format": "date", "examples": ["1994-02-28"]}),
    AfterValidator(_check_date),
]
Rfc3339 = Annotated[
    datetime,
    Field(json_schema_extra={"examples": ["2026-11-20T09:30:00.123456Z"]}),
    BeforeValidator(_read_time),
]
# What the documentation says of the members' values. They can be of such values again, so it has a name there. It names
# no types, because a union that holds itself is more than generators of clients can read; each word binds its own type.
JSON_VALUE: Mapping[str, Any] = MappingProxyType(
    {
        "title": "JsonValue",
        "description": "Any JSON without control characters, at most 16 levels deep.",
        "pattern": rf"^[^{_CONTROLS}]*$",
        "if": {"type": "integer"},
        "then": {"minimum": -_INT64, "maximum": _INT64 - 1},
        "items": {"$ref": "#/components/schemas/JsonValue"},
        "propertyNames": {"pattern": rf"^[^{_CONTROLS}]*$"},
        "additionalProperties": {"$ref": "#/components/schemas/JsonValue"},
    }
)
JsonObject = Annotated[
    dict[str, Any],
    Field(
        strict=True,
        json_schema_extra={
            "propertyNames": {"pattern": rf"^[^{_CONTROLS}]*$"},
            "examples": [{}],
        },
    ),
    AfterValidator(_check_json_object),
]

# A version, quoted, as an ETag is.
ETAG = r'"[1-9][0-9]{0,17}"'

# Numbers with a range. Nobody but a forger says that a token lives longer than any platform lets it.
LONGEST_TOKEN_TTL_S = 86_400
TokenTtlSeconds = Annotated[int, Field(strict=True, ge=300, le=LONGEST_TOKEN_TTL_S)]
MinUserAge = Annotated[int, Field(strict=True, ge=0, le=120)]
MaxDependants = Annotated[int, Field(strict=True, ge=0, le=20)]
Age = Annotated[int, Field(strict=True, ge=0, le=150)]
# The largest whole number that JavaScript's readers of our JSON keep exact.
Paise = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
OverlapSeconds = Annotated[int, Field(strict=True, ge=0, le=604_800)]

# Query parameters that are not text.
QueryFlag = Annotated[bool, BeforeValidator(_read_flag)]
QuerySequence = Annotated[int, Field(strict=True, ge=1, le=_INT64 - 1), BeforeValidator(_read_digits)]
QueryPageSize = Annotated[
    int, Field(strict=True, ge=1), AfterValidator(_lower_page_size), BeforeValidator(_read_digits)
]


class PageQuery(Query):
    """The query parameters of a list: its own filters, and which page of it."""

    page_size: QueryPageSize = Field(
        default=DEFAULT_PAGE_SIZE, description="How many rows a page holds; more than 200 count as 200."
    )
    page_token: str | None = Field(
        default=None,
        description="Where the page begins: a next_page_token of an earlier answer; empty is the beginning.",
    )


# By field name, or by message and field name where one name means different things.
# A string or number that a body may bring has to be named here: the generator refuses to guess.
FIELD_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        "id": Uuid,
        "platform_id": Uuid,
        "platform_ids": Uuid,
        "user_id": Uuid,
        "dependant_id": Uuid,
        "benefit_provider_id": Uuid,
        "entity_id": Uuid,
        "Actor.id": ActorId,
        "first_name": PersonName,
        "middle_name": MiddleName,
        "last_name": FamilyName,
        "name": Title,
        "Platform.name": PlatformName,
        "legal_name": Title,
        "display_name": Title,
        "holder_name": Title,
        "provider_name": Title,
        "short_description": Sentence,
        "description": Description,
        "address_line": AddressLine,
        "city": PlaceName,
        "reason": Reason,
        "status_reason": Reason,
        "q": SearchText,
        "phone_number": PhoneNumber,
        "support_phone": SupportPhone,
        "default_phone_country_code": CountryCode,
        "email": EmailText,
        "contact_email": EmailText,
        "support_email": EmailText,
        "website": Url,
        "terms_url": Url,
        "preferred_language": LanguageTag,
        "translations": LanguageTag,
        "state_code": StateCode,
        "pincode": Pincode,
        "number": IdProofNumber,
        "abha_number": AbhaNumber,
        "abha_address": AbhaAddress,
        "account_number": AccountNumber,
        "ifsc": Ifsc,
        "verification_reference": Identifier,
        "code": Code,
        "Benefit.code": BenefitCode,
        "mrn": MrnText,
        "mrn_pattern": MrnPattern,
        "secret": Secret,
        "required_profile_fields": ProfileFieldName,
        "entity_type": EntityType,
        "actor_id": ActorId,
        "action": Action,
        "prefix": SecretPrefix,
        "id_proof_masked": Masked,
        "account_number_masked": Masked,
        "service": ServiceName,
        "request_id": RequestId,
        "source_address": SourceAddress,
        "user_agent": UserAgent,
        "head_hash": Hash,
        "date_of_birth": IsoDate,
        "valid_from": IsoDate,
        "valid_to": IsoDate,
        "metadata": JsonObject,
        "changes": JsonObject,
        "token_ttl_seconds": TokenTtlSeconds,
        "min_user_age": MinUserAge,
        "max_dependants": MaxDependants,
        "min_age": Age,
        "max_age": Age,
        "price_paise": Paise,
        "coverage_paise": Paise,
        "overlap_seconds": OverlapSeconds,
        "from_sequence": QuerySequence,
    }
)
