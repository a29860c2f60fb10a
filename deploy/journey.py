"""A partner's journey through the API, from a new platform to a user who has left: as curl commands, or walked."""

import base64
import functools
import json
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import httpx

# How a caller shows each credential; the values are filled in like all others.
HEADERS = {
    "operator": ("admin-api-key", "$admin_key"),
    "partner": ("api-key", "$partner_key"),
    "partner, as Basic": ("Authorization", "Basic $basic"),
    "user": ("Authorization", "Bearer $access_token"),
}
LICENCE = {"proof_type": "DRIVING_LICENSE", "number": "KA0120190001234"}


@dataclass(frozen=True)
class Step:
    """One request. A `$name` in its path or body stands for what an earlier step has kept."""

    title: str
    caller: str
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    # What later steps need: their name for it, and where it is in the answer.
    keeps: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    # What the answer must say, by where it is in it.
    shows: Mapping[str, Any] = field(default_factory=dict)


# The status in the token itself, as apps read it: without verifying anything.
CLAIMED_STATUS = "the token's status"
STEPS = (
    Step(
        "An operator opens a platform",
        "operator",
        "POST",
        "/platforms",
        {"name": "Namma Yatri $run"},
        {"platform_id": "id"},
        201,
        {"status": "active"},
    ),
    Step(
        "and makes a key for the partner",
        "operator",
        "POST",
        "/platforms/$platform_id/api_keys",
        {"name": "demo"},
        {"partner_key": "secret"},
        201,
    ),
    Step(
        "and registers a benefit provider",
        "operator",
        "POST",
        "/benefit_providers",
        {
            "code": "demo_$run",
            "legal_name": "Demo Hospitals Private Limited",
            "display_name": "Demo Hospital",
            "type": "HOSPITAL",
            "issues_mrn": True,
        },
        {"provider_id": "id"},
        201,
    ),
    Step(
        "and offers one of its benefits",
        "operator",
        "POST",
        "/benefits",
        {
            "benefit_provider_id": "$provider_id",
            "code": "consultation",
            "name": "Doctor's consultation",
            "short_description": "See a doctor at no cost",
            "description": "One consultation with a general physician a month, for the whole family.",
            "type": "CONSULTATION",
            "status": "active",
            "price_paise": 0,
            "eligible_relationships": ["SELF", "SPOUSE"],
            "platform_ids": ["$platform_id"],
        },
        status=201,
    ),
    Step(
        "The partner's oldest app signs its user in",
        "partner",
        "POST",
        "/auth/token",
        {"phone_country_code": "+91", "phone_number": "9876543210", "platform_id": "$platform_id", "dl_number": None},
        {"access_token": "access_token", "user_id": "user.id"},
        shows={"is_new_user": True, CLAIMED_STATUS: "onboarding"},
    ),
    Step(
        "the next generation of the app signs in the same user",
        "partner",
        "POST",
        "/auth/token",
        {
            "phone_country_code": "",
            "phone_number": "9876543210",
            "platform_id": "$platform_id",
            "dl_number": LICENCE["number"],
        },
        shows={"is_new_user": False, CLAIMED_STATUS: "onboarding"},
    ),
    Step(
        "the third sends its secret as Basic, and an id proof for another user",
        "partner, as Basic",
        "POST",
        "/auth/token",
        {"phone_country_code": "+91", "phone_number": "9876543211", "id_proof": LICENCE},
        shows={"user.id_proof_masked": "••••1234", CLAIMED_STATUS: "onboarding"},
    ),
    Step(
        "and the newest a whole profile",
        "partner, as Basic",
        "POST",
        "/auth/token",
        {
            "phone_country_code": "+91",
            "phone_number": "9876543212",
            "id_proof": LICENCE,
            "dob": "1990-05-17",
            "address": "12 MG Road",
            "gender": "MALE",
            "first_name": "Ravi",
            "last_name": None,
        },
        shows={"user.first_name": "Ravi", "missing_fields": [], CLAIMED_STATUS: "onboarding"},
    ),
    Step(
        "The first user fills in the profile",
        "user",
        "PATCH",
        "/users/$user_id",
        {"first_name": "Ravi", "last_name": "Kumar", "gender": "MALE", "date_of_birth": "1990-05-17"},
        shows={"status": "onboarding"},
    ),
    Step(
        "and completes the onboarding",
        "user",
        "POST",
        "/users/$user_id/complete_onboarding",
        {},
        shows={"status": "active"},
    ),
    Step(
        "and is in the family as SELF",
        "user",
        "GET",
        "/users/$user_id/dependants",
        shows={"items.0.relationship": "SELF"},
    ),
    Step(
        "and adds his wife",
        "user",
        "POST",
        "/users/$user_id/dependants",
        {"relationship": "SPOUSE", "first_name": "Asha", "gender": "FEMALE", "date_of_birth": "1992-11-03"},
        {"dependant_id": "id"},
        201,
        {"version": 1},
    ),
    Step(
        "and corrects her name, which makes a second version",
        "user",
        "PATCH",
        "/users/$user_id/dependants/$dependant_id",
        {"last_name": "Kumar"},
        shows={"version": 2, "last_name": "Kumar"},
    ),
    Step(
        "while the first one stays",
        "user",
        "GET",
        "/users/$user_id/dependants/$dependant_id/versions",
        shows={"items.0.version": 2, "items.1.version": 1, "items.1.last_name": None},
    ),
    Step("and sees the benefits", "user", "GET", "/benefits", shows={"items.0.name": "Doctor's consultation"}),
    Step(
        "and stores a bank account",
        "user",
        "POST",
        "/users/$user_id/accounts",
        {"type": "BANK", "account_number": "123456789012", "ifsc": "HDFC0001234", "holder_name": "Ravi Kumar"},
        status=201,
        shows={"account_number_masked": "••••9012", "is_primary": True},
    ),
    Step(
        "The partner links the hospital's number to the wife",
        "partner",
        "POST",
        "/mrns",
        {"dependant_id": "$dependant_id", "benefit_provider_id": "$provider_id", "mrn": "DEMO-0042"},
        {"mrn_id": "id"},
        201,
    ),
    Step(
        "and cannot link it again",
        "partner",
        "POST",
        "/mrns",
        {"dependant_id": "$dependant_id", "benefit_provider_id": "$provider_id", "mrn": "DEMO-0042"},
        status=409,
        shows={"error.code": "MR-903"},
    ),
    Step("An operator unlinks it", "operator", "DELETE", "/mrns/$mrn_id?reason=demo", status=204),
    Step("The user leaves", "user", "DELETE", "/users/$user_id", status=204),
    Step("and the token stops working", "user", "GET", "/benefits", status=403, shows={"error.code": "AU-207"}),
)


