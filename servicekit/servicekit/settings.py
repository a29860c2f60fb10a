"""Settings from environment variables, or from the files that their ``_FILE`` twins name."""

import base64
import binascii
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from servicekit.crypto import KeyRing

PREFIX = "AAROKYA_"
# What `make run` calls the keys that it makes.
DEVELOPMENT_NAMES = ("local-", "dev-")
# A secret of fewer different characters is not random.
FEWEST_CHARACTERS = 10


class Environment(StrEnum):
    """Where the process runs. Production refuses whatever is only meant for development."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class LogLevel(StrEnum):
    """From which level on something is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"

    @classmethod
    def _missing_(cls, value: object) -> "LogLevel | None":
        return cls.__members__.get(str(value).upper())


class SettingUnreadable(Exception):
    """The file that a ``_FILE`` variable names can't be read."""


class FileSource(PydanticBaseSettingsSource):
    """Reads a setting from the file that ``<NAME>_FILE`` names, as containers hand out secrets."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{PREFIX}{field_name.upper()}_FILE"
        path = os.environ.get(variable)
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text().strip(), field_name, False
        except OSError as error:
            raise SettingUnreadable(f"{variable}: {path} can't be read: {error.strerror}") from error
        except UnicodeDecodeError:
            raise SettingUnreadable(f"{variable}: {path} holds no text") from None

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


def _is_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError):
        raise ValueError("must be a time zone such as Asia/Kolkata") from None
    return name


def _is_listening_address(value: str) -> str:
    """Take ``host:port`` or nothing; a host left out would mean every address of the machine."""
    host, _, port = value.rpartition(":")
    if value and not (host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError("must be host:port")
    return value


def _is_dsn(value: SecretStr) -> SecretStr:
    # The gateway has no database, and need not load this.
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(value.get_secret_value())
    except psycopg.Error:
        # What psycopg says quotes the text, password and all.
        raise ValueError("must be a URL or DSN of PostgreSQL") from None
    return value


def _is_master_key_ring(value: SecretStr) -> SecretStr:
    KeyRing.parse(value.get_secret_value())
    return value


def _is_key(value: SecretStr) -> SecretStr:
    try:
        size = len(base64.b64decode(value.get_secret_value(), validate=True))
    except binascii.Error:
        size = 0
    if size != 32:
        raise ValueError("must be the base64 text of 32 bytes")
    return value


Key = Annotated[SecretStr, AfterValidator(_is_key)]
Dsn = Annotated[SecretStr, AfterValidator(_is_dsn)]
MasterKeys = Annotated[SecretStr, AfterValidator(_is_master_key_ring)]


def key_bytes(key: SecretStr) -> bytes:
    """Return the 32 bytes of a `Key`."""
    return base64.b64decode(key.get_secret_value())


def complaints(error: ValidationError) -> str:
    """Say in one line for each setting what is wrong with it, and never what it is."""
    return "\n".join(
        f"{PREFIX}{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" if one["loc"] else one["msg"]
        for one in error.errors(include_input=False, include_context=False, include_url=False)
    )


def _require_fit_for_production(setting: str, secret: str) -> None:
    """Refuse a secret that is only meant for development, or that anybody might guess; it is named, and not told."""
    parts = [part.strip() for part in secret.split(",")] if setting.endswith("_KEYS") else [f":{secret}"]
    for part in filter(None, parts):
        name, _, value = part.partition(":")
        if name.startswith(DEVELOPMENT_NAMES):
            raise ValueError(f"{setting} holds a key made for development")
        if value and len(set(value)) < FEWEST_CHARACTERS:
            raise ValueError(f"{setting} holds a secret that is too easy to guess")


class EnvironmentSettings(BaseSettings):
    """Settings that come from ``AAROKYA_…`` variables or the files that these name.

    What stands under a field is what docs/operations.md says about it. A process does not read that, and builds only
    the class that it needs: all this would take a twentieth of the time until it serves.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", defer_build=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, FileSource(settings_cls)


