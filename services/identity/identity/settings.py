"""What the identity service reads from its environment."""

from functools import cached_property

from pydantic import SecretStr

from servicekit.settings import NamedSecrets, ServiceSettings


class IdentitySettings(ServiceSettings):
    """What identity reads on top of what every service reads."""

    jwt_keys: SecretStr
    jwt_issuer: str = "aarokya"
    jwt_audience: str = "aarokya"
    records_address: str

    @cached_property
    def jwt_key_ring(self) -> NamedSecrets:
        """The token keys by kid; the first signs."""
        return NamedSecrets(self.jwt_keys.get_secret_value(), shortest=32, setting="AAROKYA_JWT_KEYS")
