"""The secrets of one local system: made once, kept in its data folder."""

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.errors import DataUnusable
from deploy.files import write_privately


@dataclass(frozen=True)
class ServiceSecrets:
    """What one service alone knows."""

    owner_password: str
    runtime_password: str
    master_keys: str
    lookup_key: str
    audit_key: str


@dataclass(frozen=True)
class Keyring:
    """All secrets but the operators' keys."""

    superuser_password: str
    jwt_keys: str
    page_token_key: str
    services: Mapping[str, ServiceSecrets]

    @staticmethod
    def new_admin_key() -> str:
        """Return a new key of an operator."""
        return secrets.token_urlsafe(32)

    @classmethod
    def open(cls, file: Path, services: Sequence[str]) -> "Keyring":
        """Read the secrets from a file, or make them when there is none.

        Raises:
            DataUnusable: the file holds something else.
        """
        if not file.exists():
            made = cls(
                superuser_password=secrets.token_urlsafe(),
                jwt_keys=f"local-1:{secrets.token_urlsafe(48)}",
                page_token_key=_key(),
                services={name: _service_secrets() for name in services},
            )
            write_privately(file, json.dumps(asdict(made), indent=2))
            return made
        try:
            content = json.loads(file.read_text())
            parts = {name: ServiceSecrets(**content["services"][name]) for name in services}
            return cls(**{**content, "services": parts})
        except (ValueError, KeyError, TypeError) as error:
            raise DataUnusable(f"{file} does not hold the secrets of the data beside it ({error!r})") from error


def _service_secrets() -> ServiceSecrets:
    return ServiceSecrets(
        owner_password=secrets.token_urlsafe(),
        runtime_password=secrets.token_urlsafe(),
        master_keys=f"local-1:{_key()}",
        lookup_key=_key(),
        audit_key=_key(),
    )


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
