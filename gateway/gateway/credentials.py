"""What a caller shows: one credential in the headers, read strictly."""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

import jwt
from starlette.datastructures import Headers

from gateway.errors import Refused
from servicekit.settings import NamedSecrets

ALGORITHM = "HS256"
CLAIMS = ("iss", "aud", "sub", "platform_id", "status", "iat", "exp", "jti")
IAT_LEEWAY_S = 10
# Times are compared below, where "expired" can be told from "never was genuine".
CHECKED_HERE: jwt.types.Options = {"verify_exp": False, "verify_iat": False, "strict_aud": True}
HEADERS = ("admin-api-key", "api-key", "authorization")


class Kind(Enum):
    """The kinds of credentials."""

    ADMIN = "admin"
    PARTNER = "partner"
    USER = "user"
    PARTNER_BASIC = "partner, as Basic"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as it was shown, not yet checked."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What a genuine token says."""

    user_id: str
    platform_id: str
    generation: int


def read_credential(headers: Headers) -> Credential:
    """Return the one credential of a request.

    Raises:
        Refused: AU-205 for more than one, AU-201 for none, AU-202 for one that is empty or of no known scheme.
    """
    shown = [(name, value) for name in HEADERS for value in headers.getlist(name)]
    if len(shown) > 1:
        raise Refused("AU-205")
    if not shown:
        raise Refused("AU-201")
    name, value = shown[0]
    if name == "authorization":
        scheme, _, text = value.partition(" ")
        kind = {"bearer": Kind.USER, "basic": Kind.PARTNER_BASIC}.get(scheme.lower())
        value = text.strip(" ")
    else:
        kind = Kind.ADMIN if name == "admin-api-key" else Kind.PARTNER
    if kind is None or not value:
        raise Refused("AU-202")
    return Credential(kind, value)


def find_operator(operators: Mapping[str, str], secret: str) -> str | None:
    """Return the name of the operator with this secret; how long that takes tells nothing about the secrets."""
    found = None
    shown = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
    for name, right in operators.items():
        if hmac.compare_digest(shown, hashlib.sha256(right.encode()).digest()):
            found = name
    return found


def read_basic(text: str) -> tuple[str, str]:
    """Return the platform's id and the secret of a Basic credential.

    Raises:
        Refused: AU-202, it is not base64 of ``platform_id:secret``.
    """
    try:
        user, colon, secret = base64.b64decode(text, validate=True).decode("ascii").partition(":")
        platform_id = UUID(user)
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise Refused("AU-202") from error
    if not colon or not secret or str(platform_id) != user.lower():
        raise Refused("AU-202")
    return str(platform_id), secret


class TokenVerifier:
    """Verifies users' tokens with a ring of keys."""

    def __init__(self, keys: NamedSecrets, issuer: str, audience: str) -> None:
        self._keys = {kid: secret.encode() for kid, secret in keys.pairs.items()}
        self._issuer = issuer
        self._audience = audience
        self._jwt = jwt.PyJWT(options={"require": list(CLAIMS), "enforce_minimum_key_length": True})

    def verify(self, token: str) -> Claims:
        """Return what a genuine token says.

        Raises:
            Refused: AU-203 when its time is over, AU-202 when it is not genuine.
        """
        try:
            header = jwt.get_unverified_header(token)
            if set(header) != {"alg", "kid", "typ"} or header["alg"] != ALGORITHM or header["typ"] != "JWT":
                raise Refused("AU-202")
            key = self._keys.get(header["kid"]) if isinstance(header["kid"], str) else None
            if key is None:
                raise Refused("AU-202")
            claims = self._jwt.decode(
                token, key, algorithms=[ALGORITHM], issuer=self._issuer, audience=self._audience, options=CHECKED_HERE
            )
            read = _read_claims(claims)
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError) as error:
            raise Refused("AU-202") from error
        now = time.time()
        if claims["iat"] > now + IAT_LEEWAY_S:
            raise Refused("AU-202")
        if claims["exp"] <= now:
            raise Refused("AU-203")
        return read


def _read_claims(claims: Mapping[str, Any]) -> Claims:
    """Return the claims in their types. Raises ValueError for others."""
    texts = [claims[name] for name in ("sub", "platform_id", "status", "jti")]
    if not all(type(text) is str for text in texts) or not all(type(claims[name]) is int for name in ("iat", "exp")):
        raise ValueError("a claim is of another type")
    generation, dot, _ = claims["jti"].partition(".")
    if not dot or not generation.isdecimal():
        raise ValueError("jti has no generation")
    return Claims(str(UUID(claims["sub"])), str(UUID(claims["platform_id"])), int(generation))
