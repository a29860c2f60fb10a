"""What a caller shows: one credential in the headers, read strictly."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import jwt
from starlette.datastructures import Headers

from gateway.errors import Refused
from gateway.fields import LONGEST_TOKEN_TTL_S, is_uuid
from gateway.json_body import decode_json
from servicekit.settings import NamedSecrets

ALGORITHM = "HS256"
TEXT_CLAIMS = ("iss", "aud", "sub", "platform_id", "status", "jti")
TIME_CLAIMS = ("iat", "exp")
IAT_LEEWAY_S = 10
HEADERS = ("admin-api-key", "api-key", "authorization")
# A token's id begins with the generation that identity counts up when the user is deactivated.
GENERATION = re.compile(r"([0-9]{1,18})\.")
# To verify a token takes 150 µs, to find it among those that were verified lately 2.
MOST_RECENT = 10_000
RECENT_S = 60.0


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
    expires_at: int
    lives_too_long: bool = False


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


def find_operator(operators: Iterable[tuple[str, str]], secret: str) -> str | None:
    """Return the name of the operator with this secret; how long that takes tells nothing about the secrets."""
    found = None
    shown = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
    for name, right in operators:
        if hmac.compare_digest(shown, hashlib.sha256(right.encode()).digest()):
            found = name
    return found


def read_basic(text: str) -> tuple[str, str]:
    """Return the platform's id and the secret of a Basic credential.

    Raises:
        Refused: AU-202, it is not base64 of ``platform_id:secret``.
    """
    try:
        platform_id, _, secret = base64.b64decode(text, validate=True).decode("ascii").partition(":")
    except ValueError as error:
        raise Refused("AU-202") from error
    if not secret or not is_uuid(platform_id):
        raise Refused("AU-202")
    return platform_id.lower(), secret


class _Recent:
    """The genuine tokens of the last one or two minutes, by a hash: of the tokens themselves nothing stays."""

    def __init__(self) -> None:
        self._young: dict[bytes, Claims] = {}
        self._old: dict[bytes, Claims] = {}
        self._ages_at = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def find(self, digest: bytes) -> Claims | None:
        """Return what a token says that was added lately."""
        return self._young.get(digest) or self._old.get(digest)

    def add(self, digest: bytes, claims: Claims) -> None:
        """Remember what a genuine token says."""
        now = time.monotonic()
        if now >= self._ages_at or len(self._young) >= MOST_RECENT:
            self._young, self._old = {}, self._young
            self._ages_at = now + RECENT_S
        self._young[digest] = claims


class TokenVerifier:
    """Verifies users' tokens with a ring of keys.

    Only what identity writes is genuine: this header, these claims in these types, spelled in this one way. JSON is
    read as strictly as everybody's bodies are, so that a token cannot say two things at once.
    """

    def __init__(self, keys: NamedSecrets, issuer: str, audience: str) -> None:
        self._keys = {kid: secret.encode() for kid, secret in keys.pairs.items()}
        self._issuer = issuer
        self._audience = audience
        self._recent = _Recent()
        self._jws = jwt.PyJWS(algorithms=[ALGORITHM], options={"enforce_minimum_key_length": True})

    def verify(self, token: str) -> Claims:
        """Return what a genuine token says.

        Raises:
            Refused: AU-203 when its time is over, AU-202 when it is not genuine.
        """
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._recent.find(digest)
        if claims is None:
            try:
                payload = self._jws.decode(token, self._key_of(token), algorithms=[ALGORITHM])
                claims = self._read_claims(decode_json(payload))
            except (jwt.InvalidTokenError, ValueError, Refused) as error:
                raise Refused("AU-202") from error
            self._recent.add(digest, claims)
        # What made it genuine stays so; that its time is over is asked every time.
        if claims.expires_at <= time.time():
            raise Refused("AU-203")
        if claims.lives_too_long:
            raise Refused("AU-202")
        return claims

    def _key_of(self, token: str) -> bytes:
        """Return the key that a token names. Raises ValueError or Refused for a header that identity does not write."""
        # The library takes padding and repeated keys, which identity never writes.
        if "=" in token:
            raise ValueError("a part is padded")
        segment = token.partition(".")[0]
        header = decode_json(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
        match header:
            case {"alg": "HS256", "typ": "JWT", "kid": str(kid), **rest} if not rest and kid in self._keys:
                return self._keys[kid]
        raise ValueError("the header is not identity's")

    def _read_claims(self, claims: Any) -> Claims:
        """Return the claims in their types. Raises ValueError for others."""
        if not isinstance(claims, dict):
            raise ValueError("the payload is no object")
        is_typed = all(type(claims.get(name)) is str for name in TEXT_CLAIMS) and all(
            type(claims.get(name)) is int for name in TIME_CLAIMS
        )
        if not is_typed or (claims["iss"], claims["aud"]) != (self._issuer, self._audience):
            raise ValueError("a claim is missing, of another type or somebody else's")
        latest_start = time.time() + IAT_LEEWAY_S
        not_before = claims.get("nbf", 0)
        if type(not_before) is not int or max(not_before, claims["iat"]) > latest_start:
            raise ValueError("its time has not come")
        generation = GENERATION.match(claims["jti"])
        if not generation or not (is_uuid(claims["sub"]) and is_uuid(claims["platform_id"])):
            raise ValueError("an id is not one of ours")
        return Claims(
            claims["sub"].lower(),
            claims["platform_id"].lower(),
            int(generation[1]),
            claims["exp"],
            # Once its time is over, that is what is said of it.
            lives_too_long=claims["exp"] - claims["iat"] > LONGEST_TOKEN_TTL_S,
        )
