"""Makes the authority and the certificates of a system of containers, or renews what expires soon.

Every process finds its own certificate in a folder of its own, which may be a volume that only its containers have. The
authority's key stays in the authority's folder, where none of them looks.
"""

from pathlib import Path

from servicekit.tls import CertificateFiles, prepare_certificates

FOLDER = Path("/var/lib/aarokya")
PROCESSES = ("gateway", "identity", "catalogue", "records")


def main(folder: Path = FOLDER) -> None:
    """Bring the certificates of all processes up to date."""
    issued = prepare_certificates(folder / "authority", PROCESSES)
    for process, files in issued.items():
        changed = hand_out(files, folder / "tls" / process)
        print(f"{process}: {'new certificate' if changed else 'certificate is good'}", flush=True)


def hand_out(files: CertificateFiles, folder: Path) -> bool:
    """Put a process's files into its folder as ca.pem, certificate.pem and key.pem; False when they are there already.

    A process that looks in between finds files that do not fit together yet, and goes on with the ones it has.
    """
    names = {"key.pem": files.key, "certificate.pem": files.certificate, "ca.pem": files.ca}
    changed = False
    for name, source in names.items():
        content, target = source.read_bytes(), folder / name
        if target.exists() and target.read_bytes() == content:
            continue
        changed = True
        new = folder / f"{name}.new"
        new.touch(mode=0o600)
        new.write_bytes(content)
        new.replace(target)
    return changed


if __name__ == "__main__":
    main()
