"""What the gateway reads from its environment."""

import ipaddress
from functools import cached_property
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from servicekit.settings import NamedSecrets, ProcessSettings, read_pairs

SHORTEST_PRODUCTION_SECRET = 32


def _to_key_ring(keys: SecretStr) -> NamedSecrets:
    return NamedSecrets(keys.get_secret_value(), shortest=32, setting="AAROKYA_JWT_KEYS")


def _is_jwt_key_ring(keys: SecretStr) -> SecretStr:
    if not _to_key_ring(keys).pairs:
        raise ValueError("must name at least one key, to verify with")
    return keys


def _is_redis_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value():
        return url
    try:
        parts = urlsplit(url.get_secret_value())
        is_one = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        # What it says quotes the text, password and all.
        is_one = False
    if not is_one:
        raise ValueError("must be a URL such as redis://host:6379/0")
    return url


class GatewaySettings(ProcessSettings):
    """What the gateway reads on top of what every process reads."""

    http_host: str = "127.0.0.1"
    """Address that the API is served on."""
    http_port: int = Field(default=8080, ge=0, le=65535)
    """Port that the API is served on."""
    identity_address: str
    """`host:port` of identity, or `dns:///name:port` of all its replicas."""
    catalogue_address: str
    """`host:port` of the catalogue, or `dns:///name:port` of all its replicas."""
    records_address: str
    """`host:port` of records, or `dns:///name:port` of all its replicas."""
    jwt_keys: Annotated[SecretStr, AfterValidator(_is_jwt_key_ring)]
    """`kid:secret,…` with secrets of 32 bytes or more: the first signs tokens, all verify."""
    jwt_issuer: str = "aarokya"
    """Who issues the tokens."""
    jwt_audience: str = "aarokya"
    """Whom the tokens are for."""
    admin_api_key: SecretStr | None = None
    """The key of the operator called `admin`, of 32 characters or more."""
    admin_api_keys: SecretStr | None = None
    """`name:secret,…`: the keys of all other operators; somebody whose key is being replaced is named twice. There must
    be a key in one of the two."""
    cors_origins: Annotated[list[str], NoDecode] = Field(default_factory=list)
    """Origins whose pages may call the API from a browser, with commas between them; empty: none."""
    trusted_proxies: Annotated[list[str], NoDecode] = Field(default_factory=list)
    """Addresses or networks, with commas between them, whose `X-Forwarded-For` is believed."""
    rate_limits: Annotated[str, Field(pattern="^(on|off)$")] = "on"
    """`on` or `off`."""
    redis_url: Annotated[SecretStr, AfterValidator(_is_redis_url)] | None = None
    """`redis://…` or `rediss://…`, where gateways count together; without it each counts by itself."""
    drain_seconds: float = Field(default=0, ge=0)
    """How long it serves on after SIGTERM, while `/readyz` already refuses; as long as its balancer takes to notice."""

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("cors_origins", "trusted_proxies"):
            value = values.get(name)
            if isinstance(value, str):
                values[name] = [part.strip() for part in value.split(",") if part.strip()]
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.operators:
            raise ValueError("AAROKYA_ADMIN_API_KEY or AAROKYA_ADMIN_API_KEYS must be set")
        try:
            for proxy in self.trusted_proxies:
                ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise ValueError("AAROKYA_TRUSTED_PROXIES must name addresses or networks") from None
        return self

    @cached_property
    def jwt_key_ring(self) -> NamedSecrets:
        """The token keys by kid; all verify."""
        return _to_key_ring(self.jwt_keys)

    @cached_property
    def operators(self) -> list[tuple[str, str]]:
        """The operators' names and secrets; somebody whose key is being replaced has two."""
        shortest = 1 if self.is_development else SHORTEST_PRODUCTION_SECRET
        text = self.admin_api_keys.get_secret_value() if self.admin_api_keys else ""
        operators = read_pairs(text, shortest=shortest, setting="AAROKYA_ADMIN_API_KEYS")
        if self.admin_api_key is not None:
            secret = self.admin_api_key.get_secret_value()
            if len(secret) < shortest:
                raise ValueError(f"AAROKYA_ADMIN_API_KEY must have at least {shortest} characters")
            operators.append(("admin", secret))
        return operators
