"""The refusals a service can answer, by gRPC status, and how they cross the wire.

    Refusal
    ├── NotFound            NOT_FOUND
    ├── AlreadyExists       ALREADY_EXISTS
    ├── RuleBroken          INVALID_ARGUMENT
    ├── WrongState          FAILED_PRECONDITION
    ├── NotAllowed          PERMISSION_DENIED
    ├── StillRunning        ABORTED
    ├── Away                UNAVAILABLE
    └── Busy                RESOURCE_EXHAUSTED

A resource's ``errors.py`` subclasses one of them with the public code and its sentence. What HTTP makes of a code
is the gateway's registry alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "aarokya"
MOST_DETAILS = 20  # they ride in trailers, which are limited to 8 KiB


@dataclass(frozen=True, slots=True)
class Detail:
    """What is wrong with one field. The message never repeats the value."""

    field: str
    message: str


class Refusal(Exception):
    """A call that is refused for a reason that the caller may know.

    Attributes:
        code: the public code, such as ``MR-903``.
        message: one sentence for people; never contains input.
        details: what is wrong with which field.
    """

    status: ClassVar[grpc.StatusCode]
    code: ClassVar[str]
    message: ClassVar[str]

    def __init__(self, *details: Detail, message: str | None = None) -> None:
        self.text = message or self.message
        self.details: Sequence[Detail] = details[:MOST_DETAILS]
        super().__init__(self.code)

    def to_status(self) -> rpc_status._Status:
        """Return this refusal as a gRPC status with ``ErrorInfo`` and ``BadRequest`` details."""
        packed = [_pack(error_details_pb2.ErrorInfo(reason=self.code.replace("-", "_"), domain=DOMAIN))]
        if self.details:
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=detail.field, description=detail.message)
                for detail in self.details
            ]
            packed.append(_pack(error_details_pb2.BadRequest(field_violations=violations)))
        number = code_pb2.Code.Value(self.status.name)
        return rpc_status.to_status(status_pb2.Status(code=number, message=self.text, details=packed))


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


class NotFound(Refusal):
    """The thing is not there, or the caller may not know that it is."""

    status = grpc.StatusCode.NOT_FOUND


class AlreadyExists(Refusal):
    """Something unique is taken."""

    status = grpc.StatusCode.ALREADY_EXISTS


class RuleBroken(Refusal):
    """A value breaks a rule of the domain."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class WrongState(Refusal):
    """The thing's state does not allow the call."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class NotAllowed(Refusal):
    """The caller may not do this."""

    status = grpc.StatusCode.PERMISSION_DENIED


class StillRunning(Refusal):
    """The same call is being carried out at this moment."""

    status = grpc.StatusCode.ABORTED


class Away(Refusal):
    """Something that the call needs does not answer; it may be tried again."""

    status = grpc.StatusCode.UNAVAILABLE


class Busy(Refusal):
    """There is more to do than can be done; unlike what is away, asking again at once would make it worse."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class InvalidField(RuleBroken):
    """A field's value or presence is not what the contract says."""

    code = "RQ-101"
    message = "The request does not have the right shape."


class VersionMismatch(WrongState):
    """The thing has moved on from the version that the caller saw."""

    code = "RQ-110"
    message = "The resource is no longer at the version named by If-Match."


class KeyReused(RuleBroken):
    """An idempotency key came back with another body."""

    code = "RQ-108"
    message = "This Idempotency-Key was used with another body."


class KeyStillRunning(StillRunning):
    """A call with the same idempotency key has not ended yet."""

    code = "RQ-109"
    message = "A call with this Idempotency-Key is still running."


class BadPageToken(RuleBroken):
    """A page token was made for another list or was changed."""

    code = "RQ-113"
    message = "The page token is not one of this list."


class ServiceAway(Away):
    """Another service or the database does not answer."""

    code = "RQ-111"
    message = "A service that this call needs is unavailable. Try again shortly."


class ServiceBusy(Busy):
    """More is asked at once than can be answered in time."""

    code = "RQ-111"
    message = "A service that this call needs is unavailable. Try again shortly."


def require_version(expected: int | None, present: int) -> None:
    """Refuse with `VersionMismatch` when the caller named another version than the present one."""
    if expected is not None and expected != present:
        raise VersionMismatch
