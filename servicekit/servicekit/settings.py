"""Settings from environment variables, or from the files that their ``_FILE`` twins name."""

import base64
import binascii
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "AAROKYA_"


class Environment(StrEnum):
    """Where the process runs. Production refuses whatever is only meant for development."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class FileSource(PydanticBaseSettingsSource):
    """Reads a setting from the file that ``<NAME>_FILE`` names, as containers hand out secrets."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        return (Path(path).read_text().strip() if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


def _is_zone(name: str) -> str:
    ZoneInfo(name)
    return name


def _is_key(value: SecretStr) -> SecretStr:
    try:
        size = len(base64.b64decode(value.get_secret_value(), validate=True))
    except binascii.Error:
        size = 0
    if size != 32:
        raise ValueError("must be the base64 text of 32 bytes")
    return value


Key = Annotated[SecretStr, AfterValidator(_is_key)]


def key_bytes(key: SecretStr) -> bytes:
    """Return the 32 bytes of a `Key`."""
    return base64.b64decode(key.get_secret_value())


class EnvironmentSettings(BaseSettings):
    """Settings that come from ``AAROKYA_…`` variables or the files that these name.

    What stands under a field is what docs/operations.md says about it.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", use_attribute_docstrings=True)

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
    log_level: str = "INFO"
    """From which level on something is logged: `DEBUG`, `INFO`, `WARNING` or `ERROR`."""
    timezone: Annotated[str, AfterValidator(_is_zone)] = "Asia/Kolkata"
    """Whose calendar decides how old somebody is."""
    metrics_listen: str = ""
    """`host:port` of the metrics for Prometheus; empty: none."""
    tls_ca: Path
    """PEM file of the authority whose certificates are trusted."""
    tls_certificate: Path
    """PEM file of the process's own certificate; its DNS name is the process's name."""
    tls_key: Path
    """PEM file of the certificate's key."""
    page_token_key: Key
    """Base64 of 32 bytes that seal page tokens; the same for all processes."""

    @property
    def is_development(self) -> bool:
        return self.environment is Environment.DEVELOPMENT


class ServiceSettings(ProcessSettings):
    """What every service reads to serve."""

    listen: str
    """`host:port` of the gRPC server."""
    database_runtime_dsn: SecretStr
    """URL or DSN of the login `<service>_runtime`; it may name several hosts."""
    database_pool_size: int = 10
    """Most connections of a replica to its database; one more listens."""
    master_keys: SecretStr
    """`id:base64 of 32 bytes,…`: the first wraps new data keys, all unwrap."""
    lookup_key: Key
    """Base64 of 32 bytes that numbers are hashed with to be found. It can't be changed."""
    audit_key: Key
    """Base64 of 32 bytes that the audit log is chained with. It can't be changed."""
    audit_head_file: Path
    """Where the head of the audit chain is kept outside the database; replicas of a service share it."""


class OwnerSettings(EnvironmentSettings):
    """What migrating and re-keying a service's database needs."""

    database_owner_dsn: SecretStr
    """URL or DSN of the login `<service>_owner`."""


class ProvisioningSettings(OwnerSettings):
    """What making a service's roles and database needs; the passwords are those of the two DSNs."""

    database_superuser_dsn: SecretStr
    """URL or DSN of a superuser of the service's server."""
    database_runtime_dsn: SecretStr
    """URL or DSN of the login `<service>_runtime`; it may name several hosts."""


class RotationSettings(OwnerSettings):
    """What re-wrapping a service's data keys needs."""

    master_keys: SecretStr
    """`id:base64 of 32 bytes,…`: the first wraps new data keys, all unwrap."""


class NamedSecrets:
    """A list of ``name:secret`` pairs, such as a key ring or the operators' keys."""

    def __init__(self, text: str, *, shortest: int, setting: str) -> None:
        self.pairs: dict[str, str] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, colon, secret = part.partition(":")
            if not (name and colon) or len(secret.encode()) < shortest:
                raise ValueError(f"{setting} must be name:secret pairs with secrets of at least {shortest} bytes")
            if name in self.pairs:
                raise ValueError(f"{setting} names {name} twice")
            self.pairs[name] = secret

    @property
    def first(self) -> tuple[str, str]:
        return next(iter(self.pairs.items()))
