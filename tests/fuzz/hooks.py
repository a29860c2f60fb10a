"""What Schemathesis has to know of this API beyond its OpenAPI document, and checks of our own.

Schemathesis makes requests up and judges the answers. The hooks put real ids in place of most made-up ones, so that
requests get past 404. The checks are those that a document can't express.
"""

import atexit
import itertools
import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import requests
import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.generation.meta import TestPhase

from tests.e2e.running import System
from tests.fuzz.cast import MOST_DEPENDANTS, Cast, Supplies

SYSTEM = System.read(Path(os.environ["AAROKYA_FUZZ_DATA_DIR"]))
CAST = Cast.read(Path(os.environ["AAROKYA_FUZZ_CAST"]))
SUPPLIES = Supplies(CAST, SYSTEM)

# One in so many made-up values stays: what is unknown or senseless has to be refused well, too.
LEFT_AS_THEY_ARE = 5
# How many of each operation's requests are also sent by strangers.
STRANGERS_TRIES = 15
TIMEOUT_S = 30
A_DAY_MS = 86_400_000
# Where strangers have something to see, too. What they see must not hold the owner's ids.
SHARED = frozenset({"list_mrns", "list_benefits", "get_benefit"})
# Of the things of a cast, those that nobody else may see.
PRIVATE = ("user_id", "dependant_id", "account_id", "mrn_id")
JOINERS = "\u200c\u200d"
# The refusals that say that a request is not of the documented form.
MALFORMED = frozenset({"RQ-101", "RQ-102", "RQ-105", "RQ-106", "RQ-113", "RQ-114", "RQ-115"})

_answers: dict[str, Counter[str]] = defaultdict(Counter)
_numbers = itertools.count(1)
_tries_of_strangers: dict[str, int] = {}
_answers_to_strangers: dict[str, tuple[set[str], list[requests.Response]]] = {}


@schemathesis.hook
def filter_case(context: HookContext, case: Case) -> bool:
    """Leave out well-formed requests with refused characters that no pattern can name for every engine."""
    return not _is_positive(case) or not any(
        unicodedata.category(character) in ("Cf", "Cs") and character not in JOINERS
        for text in _texts(case)
        for character in text
        if not character.isprintable()
    )


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Give a request real ids, sensible values and the right caller; then let strangers send it first."""
    if not _is_by(case, CAST.owner):
        return
    operation_id = _operation_id(case)
    if _is_positive(case):
        _put_sense_into(case)
    ids = _put_real_ids_into(case, operation_id)
    if CAST.strangers and _tries_of_strangers.setdefault(operation_id, 0) < STRANGERS_TRIES:
        _tries_of_strangers[operation_id] += 1
        private = {CAST.phone_number, *(source[name] for source in (CAST.ids, ids) for name in PRIVATE)}
        _answers_to_strangers[case.id] = (private, [_send_as(stranger, case) for stranger in CAST.strangers])
    SUPPLIES.make_room(operation_id)


@schemathesis.hook
def after_call(context: HookContext, case: Case, response: Response) -> None:
    """Count the answers, so that a run in which an operation never succeeds is not taken for a good one."""
    if case.method.lower() == case.operation.method.lower() and _is_positive(case):
        _answers[_operation_id(case)][_describe_outcome(response)] += 1


@atexit.register
def write_answers() -> None:
    """Write the counts down for the process that waits for this one."""
    Path(os.environ["AAROKYA_FUZZ_ANSWERS"]).write_text(json.dumps(_answers))


@schemathesis.check
def strangers_are_refused(ctx: CheckContext, response: Response, case: Case) -> None:
    """Check that nobody of the same kind can do to the owner's things what the owner can, nor see them."""
    private, answers = _answers_to_strangers.pop(case.id, (set(), []))
    for answer in answers:
        asked = f"{answer.request.url} {answer.request.body!r}"
        if answer.ok and _operation_id(case) not in SHARED and any(own in asked for own in private):
            raise Failure(operation=case.operation.label, title="A stranger was let in", message=_describe(answer))
        if any(own in answer.text for own in private):
            raise Failure(operation=case.operation.label, title="A stranger saw it", message=_describe(answer))


@schemathesis.check
def documented_form_is_accepted(ctx: CheckContext, response: Response, case: Case) -> None:
    """Check that a request of the documented form is refused for a rule of its domain, if at all.

    The built-in `positive_data_acceptance` sees the status only, and 422 is that of both.
    """
    if _is_positive(case) and _code_of(response) in MALFORMED:
        raise Failure(
            operation=case.operation.label, title="A well-formed request was malformed", message=response.text
        )


