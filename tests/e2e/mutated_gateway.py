"""A gateway whose guards have one mistake, which the variable MUTANT names; mutate_guards.py starts it.

The mistake is made here, by replacing parts of the gateway after their import. The gateway itself knows nothing of it.
"""

import os
import runpy
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from gateway import credentials, guards, server_wrap
from gateway.credentials import ALGORITHM, Claims, Credential, Kind, TokenVerifier
from gateway.errors import Refused
from gateway.fields import Query
from gateway.guards import Gatekeeper, Guard
from gateway.json_body import decode_json
from gateway.live_state import LiveState
from gateway.validation import read_query
from servicekit.caller import Caller, CallerType

Admit = Callable[[Gatekeeper, Guard, Request, str], Awaitable[Caller]]
Mutant = Callable[[], None]

ADMIT: Admit = Gatekeeper.admit
KEY_REFUSAL, USER_REFUSAL = guards._key_refusal, guards._user_refusal
OPEN = guards.PlatformStatus.PLATFORM_STATUS_ACTIVE
SOMEBODY = Caller(CallerType.ADMIN, "mutant")
EVERY_KIND = frozenset(Kind)


def _changed(state: Any, **changes: Any) -> Any:
    """Return a state, which others share, with some of it changed."""
    changed = type(state)()
    changed.CopyFrom(state)
    changed.MergeFrom(type(state)(**changes))
    return changed


def _admits(admit: Admit) -> Mutant:
    """Return the mutant that lets callers in in another way."""
    return lambda: setattr(Gatekeeper, "admit", admit)


def _guards(change: Callable[[Guard], Guard]) -> Mutant:
    """Return the mutant whose routes have other guards."""

    async def admit(self: Gatekeeper, guard: Guard, request: Request, route: str) -> Caller:
        return await ADMIT(self, change(guard), request, route)

    return _admits(admit)


def _without(kind: Kind) -> Mutant:
    return _guards(lambda guard: replace(guard, kinds=guard.kinds - {kind}))


def _forgives(code: str) -> Mutant:
    """Return the mutant that lets everybody in who is refused with a code."""

    async def admit(self: Gatekeeper, guard: Guard, request: Request, route: str) -> Caller:
        try:
            return await ADMIT(self, guard, request, route)
        except Refused as refused:
            if refused.code == code:
                return SOMEBODY
            raise

    return _admits(admit)


async def _let_in(self: Gatekeeper, guard: Guard, request: Request, route: str) -> Caller:
    return SOMEBODY


async def _judge_kind_first(self: Gatekeeper, guard: Guard, request: Request, route: str) -> Caller:
    credential = credentials.read_credential(request.headers)
    if credential.kind not in guard.kinds:
        raise Refused("AU-204")
    return await ADMIT(self, guard, request, route)


async def _judge_kind_last(self: Gatekeeper, guard: Guard, request: Request, route: str) -> Caller:
    caller = await ADMIT(self, replace(guard, kinds=EVERY_KIND), request, route)
    if credentials.read_credential(request.headers).kind not in guard.kinds:
        raise Refused("AU-204")
    return caller


async def _judge_owner_first(self: Gatekeeper, guard: Guard, request: Request, route: str) -> Caller:
    credential = credentials.read_credential(request.headers)
    if credential.kind is Kind.USER and Kind.USER in guard.kinds:
        named = request.path_params.get("user_id")
        if named not in (None, self._tokens.verify(credential.text).user_id):
            raise Refused("AU-206")
    return await ADMIT(self, guard, request, route)


async def _read_body_first(self: Gatekeeper, guard: Guard, request: Request, route: str) -> Caller:
    if request.method in ("POST", "PATCH"):
        await server_wrap._read_json(request)
    return await ADMIT(self, guard, request, route)


async def _read_query_first(self: Gatekeeper, guard: Guard, request: Request, route: str) -> Caller:
    read_query(Query, request.query_params.multi_items())
    return await ADMIT(self, guard, request, route)


def _take_first_of_many() -> None:
    def read_credential(headers: Any) -> Credential:
        try:
            return credentials.read_credential(headers)
        except Refused as refused:
            if refused.code != "AU-205":
                raise
            name = next(name for name in credentials.HEADERS if headers.get(name))
            return credentials.read_credential(type(headers)({name: headers[name]}))

    guards.read_credential = read_credential


def _ignore_expiry() -> None:
    verify = TokenVerifier.verify

    def verify_but_for_expiry(self: TokenVerifier, token: str) -> Claims:
        try:
            return verify(self, token)
        except Refused as refused:
            if refused.code != "AU-203":
                raise
            payload = self._jws.decode(token, self._key_of(token), algorithms=[ALGORITHM])
            return self._read_claims(decode_json(payload))

    TokenVerifier.verify = verify_but_for_expiry  # type: ignore[method-assign]