@dataclass(frozen=True)
class Answer:
    """What a step of the journey got."""

    step: Step
    path: str
    status: int
    body: Any


class JourneyEnded(Exception):
    """A step was not answered as it should be, or not at all."""


def walk(url: str, admin_key: str) -> Iterator[Answer]:
    """Take every step and yield its answer.

    Raises:
        JourneyEnded: an answer differs from what the step expects, or nobody answered.
    """
    known = {"admin_key": admin_key, "run": str(time.time_ns())}
    # What is on this machine is not asked for through a proxy.
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        for step in STEPS:
            answer = _take(step, client, known)
            yield answer
            if answer.status != step.status:
                raise JourneyEnded(f"{step.method} {answer.path} should be answered with {step.status}")
            for place, value in step.shows.items():
                if _find(answer.body, place) != value:
                    raise JourneyEnded(f"{step.method} {answer.path} should show {value!r} at {place}")
            for name, place in step.keeps.items():
                known[name] = _find(answer.body, place)
            if "partner_key" in step.keeps:
                known["basic"] = base64.b64encode(f"{known['platform_id']}:{known['partner_key']}".encode()).decode()


def _find(body: Any, place: str) -> Any:
    """Return what is at a dotted place of an answer; None where there is nothing."""
    if place == CLAIMED_STATUS:
        payload = body["access_token"].split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["status"]
    try:
        return functools.reduce(lambda part, name: part[int(name) if name.isdigit() else name], place.split("."), body)
    except (KeyError, IndexError, TypeError):
        return None


def _take(step: Step, client: httpx.Client, known: Mapping[str, str]) -> Answer:
    header, credential = HEADERS[step.caller]
    path = Template(step.path).substitute(known)
    # What is filled in are ids, digits and keys, none of which JSON would have to escape.
    body = None if step.body is None else json.loads(Template(json.dumps(step.body)).substitute(known))
    try:
        response = client.request(
            step.method, path, json=body, headers={header: Template(credential).substitute(known)}
        )
    except httpx.TransportError as error:
        raise JourneyEnded(f"{client.base_url} does not answer: {error}") from error
    return Answer(step, path, response.status_code, response.json() if response.content else None)


def as_shell(url: str, admin_key_file: Path) -> str:
    """Return the journey as commands to paste into a shell; every name of a step becomes a variable of the shell."""
    lines = [
        f"api={shlex.quote(url)}",
        f"admin_key=$(cat {shlex.quote(str(admin_key_file))})",
        "run=$(date +%s)",
        """call() { answer=$(curl -sS --noproxy '*' -H 'content-type: application/json' "$@"); """
        """printf '%s\\n' "$answer"; }""",
        """kept() { printf '%s' "$answer" | python3 -c 'import functools, json, sys; """
        """print(functools.reduce(dict.get, sys.argv[1].split("."), json.load(sys.stdin)))' "$1"; }""",
    ]
    for step in STEPS:
        header, credential = HEADERS[step.caller]
        command = [f'call "$api{step.path}" -H "{header}: {credential}"']
        if step.method in ("PATCH", "DELETE"):
            command.append(f"-X {step.method}")
        if step.body is not None:
            command.append(f"-d {_quoted(json.dumps(step.body))}")
        lines.append(f"echo {shlex.quote(f'--- {step.title}')}")
        lines.append(" ".join(command))
        lines.extend(f"{name}=$(kept {place})" for name, place in step.keeps.items())
        if "partner_key" in step.keeps:
            lines.append("""basic=$(printf '%s:%s' "$platform_id" "$partner_key" | base64 | tr -d '\\n')""")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Quote for the shell all but the `$name`s, which the shell is to fill in."""
    pieces = []
    rest = text
    while match := Template.pattern.search(rest):
        pieces += [shlex.quote(rest[: match.start()]), f'"{match[0]}"']
        rest = rest[match.end() :]
    return "".join([*pieces, shlex.quote(rest)])
