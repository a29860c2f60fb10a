"""Who calls, and what goes with every call from one process to the next."""

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID

METADATA_KEY = "aarokya-call-bin"


class CallerType(StrEnum):
    """What kind of caller it is."""

    ADMIN = "ADMIN"
    PARTNER = "PARTNER"
    USER = "USER"
    SYSTEM = "SYSTEM"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        type: the kind of credential.
        id: the operator's name, the partner key's id, the user's id or the service's name.
        platform_id: the platform of a partner or a user; None for operators and services.
    """

    type: CallerType
    id: str
    platform_id: UUID | None = None

    @property
    def is_admin(self) -> bool:
        return self.type is CallerType.ADMIN

    @property
    def is_partner(self) -> bool:
        return self.type is CallerType.PARTNER

    @property
    def is_user(self) -> bool:
        return self.type is CallerType.USER


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What makes a retried POST recognisable.

    Attributes:
        scope: hash of (caller, path, key), 32 bytes.
        fingerprint: hash of the parsed body, 32 bytes.
    """

    scope: bytes
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """What goes with every call: the caller and where the request came from."""

    caller: Caller
    request_id: str | None = None
    source_address: str | None = None
    user_agent: str | None = None
    idempotency: Idempotency | None = None

    def to_bytes(self) -> bytes:
        """Return the value of the metadata entry `METADATA_KEY`."""
        idempotency = self.idempotency
        return json.dumps(
            [
                self.caller.type,
                self.caller.id,
                self.caller.platform_id and str(self.caller.platform_id),
                self.request_id,
                self.source_address,
                self.user_agent,
                idempotency and [idempotency.scope.hex(), idempotency.fingerprint.hex()],
            ],
            separators=(",", ":"),
        ).encode()

    @staticmethod
    def from_bytes(raw: bytes) -> "Call":
        """Return the call that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are not of that form.
        """
        kind, identity, platform, request_id, source_address, user_agent, idempotency = json.loads(raw)
        return Call(
            Caller(CallerType(kind), identity, UUID(platform) if platform else None),
            request_id,
            source_address,
            user_agent,
            Idempotency(*map(bytes.fromhex, idempotency)) if idempotency else None,
        )

    def as_system(self, service: str) -> "Call":
        """Return this call as one that a service makes in its own name."""
        return replace(self, caller=Caller(CallerType.SYSTEM, service), idempotency=None)


def system_call(service: str) -> Call:
    """Return a call that a service makes by itself, outside any request."""
    return Call(Caller(CallerType.SYSTEM, service))
