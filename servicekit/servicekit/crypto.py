"""Sealing bytes, wrapping data keys with a ring of master keys, and keyed hashes for look-up."""

import base64
import binascii
import hmac
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


class SealBroken(Exception):
    """Sealed bytes were changed, moved to another place or sealed with another key."""


class MasterKeyMissing(Exception):
    """A data key was wrapped by a master key that is not in the ring."""


def generate_key() -> bytes:
    """Return 32 fresh random bytes."""
    return os.urandom(KEY_BYTES)


def seal(cipher: AESGCM, plaintext: bytes, aad: bytes) -> bytes:
    """Encrypt `plaintext` and bind it to `aad`; the answer is nonce, ciphertext and tag.

    Nonces are random. That is safe for 2**32 messages a key, and no key here comes near it: a data key
    seals one person's rows, a master key wraps one key per person.
    """
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plaintext, aad)


def open_sealed(cipher: AESGCM, sealed: bytes, aad: bytes) -> bytes:
    """Return what `seal` was given. Raises SealBroken when a byte, the key or `aad` differs."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise SealBroken("sealed bytes are too short")
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
    except InvalidTag:
        raise SealBroken("sealed bytes do not belong here") from None


class KeyRing:
    """The master keys of one service: the first wraps new data keys, all of them unwrap."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take keys of 32 bytes by id, the wrapping one first. Raises ValueError for anything else."""
        if not keys:
            raise ValueError("a key ring needs at least one key")
        if any(len(key) != KEY_BYTES for key in keys.values()):
            raise ValueError(f"a master key is {KEY_BYTES} bytes")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.wrapping_key_id = next(iter(keys))

    @classmethod
    def parse(cls, text: str) -> "KeyRing":
        """Read `id:base64,id:base64,…`. Raises ValueError, which never repeats key material."""
        keys: dict[str, bytes] = {}
        for place, entry in enumerate(text.split(","), start=1):
            key_id, colon, encoded = entry.strip().partition(":")
            if not key_id or not colon:
                raise ValueError(f"master key {place} is not of the form id:base64")
            if key_id in keys:
                raise ValueError(f"master key {place} has the same id as an earlier one")
            keys[key_id] = decode_key(encoded, f"master key {place}")
        return cls(keys)

    def wrap(self, data_key: bytes, aad: bytes) -> bytes:
        """Encrypt a data key with the first master key and bind it to `aad`."""
        return seal(self._ciphers[self.wrapping_key_id], data_key, aad)

    def unwrap(self, master_key_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Return the data key that `wrap` was given.

        Raises SealBroken when it was changed or `aad` differs, and MasterKeyMissing when the ring has no master
        key of that id.
        """
        cipher = self._ciphers.get(master_key_id)
        if cipher is None:
            raise MasterKeyMissing(f"no master key {master_key_id!r} in the ring")
        return open_sealed(cipher, wrapped, aad)


def decode_key(encoded: str, name: str) -> bytes:
    """Read 32 bytes of base64. Raises ValueError, which tells the key's name and nothing of the key."""
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name} is not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"{name} is not {KEY_BYTES} bytes")
    return key


class LookupHash:
    """Keyed hashes by which a sealed value is found and kept unique, without being readable."""

    def __init__(self, key: bytes) -> None:
        """Take a key of 32 bytes. It cannot be changed later: every stored hash depends on it."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a look-up key is {KEY_BYTES} bytes")
        self._key = key

    def hash(self, purpose: str, *parts: str) -> bytes:
        """Return 32 bytes that are the same for the same purpose and parts only.

        Every part is preceded by its length, so ("ab", "c") and ("a", "bc") differ, and a hash made for one
        purpose can't be compared with one made for another.
        """
        message = b"".join(
            len(encoded).to_bytes(4, "big") + encoded for encoded in (part.encode() for part in (purpose, *parts))
        )
        return hmac.digest(self._key, message, "sha256")
