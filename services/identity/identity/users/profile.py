"""What a profile must look like, whoever sends it."""

import re
from collections.abc import Callable, Iterable
from datetime import date

from aarokya.identity.v1.user_pb2 import IdProofType, User
from servicekit.calendar_days import age_on
from servicekit.errors import Detail
from servicekit.id_numbers import NO_AADHAAR, PAN, fault_of_abha_address, fault_of_abha_number, is_aadhaar, masked
from servicekit.mail_addresses import is_mail_address
from servicekit.messages import has

OLDEST = 120
PINCODE = re.compile(r"[1-9][0-9]{5}", re.ASCII)
STATE_CODE = re.compile(r"[A-Z]{2}", re.ASCII)
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}", re.ASCII)
ID_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 /-]{3,38}[A-Za-z0-9]", re.ASCII)

PROFILE_FIELDS = (
    "first_name",
    "middle_name",
    "last_name",
    "gender",
    "date_of_birth",
    "email",
    "preferred_language",
    "address_line",
    "city",
    "state_code",
    "pincode",
    "id_proof",
    "abha_number",
    "abha_address",
    "metadata",
)
# The kind of the id proof is answered by itself but written with its number, so a platform may name either.
_WRITTEN_AS = {"id_proof_type": "id_proof"}
MAY_BE_REQUIRED = frozenset((*PROFILE_FIELDS, *_WRITTEN_AS))


def broken_rules(user: User, fields: Iterable[str], *, today: date, min_age: int) -> list[Detail]:
    """Return what is wrong with the given fields of a profile; unset fields break no rule.

    Args:
        user: the profile.
        fields: the fields to look at, such as those that a call changes.
        today: the day on which the age counts.
        min_age: the platform's minimum, in years.
    """
    details = []
    for field in fields:
        if field in _RULES and has(user, field):
            message = _RULES[field](user)
            if message is not None:
                details.append(Detail(field, message))
        if field == "date_of_birth" and has(user, field):
            age = age_on(today, date.fromisoformat(user.date_of_birth))
            if not min_age <= age <= OLDEST:
                details.append(Detail(field, f"The age must be between {min_age} and {OLDEST}."))
    return details


def missing_fields(user: User, required: Iterable[str]) -> list[str]:
    """Return those of the required fields that are empty."""
    return [field for field in required if not has(user, _WRITTEN_AS.get(field, field))]


def to_public(user: User) -> User:
    """Return a user as an answer shows it: of the id proof only its kind and the number's end."""
    public = User()
    public.CopyFrom(user)
    if public.HasField("id_proof"):
        public.id_proof_type = public.id_proof.proof_type
        public.id_proof_masked = masked(public.id_proof.number)
        public.ClearField("id_proof")
    return public


def _matches(pattern: re.Pattern[str], read: Callable[[User], str], message: str) -> Callable[[User], str | None]:
    return lambda user: None if pattern.fullmatch(read(user)) else message


def _email(user: User) -> str | None:
    return None if is_mail_address(user.email) else "This is not a mail address."


def _id_proof(user: User) -> str | None:
    proof = user.id_proof
    if is_aadhaar(proof.number):
        return NO_AADHAAR
    if proof.proof_type == IdProofType.ID_PROOF_TYPE_PAN and not PAN.fullmatch(proof.number):
        return "A PAN has five capital letters, four digits and a capital letter."
    return None if ID_NUMBER.fullmatch(proof.number) else "This is not the number of a document."


_RULES: dict[str, Callable[[User], str | None]] = {
    "email": _email,
    "preferred_language": _matches(LANGUAGE, lambda user: user.preferred_language, "This is not a BCP 47 tag."),
    "state_code": _matches(STATE_CODE, lambda user: user.state_code, "A state code has two capital letters."),
    "pincode": _matches(PINCODE, lambda user: user.pincode, "A pincode has six digits and does not begin with 0."),
    "id_proof": _id_proof,
    "abha_number": lambda user: fault_of_abha_number(user.abha_number),
    "abha_address": lambda user: fault_of_abha_address(user.abha_address),
}