def _ignore_signature() -> None:
    class Jws(credentials.jwt.PyJWS):
        def decode(self, *arguments: Any, **named: Any) -> Any:
            return super().decode(*arguments, **named, options={"verify_signature": False})

    credentials.jwt.PyJWS = Jws  # type: ignore[misc]


def _ignore_generation() -> None:
    def user_refusal(state: Any, claims: Claims, guard: Guard) -> str | None:
        return USER_REFUSAL(state, replace(claims, generation=state.token_generation), guard)

    guards._user_refusal = user_refusal


def _ignore_platform_of_token() -> None:
    said: ContextVar[str] = ContextVar("said")
    verify, user_state = TokenVerifier.verify, LiveState.user_state

    def verify_and_tell(self: TokenVerifier, token: str) -> Claims:
        claims = verify(self, token)
        said.set(claims.platform_id)
        return claims

    async def user_state_as_said(self: LiveState, user_id: str, *, fresh: bool = False) -> Any:
        state = await user_state(self, user_id, fresh=fresh)
        return state and _changed(state, platform_id=said.get())

    TokenVerifier.verify = verify_and_tell  # type: ignore[method-assign]
    LiveState.user_state = user_state_as_said  # type: ignore[method-assign]


def _ignore_platform_of_basic() -> None:
    def read_basic(text: str) -> tuple[str | None, str]:
        return None, credentials.read_basic(text)[1]

    guards.read_basic = read_basic  # type: ignore[assignment]


def _ignore_platform_status() -> None:
    def user_refusal(state: Any, claims: Claims, guard: Guard) -> str | None:
        return USER_REFUSAL(_changed(state, platform_status=OPEN), claims, guard)

    guards._key_refusal = lambda state: KEY_REFUSAL(_changed(state, platform_status=OPEN))
    guards._user_refusal = user_refusal


def _ignore_user_status() -> None:
    def user_refusal(state: Any, claims: Claims, guard: Guard) -> str | None:
        refusal = USER_REFUSAL(state, claims, guard)
        return None if refusal == "AU-207" else refusal

    guards._user_refusal = user_refusal


def _ignore_key_status() -> None:
    def key_refusal(state: Any) -> str | None:
        return None if state.platform_status == OPEN else "AU-209"

    guards._key_refusal = key_refusal


def _judge_user_before_platform() -> None:
    def user_refusal(state: Any, claims: Claims, guard: Guard) -> str | None:
        opened = _changed(state, platform_status=OPEN)
        return USER_REFUSAL(opened, claims, guard) or USER_REFUSAL(state, claims, guard)

    guards._user_refusal = user_refusal


def _ignore_owner() -> None:
    guards.is_uuid = lambda text: False


def _take_any_operator() -> None:
    guards.find_operator = lambda operators, secret: "mutant"


MUTANTS: dict[str, Mutant] = {
    "no mistake": lambda: None,
    "open to everybody": _admits(_let_in),
    "needs no credential": _forgives("AU-201"),
    "takes bad credentials": _forgives("AU-202"),
    "takes any operator's key": _take_any_operator,
    "takes the first of many credentials": _take_first_of_many,
    "takes every kind": _guards(lambda guard: replace(guard, kinds=EVERY_KIND)),
    "takes operators": _guards(lambda guard: replace(guard, kinds=guard.kinds | {Kind.ADMIN})),
    "takes partners": _guards(lambda guard: replace(guard, kinds=guard.kinds | {Kind.PARTNER})),
    "takes users": _guards(lambda guard: replace(guard, kinds=guard.kinds | {Kind.USER})),
    "takes Basic": _guards(lambda guard: replace(guard, kinds=guard.kinds | {Kind.PARTNER_BASIC})),
    "takes no operators": _without(Kind.ADMIN),
    "takes no partners": _without(Kind.PARTNER),
    "takes no users": _without(Kind.USER),
    "takes no Basic": _without(Kind.PARTNER_BASIC),
    "takes users while onboarding": _guards(lambda guard: replace(guard, while_onboarding=True)),
    "takes no users while onboarding": _guards(lambda guard: replace(guard, while_onboarding=False)),
    "takes users of any status": _ignore_user_status,
    "takes any user on a user's path": _ignore_owner,
    "takes suspended platforms": _ignore_platform_status,
    "takes revoked and expired keys": _ignore_key_status,
    "takes expired tokens": _ignore_expiry,
    "takes forged tokens": _ignore_signature,
    "takes tokens from before a deactivation": _ignore_generation,
    "takes tokens of another platform": _ignore_platform_of_token,
    "takes Basic of another platform": _ignore_platform_of_basic,
    "judges the kind first": _admits(_judge_kind_first),
    "judges the kind last": _admits(_judge_kind_last),
    "judges the user before the platform": _judge_user_before_platform,
    "judges the owner first": _admits(_judge_owner_first),
    "reads the body first": _admits(_read_body_first),
    "reads the query first": _admits(_read_query_first),
}

if __name__ == "__main__":
    MUTANTS[os.environ["MUTANT"]]()
    runpy.run_module("gateway", run_name="__main__")
