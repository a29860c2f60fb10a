"""Certificates as two processes see them: who gets through, and what happens when one is renewed."""

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from servicekit import tls
from servicekit.tls import Authority, CertificateFiles, CertificateMismatch, prepare_certificates

CALL = "/test.Peers/Ask"


class _Peers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers any call with the names in the caller's certificate."""

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: b",".join(context.auth_context()["x509_subject_alternative_name"])
        )


@contextmanager
def serving(files: CertificateFiles) -> Iterator[int]:
    """Serve `_Peers` with a process's certificate and yield the port."""
    server = grpc.server(ThreadPoolExecutor(2), handlers=[_Peers()])
    port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(files.ca, files.certificate, files.key))
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def ask(port: int, credentials: grpc.ChannelCredentials, expected_name: str = "identity") -> bytes:
    """Ask who I am over a new connection."""
    options = (("grpc.ssl_target_name_override", expected_name), ("grpc.use_local_subchannel_pool", 1))
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        return channel.unary_unary(CALL)(b"", timeout=5)


def client(files: CertificateFiles) -> grpc.ChannelCredentials:
    return tls.channel_credentials(files.ca, files.certificate, files.key)


class TestMutualTls:
    def test_shows_the_peers_name(self, tmp_path: Path) -> None:
        files = prepare_certificates(tmp_path, ["identity", "gateway"])
        with serving(files["identity"]) as port:
            assert b"gateway" in ask(port, client(files["gateway"])).split(b",")

    def test_refuses_a_peer_without_certificate(self, tmp_path: Path) -> None:
        files = prepare_certificates(tmp_path, ["identity"])
        with serving(files["identity"]) as port, pytest.raises(grpc.RpcError):
            ask(port, grpc.ssl_channel_credentials(files["identity"].ca.read_bytes()))

    def test_refuses_a_peer_of_another_authority(self, tmp_path: Path) -> None:
        ours = prepare_certificates(tmp_path / "ours", ["identity"])["identity"]
        theirs = prepare_certificates(tmp_path / "theirs", ["gateway"])["gateway"]
        stranger = tls.channel_credentials(ours.ca, theirs.certificate, theirs.key)
        with serving(ours) as port, pytest.raises(grpc.RpcError):
            ask(port, stranger)

    def test_refuses_a_server_with_another_name(self, tmp_path: Path) -> None:
        files = prepare_certificates(tmp_path, ["records", "gateway"])
        with serving(files["records"]) as port, pytest.raises(grpc.RpcError):
            ask(port, client(files["gateway"]), expected_name="identity")


class TestServerCredentials:
    def test_serves_a_renewed_certificate_to_new_connections(self, tmp_path: Path) -> None:
        files = prepare_certificates(tmp_path, ["identity", "gateway"])
        with serving(files["identity"]) as port:
            with pytest.raises(grpc.RpcError):
                ask(port, client(files["gateway"]), expected_name="renamed")
            certificate, key = Authority.load(tmp_path / "ca.pem", tmp_path / "ca.key").issue("renamed")
            files["identity"].certificate.write_bytes(certificate)
            files["identity"].key.write_bytes(key)
            assert ask(port, client(files["gateway"]), expected_name="renamed")

    def test_keeps_the_old_certificate_while_the_new_one_is_half_written(self, tmp_path: Path) -> None:
        files = prepare_certificates(tmp_path, ["identity", "gateway"])
        with serving(files["identity"]) as port:
            certificate, _ = Authority.load(tmp_path / "ca.pem", tmp_path / "ca.key").issue("identity")
            files["identity"].certificate.write_bytes(certificate)
            assert ask(port, client(files["gateway"]))

    def test_refuses_a_key_of_another_certificate(self, tmp_path: Path) -> None:
        files = prepare_certificates(tmp_path, ["identity", "gateway"])
        with pytest.raises(CertificateMismatch, match=r"gateway\.key"):
            tls.server_credentials(files["identity"].ca, files["identity"].certificate, files["gateway"].key)


class TestPrepareCertificates:
    def test_names_the_process_and_this_machine(self, tmp_path: Path) -> None:
        files = prepare_certificates(tmp_path, ["identity"])["identity"]
        names = x509.load_pem_x509_certificate(files.certificate.read_bytes()).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        assert names.value.get_values_for_type(x509.DNSName) == ["identity", "localhost"]

    def test_keeps_keys_to_the_owner(self, tmp_path: Path) -> None:
        prepare_certificates(tmp_path, ["identity"])
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}

    def test_keeps_what_is_valid(self, tmp_path: Path) -> None:
        prepare_certificates(tmp_path, ["identity"])
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        prepare_certificates(tmp_path, ["identity"])
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_renews_a_leaf_that_expires_soon(self, tmp_path: Path) -> None:
        files = prepare_certificates(tmp_path, ["identity"])["identity"]
        authority = Authority.load(tmp_path / "ca.pem", tmp_path / "ca.key")
        certificate, key = authority.issue("identity", tls.RENEW_BEFORE - timedelta(days=1))
        files.certificate.write_bytes(certificate)
        files.key.write_bytes(key)
        prepare_certificates(tmp_path, ["identity"])
        assert tls.expires_at(files.certificate) > tls.expires_at(tmp_path / "ca.pem") - tls.AUTHORITY_LIFETIME
        assert files.certificate.read_bytes() != certificate

    def test_tells_the_expiry_while_a_certificate_is_replaced(self, tmp_path: Path) -> None:
        certificate = prepare_certificates(tmp_path, ["identity"])["identity"].certificate
        soonest = tls.soonest_expiry(certificate)
        at_start = soonest()
        for broken in (b"", None):
            certificate.unlink() if broken is None else certificate.write_bytes(broken)
            assert soonest() == at_start

    def test_renews_the_authority_and_all_leaves_before_it_expires(self, tmp_path: Path) -> None:
        files = prepare_certificates(tmp_path, ["identity"])["identity"]
        old = Authority.create(timedelta(days=100))
        certificate, key = old.issue("identity")
        files.ca.write_bytes(old.certificate.public_bytes(tls.serialization.Encoding.PEM))
        files.certificate.write_bytes(certificate)
        files.key.write_bytes(key)
        prepare_certificates(tmp_path, ["identity"])
        authority = Authority.load(tmp_path / "ca.pem", tmp_path / "ca.key")
        assert authority.certificate != old.certificate
        x509.load_pem_x509_certificate(files.certificate.read_bytes()).verify_directly_issued_by(authority.certificate)
