"""Whether docs/operations.md tells of everything that can be set."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()


def test_lists_the_variables_as_the_settings_have_them() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate_variables.py", "--check"], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_tells_of_every_variable_of_the_compose_file() -> None:
    compose = (ROOT / "deploy" / "docker-compose.yml").read_text()
    untold = [name for name in set(re.findall(r"\$\{(\w+)", compose)) if f"`{name}`" not in PAGE]
    assert untold == []


def test_names_only_targets_that_make_has() -> None:
    makefile = (ROOT / "Makefile").read_text()
    missing = [name for name in set(re.findall(r"make ([a-z-]+)", PAGE)) if f"\n{name}:" not in makefile]
    assert missing == []
