"""Tokens for users: the one operation whose body comes from apps that cannot be upgraded in step with us."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field
from starlette.responses import Response

from aarokya.identity.v1 import auth_service_pb2 as pb
from aarokya.identity.v1.user_pb2 import User as UserMessage
from gateway.errors import Detail, Refused
from gateway.fields import Answer, Body, PhoneNumber, Text, Uuid
from gateway.guards import PARTNER_FOR_TOKENS
from gateway.messages import to_message
from gateway.schemas.identity import IdProofBody, UpdateUserBody, User
from gateway.server_wrap import ExchangeOf, ServiceRouter
from gateway.validation import read_body, read_valid_fields

routes = ServiceRouter("identity", "Auth", "Tokens for users, in exchange for their phone numbers.")

LONGEST_COUNTRY_CODE = 8
SCHEME = {"token_type": "Bearer"}
# Under which names the generations of apps send what we call otherwise.
RENAMED = {"dob": "date_of_birth", "address": "address_line"}
SENT_ALONG = ("first_name", "middle_name", "last_name", "gender", "id_proof", *RENAMED)


class TokenBody(Body):
    """What decides whose token it is. Fields that are not named here are ignored."""

    model_config = ConfigDict(extra="ignore")

    phone_number: PhoneNumber = Field(description="National digits or E.164.")
    phone_country_code: Annotated[str, AfterValidator(Text(0, LONGEST_COUNTRY_CODE, trimmed=True).clean)] | None = (
        Field(
            default=None,
            max_length=LONGEST_COUNTRY_CODE,
            description="Such as +91 or 91; empty or null means the platform's default.",
        )
    )
    platform_id: Uuid | None = Field(
        default=None, description="The platform; required with api-key, and the user name of a Basic credential."
    )


class TokenAnswer(Answer):
    """A token and the user that it is for."""

    access_token: str = Field(description="The JWT to send as Authorization: Bearer.")
    token_type: str = Field(description="Always Bearer.", examples=["Bearer"])
    expires_in: int = Field(description="How long the token lives, in seconds.")
    is_new_user: bool = Field(description="True when this call created the user.")
    user: User = Field(description="The whole user.")
    missing_fields: list[str] = Field(description="The profile fields that the platform still requires.")


REQUEST_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                **TokenBody.model_json_schema(),
                "additionalProperties": True,
                "properties": {
                    **TokenBody.model_json_schema()["properties"],
                    "dl_number": {"description": "A driving licence's number, to pre-fill a new user."},
                    "id_proof": {"description": "An id proof, {proof_type, number}, to pre-fill a new user."},
                    "dob": {"description": "The birth date, to pre-fill a new user."},
                    "address": {"description": "Street and house, to pre-fill a new user."},
                    "first_name": {"description": "To pre-fill a new user."},
                    "middle_name": {"description": "To pre-fill a new user."},
                    "last_name": {"description": "To pre-fill a new user."},
                    "gender": {"description": "To pre-fill a new user."},
                },
            },
            "example": {
                "phone_country_code": "+91",
                "phone_number": "9876543210",
                "platform_id": "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11",
                "dl_number": None,
            },
        }
    },
}


@routes.post(
    "/auth/token",
    guard=PARTNER_FOR_TOKENS,
    summary="Exchange a phone number for its user's token; the first call creates the user.",
    answer=TokenAnswer,
    codes=("AU-206", "US-402", "US-406"),
    own_body=REQUEST_BODY,
    is_naturally_idempotent=True,
)
async def issue_token(exchange: ExchangeOf) -> Response:
    body = read_body(TokenBody, exchange.sent)
    if body.platform_id is None and not exchange.is_basic:
        raise Refused("RQ-101", details=[Detail("platform_id", "Is required.")])
    if body.platform_id not in (None, str(exchange.caller.platform_id)):
        raise Refused("AU-206")
    request = pb.IssueTokenRequest(
        phone_number=body.phone_number,
        phone_country_code=body.phone_country_code or "",
        prefill=to_message(read_valid_fields(UpdateUserBody, _prefill(exchange.sent)), UserMessage),
    )
    answer = await exchange.ask(exchange.stubs.auth.IssueToken, request)
    return exchange.ok(answer, **SCHEME)


def _prefill(sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile values among what was sent, by our names."""
    prefill = {RENAMED.get(name, name): sent[name] for name in SENT_ALONG if name in sent}
    proof = prefill.pop("id_proof", None)
    if isinstance(proof, dict):
        prefill["id_proof"] = {name: proof[name] for name in IdProofBody.model_fields if name in proof}
    elif "dl_number" in sent:
        prefill["id_proof"] = {"proof_type": "DRIVING_LICENSE", "number": sent["dl_number"]}
    return prefill