@schemathesis.check
def code_is_documented(ctx: CheckContext, response: Response, case: Case) -> None:
    """Check that the operation lists the code of a refusal, and that its status is the code's."""
    code = _code_of(response)
    if code is None or case.method.lower() != case.operation.method.lower():
        return
    documented = case.operation.definition.raw["responses"].get(str(response.status_code), {})
    if code not in documented.get("content", {}).get("application/json", {}).get("examples", {}):
        raise Failure(operation=case.operation.label, title="A code that is not documented", message=response.text)


def _is_positive(case: Case) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


def _is_by(case: Case, headers: Mapping[str, str]) -> bool:
    return all((case.headers or {}).get(name) == value for name, value in headers.items())


def _operation_id(case: Case) -> str:
    return str(case.operation.definition.raw["operationId"])


def _code_of(response: Response) -> str | None:
    if response.status_code < 400 or not response.content:
        return None
    return str(response.json()["error"]["code"])


def _describe_outcome(response: Response) -> str:
    code = _code_of(response)
    if code is None:
        return str(response.status_code)
    return " ".join([code, *(detail["field"] for detail in response.json()["error"]["details"])])


def _describe(answer: requests.Response) -> str:
    request = answer.request
    return f"{request.method} {request.url} {request.body!r}\n{answer.status_code} {answer.text[:1000]}"


def _send_as(stranger: Mapping[str, str], case: Case) -> requests.Response:
    """Send a request with a stranger's credential in place of the owner's."""
    arguments = case.as_transport_kwargs(base_url=SYSTEM.url)
    headers = {name: value for name, value in arguments.pop("headers").items() if name.lower() not in CAST.owner}
    return requests.request(**arguments, headers={**headers, **stranger}, timeout=TIMEOUT_S, allow_redirects=False)


def _put_real_ids_into(case: Case, operation_id: str) -> Mapping[str, str]:
    """Put ids of things that can be used in place of others, and return them."""
    containers = [each for each in (case.path_parameters, case.query, case.body) if isinstance(each, dict)]
    found = [(each, name) for each in containers for name in each if name in CAST.ids and _is_id(each[name])]
    # What all requests need must not be used up, however the fuzzer came to know of it.
    if not SUPPLIES.are_used_up_by(operation_id) or all(each[name] != CAST.ids[name] for each, name in found):
        # A stateful scenario goes on with what it has made itself.
        is_scenario = case.meta is not None and case.meta.phase.name == TestPhase.STATEFUL
        found = [(each, name) for each, name in found if not is_scenario or _is_made_up(each[name])]
        if not found or not _is_to_be_mended():
            return CAST.ids
    ids, headers = SUPPLIES.for_operation(operation_id)
    for container, name in found:
        container[name] = ids[name]
    case.headers.update(headers)
    return ids


def _put_sense_into(case: Case) -> None:
    """Put values that the domains' rules let pass in place of made-up ones, and what a document can't ask for."""
    operation_id = _operation_id(case)
    if isinstance(case.body, dict):
        case.body = {name: part if name == "metadata" else _with_integers(part) for name, part in case.body.items()}
        for name in REFUSED.get((CAST.scheme, operation_id), ()):
            case.body.pop(name, None)
        for name, value in NEEDED.get(operation_id, {}).items():
            if case.body.get(name) is None:
                case.body[name] = value
        if (CAST.scheme, operation_id) == ("api_key", "issue_token") and case.body.get("platform_id") is None:
            case.body["platform_id"] = CAST.ids["platform_id"]
        if "max_dependants" in case.body:
            case.body["max_dependants"] = MOST_DEPENDANTS
    if (CAST.scheme, operation_id) == ("api_key", "list_mrns"):
        case.query.setdefault("user_id", CAST.ids["user_id"])
    # A page token is made by the API for a caller and a list: no other one is well-formed, and 400 says so.
    if case.query:
        case.query.pop("page_token", None)
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid4())
    for container in (case.query, case.body):
        if isinstance(container, MutableMapping) and isinstance(container.get("mrn"), str):
            container["mrn"] = _printable(container["mrn"])
    if not _is_to_be_mended():
        return
    for container in (case.headers, case.query, case.body):
        if isinstance(container, MutableMapping):
            for name, make in SENSIBLE.items():
                if container.get(name) is not None:
                    container[name] = make(container)
    if operation_id == "create_account" and case.body.get("type") == "BANK":
        case.body["ifsc"] = "HDFC0001234"


