"""Who may call a route, decided before anything of the body is read.

A route is declared with a `Guard`, or with `PUBLIC` aloud. `Gatekeeper.admit` refuses in the contract's order: more
than one credential, none, a bad one, one whose time is over, one that is used too often, one of a kind that is not
accepted here, a suspended platform, a user whose status does not allow it, another user's path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from starlette.requests import Request

from aarokya.identity.v1.api_key_pb2 import ApiKeyStatus
from aarokya.identity.v1.live_state_service_pb2 import ApiKeyState, UserState
from aarokya.identity.v1.platform_pb2 import PlatformStatus
from aarokya.identity.v1.user_pb2 import UserStatus
from gateway.credentials import (
    Claims,
    Credential,
    Kind,
    TokenVerifier,
    find_operator,
    read_basic,
    read_credential,
)
from gateway.errors import REGISTRY, Refused
from gateway.fields import is_uuid
from gateway.live_state import LiveState
from gateway.rate_limits import RateLimits
from gateway.refusals import Refusals
from servicekit.caller import Caller, CallerType

COUNTED_AS_FAILED = frozenset({"AU-202", "AU-208"})


@dataclass(frozen=True, slots=True)
class Guard:
    """Which kinds of callers a route takes.

    Attributes:
        kinds: the kinds of credentials.
        while_onboarding: whether a user may call it before onboarding is complete.
    """

    kinds: frozenset[Kind]
    while_onboarding: bool = False

    @property
    def security(self) -> list[dict[str, list[str]]]:
        """The alternatives as OpenAPI spells them."""
        return [{SCHEMES[kind]: []} for kind in Kind if kind in self.kinds]

    @property
    def codes(self) -> list[str]:
        """The codes with which this guard can refuse, but for AU-206, which depends on the path."""
        if not self.kinds:
            return []
        # Whether a credential is good is decided before whether its kind is accepted, so every route says these.
        codes = ["AU-201", "AU-202", "AU-203", "AU-204", "AU-205", "AU-208", "RQ-107", "RQ-111"]
        if self.kinds != {Kind.ADMIN}:
            codes.append("AU-209")
        if Kind.USER in self.kinds:
            codes.append("AU-207")
        return codes


SCHEMES = {
    Kind.ADMIN: "admin_api_key",
    Kind.PARTNER: "api_key",
    Kind.USER: "user_token",
    Kind.PARTNER_BASIC: "partner_basic",
}
PUBLIC = Guard(frozenset())
ADMIN = Guard(frozenset({Kind.ADMIN}))
ADMIN_OR_USER = Guard(frozenset({Kind.ADMIN, Kind.USER}))
ADMIN_OR_ONBOARDING_USER = Guard(frozenset({Kind.ADMIN, Kind.USER}), while_onboarding=True)
PARTNER_OR_USER = Guard(frozenset({Kind.PARTNER, Kind.USER}))
PARTNER_FOR_TOKENS = Guard(frozenset({Kind.PARTNER, Kind.PARTNER_BASIC}))


class Gatekeeper:
    """Turns headers into a caller, or refuses."""

    def __init__(
        self,
        operators: Sequence[tuple[str, str]],
        tokens: TokenVerifier,
        live_state: LiveState,
        limits: RateLimits,
        refusals: Refusals,
    ) -> None:
        self._operators = operators
        self._tokens = tokens
        self._live_state = live_state
        self._limits = limits
        self._refusals = refusals

    async def admit(self, guard: Guard, request: Request, route: str) -> Caller:
        """Return who calls, and count the request.

        Args:
            guard: whom the route takes.
            request: its headers and path are looked at, its body is not.
            route: method and path template, for the audit log.

        Raises:
            Refused: with a code of the AU block, or RQ-107 or RQ-111.
        """
        try:
            return await self._admit(guard, request, counts=True)
        except Refused as refused:
            self.note(refused, request, route)
            address: str = request.scope["state"]["source_address"]
            if refused.code in COUNTED_AS_FAILED and await self._limits.count_failure(address):
                raise self._limits.too_many_failures() from None
            raise

    async def admit_still(self, guard: Guard, request: Request, route: str) -> None:
        """Refuse whom `admit` let in some time ago and would not let in now.

        Raises:
            Refused: as `admit` does.
        """
        try:
            await self._admit(guard, request, counts=False)
        except Refused as refused:
            self.note(refused, request, route)
            raise

    def note(self, refused: Refused, request: Request, route: str) -> None:
        """Tell the audit log of a refused authentication or authorisation; other refusals are none of its business."""
        entry = REGISTRY.get(refused.code)
        if not refused.code.startswith("AU-") and (entry is None or entry.http_status != 403):
            return
        state = request.scope["state"]
        agent = request.headers.get("user-agent")
        self._refusals.note(refused.code, state["source_address"], route, state["request_id"], agent)

    async def _admit(self, guard: Guard, request: Request, *, counts: bool) -> Caller:
        credential = read_credential(request.headers)
        match credential.kind:
            case Kind.ADMIN:
                operator = find_operator(self._operators, credential.text)
                if operator is None:
                    raise Refused("AU-202")
                self._require_kind(guard, credential)
                return Caller(CallerType.ADMIN, operator)
            case Kind.USER:
                return await self._admit_user(guard, credential, request.path_params, counts=counts)
            case Kind.PARTNER | Kind.PARTNER_BASIC:
                return await self._admit_partner(guard, credential, counts=counts)

    def _require_kind(self, guard: Guard, credential: Credential) -> None:
        if credential.kind not in guard.kinds:
            raise Refused("AU-204")

    async def _admit_partner(self, guard: Guard, credential: Credential, *, counts: bool) -> Caller:
        platform_id = None
        secret = credential.text
        if credential.kind is Kind.PARTNER_BASIC:
            # Basic is no credential of the other routes at all, so nothing of it is looked at there.
            self._require_kind(guard, credential)
            platform_id, secret = read_basic(credential.text)
        is_fresh = False
        state = await self._live_state.key_state(secret)
        if state is not None and _key_refusal(state) is not None:
            state = await self._live_state.key_state(secret, fresh=True)
            is_fresh = True
        if state is None or platform_id not in (None, state.platform_id):
            raise Refused("AU-202")
        refusal = _key_refusal(state, is_fresh=is_fresh)
        if refusal == "AU-208":
            raise Refused(refusal)
        if counts:
            await self._limits.check_partner(state.key_id)
        self._require_kind(guard, credential)
        if refusal is not None:
            raise Refused(refusal)
        return Caller(CallerType.PARTNER, state.key_id, UUID(state.platform_id))

    async def _admit_user(
        self, guard: Guard, credential: Credential, path: Mapping[str, Any], *, counts: bool
    ) -> Caller:
        claims = self._tokens.verify(credential.text)
        state = await self._live_state.user_state(claims.user_id)
        if state is not None and _user_refusal(state, claims, guard) is not None:
            # Rights that have just widened count at once, whatever this process remembers.
            state = await self._live_state.user_state(claims.user_id, fresh=True)
        if state is None or state.platform_id != claims.platform_id:
            raise Refused("AU-202")
        refusal = _user_refusal(state, claims, guard)
        if refusal == "AU-203":
            raise Refused(refusal)
        if counts:
            await self._limits.check_user(claims.user_id)
        self._require_kind(guard, credential)
        if refusal is not None:
            raise Refused(refusal)
        named = path.get("user_id")
        if named is not None and is_uuid(named) and named.lower() != claims.user_id:
            raise Refused("AU-206")
        return Caller(CallerType.USER, claims.user_id, UUID(claims.platform_id))


def _key_refusal(state: ApiKeyState, *, is_fresh: bool = False) -> str | None:
    """Return why a known key is refused. Of a fresh state, identity has just said whether the key's time is over."""
    has_end = not is_fresh and state.HasField("expires_at")
    is_over = has_end and state.expires_at.ToDatetime(UTC) <= datetime.now(UTC)
    if is_over or state.status != ApiKeyStatus.API_KEY_STATUS_ACTIVE:
        return "AU-208"
    if state.platform_status != PlatformStatus.PLATFORM_STATUS_ACTIVE:
        return "AU-209"
    return None


def _user_refusal(state: UserState, claims: Claims, guard: Guard) -> str | None:
    """Return why a user with a genuine token is refused."""
    is_deactivated = state.status == UserStatus.USER_STATUS_DEACTIVATED
    if state.token_generation != claims.generation and not is_deactivated:
        # A token of before a deactivation: its time is over, and the partner gets another one.
        return "AU-203"
    if state.platform_status != PlatformStatus.PLATFORM_STATUS_ACTIVE:
        return "AU-209"
    # A status that this gateway does not know yet allows nothing.
    is_onboarding = state.status == UserStatus.USER_STATUS_ONBOARDING
    if state.status != UserStatus.USER_STATUS_ACTIVE and not (is_onboarding and guard.while_onboarding):
        return "AU-207"
    return None
