"""Tokens that identity never wrote, each made from a genuine one, with the one code it must be refused with.

Those of the first half are what somebody without the key can try. Those of the second half are signed with the right
key, so that nothing but what they say is wrong with them.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.e2e.tokens import Json, add_signature, claims_of, encode, header_of, sign

BAD, EXPIRED = "AU-202", "AU-203"
# Stands for a claim or a header that is left out.
MISSING = object()
TEXTS = ("iss", "aud", "sub", "platform_id", "status", "jti")
TIMES = ("iat", "exp")


@dataclass(frozen=True, slots=True)
class Material:
    """What forgeries are made of.

    Attributes:
        token: a genuine token.
        key: the secret that signed it.
        other_user_id: somebody of another platform.
        other_platform_id: that platform.
        known_secrets: what else a forger might take for the key.
    """

    token: str
    key: bytes
    other_user_id: str
    other_platform_id: str
    known_secrets: tuple[str, ...] = ()

    @property
    def header(self) -> Json:
        return header_of(self.token)

    @property
    def claims(self) -> Json:
        return claims_of(self.token)

    @property
    def start(self) -> str:
        return self.token.rpartition(".")[0]

    @property
    def signature(self) -> str:
        return self.token.rpartition(".")[2]

    def with_header(self, **changes: Any) -> str:
        """Sign with another header."""
        return sign(self.claims, _changed(self.header, changes), self.key)

    def with_claims(self, **changes: Any) -> str:
        """Sign other claims."""
        return sign(_changed(self.claims, changes), self.header, self.key)

    def with_payload(self, payload: bytes) -> str:
        """Sign a payload, whatever it is."""
        return sign(payload, self.header, self.key)

    def with_literal(self, claim: str, literal: str) -> str:
        """Sign claims of which one is written in a way that Python would not write."""
        text = json.dumps({**self.claims, claim: "@"}).replace('"@"', literal)
        return self.with_payload(text.encode())

    def with_secret(self, secret: bytes, **header: Any) -> str:
        """Sign with another secret."""
        return sign(self.claims, _changed(self.header, header), secret)


@dataclass(frozen=True, slots=True)
class Forgery:
    """A way to make a token that is not accepted.

    Attributes:
        name: what is wrong with it.
        make: makes it.
        code: the code that it is refused with.
        looks_genuine: whether only identity knows that it is not.
    """

    name: str
    make: Callable[[Material], str]
    code: str = BAD
    looks_genuine: bool = False


def _changed(part: Mapping[str, Any], changes: Mapping[str, Any]) -> Json:
    return {name: value for name, value in {**part, **changes}.items() if value is not MISSING}


def _unsigned() -> Iterator[Forgery]:
    for alg in ("none", "None", "NONE", "nOnE", "none ", "", None, MISSING, False, 0, ["none"], {"none": 1}):
        spelled = "missing" if alg is MISSING else json.dumps(alg)
        start = _start_with(alg=alg)
        yield Forgery(f"alg {spelled}, empty signature", lambda m, start=start: f"{start(m)}.")
        yield Forgery(f"alg {spelled}, no signature", start)
        yield Forgery(f"alg {spelled}, genuine signature", lambda m, start=start: f"{start(m)}.{m.signature}")
        yield Forgery(f"alg {spelled}, right key", lambda m, alg=alg: m.with_header(alg=alg))
    for name, signature in (
        ("empty", ""),
        ("of one letter", "A"),
        ("of zeros", "A" * 43),
        ("of ones", "_" * 43),
        ("that is no base64", "!" * 43),
        ("of NUL", "AA"),
    ):
        yield Forgery(f"signature {name}", lambda m, signature=signature: f"{m.start}.{signature}")
    yield Forgery("signature stripped", lambda m: m.start)
    yield Forgery("signature cut by one letter", lambda m: m.token[:-1])
    yield Forgery("signature longer by one letter", lambda m: f"{m.token}A")
    yield Forgery("signature padded", lambda m: f"{m.token}=")
    yield Forgery("signature padded twice", lambda m: f"{m.token}==")
    yield Forgery("signature with spare bits set", lambda m: m.token[:-1] + _next_letter(m.token[-1]))
    yield Forgery(
        "signature with another first letter", lambda m: m.start + "." + _next_letter(m.signature[0]) + m.signature[1:]
    )
    yield Forgery("signature in small letters", lambda m: f"{m.start}.{m.signature.lower()}")
    yield Forgery("signature in hex", lambda m: f"{m.start}.{hmac.digest(m.key, m.start.encode(), 'sha256').hex()}")
    yield Forgery("signature twice", lambda m: f"{m.token}{m.signature}")
    yield Forgery("signature of the payload alone", lambda m: f"{m.start}.{_hmac(m.key, m.start.split('.')[1])}")
    yield Forgery("signature by a plain hash", lambda m: f"{m.start}.{_hash(m.start)}")
    start = _start_with()
    yield Forgery("other claims, genuine signature", lambda m: f"{start(m, sub=m.other_user_id)}.{m.signature}")
    yield Forgery(
        "longer life, genuine signature", lambda m: f"{_start_with()(m, exp=m.claims['exp'] + 60)}.{m.signature}"
    )


def _start_with(**header: Any) -> Callable[..., str]:
    def start(material: Material, **claims: Any) -> str:
        return f"{encode(_changed(material.header, header))}.{encode(_changed(material.claims, claims))}"

    return start


def _next_letter(letter: str) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[(alphabet.index(letter) + 1) % 64]


def _hmac(key: bytes, text: str) -> str:
    return encode(hmac.digest(key, text.encode(), "sha256"))


def _hash(text: str) -> str:
    return encode(hashlib.sha256(text.encode()).digest())


def _other_algorithms() -> Iterator[Forgery]:
    for alg, digest in (("HS384", "sha384"), ("HS512", "sha512"), ("HS1", "sha1")):
        yield Forgery(
            f"{alg} with the right key",
            lambda m, alg=alg, digest=digest: add_signature(_start_with(alg=alg)(m), m.key, digest),
        )
        yield Forgery(f"HS256 signed by {digest}", lambda m, digest=digest: add_signature(m.start, m.key, digest))
        yield Forgery(f"{alg} signed as HS256", lambda m, alg=alg: m.with_header(alg=alg))
    for alg in ("hs256", "Hs256", "HS256 ", "HS256\x00", "SHA256", "HMAC", "dir", "A128GCM", ["HS256"], {"a": "HS256"}):
        yield Forgery(f"alg {json.dumps(alg)}, right key", lambda m, alg=alg: m.with_header(alg=alg))
    for alg in ("RS256", "ES256", "PS256", "EdDSA", "ES256K"):
        yield Forgery(f"{alg}, signed with the secret", lambda m, alg=alg: m.with_header(alg=alg))
        yield Forgery(f"{alg}, genuine signature", lambda m, alg=alg: f"{_start_with(alg=alg)(m)}.{m.signature}")
    yield Forgery("RS256 with a key of one's own", lambda m: _rs256(_start_with(alg="RS256")(m)))
    yield Forgery("ES256 with a key of one's own", lambda m: _es256(_start_with(alg="ES256")(m)))
    yield Forgery("HS256 with a public key for the secret", lambda m: m.with_secret(_PUBLIC_KEY))
    yield Forgery("RS256 said, HS256 done with a public key", lambda m: m.with_secret(_PUBLIC_KEY, alg="RS256"))


_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_EC_KEY = ec.generate_private_key(ec.SECP256R1())
_PUBLIC_KEY = _RSA_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def _rs256(start: str) -> str:
    return f"{start}.{encode(_RSA_KEY.sign(start.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _es256(start: str) -> str:
    return f"{start}.{encode(_EC_KEY.sign(start.encode(), ec.ECDSA(hashes.SHA256())))}"


def _other_keys() -> Iterator[Forgery]:
    for name, secret in (
        ("another environment's secret", b"x" * 64),
        ("an empty secret", b""),
        ("a secret of NUL", b"\x00" * 32),
        ("the secret 'secret'", b"secret"),
        ("the issuer for the secret", b"aarokya"),
    ):
        yield Forgery(name, lambda m, secret=secret: m.with_secret(secret))
        yield Forgery(f"{name}, under no kid", lambda m, secret=secret: m.with_secret(secret, kid=MISSING))
    yield Forgery("the kid for the secret", lambda m: m.with_secret(m.header["kid"].encode()))
    yield Forgery("the secret, decoded", lambda m: m.with_secret(base64.urlsafe_b64decode(m.key + b"==")))
    yield Forgery("the secret and a line feed", lambda m: m.with_secret(m.key + b"\n"))
    yield Forgery("the secret but its last letter", lambda m: m.with_secret(m.key[:-1]))
    yield Forgery("a retired key under its own kid", lambda m: m.with_secret(b"r" * 64, kid="local-0"))
    for number in range(2):
        yield Forgery(
            f"known secret {number} for the secret",
            lambda m, number=number: m.with_secret((*m.known_secrets, "a", "b")[number].encode()),
        )
    for kid in (
        *("../../../../dev/null", "/dev/null", "file:///dev/null", "..\\..\\nul", "%2e%2e%2fdev%2fnull", "local-1\x00"),
        *(
            "' OR '1'='1",
            "x' UNION SELECT 'AAAA",
            "1; DROP TABLE users",
            "$(id)",
            "| id",
            "{{7*7}}",
            "${jndi:ldap://x}",
        ),
        *("unknown", "", " ", "LOCAL-1", " local-1", "local-1 ", "local-1,local-1", "*", "é", "x" * 2000),
        *(0, 1, -1, 1.5, True, None, [], ["local-1"], {"local-1": 1}),
    ):
        spelled = json.dumps(kid)[:30]
        yield Forgery(f"kid {spelled}, right key", lambda m, kid=kid: m.with_header(kid=kid))
        yield Forgery(f"kid {spelled}, empty key", lambda m, kid=kid: m.with_secret(b"", kid=kid))
    yield Forgery("no kid, right key", lambda m: m.with_header(kid=MISSING))


def _headers() -> Iterator[Forgery]:
    jwk = {"kty": "oct", "k": encode(b"x" * 32)}
    for name, value in (
        ("jku", "http://127.0.0.1:1/keys.json"),
        ("x5u", "http://127.0.0.1:1/key.pem"),
        ("jwk", jwk),
        ("x5c", ["MIIB"]),
        ("x5t", "abc"),
        ("crit", ["exp"]),
        ("crit", []),
        ("crit", ["b64"]),
        ("b64", False),
        ("b64", True),
        ("zip", "DEF"),
        ("cty", "JWT"),
        ("enc", "A128GCM"),
        ("iss", "aarokya"),
        ("p2c", 2**31),
        ("", ""),
    ):
        spelled = f"{name} {json.dumps(value)[:20]}"
        yield Forgery(f"header {spelled}, right key", lambda m, name=name, value=value: m.with_header(**{name: value}))
        yield Forgery(
            f"header {spelled}, its own key",
            lambda m, name=name, value=value: m.with_secret(b"x" * 32, **{name: value}),
        )
    for typ in ("jwt", "Jwt", "JWT ", "at+jwt", "application/jwt", "JWE", "JOSE", "", None, 1, ["JWT"], MISSING):
        spelled = "missing" if typ is MISSING else json.dumps(typ)
        yield Forgery(f"typ {spelled}", lambda m, typ=typ: m.with_header(typ=typ))
    for name, raw in (
        ("empty", b""),
        ("an empty object", b"{}"),
        ("a list", b'["HS256"]'),
        ("a text", b'"HS256"'),
        ("null", b"null"),
        ("cut", b'{"alg":"HS256"'),
        ("not UTF-8", b'{"alg":"HS256","kid":"\xff","typ":"JWT"}'),
        ("UTF-16", '{"alg":"HS256"}'.encode("utf-16")),
        ("deep", b"[" * 3000),
    ):
        yield Forgery(f"header {name}", lambda m, raw=raw: sign(m.claims, raw, m.key))
    yield Forgery("header with alg twice", lambda m: sign(m.claims, _twice(m.header, "alg", "none"), m.key))
    yield Forgery("header with kid twice", lambda m: sign(m.claims, _twice(m.header, "kid", "unknown"), m.key))
    yield Forgery("header behind a byte order mark", lambda m: sign(m.claims, b"\xef\xbb\xbf" + _json(m.header), m.key))
    yield Forgery("header and more", lambda m: sign(m.claims, _json(m.header) + b"{}", m.key))


def _json(part: Mapping[str, Any]) -> bytes:
    return json.dumps(part).encode()


def _twice(part: Mapping[str, Any], name: str, first: Any) -> bytes:
    """Write an object that says one thing first and the genuine one later."""
    return b"{" + f"{json.dumps(name)}: {json.dumps(first)}, ".encode() + _json(part)[1:]


def _claims() -> Iterator[Forgery]:
    for claim in (*TEXTS, *TIMES):
        yield Forgery(f"no {claim}", lambda m, claim=claim: m.with_claims(**{claim: MISSING}))
        for value in (None, True, [], {}, 1.5, *((0,) if claim in TEXTS else ("", "2000000000"))):
            yield Forgery(
                f"{claim} {json.dumps(value)}", lambda m, claim=claim, value=value: m.with_claims(**{claim: value})
            )
        yield Forgery(f"{claim} in a list", lambda m, claim=claim: m.with_claims(**{claim: [m.claims[claim]]}))
        yield Forgery(
            f"{claim} in capitals",
            lambda m, claim=claim: m.with_claims(**{claim: MISSING, claim.upper(): m.claims[claim]}),
        )
    for claim in ("iss", "aud"):
        for value in ("", "other", "aarokya ", "AAROKYA", "aarokya.example", "https://aarokya", "aarok", "*"):
            yield Forgery(f"{claim} {value!r}", lambda m, claim=claim, value=value: m.with_claims(**{claim: value}))
    yield Forgery("aud of many", lambda m: m.with_claims(aud=["other", m.claims["aud"]]))
    for name, spell in (
        ("no id", lambda own: "unknown"),
        ("empty", lambda own: ""),
        ("without hyphens", lambda own: own.replace("-", "")),
        ("in braces", lambda own: f"{{{own}}}"),
        ("a URN", lambda own: f"urn:uuid:{own}"),
        ("with a space", lambda own: f"{own} "),
        ("with a NUL", lambda own: f"{own}\x00"),
        ("with SQL", lambda own: f"{own}' OR '1'='1"),
        ("with odd digits", lambda own: f"{own[:-1]}٣"),
    ):
        for claim in ("sub", "platform_id"):
            yield Forgery(
                f"{claim} {name}", lambda m, claim=claim, spell=spell: m.with_claims(**{claim: spell(m.claims[claim])})
            )
    for name, claims_from in (
        ("sub of nobody", lambda m: {"sub": str(uuid4())}),
        ("sub of the highest id", lambda m: {"sub": "ffffffff-ffff-ffff-ffff-ffffffffffff"}),
        ("sub of another platform's user", lambda m: {"sub": m.other_user_id}),
        ("sub of the platform", lambda m: {"sub": m.claims["platform_id"]}),
        ("platform_id of nobody", lambda m: {"platform_id": str(uuid4())}),
        ("platform_id of another", lambda m: {"platform_id": m.other_platform_id}),
        ("platform_id of the user", lambda m: {"platform_id": m.claims["sub"]}),
    ):
        yield Forgery(name, lambda m, of=claims_from: m.with_claims(**of(m)), looks_genuine=True)
    for jti in (
        *("", "x", ".", ".x", "-1.x", "+0.x", "0x0.x", " 0.x", "٠.x", "0,x", "1e0.x"),
        *("0" * 19 + ".x", "9" * 5000 + ".x"),
    ):
        yield Forgery(f"jti {jti[:30]!r}", lambda m, jti=jti: m.with_claims(jti=jti))
    yield Forgery(
        "jti of a time before or to come",
        lambda m: m.with_claims(jti=f"7{m.claims['jti']}"),
        EXPIRED,
        looks_genuine=True,
    )


def _times() -> Iterator[Forgery]:
    def at(**offsets: float) -> Callable[[Material], str]:
        return lambda m: m.with_claims(**{claim: int(time.time() + offset) for claim, offset in offsets.items()})

    yield Forgery("exp a second ago", at(iat=-60, exp=-1), EXPIRED)
    yield Forgery("exp now", at(iat=-60, exp=0), EXPIRED)
    yield Forgery("exp a year ago", at(iat=-31_540_000, exp=-31_536_000), EXPIRED)
    yield Forgery("exp a second ago after a year", at(iat=-31_536_000, exp=-1), EXPIRED)
    yield Forgery("exp at the beginning of time", lambda m: m.with_claims(exp=0), EXPIRED)
    yield Forgery("exp before the beginning of time", lambda m: m.with_claims(exp=-1), EXPIRED)
    yield Forgery("exp very long ago", lambda m: m.with_claims(exp=-(10**300)), EXPIRED)
    yield Forgery("exp before iat", lambda m: m.with_claims(exp=m.claims["iat"] - 1), EXPIRED)
    yield Forgery("iat in a minute", at(iat=60, exp=3600))
    yield Forgery("iat in milliseconds", lambda m: m.with_claims(iat=m.claims["iat"] * 1000))
    yield Forgery(
        "iat and exp in milliseconds", lambda m: m.with_claims(iat=m.claims["iat"] * 1000, exp=m.claims["exp"] * 1000)
    )
    yield Forgery("iat in a minute, exp past", at(iat=60, exp=-1))
    yield Forgery("iat at the beginning of time", lambda m: m.with_claims(iat=0))
    yield Forgery("iat before the beginning of time", lambda m: m.with_claims(iat=-1))
    yield Forgery("exp in a year", at(iat=0, exp=31_536_000))
    yield Forgery("exp in milliseconds", lambda m: m.with_claims(exp=m.claims["exp"] * 1000))
    for number in (2**31 - 1, 2**63, 2**64, 10**18, 10**300):
        yield Forgery(f"exp {number:.0e}", lambda m, number=number: m.with_claims(exp=number))
    for literal in (
        "1e999",
        "-1e999",
        "1e10",
        "2000000000.0",
        "NaN",
        "Infinity",
        "-Infinity",
        "0x77359400",
        "9" * 5000,
    ):
        yield Forgery(f"exp {literal[:20]}", lambda m, literal=literal: m.with_literal("exp", literal))
        yield Forgery(f"iat {literal[:20]}", lambda m, literal=literal: m.with_literal("iat", literal))
    yield Forgery("exp as text", lambda m: m.with_claims(exp=str(m.claims["exp"])))
    yield Forgery("exp as a date", lambda m: m.with_claims(exp="2999-01-01T00:00:00Z"))
    yield Forgery("exp as a fraction", lambda m: m.with_claims(exp=m.claims["exp"] + 0.5))
    yield Forgery("nbf in a minute", at(nbf=60))
    for nbf in ("0", None, 1.5, True, [], 10**300):
        yield Forgery(f"nbf {json.dumps(nbf)[:20]}", lambda m, nbf=nbf: m.with_claims(nbf=nbf))


def _payloads() -> Iterator[Forgery]:
    for name, first in (
        ("sub", "00000000-0000-7000-8000-000000000000"),
        ("exp", 1),
        ("exp", 2**31),
        ("status", "active"),
        ("status", "deactivated"),
        ("platform_id", "00000000-0000-7000-8000-000000000000"),
        ("aud", "other"),
        ("jti", "9.x"),
    ):
        yield Forgery(
            f"{name} twice, first {first}",
            lambda m, name=name, first=first: m.with_payload(_twice(m.claims, name, first)),
        )
    yield Forgery("sub twice, once escaped", lambda m: m.with_payload(_and(m.claims, b'"s\\u0075b": "x"')))
    for name, payload in (
        ("empty", b""),
        ("an empty object", b"{}"),
        ("a list", b"[]"),
        ("a text", b'"sub"'),
        ("a number", b"1"),
        ("null", b"null"),
        ("true", b"true"),
        ("cut", b'{"sub":'),
        ("no JSON", b"sub=1"),
        ("NULs", b"\x00" * 20),
        ("deep", b"[" * 3000),
        ("deep objects", b'{"a":' * 1000),
    ):
        yield Forgery(f"payload {name}", lambda m, payload=payload: m.with_payload(payload))
    yield Forgery("payload in a list", lambda m: m.with_payload(b"[" + _json(m.claims) + b"]"))
    yield Forgery("payload behind a byte order mark", lambda m: m.with_payload(b"\xef\xbb\xbf" + _json(m.claims)))
    yield Forgery("payload in UTF-16", lambda m: m.with_payload(json.dumps(m.claims).encode("utf-16")))
    yield Forgery("payload in UTF-32", lambda m: m.with_payload(json.dumps(m.claims).encode("utf-32-le")))
    yield Forgery("payload with a byte that is no UTF-8", lambda m: m.with_payload(_and(m.claims, b'"a": "\xff"')))
    yield Forgery("payload with a lone surrogate", lambda m: m.with_payload(_and(m.claims, b'"a": "\\ud800"')))
    yield Forgery("payload and more", lambda m: m.with_payload(_json(m.claims) + b"{}"))
    yield Forgery("payload with a comma too many", lambda m: m.with_payload(_json(m.claims)[:-1] + b",}"))
    yield Forgery("payload in single quotes", lambda m: m.with_payload(_json(m.claims).replace(b'"', b"'")))
    yield Forgery("payload padded", lambda m: add_signature(f"{encode(m.header)}.{_padded(m.claims)}", m.key))


def _and(claims: Json, member: bytes) -> bytes:
    """Write claims with one more."""
    return _json(claims)[:-1] + b", " + member + b"}"


def _padded(claims: Json) -> str:
    """Write claims as base64 with the padding that tokens leave out."""
    raw = _json(claims)
    raw += b" " * (1 if len(raw) % 3 == 0 else 0)
    return base64.urlsafe_b64encode(raw).decode()


def _shapes() -> Iterator[Forgery]:
    for name, shape in (
        ("no dots", lambda t: t.replace(".", "")),
        ("one dot", lambda t: "."),
        ("two dots", lambda t: ".."),
        ("three dots", lambda t: "..."),
        ("a dot in front", lambda t: f".{t}"),
        ("a dot at the end", lambda t: f"{t}."),
        ("a fourth part", lambda t: f"{t}.{t.split('.')[2]}"),
        ("an empty fourth part in the middle", lambda t: t.replace(".", "..", 1)),
        ("five parts, as if encrypted", lambda t: f"{t}.AAAA.AAAA"),
        ("parts in another order", lambda t: ".".join(reversed(t.split(".")))),
        ("twice", lambda t: f"{t}.{t}"),
        ("two in a list", lambda t: f"{t}, {t}"),
        ("in quotes", lambda t: f'"{t}"'),
        ("in brackets", lambda t: f"<{t}>"),
        ("after another scheme", lambda t: f"Bearer {t}"),
        ("as a parameter", lambda t: f"token={t}"),
        ("with a space in it", lambda t: t.replace(".", ". ", 1)),
        ("with a tab in it", lambda t: t.replace(".", "\t.", 1)),
        ("with a space in the signature", lambda t: f"{t[:-5]} {t[-5:]}"),
        ("with a comment", lambda t: f"{t}#"),
        ("in percent signs", lambda t: t.replace(".", "%2E")),
        ("with letters beyond ASCII", lambda t: f"{t}é"),
        ("with a wide dot", lambda t: t.replace(".", "\xb7")),
        ("as base64", lambda t: base64.b64encode(t.encode()).decode()),
        ("as JSON", lambda t: json.dumps(dict(zip(("protected", "payload", "signature"), t.split("."), strict=True)))),
        ("in small letters", lambda t: t.lower()),
        ("with the other base64 alphabet", lambda t: f"{t}+/"),
        ("null", lambda t: "null"),
        ("undefined", lambda t: "undefined"),
        ("an object", lambda t: "[object Object]"),
        ("zero", lambda t: "0"),
        ("long", lambda t: "A" * 12_000),
        ("long and of dots", lambda t: "." * 12_000),
        ("long in its header", lambda t: f"{'A' * 12_000}.{t.partition('.')[2]}"),
        ("long in its signature", lambda t: f"{t}{'A' * 12_000}"),
    ):
        yield Forgery(f"token {name}", lambda m, shape=shape: shape(m.token))
    yield Forgery(
        "an encrypted token",
        lambda m: f"{encode({'alg': 'dir', 'enc': 'A128GCM'})}..{encode(b'x' * 12)}.AAAA.{encode(b'x' * 16)}",
    )
    yield Forgery("a token in a token", lambda m: sign(m.token.encode(), {**m.header, "cty": "JWT"}, m.key))


FORGERIES = (
    *_unsigned(),
    *_other_algorithms(),
    *_other_keys(),
    *_headers(),
    *_claims(),
    *_times(),
    *_payloads(),
    *_shapes(),
)
