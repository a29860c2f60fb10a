"""What the environment says about a local system."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import WrongOption
from deploy.ports import pick_ports

ROOT = Path(__file__).resolve().parent.parent


def data_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder that everything of a local system lives in."""
    return Path(environment.get("AAROKYA_DATA_DIR") or ROOT / ".data").resolve()


@dataclass(frozen=True)
class Options:
    """The options, read."""

    data: Path
    host: str
    port: int
    postgres_dsn: str | None
    admin_api_key: str | None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Options":
        """Read the options.

        Raises:
            WrongOption: one of them makes no sense.
        """
        port = environment.get("AAROKYA_HTTP_PORT") or "8080"
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise WrongOption(f"AAROKYA_HTTP_PORT is not the number of a port: {port}")
        return cls(
            data=data_folder(environment),
            host=environment.get("AAROKYA_HTTP_HOST") or "127.0.0.1",
            # As everywhere, 0 means any free port.
            port=int(port) or pick_ports(1)[0],
            postgres_dsn=environment.get("AAROKYA_POSTGRES_DSN") or None,
            admin_api_key=(environment.get("AAROKYA_ADMIN_API_KEY") or "").strip() or None,
        )

    @property
    def url(self) -> str:
        """Where this machine reaches the gateway."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"
