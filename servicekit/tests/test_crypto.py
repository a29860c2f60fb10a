"""Sealing, key rings and look-up hashes."""

import base64
import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from servicekit.crypto import KeyRing, LookupHash, MasterKeyMissing, SealBroken, generate_key, open_sealed, seal

KEY = generate_key()


def ring_text(**keys):
    return ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in keys.items())


class TestSeal:
    cipher = AESGCM(KEY)

    def test_opens_what_was_sealed(self):
        sealed = seal(self.cipher, b"Ravi", b"place")
        assert b"Ravi" not in sealed
        assert open_sealed(self.cipher, sealed, b"place") == b"Ravi"

    def test_never_seals_alike(self):
        assert seal(self.cipher, b"Ravi", b"place") != seal(self.cipher, b"Ravi", b"place")

    def test_notices_every_changed_byte(self):
        sealed = seal(self.cipher, b"Ravi", b"place")
        for place in range(len(sealed)):
            changed = bytearray(sealed)
            changed[place] ^= 1
            with pytest.raises(SealBroken):
                open_sealed(self.cipher, bytes(changed), b"place")

    @pytest.mark.parametrize("length", [0, 11, 12, 27])
    def test_notices_cut_bytes(self, length):
        with pytest.raises(SealBroken):
            open_sealed(self.cipher, seal(self.cipher, b"", b"place")[:length], b"place")

    def test_notices_another_place_or_key(self):
        sealed = seal(self.cipher, b"Ravi", b"place")
        with pytest.raises(SealBroken):
            open_sealed(self.cipher, sealed, b"other")
        with pytest.raises(SealBroken):
            open_sealed(AESGCM(generate_key()), sealed, b"place")


class TestKeyRing:
    def test_wraps_with_the_first_and_unwraps_with_all(self):
        old, new = os.urandom(32), os.urandom(32)
        wrapped = KeyRing.parse(ring_text(a=old)).wrap(KEY, b"aad")
        ring = KeyRing.parse(ring_text(b=new, a=old))
        assert ring.wrapping_key_id == "b"
        assert ring.unwrap("a", wrapped, b"aad") == KEY
        assert ring.unwrap("b", ring.wrap(KEY, b"aad"), b"aad") == KEY

    def test_notices_another_owner_and_another_master_key(self):
        ring = KeyRing.parse(ring_text(a=os.urandom(32), b=os.urandom(32)))
        wrapped = ring.wrap(KEY, b"aad")
        with pytest.raises(SealBroken):
            ring.unwrap("a", wrapped, b"other")
        with pytest.raises(SealBroken):
            ring.unwrap("b", wrapped, b"aad")
        with pytest.raises(MasterKeyMissing):
            ring.unwrap("c", wrapped, b"aad")

    @pytest.mark.parametrize("key", ["", "a", "a:", "a:AAAA", ":AAAA", "a:Zm9v", "a:*", f"a:{'A' * 43}=,", "a:é"])
    def test_refuses_other_texts_without_repeating_them(self, key):
        with pytest.raises(ValueError) as refusal:
            KeyRing.parse(key)
        assert "AAAA" not in str(refusal.value)

    def test_refuses_an_id_twice(self):
        text = ring_text(a=os.urandom(32))
        with pytest.raises(ValueError):
            KeyRing.parse(f"{text},{text}")


class TestLookupHash:
    hashes = LookupHash(KEY)

    def test_is_the_same_for_the_same_and_differs_by_key(self):
        assert self.hashes.hash("phone", "+91", "9") == self.hashes.hash("phone", "+91", "9")
        assert self.hashes.hash("phone", "+91", "9") != LookupHash(generate_key()).hash("phone", "+91", "9")

    def test_keeps_purposes_and_parts_apart(self):
        hashes = [
            self.hashes.hash(*parts)
            for parts in (("p", "ab", "c"), ("p", "a", "bc"), ("p", "abc"), ("pa", "b", "c"), ("p", "abc", ""), ("p",))
        ]
        assert len(set(hashes)) == len(hashes)
