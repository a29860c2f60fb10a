"""What a process refuses to start with, and that it never repeats a secret when it says so."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from identity.settings import IdentitySettings
from servicekit.settings import (
    NamedSecrets,
    OwnerSettings,
    ProvisioningSettings,
    RotationSettings,
    ServiceSettings,
    SettingUnreadable,
    complaints,
)

SHORT_KEY = base64.b64encode(bytes(range(31))).decode()
SECRET = "Kx7-quite-a-secret-of-32-bytes-or-more"


def key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


GOOD: dict[str, Callable[[], str]] = {
    "listen": lambda: "127.0.0.1:5000",
    "database_runtime_dsn": lambda: "postgresql://identity_runtime:pass@db:5432/identity",
    "master_keys": lambda: f"2026-11:{key()}",
    "lookup_key": key,
    "audit_key": key,
    "audit_head_file": lambda: "/var/lib/aarokya/heads",
    "page_token_key": key,
    "tls_ca": lambda: "/ca.pem",
    "tls_certificate": lambda: "/certificate.pem",
    "tls_key": lambda: "/key.pem",
    "jwt_keys": lambda: f"2026-11:{SECRET}",
    "records_address": lambda: "records:5000",
}
WITHOUT_DEFAULT = sorted(GOOD)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with what identity needs in production, and nothing else of ours."""
    for variable in os.environ:
        if variable.startswith("AAROKYA_"):
            monkeypatch.delenv(variable)
    for name, make in GOOD.items():
        monkeypatch.setenv(f"AAROKYA_{name.upper()}", make())


def refusal(settings: type[Any] = IdentitySettings) -> str:
    """Return what is said of settings that are refused."""
    with pytest.raises(ValidationError) as refused:
        settings()
    # Neither the line that is printed nor the exception itself, should it ever reach a log, may tell a value.
    for variable, value in os.environ.items():
        if variable.startswith("AAROKYA_") and len(value) > 8:
            assert value not in str(refused.value)
            assert value not in complaints(refused.value)
    return complaints(refused.value)


