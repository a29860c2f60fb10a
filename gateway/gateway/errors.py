"""The one registry of error codes, and the one place that builds the error envelope."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from starlette.responses import Response

from servicekit.errors import DOMAIN, MOST_DETAILS

logger = logging.getLogger(__name__)

_STATUS_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """What one code means, for ever; `meaning` is also the message a caller reads when nothing more precise is said."""

    code: str
    http_status: int
    meaning: str
    action: str


@dataclass(frozen=True, slots=True)
class Detail:
    """One field of the request and what is wrong with it; never the value that was sent."""

    field: str
    message: str


REGISTRY: Mapping[str, ErrorCode] = {
    entry.code: entry
    for entry in (
        ErrorCode(
            "RQ-100",
            500,
            "Something unexpected went wrong on our side.",
            "Try again later; for a POST use the same Idempotency-Key. If it stays, report the request_id to us.",
        ),
        ErrorCode(
            "RQ-101",
            422,
            "The request does not have the shape this operation expects.",
            "Correct the fields named in details and send the request again.",
        ),
        ErrorCode(
            "RQ-102",
            400,
            "The body is not JSON as this API accepts it.",
            "Send strict JSON in UTF-8 without a byte order mark: no repeated keys, no NaN or Infinity, "
            "no unpaired surrogates, and no deep nesting.",
        ),
        ErrorCode(
            "RQ-103",
            404,
            "There is nothing at this path.",
            "Compare the path with /api_docs/openapi.json; mind trailing slashes, which are not redirected.",
        ),
        ErrorCode(
            "RQ-104",
            405,
            "This path does not take this method.",
            "Use one of the methods that the Allow header names.",
        ),
        ErrorCode(
            "RQ-105",
            415,
            "The body's media type is not accepted.",
            "Send the body as JSON with Content-Type: application/json.",
        ),
        ErrorCode(
            "RQ-106",
            413,
            "The body is larger than 256 KiB.",
            "Send a smaller body.",
        ),
        ErrorCode(
            "RQ-107",
            429,
            "Too many requests were made in a short time.",
            "Wait as many seconds as the Retry-After header says, then send the request again.",
        ),
        ErrorCode(
            "RQ-108",
            422,
            "This Idempotency-Key was already used with a different body.",
            "Use a new Idempotency-Key for a new request, or repeat the first request unchanged.",
        ),
        ErrorCode(
            "RQ-109",
            409,
            "The first request with this Idempotency-Key is still running.",
            "Wait as many seconds as the Retry-After header says, then repeat the request with the same key.",
        ),
        ErrorCode(
            "RQ-110",
            412,
            "The resource is not at the version that If-Match names.",
            "Read the resource again, apply the change to what it is now, and send the new ETag.",
        ),
        ErrorCode(
            "RQ-111",
            503,
            "A part of the system that this request needs is not available.",
            "Try again after as many seconds as the Retry-After header says; for a POST use the same Idempotency-Key.",
        ),
        ErrorCode(
            "RQ-112",
            504,
            "The request took too long and was given up; it may still have had its effect.",
            "Read the resource before you repeat a change; a POST is safe to repeat with the same Idempotency-Key.",
        ),
        ErrorCode(
            "RQ-113",
            400,
            "This page_token is not one that was issued to this caller for these filters.",
            "Start again without page_token, and change nothing but page_size while paging.",
        ),
        ErrorCode(
            "RQ-114",
            400,
            "The request is not well-formed HTTP/1.1.",
            "Check the client or the proxy in between; this connection is closed.",
        ),
        ErrorCode(
            "RQ-115",
            431,
            "The request line or the headers are too large.",
            "Send at most 100 headers and 16 KiB of them in all, with a request line of at most 8 KiB.",
        ),
        ErrorCode(
            "RQ-116",
            408,
            "The request arrived too slowly.",
            "Send the headers and the body within 10 seconds each; this connection is closed.",
        ),
        ErrorCode(
            "AU-201",
            401,
            "No credential was sent.",
            "Send exactly one credential that this operation accepts.",
        ),
        ErrorCode(
            "AU-202",
            401,
            "The credential is not valid.",
            "Check the key or token and the header it travels in; do not repeat the request unchanged.",
        ),
        ErrorCode(
            "AU-203",
            401,
            "The token has expired.",
            "Get a new token with POST /auth/token and repeat the request.",
        ),
        ErrorCode(
            "AU-204",
            403,
            "This kind of credential is not accepted for this operation.",
            "Use a kind of credential that the operation lists in /api_docs/openapi.json.",
        ),
        ErrorCode(
            "AU-205",
            400,
            "More than one credential was sent.",
            "Send exactly one credential, in exactly one header.",
        ),
        ErrorCode(
            "AU-206",
            403,
            "The request names somebody else's user or platform.",
            "Use the user or platform that the credential belongs to.",
        ),
        ErrorCode(
            "AU-207",
            403,
            "The user's status does not allow this operation.",
            "Complete the user's onboarding first; a deactivated user can call nothing.",
        ),
        ErrorCode(
            "AU-208",
            401,
            "The API key was revoked or has expired.",
            "Use the platform's current key, or ask us for a new one.",
        ),
        ErrorCode(
            "AU-209",
            403,
            "The platform is suspended.",
            "Contact us; nothing can be done with the platform's credentials until it is activated again.",
        ),
        ErrorCode(
            "PL-301",
            404,
            "There is no such platform.",
            "Check the platform's id.",
        ),
        ErrorCode(
            "PL-302",
            422,
            "A rule about platforms is broken.",
            "Correct the fields named in details and send the request again.",
        ),
        ErrorCode(
            "PL-303",
            409,
            "Another platform already has this name or id.",
            "Choose another name or id; names are compared without regard to case.",
        ),
        ErrorCode(
            "PL-304",
            409,
            "The platform still has users who are not deactivated.",
            "Deactivate the platform's users first, or suspend the platform instead.",
        ),
        ErrorCode(
            "PL-305",
            404,
            "The platform has no such API key.",
            "Check the key's id; the platform's keys can be listed.",
        ),
        ErrorCode(
            "PL-306",
            409,
            "The platform is archived and cannot be changed.",
            "Create a new platform under another name.",
        ),
        ErrorCode(
            "PL-307",
            409,
            "The secret that was brought is in use by another key.",
            "Bring another secret, or leave it out and let Aarokya make one.",
        ),
        ErrorCode(
            "US-401",
            404,
            "There is no such user.",
            "Check the user's id, and that the user belongs to the credential's platform.",
        ),
        ErrorCode(
            "US-402",
            422,
            "A rule about users is broken.",
            "Correct the fields named in details and send the request again.",
        ),
        ErrorCode(
            "US-403",
            409,
            "Another user of the platform has this phone number.",
            "Use another phone number, or release it from the other user first.",
        ),
        ErrorCode(
            "US-404",
            409,
            "The user's status does not allow this change.",
            "Read the user's status; change it first if that is what is meant.",
        ),
        ErrorCode(
            "US-405",
            422,
            "The profile lacks fields that the platform requires.",
            "Add every field named in details and complete the onboarding again.",
        ),
        ErrorCode(
            "US-406",
            403,
            "The user is deactivated and gets no token.",
            "Ask us to reactivate the user, or to release the phone number if it has a new owner.",
        ),
        ErrorCode(
            "DE-501",
            404,
            "There is no such dependant.",
            "Check the ids of the user and the dependant.",
        ),
        ErrorCode(
            "DE-502",
            422,
            "A rule about dependants is broken.",
            "Correct the fields named in details and send the request again.",
        ),
        ErrorCode(
            "DE-503",
            409,
            "The user already has a dependant with this name, date of birth and relationship.",
            "Use the dependant that is already there; change it instead of adding another.",
        ),
        ErrorCode(
            "DE-504",
            409,
            "The SELF dependant is kept by the system and cannot be changed here.",
            "Change the user's profile instead; SELF follows it.",
        ),
        ErrorCode(
            "DE-505",
            409,
            "The user already has as many dependants as the platform allows.",
            "Remove a dependant first, or ask for a higher limit.",
        ),
        ErrorCode(
            "DE-506",
            409,
            "The dependant was removed and cannot be changed or used.",
            "Add the person again as a new dependant.",
        ),
        ErrorCode(
            "BP-601",
            404,
            "There is no such benefit provider.",
            "Check the benefit provider's id.",
        ),
        ErrorCode(
            "BP-602",
            422,
            "The benefit provider that is referred to does not exist.",
            "Create the benefit provider first, then refer to its id.",
        ),
        ErrorCode(
            "BP-603",
            409,
            "Another benefit provider already has this code.",
            "Choose another code.",
        ),
        ErrorCode(
            "BP-604",
            409,
            "A benefit or an MRN refers to this benefit provider, or once did.",
            "Make the benefit provider inactive instead of deleting it.",
        ),
        ErrorCode(
            "BP-605",
            422,
            "A rule about benefit providers is broken.",
            "Correct the fields named in details and send the request again.",
        ),
        ErrorCode(
            "BE-701",
            404,
            "There is no such benefit.",
            "Check the benefit's id, and that it is offered to the caller today.",
        ),
        ErrorCode(
            "BE-702",
            422,
            "A rule about benefits is broken.",
            "Correct the fields named in details and send the request again.",
        ),
        ErrorCode(
            "BE-703",
            409,
            "The benefit provider already has a benefit with this code.",
            "Choose another code.",
        ),
        ErrorCode(
            "AC-801",
            404,
            "There is no such account.",
            "Check the ids of the user and the account; removed accounts are gone.",
        ),
        ErrorCode(
            "AC-802",
            422,
            "A rule about accounts is broken.",
            "Correct the fields named in details and send the request again.",
        ),
        ErrorCode(
            "AC-803",
            409,
            "The user already has this account.",
            "Use the account that is already there, or remove it first.",
        ),
        ErrorCode(
            "MR-901",
            404,
            "There is no such MRN.",
            "Check the MRN's id, and that it belongs to the caller.",
        ),
        ErrorCode(
            "MR-902",
            422,
            "MRNs cannot be linked at this benefit provider.",
            "Use a benefit provider that exists, is active and issues MRNs.",
        ),
        ErrorCode(
            "MR-903",
            409,
            "The dependant already has an MRN at this benefit provider.",
            "Read the MRN that is linked; ask us to unlink it if it is wrong.",
        ),
        ErrorCode(
            "MR-904",
            409,
            "Another dependant of the user already has this MRN at this benefit provider.",
            "Check which dependant the number belongs to.",
        ),
        ErrorCode(
            "MR-905",
            422,
            "The MRN does not have the benefit provider's format.",
            "Check the number against the benefit provider's mrn_pattern.",
        ),
    )
}

# RFC 6750 challenges. The API keys have no registered scheme, and naming Basic would make browsers ask for a password.
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="aarokya"'}
_CHALLENGE_AFTER_FAILURE = {"WWW-Authenticate": 'Bearer realm="aarokya", error="invalid_token"'}

_HEADERS_BY_CODE: Mapping[str, Mapping[str, str]] = {
    "RQ-107": {"Retry-After": "1"},
    "RQ-109": {"Retry-After": "1"},
    "RQ-111": {"Retry-After": "1"},
    "RQ-114": {"Connection": "close"},
    "RQ-115": {"Connection": "close"},
    "RQ-116": {"Connection": "close"},
    "AU-201": _CHALLENGE,
    "AU-202": _CHALLENGE_AFTER_FAILURE,
    "AU-203": _CHALLENGE_AFTER_FAILURE,
    "AU-208": _CHALLENGE,
}


class Refused(Exception):
    """A request that is answered with an error code; `message` defaults to the code's meaning."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        details: Iterable[Detail] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.details = list(details)
        self.headers = dict(headers or {})