def _printable(text: str) -> str:
    """Leave out characters without a common meaning, which no pattern can name for every engine."""
    kept = "".join(character for character in text if unicodedata.category(character) not in ("Co", "Cn"))
    return kept if kept.strip() else "AP004711"


def _with_integers(value: Any) -> Any:
    """Write whole numbers as such: JSON Schema takes 13.0 for an integer, and the API does not."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _with_integers(part) for name, part in value.items()}
        case list():
            return [_with_integers(part) for part in value]
        case _:
            return value


def _is_to_be_mended() -> bool:
    return next(_numbers) % LEFT_AS_THEY_ARE != 0


def _is_id(value: Any) -> bool:
    try:
        return str(UUID(value)) == value.lower()
    except (ValueError, AttributeError, TypeError):
        return False


def _is_made_up(identifier: str) -> bool:
    """Tell an id that the fuzzer made up from one that the API gave it, which says that it is of today."""
    age_ms = (UUID(CAST.ids["user_id"]).int >> 80) - (UUID(identifier).int >> 80)
    return UUID(identifier).version != 7 or abs(age_ms) > A_DAY_MS


def _texts(case: Case) -> Iterator[str]:
    waiting: list[Any] = [case.query, case.body]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case Mapping() as members:
                waiting.extend(part for pair in members.items() for part in pair)
            case list() as items:
                waiting.extend(items)


def _phone_number(others: Mapping[str, Any]) -> str:
    number = next(_numbers)
    return CAST.phone_number if number % 4 == 0 else f"+91 9{number:09d}"


def _account_number(others: Mapping[str, Any]) -> str:
    number = next(_numbers)
    # A change doesn't tell the type, and the account that most of them are for is of this one.
    return f"{number:012d}" if others.get("type", "UPI") == "BANK" else f"{number:04d}@okbank"


def _ifsc(others: Mapping[str, Any]) -> str | None:
    return "HDFC0001234" if others.get("type") == "BANK" else None


# What only others may send: operators a new phone number, partners how the check of an account went.
REFUSED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("user_token", "update_user"): ("phone_number",),
    ("user_token", "complete_onboarding"): ("phone_number",),
    ("user_token", "create_account"): ("verification_status", "verification_reference"),
    ("user_token", "update_account"): ("verification_status", "verification_reference"),
}
# What nobody is onboarded without, and what can't be taken away from then on.
PROFILE = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1990-05-17"}
NEEDED: Mapping[str, Mapping[str, str]] = {"complete_onboarding": PROFILE, "update_user": PROFILE}
SENSIBLE: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "If-Match": lambda others: "*",
    "id": lambda others: str(uuid4()),
    "name": lambda others: f"Rides {uuid4()}",
    "first_name": lambda others: f"Asha {next(_numbers)}",
    "code": lambda others: f"c{uuid4().hex[:30]}",
    "phone_number": _phone_number,
    "support_phone": lambda others: "1800 123 4567",
    "default_phone_country_code": lambda others: "+91",
    "phone_country_code": lambda others: "+91",
    "relationship": lambda others: "OTHER",
    "gender": lambda others: "FEMALE",
    "date_of_birth": lambda others: "1990-05-17",
    "email": lambda others: "ravi@example.org",
    "contact_email": lambda others: "ravi@example.org",
    "website": lambda others: "https://example.org",
    "terms_url": lambda others: "https://example.org",
    "id_proof": lambda others: {"proof_type": "DRIVING_LICENSE", "number": "KA0120190001234"},
    "abha_number": lambda others: "91123456789012",
    "abha_address": lambda others: "ravi@abdm",
    "account_number": _account_number,
    "ifsc": _ifsc,
    "is_primary": lambda others: True,
    "mrn_pattern": lambda others: "AP[0-9]{1,60}",
    "min_user_age": lambda others: 18,
    "required_profile_fields": lambda others: ["email"],
    "expires_at": lambda others: "2999-01-01T00:00:00Z",
    "valid_from": lambda others: "2026-01-01",
    "valid_to": lambda others: "2999-01-01",
    "min_age": lambda others: 18,
    "max_age": lambda others: 120,
    "platform_ids": lambda others: [],
}
