"""Headers become one credential, and tokens are genuine or not."""

import base64
import json
import time
from typing import ClassVar
from uuid import uuid4

import pytest
from starlette.datastructures import Headers

from gateway import credentials
from gateway.credentials import Claims, Kind, TokenVerifier, find_operator, read_basic, read_credential
from gateway.errors import Refused
from gateway.fields import is_uuid
from servicekit.settings import NamedSecrets
from tests.e2e.forgeries import FORGERIES, Material
from tests.e2e.tokens import sign

NOW = 1_800_000_000
KEY, OLD_KEY = "k" * 48, "o" * 48
HEADER = {"alg": "HS256", "kid": "local-1", "typ": "JWT"}
USER_ID, PLATFORM_ID = str(uuid4()), str(uuid4())


def claims(**changes) -> dict[str, object]:
    return {
        "iss": "aarokya",
        "aud": "aarokya",
        "sub": USER_ID,
        "platform_id": PLATFORM_ID,
        "status": "active",
        "iat": int(time.time()),
        "exp": int(time.time()) + 3600,
        "jti": f"3.{uuid4()}",
        **changes,
    }


def refusal(call, *arguments) -> str:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.code


@pytest.fixture
def verifier() -> TokenVerifier:
    ring = NamedSecrets(f"local-1:{KEY},older:{OLD_KEY}", shortest=32, setting="AAROKYA_JWT_KEYS")
    return TokenVerifier(ring, "aarokya", "aarokya")


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.encode(), value.encode("latin-1")) for name, value in pairs])


class TestReadCredential:
    @pytest.mark.parametrize(
        ("header", "value", "kind", "text"),
        [
            ("admin-api-key", "secret", Kind.ADMIN, "secret"),
            ("api-key", "secret", Kind.PARTNER, "secret"),
            ("api-key", "Bearer x", Kind.PARTNER, "Bearer x"),
            ("authorization", "Bearer a.b.c", Kind.USER, "a.b.c"),
            ("authorization", "bEARER a.b.c", Kind.USER, "a.b.c"),
            ("authorization", "Bearer   a.b.c ", Kind.USER, "a.b.c"),
            ("authorization", "Bearer a b", Kind.USER, "a b"),
            ("authorization", "Basic YTpi", Kind.PARTNER_BASIC, "YTpi"),
            ("authorization", "basic YTpi", Kind.PARTNER_BASIC, "YTpi"),
        ],
    )
    def test_tells_its_kind(self, header, value, kind, text):
        credential = read_credential(headers(("accept", "*/*"), (header, value)))
        assert (credential.kind, credential.text) == (kind, text)

    def test_misses_one(self):
        assert refusal(read_credential, headers(("cookie", "api-key=secret"), ("x-api-key", "secret"))) == "AU-201"

    @pytest.mark.parametrize(
        "names", [["admin-api-key", "api-key"], ["api-key", "authorization"], ["admin-api-key", "authorization"]]
    )
    @pytest.mark.parametrize("value", ["", "Bearer x", "garbage"])
    def test_refuses_two(self, names, value):
        assert refusal(read_credential, headers(*((name, value) for name in names))) == "AU-205"

    @pytest.mark.parametrize("name", ["admin-api-key", "api-key", "authorization"])
    def test_refuses_one_that_is_there_twice(self, name):
        assert refusal(read_credential, headers((name, "Bearer x"), (name, "Bearer x"))) == "AU-205"

    @pytest.mark.parametrize(
        ("header", "value"),
        [
            ("admin-api-key", ""),
            ("api-key", ""),
            *(("authorization", value) for value in ("", "Bearer", "Bearer ", "Basic", "Basic  ", "a.b.c", "Digest a")),
            *(
                ("authorization", value)
                for value in ("Bearer\ta.b.c", "Bearer:a.b.c", " Bearer a", "Token a", "ApiKey a")
            ),
        ],
    )
    def test_refuses_an_empty_one_and_unknown_schemes(self, header, value):
        assert refusal(read_credential, headers((header, value))) == "AU-202"


class TestFindOperator:
    OPERATORS: ClassVar = [("asha", "a" * 32), ("ravi", "r" * 32), ("ravi", "n" * 32)]

    @pytest.mark.parametrize(("name", "secret"), OPERATORS)
    def test_names_whose_secret_it_is(self, name, secret):
        assert find_operator(self.OPERATORS, secret) == name

    @pytest.mark.parametrize("secret", ["", "a", "a" * 31, "a" * 33, "A" * 32, "é" * 32, "\udcff", "asha"])
    def test_knows_nobody_else(self, secret):
        assert find_operator(self.OPERATORS, secret) is None

    def test_compares_with_every_secret_in_constant_time(self, monkeypatch):
        compared = []
        monkeypatch.setattr(
            credentials.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or a == b
        )
        assert find_operator(self.OPERATORS, "a" * 32) == "asha"
        assert compared == [(32, 32)] * 3


