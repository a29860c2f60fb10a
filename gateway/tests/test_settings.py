"""What the gateway refuses to start with, and that it never repeats a secret when it says so."""

import base64
import hmac
import os
from pathlib import Path
from unittest.mock import patch

import pytest
from pydantic import ValidationError

from gateway.credentials import find_operator
from gateway.settings import GatewaySettings
from servicekit.settings import complaints

OPERATORS_KEY = "Kx7-an-operators-key-of-32-bytes-or-more"
TOKEN_KEY = "Qp2-a-key-for-tokens-of-32-bytes-or-more"
GOOD = {
    "AAROKYA_TLS_CA": "/ca.pem",
    "AAROKYA_TLS_CERTIFICATE": "/certificate.pem",
    "AAROKYA_TLS_KEY": "/key.pem",
    "AAROKYA_PAGE_TOKEN_KEY": base64.b64encode(bytes(range(32))).decode(),
    "AAROKYA_IDENTITY_ADDRESS": "identity:5000",
    "AAROKYA_CATALOGUE_ADDRESS": "catalogue:5000",
    "AAROKYA_RECORDS_ADDRESS": "records:5000",
    "AAROKYA_JWT_KEYS": f"2026-11:{TOKEN_KEY}",
    "AAROKYA_ADMIN_API_KEY": OPERATORS_KEY,
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with what the gateway needs in production, and nothing else of ours."""
    for variable in os.environ:
        if variable.startswith("AAROKYA_"):
            monkeypatch.delenv(variable)
    for variable, value in GOOD.items():
        monkeypatch.setenv(variable, value)


def refusal() -> str:
    """Return what is said of settings that are refused."""
    with pytest.raises(ValidationError) as refused:
        GatewaySettings()
    for variable, value in os.environ.items():
        if variable.startswith("AAROKYA_") and len(value) > 8:
            assert value not in str(refused.value)
            assert value not in complaints(refused.value)
    return complaints(refused.value)


class TestOperatorsKeys:
    @pytest.mark.parametrize("variable", ["AAROKYA_ADMIN_API_KEY", "AAROKYA_ADMIN_API_KEYS"])
    def test_are_32_bytes_in_production(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        short = OPERATORS_KEY[:31]
        monkeypatch.setenv(variable, short if variable.endswith("KEY") else f"asha:{short}")
        assert f"{variable} must" in refusal()
        monkeypatch.setenv("AAROKYA_ENVIRONMENT", "development")
        assert GatewaySettings().operators

    def test_have_no_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AAROKYA_ADMIN_API_KEY")
        assert "AAROKYA_ADMIN_API_KEY or AAROKYA_ADMIN_API_KEYS must be set" in refusal()
        monkeypatch.setenv("AAROKYA_ENVIRONMENT", "development")
        assert "must be set" in refusal()

    def test_are_not_easy_to_guess_in_production(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AAROKYA_ADMIN_API_KEY", "admin" * 8)
        assert "AAROKYA_ADMIN_API_KEY holds a secret that is too easy to guess" in refusal()

    @pytest.mark.parametrize("more", ["", f"asha:{TOKEN_KEY},", f" asha:{TOKEN_KEY} , "])
    def test_may_be_one_alone(self, monkeypatch: pytest.MonkeyPatch, more: str) -> None:
        """An empty list, as compose's file of it begins, is none."""
        monkeypatch.setenv("AAROKYA_ADMIN_API_KEYS", more)
        assert "admin" in dict(GatewaySettings().operators)

    def test_may_be_several_for_rotation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AAROKYA_ADMIN_API_KEYS", f"asha:{OPERATORS_KEY[::-1]},ravi:{TOKEN_KEY}")
        operators = GatewaySettings().operators
        assert [name for name, _ in operators] == ["asha", "ravi", "admin"]
        assert [find_operator(operators, secret) for _, secret in operators] == ["asha", "ravi", "admin"]

    def test_may_be_two_of_one_name_while_one_replaces_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AAROKYA_ADMIN_API_KEYS", f"admin:{TOKEN_KEY}")
        operators = GatewaySettings().operators
        assert [find_operator(operators, secret) for secret in (TOKEN_KEY, OPERATORS_KEY)] == ["admin", "admin"]

    def test_are_compared_in_constant_time_with_every_one_of_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whether the first or none is the right one, every key is compared whole."""
        monkeypatch.setenv("AAROKYA_ADMIN_API_KEYS", f"asha:{OPERATORS_KEY[::-1]},ravi:{TOKEN_KEY}")
        operators = GatewaySettings().operators
        for shown in (OPERATORS_KEY[::-1], OPERATORS_KEY[:-1], "", "x" * 5000):
            with patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compared:
                find_operator(operators, shown)
            assert [len(part) for call in compared.call_args_list for part in call.args] == [32] * 6


class TestTokenKeys:
    @pytest.mark.parametrize("wrong", ["", "one:short", TOKEN_KEY, f"one:{TOKEN_KEY},one:{TOKEN_KEY[::-1]}"])
    def test_are_named_and_32_bytes(self, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
        monkeypatch.setenv("AAROKYA_JWT_KEYS", wrong)
        assert refusal().startswith("AAROKYA_JWT_KEYS: Value error")

    def test_of_make_run_are_refused_in_production(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AAROKYA_JWT_KEYS", f"local-1:{TOKEN_KEY}")
        assert "AAROKYA_JWT_KEYS holds a key made for development" in refusal()


class TestRedisUrl:
    @pytest.mark.parametrize("wrong", ["http://:pa55word@redis", "redis://:pa55word@redis:port", "redis:pa55word"])
    def test_is_not_repeated_when_it_is_wrong(self, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
        monkeypatch.setenv("AAROKYA_REDIS_URL", wrong)
        assert refusal() == "AAROKYA_REDIS_URL: Value error, must be a URL such as redis://host:6379/0"


class TestFiles:
    @pytest.mark.parametrize(
        "name",
        ["AAROKYA_JWT_KEYS", "AAROKYA_PAGE_TOKEN_KEY", "AAROKYA_ADMIN_API_KEY"],
    )
    def test_hold_secrets(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
        file = tmp_path / "secret"
        file.write_text(f"{GOOD[name]}\n")
        monkeypatch.delenv(name)
        monkeypatch.setenv(f"{name}_FILE", str(file))
        read = getattr(GatewaySettings(), name.removeprefix("AAROKYA_").lower())
        assert read.get_secret_value() == GOOD[name]

    @pytest.mark.parametrize(("name", "value"), [("ADMIN_API_KEYS", f"asha:{TOKEN_KEY}"), ("REDIS_URL", "redis://r")])
    def test_hold_what_need_not_be_set(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
    ) -> None:
        file = tmp_path / "secret"
        file.write_text(value)
        monkeypatch.setenv(f"AAROKYA_{name}_FILE", str(file))
        assert getattr(GatewaySettings(), name.lower()).get_secret_value() == value


class TestShowing:
    def test_shows_no_secret(self) -> None:
        shown = repr(GatewaySettings()) + str(GatewaySettings().model_dump())
        for secret in (OPERATORS_KEY, TOKEN_KEY, GOOD["AAROKYA_PAGE_TOKEN_KEY"]):
            assert secret not in shown
