"""Writes the golden copy of the OpenAPI document; with `--check` it only tells whether that is up to date.

The copy makes every change of the public contract a diff that somebody has to look at before it is committed.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "tests" / "e2e" / "golden" / "openapi.json"
sys.path.insert(0, str(HERE))

from gateway.app import build_documents  # noqa: E402


def main() -> None:
    """Write the copy, or compare it."""
    text = json.dumps(json.loads(build_documents()[None]), ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    if "--check" not in sys.argv[1:]:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    elif not GOLDEN.exists() or GOLDEN.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{GOLDEN} is not what the gateway answers: run `make generate`, and look at the difference.")


if __name__ == "__main__":
    main()