class ProcessSettings(EnvironmentSettings):
    """What every process reads."""

    environment: Environment = Environment.PRODUCTION
    """`production`, or `development`: logs for people, services that list their RPCs, operators' keys of any length."""
    log_level: LogLevel = LogLevel.INFO
    """From which level on something is logged: `DEBUG` (in development only), `INFO`, `WARNING` or `ERROR`."""
    metrics_listen: Annotated[str, AfterValidator(_is_listening_address)] = ""
    """`host:port` of the metrics for Prometheus; empty: none."""
    tls_ca: Path
    """PEM file of the authority whose certificates are trusted."""
    tls_certificate: Path
    """PEM file of the process's own certificate; its DNS name is the process's name."""
    tls_key: Path
    """PEM file of the certificate's key."""
    page_token_key: Key
    """Base64 of 32 bytes that seal page tokens; the same for all processes."""

    @model_validator(mode="after")
    def _refuse_development_in_production(self) -> Self:
        if self.is_development:
            return self
        if self.log_level is LogLevel.DEBUG:
            raise ValueError("AAROKYA_LOG_LEVEL must not be DEBUG in production")
        for name in type(self).model_fields:
            secret = getattr(self, name)
            # Passwords in addresses are for who gives them out to judge.
            if isinstance(secret, SecretStr) and not name.endswith(("_dsn", "_url")):
                _require_fit_for_production(f"{PREFIX}{name.upper()}", secret.get_secret_value())
        return self

    @property
    def is_development(self) -> bool:
        return self.environment is Environment.DEVELOPMENT


class ServiceSettings(ProcessSettings):
    """What every service reads to serve."""

    listen: str
    """`host:port` of the gRPC server."""
    timezone: Annotated[str, AfterValidator(_is_zone)] = "Asia/Kolkata"
    """Whose calendar decides how old somebody is."""
    database_runtime_dsn: Dsn
    """URL or DSN of the login `<service>_runtime`; it may name several hosts."""
    database_pool_size: int = 10
    """Most connections of a replica to its database; identity holds seven more."""
    master_keys: MasterKeys
    """`id:base64 of 32 bytes,…`: the first wraps new data keys, all unwrap."""
    lookup_key: Key
    """Base64 of 32 bytes that numbers are hashed with to be found. It can't be changed."""
    audit_key: Key
    """Base64 of 32 bytes that the audit log is chained with. It can't be changed."""
    audit_head_file: Path
    """Where the head of the audit chain is kept outside the database; replicas of a service share it."""


class OwnerSettings(EnvironmentSettings):
    """What migrating and re-keying a service's database needs."""

    database_owner_dsn: Dsn
    """URL or DSN of the login `<service>_owner`."""


class ProvisioningSettings(OwnerSettings):
    """What making a service's roles and database needs; the passwords are those of the two DSNs."""

    database_superuser_dsn: Dsn
    """URL or DSN of a superuser of the service's server."""
    database_runtime_dsn: Dsn
    """URL or DSN of the login `<service>_runtime`; it may name several hosts."""


class RotationSettings(OwnerSettings):
    """What re-wrapping a service's data keys needs."""

    master_keys: MasterKeys
    """`id:base64 of 32 bytes,…`: the first wraps new data keys, all unwrap."""


def read_pairs(text: str, *, shortest: int, setting: str) -> list[tuple[str, str]]:
    """Return the names and secrets of a ``name:secret,…`` list.

    Raises:
        ValueError: it is no such list, or a secret is shorter than it may be; the text tells no secret.
    """
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, secret = part.partition(":")
        if not (name and colon) or len(secret.encode()) < shortest:
            raise ValueError(f"{setting} must be name:secret pairs with secrets of at least {shortest} bytes")
        pairs.append((name, secret))
    return pairs


class NamedSecrets:
    """A key ring: a list of ``name:secret`` pairs in which each name stands for one secret."""

    def __init__(self, text: str, *, shortest: int, setting: str) -> None:
        self.pairs: dict[str, str] = {}
        for name, secret in read_pairs(text, shortest=shortest, setting=setting):
            if name in self.pairs:
                # Not even the name is told: where a colon is wrong, it is part of a secret.
                raise ValueError(f"{setting} has the same name twice")
            self.pairs[name] = secret

    @property
    def first(self) -> tuple[str, str]:
        return next(iter(self.pairs.items()))