class TestReadBasic:
    def encode(self, text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    @pytest.mark.parametrize("secret", ["s", "a:b", ":", " "])
    def test_splits_at_the_first_colon(self, secret):
        assert read_basic(self.encode(f"{PLATFORM_ID}:{secret}")) == (PLATFORM_ID, secret)

    def test_takes_ids_in_capitals(self):
        assert read_basic(self.encode(f"{PLATFORM_ID.upper()}:s")) == (PLATFORM_ID, "s")

    @pytest.mark.parametrize(
        "text", ["", ":", "s", PLATFORM_ID, f"{PLATFORM_ID}:", ":s", "x:s", f"{{{PLATFORM_ID}}}:s", f" {PLATFORM_ID}:s"]
    )
    def test_refuses_what_is_no_id_and_secret(self, text):
        assert refusal(read_basic, self.encode(text)) == "AU-202"

    @pytest.mark.parametrize("text", ["*", "YTpi!", "YTp", "YTpi=", "é", "YT pi", f"{PLATFORM_ID}:s"])
    def test_refuses_what_is_no_base64(self, text):
        assert refusal(read_basic, text) == "AU-202"

    def test_refuses_letters_beyond_ascii(self):
        assert refusal(read_basic, self.encode(f"{PLATFORM_ID}:é")) == "AU-202"


class TestIsUuid:
    @pytest.mark.parametrize("text", [USER_ID, USER_ID.upper(), "0" * 8 + "-0000-0000-0000-" + "0" * 12])
    def test_takes_the_usual_spelling(self, text):
        assert is_uuid(text)

    @pytest.mark.parametrize(
        "text",
        [
            *("", "x", USER_ID[:-1], f"{USER_ID}0", USER_ID.replace("-", ""), f"{{{USER_ID}}}", f"urn:uuid:{USER_ID}"),
            *(f" {USER_ID}", f"{USER_ID}\n", f"{USER_ID[:-1]}٣", f"{USER_ID[:-2]}_1"),
        ],
    )
    def test_takes_no_other(self, text):
        assert not is_uuid(text)


class TestTokenVerifier:
    def test_reads_a_genuine_token(self, verifier):
        content = claims()
        assert verifier.verify(sign(content, HEADER, KEY.encode())) == Claims(USER_ID, PLATFORM_ID, 3, content["exp"])

    def test_takes_every_key_of_the_ring_by_its_name(self, verifier):
        assert verifier.verify(sign(claims(), {**HEADER, "kid": "older"}, OLD_KEY.encode())).user_id == USER_ID
        assert refusal(verifier.verify, sign(claims(), {**HEADER, "kid": "older"}, KEY.encode())) == "AU-202"
        assert refusal(verifier.verify, sign(claims(), HEADER, OLD_KEY.encode())) == "AU-202"

    def test_refuses_a_key_that_left_the_ring(self, verifier):
        token = sign(claims(), {**HEADER, "kid": "older"}, OLD_KEY.encode())
        assert verifier.verify(token).user_id == USER_ID
        rotated = TokenVerifier(NamedSecrets(f"local-1:{KEY}", shortest=32, setting="S"), "aarokya", "aarokya")
        assert refusal(rotated.verify, token) == "AU-202"

    def test_takes_the_header_in_any_order(self, verifier):
        for order in (["typ", "kid", "alg"], ["kid", "alg", "typ"]):
            token = sign(claims(), {name: HEADER[name] for name in order}, KEY.encode())
            assert verifier.verify(token).user_id == USER_ID

    def test_brings_ids_to_small_letters(self, verifier):
        token = sign(claims(sub=USER_ID.upper(), platform_id=PLATFORM_ID.upper()), HEADER, KEY.encode())
        read = verifier.verify(token)
        assert (read.user_id, read.platform_id) == (USER_ID, PLATFORM_ID)

    @pytest.mark.parametrize(
        "forgery", [forgery for forgery in FORGERIES if not forgery.looks_genuine], ids=lambda forgery: forgery.name
    )
    def test_refuses_forgeries(self, verifier, forgery):
        token = sign(claims(), HEADER, KEY.encode())
        material = Material(token, KEY.encode(), str(uuid4()), str(uuid4()))
        assert refusal(verifier.verify, forgery.make(material)) == forgery.code

    def test_refuses_every_change_of_a_letter(self, verifier):
        token = sign(claims(), HEADER, KEY.encode())
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.="
        for position, letter in enumerate(token):
            for other in (alphabet[(alphabet.index(letter) + step) % len(alphabet)] for step in (1, 2, 4, 32)):
                assert refusal(verifier.verify, token[:position] + other + token[position + 1 :]) == "AU-202"

    def test_refuses_every_change_of_a_token_that_it_knows(self, verifier):
        token = sign(claims(), HEADER, KEY.encode())
        verifier.verify(token)
        header, payload, signature = token.split(".")
        swapped = sign(claims(sub=str(uuid4())), HEADER, KEY.encode()).split(".")[1]
        for other in (f"{header}.{swapped}.{signature}", f"{token}A", f"{token}=", f"{header}.{payload}."):
            assert refusal(verifier.verify, other) == "AU-202"

    def test_ends_a_token_that_it_knows(self, verifier, monkeypatch):
        token = sign(claims(), HEADER, KEY.encode())
        verifier.verify(token)
        later = time.time() + 3600
        monkeypatch.setattr(time, "time", lambda: later)
        assert refusal(verifier.verify, token) == "AU-203"

    def test_remembers_a_bounded_number(self, verifier, monkeypatch):
        monkeypatch.setattr(credentials, "MOST_RECENT", 5)
        tokens = [sign(claims(), HEADER, KEY.encode()) for _ in range(30)]
        for token in tokens + tokens:
            assert verifier.verify(token).user_id == USER_ID
        assert len(verifier._recent) <= 10

    def test_refuses_every_cut(self, verifier):
        token = sign(claims(), HEADER, KEY.encode())
        for length in range(len(token)):
            assert refusal(verifier.verify, token[:length]) == "AU-202"

    def test_tells_nothing_of_the_token(self, verifier):
        token = sign(claims(aud="somebody"), HEADER, KEY.encode())
        with pytest.raises(Refused) as caught:
            verifier.verify(token)
        assert (caught.value.message, caught.value.details) == (None, [])


class TestTokenTimes:
    """Against a clock that stands still."""

    @pytest.fixture(autouse=True)
    def _clock(self, monkeypatch):
        monkeypatch.setattr(credentials.time, "time", lambda: NOW + 0.5)

    def verify(self, verifier, **times) -> str:
        token = sign(claims(**{"iat": NOW - 60, "exp": NOW + 60, **times}), HEADER, KEY.encode())
        try:
            return verifier.verify(token).user_id
        except Refused as refused:
            return refused.code

    @pytest.mark.parametrize(
        ("exp", "answer"),
        [(NOW + 60, USER_ID), (NOW + 1, USER_ID), (NOW, "AU-203"), (NOW - 1, "AU-203"), (0, "AU-203")],
    )
    def test_expires_without_leeway(self, verifier, exp, answer):
        assert self.verify(verifier, exp=exp) == answer

    @pytest.mark.parametrize(
        ("iat", "answer"), [(NOW, USER_ID), (NOW + 10, USER_ID), (NOW + 11, "AU-202"), (NOW + 3600, "AU-202")]
    )
    def test_may_begin_ten_seconds_ahead(self, verifier, iat, answer):
        assert self.verify(verifier, iat=iat) == answer

    @pytest.mark.parametrize(("nbf", "answer"), [(NOW, USER_ID), (NOW + 10, USER_ID), (NOW + 11, "AU-202")])
    def test_may_say_when_it_begins(self, verifier, nbf, answer):
        assert self.verify(verifier, nbf=nbf) == answer

    @pytest.mark.parametrize(("lifetime", "answer"), [(86_400, USER_ID), (86_401, "AU-202"), (10**300, "AU-202")])
    def test_lives_no_longer_than_any_platform_allows(self, verifier, lifetime, answer):
        assert self.verify(verifier, iat=NOW, exp=NOW + lifetime) == answer

    @pytest.mark.parametrize(("exp", "answer"), [(NOW + 1, "AU-202"), (NOW, "AU-203"), (NOW - 10**9, "AU-203")])
    def test_is_called_expired_however_long_it_lived(self, verifier, exp, answer):
        assert self.verify(verifier, iat=exp - 86_401, exp=exp) == answer

    def test_lived_too_long_even_when_the_clock_goes_back(self, verifier, monkeypatch):
        token = sign(claims(iat=NOW - 90_000, exp=NOW), HEADER, KEY.encode())
        assert refusal(verifier.verify, token) == "AU-203"
        monkeypatch.setattr(credentials.time, "time", lambda: NOW - 1)
        assert refusal(verifier.verify, token) == "AU-202"

    def test_is_never_called_expired_when_it_is_forged(self, verifier):
        token = sign(claims(iat=NOW - 60, exp=NOW - 1), HEADER, b"x" * 48)
        assert refusal(verifier.verify, token) == "AU-202"
        assert json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["exp"] == NOW - 1
