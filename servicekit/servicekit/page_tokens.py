"""The tokens that lists hand out for their next page: sealed, and bound to the caller and the list's filters."""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message

from servicekit.caller import Call
from servicekit.errors import BadPageToken

if TYPE_CHECKING:
    # The gateway has lists too, and no database.
    from servicekit.database import AnyRow

NONCE_BYTES = 12
PAGE_FIELDS = frozenset({"page_size", "page_token"})


class PageTokens:
    """Makes and opens page tokens with one key, which all replicas share."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def make(self, call: Call, request: Message, cursor: Sequence[str]) -> str:
        """Return the token of the page after a row, given as the texts that order it."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, json.dumps(cursor).encode(), _list_of(call, request))
        return _encode(nonce + sealed)

    def open(self, call: Call, request: Any) -> list[str] | None:
        """Return the texts of the row before the page that a list RPC asks for, or None for the first page.

        Raises:
            BadPageToken: the token is of another list or caller, or was changed.
        """
        return self.read(call, request, request.page_token)

    def read(self, call: Call, request: Message, token: str) -> list[str] | None:
        """Return the texts of the row before a token's page, or None for the first page.

        Raises:
            BadPageToken: the token is of another list or caller, or was changed.
        """
        if not token:
            return None
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            # The same bytes can be written in several ways, and only one is ours.
            if _encode(raw) != token:
                raise BadPageToken
            opened = self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _list_of(call, request))
        except (binascii.Error, InvalidTag, ValueError) as error:
            raise BadPageToken from error
        cursor = json.loads(opened)
        assert isinstance(cursor, list)
        return cursor

    def cut(
        self, call: Call, request: Any, rows: Sequence["AnyRow"], order: Sequence[str] = ("created_at", "id")
    ) -> tuple[Sequence["AnyRow"], str]:
        """Return the page's rows and the token of the next page, empty at the end.

        Args:
            call: who asks.
            request: the list RPC's request.
            rows: what `newest_first` found: one row more than a page holds shows that there is a next page.
            order: the names of the columns that order the list.
        """
        page = rows[: request.page_size]
        if len(rows) <= request.page_size:
            return page, ""
        last = page[-1]._mapping
        return page, self.make(call, request, [_text(last[name]) for name in order])


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _list_of(call: Call, request: Message) -> bytes:
    """Return what a token is bound to: who asks, and for what; the page itself left out."""
    filters = type(request)()
    filters.CopyFrom(request)
    for field in PAGE_FIELDS.intersection(filters.DESCRIPTOR.fields_by_name):
        filters.ClearField(field)
    caller = call.caller
    # A partner's keys rotate while its lists are read, so its platform is the caller.
    identity = str(caller.platform_id) if caller.is_partner else caller.id
    parts = (request.DESCRIPTOR.full_name, caller.type, identity)
    return hashlib.sha256("\n".join(parts).encode() + filters.SerializeToString(deterministic=True)).digest()
