"""What the identity service reads from its environment."""

from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, SecretStr

from servicekit.settings import NamedSecrets, ServiceSettings


def _to_key_ring(keys: SecretStr) -> NamedSecrets:
    return NamedSecrets(keys.get_secret_value(), shortest=32, setting="AAROKYA_JWT_KEYS")


def _is_key_ring(keys: SecretStr) -> SecretStr:
    if not _to_key_ring(keys).pairs:
        raise ValueError("must name at least one key, to sign with")
    return keys


class IdentitySettings(ServiceSettings):
    """What identity reads on top of what every service reads."""

    jwt_keys: Annotated[SecretStr, AfterValidator(_is_key_ring)]
    """`kid:secret,…` with secrets of 32 bytes or more: the first signs tokens, all verify."""
    jwt_issuer: str = "aarokya"
    """Who issues the tokens."""
    jwt_audience: str = "aarokya"
    """Whom the tokens are for."""
    records_address: str
    """`host:port` of records, or `dns:///name:port` of all its replicas."""

    @property
    def erasure_file(self) -> Path:
        """Where erased users are listed: beside the head of the audit chain, outside the database as that is."""
        return self.audit_head_file.with_name(f"{self.audit_head_file.name}.erasures")

    @cached_property
    def jwt_key_ring(self) -> NamedSecrets:
        """The token keys by kid; the first signs."""
        return _to_key_ring(self.jwt_keys)
