"""A partner's journey through the API, from an operator's first step to a linked MRN: as curl commands, or walked."""

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
    "user": ("Authorization", "Bearer $access_token"),
}


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


STEPS = (
    Step(
        "An operator opens a platform",
        "operator",
        "POST",
        "/platforms",
        {"name": "Demo Rides $run"},
        {"platform_id": "id"},
    ),
    Step(
        "and makes a key for the partner",
        "operator",
        "POST",
        "/platforms/$platform_id/api_keys",
        {"name": "demo"},
        {"partner_key": "secret"},
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
    ),
    Step(
        "The partner signs its user in",
        "partner",
        "POST",
        "/auth/token",
        {"phone_country_code": "+91", "phone_number": "9876543210", "platform_id": "$platform_id", "dl_number": None},
        {"access_token": "access_token", "user_id": "user.id"},
    ),
    Step(
        "The user fills in the profile",
        "user",
        "PATCH",
        "/users/$user_id",
        {"first_name": "Ravi", "last_name": "Kumar", "gender": "MALE", "date_of_birth": "1990-05-17"},
    ),
    Step("and completes the onboarding", "user", "POST", "/users/$user_id/complete_onboarding", {}),
    Step(
        "and adds his wife to the family",
        "user",
        "POST",
        "/users/$user_id/dependants",
        {"relationship": "SPOUSE", "first_name": "Asha", "gender": "FEMALE", "date_of_birth": "1992-11-03"},
        {"dependant_id": "id"},
    ),
    Step("and sees the family", "user", "GET", "/users/$user_id/dependants"),
    Step("and sees the benefits", "user", "GET", "/benefits"),
    Step(
        "and adds an account",
        "user",
        "POST",
        "/users/$user_id/accounts",
        {"type": "UPI", "account_number": "ravi.kumar@okbank", "holder_name": "Ravi Kumar"},
    ),
    Step(
        "The partner links the hospital's number to the wife",
        "partner",
        "POST",
        "/mrns",
        {"dependant_id": "$dependant_id", "benefit_provider_id": "$provider_id", "mrn": "DEMO-0042"},
    ),
)


@dataclass(frozen=True)
class Answer:
    """What a step of the journey got."""

    step: Step
    path: str
    status: int
    body: Any


class JourneyEnded(Exception):
    """A step was refused, so that the following ones have nothing to go on."""


def walk(url: str, admin_key: str) -> Iterator[Answer]:
    """Take every step and yield its answer.

    Raises:
        JourneyEnded: a step was refused, or nobody answered.
    """
    known = {"admin_key": admin_key, "run": str(time.time_ns())}
    # What is on this machine is not asked for through a proxy.
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        for step in STEPS:
            answer = _take(step, client, known)
            yield answer
            if answer.status >= 300:
                raise JourneyEnded(f"{step.method} {answer.path} was answered with {answer.status}")
            for name, place in step.keeps.items():
                known[name] = functools.reduce(dict.__getitem__, place.split("."), answer.body)


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
    return Answer(step, path, response.status_code, response.json())


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
        if step.method == "PATCH":
            command.append("-X PATCH")
        if step.body is not None:
            command.append(f"-d {_quoted(json.dumps(step.body))}")
        lines.append(f"echo {shlex.quote(f'--- {step.title}')}")
        lines.append(" ".join(command))
        lines.extend(f"{name}=$(kept {place})" for name, place in step.keeps.items())
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Quote for the shell all but the `$name`s, which the shell is to fill in."""
    pieces = []
    rest = text
    while match := Template.pattern.search(rest):
        pieces += [shlex.quote(rest[: match.start()]), f'"{match[0]}"']
        rest = rest[match.end() :]
    return "".join([*pieces, shlex.quote(rest)])
