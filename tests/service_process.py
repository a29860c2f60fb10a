"""A service's own process, as its peers meet it: over mutual TLS, with keys that nobody else has."""

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from deploy.ports import pick_ports
from servicekit.channel import open_channel
from servicekit.crypto import generate_key
from servicekit.tls import CertificateFiles, channel_credentials

START_S = 30


@dataclass(frozen=True)
class ServiceProcess:
    """A running process, and how to call it as one peer or another."""

    service: str
    address: str
    certificates: dict[str, CertificateFiles]
    process: asyncio.subprocess.Process

    def credentials(self, peer: str = "gateway") -> grpc.ChannelCredentials:
        """Return the credentials by which it knows a peer."""
        files = self.certificates[peer]
        return channel_credentials(files.ca, files.certificate, files.key)

    def channel(self, peer: str = "gateway") -> grpc.aio.Channel:
        """Open a channel with the certificate of a peer."""
        return open_channel(self.service, self.address, self.credentials(peer), [])

    async def wait_until_serving(self) -> None:
        """Return when it takes calls; fail when it has ended instead."""
        async with self.channel() as channel:
            ready = asyncio.ensure_future(channel.channel_ready())
            ended = asyncio.ensure_future(self.process.wait())
            await asyncio.wait({ready, ended}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
            is_ready = ready.done()
            for waiting in (ready, ended):
                waiting.cancel()
        assert is_ready, f"{self.service} does not serve; its exit code: {self.process.returncode}"

    def freeze(self) -> None:
        """Stop the process in its tracks, its connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def service_process(
    service: str, folder: Path, runtime_dsn: str, certificates: dict[str, CertificateFiles], **settings: str
) -> AsyncIterator[ServiceProcess]:
    """Run a service's process as long as the block lasts; it need not serve yet when the block begins.

    Args:
        service: its name, which is also its package's.
        folder: where it works and keeps its audit log's heads.
        runtime_dsn: the login with which it works on its database.
        certificates: of the service and of all who will call it.
        settings: what this service needs besides, by the names of its environment variables after `AAROKYA_`.
    """
    files = certificates[service]
    address = f"127.0.0.1:{pick_ports(1)[0]}"
    own = {
        "LISTEN": address,
        "LOG_LEVEL": "WARNING",
        "DATABASE_RUNTIME_DSN": runtime_dsn,
        "MASTER_KEYS": f"first:{new_key()}",
        "LOOKUP_KEY": new_key(),
        "AUDIT_KEY": new_key(),
        "PAGE_TOKEN_KEY": new_key(),
        "AUDIT_HEAD_FILE": str(folder / "head"),
        "TLS_CA": str(files.ca),
        "TLS_CERTIFICATE": str(files.certificate),
        "TLS_KEY": str(files.key),
    }
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {f"AAROKYA_{name}": value for name, value in (own | settings).items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", service, "serve", env=environment, cwd=folder
    )
    try:
        yield ServiceProcess(service, address, certificates, process)
    finally:
        if process.returncode is None:
            process.terminate()
        # A process that does not end well when it is told to stop fails the tests too.
        assert await process.wait() == 0


def new_key() -> str:
    """Return a key as the settings take it."""
    return base64.b64encode(generate_key()).decode()