def error_response(
    code: str,
    request_id: str,
    message: str | None = None,
    details: Iterable[Detail] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build the envelope in which every error is told, with the code's status and headers; `headers` are added and win.

    A code that is not in the registry is a mistake of ours, so it is answered as RQ-100 and nothing of it is told.
    """
    entry = REGISTRY.get(code)
    if entry is None:
        logger.error("an error code that is not in the registry was answered as RQ-100: %s", code)
        entry, message, details, headers = REGISTRY["RQ-100"], None, (), None
    # ASCII escapes keep this from ever failing, whatever characters a message was made of.
    body = json.dumps(
        {
            "error": {
                "code": entry.code,
                "message": entry.meaning if message is None else message,
                "request_id": request_id,
                "details": [
                    {"field": detail.field, "message": detail.message} for detail in list(details)[:MOST_DETAILS]
                ],
            }
        }
    )
    return Response(
        body,
        entry.http_status,
        {
            "Cache-Control": "no-store",
            "X-Request-Id": request_id,
            **_HEADERS_BY_CODE.get(entry.code, {}),
            **(headers or {}),
        },
        media_type="application/json",
    )


def refused_response(refused: Refused, request_id: str) -> Response:
    """Build the envelope of a refusal raised inside the gateway."""
    if refused.code == "RQ-100":
        # What went wrong was logged where it did; this is how the caller's request_id leads there.
        logger.error("request %s was answered as RQ-100", request_id)
    return error_response(refused.code, request_id, refused.message, refused.details, refused.headers)


def from_rpc_error(error: grpc.aio.AioRpcError) -> Refused:
    """Translate a failed call: a service's typed refusal keeps its code, and the transport's failures get theirs."""
    info, bad_request = _read_status_details(error)
    if info is not None:
        code = info.reason.replace("_", "-")
        if code not in REGISTRY or code == "RQ-100":
            logger.error("a service refused with %s, which callers see as RQ-100", info.reason)
            return Refused("RQ-100")
        return Refused(
            code,
            error.details() or None,
            [Detail(violation.field, violation.description) for violation in bad_request.field_violations],
        )
    status = error.code()
    # CANCELLED is what a server that stops answers to calls that it has not looked at.
    if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED):
        return Refused("RQ-111")
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Refused("RQ-112")
    if status is grpc.StatusCode.UNIMPLEMENTED:
        logger.warning("a service of another version does not know a call")
    else:
        logger.error("a call ended with %s and no reason, which callers see as RQ-100", status.name)
    return Refused("RQ-100")


def is_typed(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a service itself refused, and not what is between."""
    return _read_status_details(error)[0] is not None


def _read_status_details(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo | None, error_details_pb2.BadRequest]:
    """Read our ErrorInfo (None when there is none) and the BadRequest out of the call's trailing metadata."""
    info: error_details_pb2.ErrorInfo | None = None
    bad_request = error_details_pb2.BadRequest()
    for key, value in error.trailing_metadata() or ():
        if key != _STATUS_DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                    candidate = error_details_pb2.ErrorInfo()
                    detail.Unpack(candidate)
                    if candidate.domain == DOMAIN:
                        info = candidate
                elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                    detail.Unpack(bad_request)
        except DecodeError:
            logger.exception("a service's status details could not be read")
    return info, bad_request
