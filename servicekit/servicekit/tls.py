"""Certificates of the processes: makes an authority and its leaves, and loads them for mutual TLS with gRPC."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from servicekit.metrics import CERTIFICATE_EXPIRY

AUTHORITY_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)
# A leaf is renewed when less than this is left of it, an authority when it could not outlive a new leaf.
RENEW_BEFORE = timedelta(days=30)
# Clocks of two machines differ a little; a certificate that is valid from now on would be refused by the slower one.
CLOCK_SKEW = timedelta(minutes=5)

log = structlog.get_logger()


class CertificateMismatch(Exception):
    """A private key and a certificate that should belong together do not."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority together with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, lifetime: timedelta = AUTHORITY_LIFETIME) -> "Authority":
        """Make a new authority that signs itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Aarokya authority")])
        certificate = (
            _builder(name, name, key.public_key(), lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> "Authority":
        """Read an authority from two PEM files.

        Raises:
            ValueError: a file does not hold what its name says.
        """
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key} does not hold an elliptic curve key")
        return cls(x509.load_pem_x509_certificate(certificate.read_bytes()), private)

    def issue(self, name: str, lifetime: timedelta = LEAF_LIFETIME) -> tuple[bytes, bytes]:
        """Issue a certificate for a process, for both ends of a connection.

        Args:
            name: the process's name; peers know it by this DNS name. The certificate also holds for the local machine.
            lifetime: how long it is valid.

        Returns:
            The certificate and its new private key, both as PEM.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(
            [
                x509.DNSName(name),
                x509.DNSName("localhost"),
                x509.IPAddress(IPv4Address("127.0.0.1")),
                x509.IPAddress(IPv6Address("::1")),
            ]
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(subject, self.certificate.subject, key.public_key(), lifetime)
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


@dataclass(frozen=True)
class CertificateFiles:
    """Where one process finds the authority that it trusts, its certificate and its private key."""

    ca: Path
    certificate: Path
    key: Path


def prepare_certificates(directory: Path, names: Iterable[str]) -> dict[str, CertificateFiles]:
    """Make sure that a directory holds an authority and a certificate for each name, and renew what expires soon."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca, ca_key = directory / "ca.pem", directory / "ca.key"
    if not (ca.exists() and ca_key.exists()) or expires_at(ca) < _now() + LEAF_LIFETIME + RENEW_BEFORE:
        created = Authority.create()
        _write(ca_key, _key_pem(created.key))
        _write(ca, created.certificate.public_bytes(serialization.Encoding.PEM))
    authority = Authority.load(ca, ca_key)
    files = {}
    for name in names:
        files[name] = CertificateFiles(ca, directory / f"{name}.pem", directory / f"{name}.key")
        if not _is_usable(files[name], authority):
            certificate, key = authority.issue(name)
            _write(files[name].key, key)
            _write(files[name].certificate, certificate)
    return files


def expires_at(certificate: Path) -> datetime:
    """Return until when a certificate is valid, in UTC."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


def soonest_expiry(certificate: Path) -> Callable[[], float]:
    """Return what tells until when this process's certificate is valid, as a Unix time in seconds.

    Calls to other processes are made with the certificate of the process's start, whatever is in the file later.
    """
    at_start = expires_at(certificate).timestamp()

    def soonest() -> float:
        try:
            return min(at_start, expires_at(certificate).timestamp())
        except (OSError, ValueError):
            # While it is replaced; and the other metrics are asked for together with this one.
            return at_start

    return soonest


def server_credentials(ca: Path, certificate: Path, key: Path) -> grpc.ServerCredentials:
    """Return credentials of a server that only talks to peers whose certificate the authority has issued.

    The files are read again when they change, so that a renewed certificate serves the next connection while the
    calls on the old ones go on.

    Raises:
        OSError: a file cannot be read.
        CertificateMismatch: the key is not the certificate's.
    """
    paths = (ca, certificate, key)
    seen = [_stamp(paths)]

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        try:
            stamp = _stamp(paths)
            if stamp == seen[0]:
                return None
            configuration = _server_configuration(*paths)
        except (OSError, ValueError, CertificateMismatch) as error:
            # The files are being replaced at this moment, or wrongly; the old certificate serves on until they fit.
            log.warning("certificate not renewed", reason=str(error))
            return None
        seen[0] = stamp
        return configuration

    return grpc.dynamic_ssl_server_credentials(
        _server_configuration(*paths),
        renewed,  # type: ignore[arg-type]  # the stubs leave out that None means unchanged
        require_client_authentication=True,
    )


def channel_credentials(ca: Path, certificate: Path, key: Path) -> grpc.ChannelCredentials:
    """Return credentials of a client that shows its certificate and trusts only servers of the authority.

    Raises:
        OSError: a file cannot be read.
        CertificateMismatch: the key is not the certificate's.
    """
    roots, chain, private = _read(ca, certificate, key)
    return grpc.ssl_channel_credentials(roots, private, chain)


def _server_configuration(ca: Path, certificate: Path, key: Path) -> grpc.ServerCertificateConfiguration:
    roots, chain, private = _read(ca, certificate, key)
    return grpc.ssl_server_certificate_configuration([(private, chain)], roots)


def _read(ca: Path, certificate: Path, key: Path) -> tuple[bytes, bytes, bytes]:
    chain, private = certificate.read_bytes(), key.read_bytes()
    leaf = x509.load_pem_x509_certificate(chain)
    if serialization.load_pem_private_key(private, password=None).public_key() != leaf.public_key():
        raise CertificateMismatch(f"{key} is not the key of {certificate}")
    CERTIFICATE_EXPIRY.set(leaf.not_valid_after_utc.timestamp())
    return ca.read_bytes(), chain, private


def _stamp(paths: Iterable[Path]) -> list[tuple[int, int]]:
    return [(status.st_mtime_ns, status.st_ino) for status in (path.stat() for path in paths)]


def _is_usable(files: CertificateFiles, authority: Authority) -> bool:
    if not (files.certificate.exists() and files.key.exists()):
        return False
    leaf = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    try:
        leaf.verify_directly_issued_by(authority.certificate)
    except (InvalidSignature, ValueError):
        return False
    return key.public_key() == leaf.public_key() and leaf.not_valid_after_utc > _now() + RENEW_BEFORE


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - CLOCK_SKEW)
        .not_valid_after(_now() + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    """Put a file in place at once, readable by its owner only."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)


def _now() -> datetime:
    return datetime.now(UTC)
