"""Lints the protos with buf, which npm installs beside them; without npm it says so and lets them pass."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from generate import PROTOS, proto_names, run_protoc

BUF = PROTOS / "node_modules" / ".bin" / "buf"
LOCK = PROTOS / "package-lock.json"
# npm writes this one last.
INSTALLED = PROTOS / "node_modules" / ".package-lock.json"


def main() -> None:
    """Lint, and end with buf's exit code."""
    npm = shutil.which("npm")
    if npm is None:
        print("Skipped the lint of the protos: it needs npm, which is not installed")
        return
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
        # The package's install script would only look for what npm has just put there.
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        if subprocess.run(command, cwd=PROTOS, check=False).returncode != 0:
            sys.exit("npm could not install buf, which lints the protos.")
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "protos.binpb"
        run_protoc([f"--descriptor_set_out={image}", "--include_imports", "--include_source_info", *proto_names()])
        sys.exit(subprocess.run([BUF, "lint", image], cwd=PROTOS, check=False).returncode)


if __name__ == "__main__":
    main()