class TestProduction:
    def test_is_the_default(self) -> None:
        assert not IdentitySettings().is_development

    @pytest.mark.parametrize("name", WITHOUT_DEFAULT)
    def test_has_no_default_for_what_matters(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.delenv(f"AAROKYA_{name.upper()}")
        assert refusal() == f"AAROKYA_{name.upper()}: Field required"

    @pytest.mark.parametrize("environment", ["production", "development"])
    def test_has_no_default_secret_in_either_environment(
        self, monkeypatch: pytest.MonkeyPatch, environment: str
    ) -> None:
        monkeypatch.setenv("AAROKYA_ENVIRONMENT", environment)
        fields = [field for model in (IdentitySettings, ProvisioningSettings, RotationSettings)
                  for field in model.model_fields.items()]  # fmt: skip
        with_default = {name for name, field in fields if "Secret" in str(field.annotation) and not field.is_required()}
        assert with_default == set()

    @pytest.mark.parametrize("level", ["DEBUG", "debug"])
    def test_refuses_debug_logs(self, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
        monkeypatch.setenv("AAROKYA_LOG_LEVEL", level)
        assert "AAROKYA_LOG_LEVEL" in refusal()
        monkeypatch.setenv("AAROKYA_ENVIRONMENT", "development")
        assert IdentitySettings().log_level == "DEBUG"

    @pytest.mark.parametrize("name", ["master_keys", "jwt_keys"])
    @pytest.mark.parametrize("made_for", ["local-1", "dev-key"])
    def test_refuses_keys_of_make_run(self, monkeypatch: pytest.MonkeyPatch, name: str, made_for: str) -> None:
        good = os.environ[f"AAROKYA_{name.upper()}"]
        of_development = f"{made_for}:{key() if name == 'master_keys' else SECRET[::-1]}"
        monkeypatch.setenv(f"AAROKYA_{name.upper()}", f"{good},{of_development}")
        assert f"AAROKYA_{name.upper()} holds a key made for development" in refusal()
        monkeypatch.setenv("AAROKYA_ENVIRONMENT", "development")
        IdentitySettings()

    @pytest.mark.parametrize("name", ["master_keys", "lookup_key", "audit_key", "page_token_key", "jwt_keys"])
    def test_refuses_secrets_that_were_not_drawn(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        weak = "0" * 40 if name == "jwt_keys" else base64.b64encode(bytes(32)).decode()
        monkeypatch.setenv(f"AAROKYA_{name.upper()}", f"one:{weak}" if name.endswith("keys") else weak)
        assert f"AAROKYA_{name.upper()} holds a secret that is too easy to guess" in refusal()

    def test_has_reflection_only_in_development(self) -> None:
        """`Foundation` offers reflection where `is_development` says so, and nothing else switches it on."""
        assert [name for name in IdentitySettings.model_fields if "reflect" in name or "debug" in name] == []


class TestKeys:
    @pytest.mark.parametrize("name", ["lookup_key", "audit_key", "page_token_key"])
    @pytest.mark.parametrize("wrong", ["", "short", "x" * 44, SHORT_KEY])
    def test_are_32_bytes(self, monkeypatch: pytest.MonkeyPatch, name: str, wrong: str) -> None:
        monkeypatch.setenv(f"AAROKYA_{name.upper()}", wrong)
        assert refusal() == f"AAROKYA_{name.upper()}: Value error, must be the base64 text of 32 bytes"

    @pytest.mark.parametrize("settings", [IdentitySettings, RotationSettings])
    @pytest.mark.parametrize("wrong", ["", "no-colon-in-this-one", "one:no base64", f"one:{SHORT_KEY}"])
    def test_of_the_master_ring_are_32_bytes(
        self, monkeypatch: pytest.MonkeyPatch, settings: type[Any], wrong: str
    ) -> None:
        monkeypatch.setenv("AAROKYA_DATABASE_OWNER_DSN", "dbname=identity")
        monkeypatch.setenv("AAROKYA_MASTER_KEYS", wrong)
        assert refusal(settings).startswith("AAROKYA_MASTER_KEYS: Value error, master key 1")

    @pytest.mark.parametrize("wrong", ["", "one:short", "no-colon-but-certainly-long-enough-to-be-a-secret"])
    def test_that_sign_are_32_bytes(self, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
        monkeypatch.setenv("AAROKYA_JWT_KEYS", wrong)
        assert refusal().startswith("AAROKYA_JWT_KEYS: Value error")


class TestDsn:
    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            (ServiceSettings, "database_runtime_dsn"),
            (OwnerSettings, "database_owner_dsn"),
            (ProvisioningSettings, "database_superuser_dsn"),
        ],
    )
    @pytest.mark.parametrize(
        "wrong", ["postgresql//owner:pa55word@db/identity", "pa55word with blanks", "postgresql://a:b@db/x?pa55word=1"]
    )
    def test_is_not_repeated_when_it_is_wrong(
        self, monkeypatch: pytest.MonkeyPatch, settings: type[Any], name: str, wrong: str
    ) -> None:
        """psycopg's own message quotes the text with its password."""
        for other in ("owner", "superuser"):
            monkeypatch.setenv(f"AAROKYA_DATABASE_{other.upper()}_DSN", "dbname=identity")
        monkeypatch.setenv(f"AAROKYA_{name.upper()}", wrong)
        said = refusal(settings)
        assert said == f"AAROKYA_{name.upper()}: Value error, must be a URL or DSN of PostgreSQL"

    def test_may_name_several_hosts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        dsn = "host=a,b port=5432 dbname=identity user=identity_runtime password=x target_session_attrs=read-write"
        monkeypatch.setenv("AAROKYA_DATABASE_RUNTIME_DSN", dsn)
        assert IdentitySettings().database_runtime_dsn.get_secret_value() == dsn


class TestFiles:
    @pytest.mark.parametrize("name", WITHOUT_DEFAULT)
    def test_hold_any_setting(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
        value = GOOD[name]()
        file = tmp_path / name
        file.write_text(f"{value}\n")
        monkeypatch.delenv(f"AAROKYA_{name.upper()}")
        monkeypatch.setenv(f"AAROKYA_{name.upper()}_FILE", str(file))
        read = getattr(IdentitySettings(), name)
        assert (read.get_secret_value() if hasattr(read, "get_secret_value") else str(read)) == value

    def test_are_named_when_they_cannot_be_read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("AAROKYA_LOOKUP_KEY_FILE", str(tmp_path / "nowhere"))
        with pytest.raises(SettingUnreadable, match=r"AAROKYA_LOOKUP_KEY_FILE: .*nowhere can't be read"):
            IdentitySettings()


class TestMetricsListen:
    @pytest.mark.parametrize("wrong", [":9100", "9100", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "0.0.0.0:x"])
    def test_says_host_and_port(self, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
        """A host left out would be every address of the machine."""
        monkeypatch.setenv("AAROKYA_METRICS_LISTEN", wrong)
        assert refusal() == "AAROKYA_METRICS_LISTEN: Value error, must be host:port"

    def test_is_nowhere_by_default(self) -> None:
        assert IdentitySettings().metrics_listen == ""


class TestNamedSecrets:
    @pytest.mark.parametrize("text", ["Kx7:too-short", f"Kx7:{SECRET},Kx7:{SECRET}", f":{SECRET}", SECRET])
    def test_repeats_nothing(self, text: str) -> None:
        with pytest.raises(ValueError) as refused:
            NamedSecrets(text, shortest=32, setting="AAROKYA_JWT_KEYS")
        assert "Kx7" not in str(refused.value)
        assert "short" not in str(refused.value)

    def test_is_not_shown_by_settings(self) -> None:
        assert SECRET not in repr(IdentitySettings())
        assert SECRET not in str(IdentitySettings().model_dump())


class TestCommandLine:
    """What a process says as it is started, in whatever way it is set wrongly."""

    @pytest.mark.parametrize("module", ["identity", "catalogue", "records", "gateway"])
    def test_says_in_lines_what_is_missing(self, module: str) -> None:
        done = _start(module, {"AAROKYA_PAGE_TOKEN_KEY": SECRET})
        assert done.returncode == 1
        assert "AAROKYA_TLS_KEY: Field required" in done.stderr
        assert "AAROKYA_PAGE_TOKEN_KEY: Value error" in done.stderr
        assert "Traceback" not in done.stderr
        assert SECRET not in done.stdout + done.stderr

    @pytest.mark.parametrize("command", ["provision", "migrate", "rotate-master-key"])
    def test_says_nothing_of_a_dsn_that_is_wrong(self, command: str) -> None:
        wrong = {f"AAROKYA_DATABASE_{name}_DSN": f"postgresql//x:{SECRET}@db" for name in ("OWNER", "SUPERUSER")}
        done = _start("records", {**wrong, "AAROKYA_MASTER_KEYS": SECRET}, command)
        assert done.returncode == 1
        assert "AAROKYA_DATABASE_OWNER_DSN: Value error" in done.stderr
        assert "Traceback" not in done.stderr
        assert SECRET not in done.stdout + done.stderr

    def test_replays_no_list_that_is_not_there(self, tmp_path: Path) -> None:
        done = _start("identity", {}, "replay-erasures", str(tmp_path / "nowhere"))
        assert done.returncode == 2
        assert "there is no file" in done.stderr


def _start(module: str, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
