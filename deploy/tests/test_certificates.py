"""How containers get their certificates."""

import stat
from pathlib import Path

import pytest
from cryptography import x509

from deploy.certificates import PROCESSES, main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folders that volumes are mounted at, after the first start."""
    for process in PROCESSES:
        (tmp_path / "tls" / process).mkdir(parents=True)
    main(tmp_path)
    return tmp_path


@pytest.mark.parametrize("process", PROCESSES)
def test_gives_each_process_its_own_and_nothing_of_the_authority(folder: Path, process: str) -> None:
    files = {file.name: file for file in (folder / "tls" / process).iterdir()}
    assert set(files) == {"ca.pem", "certificate.pem", "key.pem"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files.values()} == {0o600}
    certificate = x509.load_pem_x509_certificate(files["certificate.pem"].read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert process in names.get_values_for_type(x509.DNSName)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(files["ca.pem"].read_bytes()))


def test_leaves_what_is_good(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.read_bytes() for file in folder.rglob("*.pem")}
    capsys.readouterr()
    main(folder)
    assert {file: file.read_bytes() for file in folder.rglob("*.pem")} == before
    assert capsys.readouterr().out.count("is good") == len(PROCESSES)


def test_brings_back_what_is_lost(folder: Path) -> None:
    (folder / "authority" / "records.pem").unlink()
    before = (folder / "tls" / "records" / "certificate.pem").read_bytes()
    main(folder)
    assert (folder / "tls" / "records" / "certificate.pem").read_bytes() != before
