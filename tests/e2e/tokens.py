"""Users' tokens as identity writes them, and as forgers would."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from tests.e2e.conftest import System

Json = dict[str, Any]


def signing_key(system: System) -> tuple[str, bytes]:
    """Return the name and the secret of the key with which a running system signs."""
    secrets = json.loads((system.data / "secrets.json").read_text())
    kid, _, secret = secrets["jwt_keys"].split(",")[0].partition(":")
    return kid, secret.encode()


def header_of(token: str) -> Json:
    """Read a token's header, without verifying anything."""
    return _read(token.split(".")[0])


def claims_of(token: str) -> Json:
    """Read a token's claims as apps do: without verifying it."""
    return _read(token.split(".")[1])


def sign(claims: Mapping[str, Any] | bytes, header: Mapping[str, Any] | bytes, secret: bytes) -> str:
    """Write a token with HMAC-SHA256, whatever its header says."""
    return add_signature(f"{encode(header)}.{encode(claims)}", secret)


def add_signature(start: str, secret: bytes, algorithm: str = "sha256") -> str:
    """Sign the first parts of a token."""
    return f"{start}.{encode(hmac.digest(secret, start.encode(), getattr(hashlib, algorithm)))}"


def encode(part: Mapping[str, Any] | bytes) -> str:
    """Return a part of a token, from its bytes or from an object."""
    raw = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _read(part: str) -> Json:
    value: Json = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return value
