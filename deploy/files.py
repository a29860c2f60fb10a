"""Files that appear at once and that only their owner can read."""

import os
from pathlib import Path


def write_privately(file: Path, content: str) -> None:
    """Write a file with mode 0600 so that a reader sees the old content or the new one, never a part."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
