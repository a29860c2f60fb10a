"""The virtualenv as `make` prepares it, in a tree of its own with a space in its name."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import bootstrap

SOURCE = Path(bootstrap.__file__)


@pytest.fixture(scope="module")
def made_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that needs no packages, with its virtualenv made by two that came at the same time."""
    tree = tmp_path_factory.mktemp("tree") / "a tree"
    (tree / "deploy").mkdir(parents=True)
    shutil.copy(SOURCE, tree / "deploy")
    (tree / "requirements.lock").write_text("# nothing\n")
    for folder in bootstrap.IMPORT_PATH:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "protos" / "found_by_pth.py").write_text("")
    both = [start(tree) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    return tree


@pytest.fixture
def tree(made_tree: Path, tmp_path: Path) -> Path:
    """A copy of that tree for one test alone, at another place."""
    return Path(shutil.copytree(made_tree, tmp_path / "moved tree", symlinks=True))


def start(tree: Path, *arguments: str) -> subprocess.Popen[str]:
    # pip is not to look for anything: there is nothing to install.
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    command = [sys.executable, tree / "deploy" / "bootstrap.py", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def prepare(tree: Path, *arguments: str) -> tuple[int | None, str]:
    """Run the program; return its exit code and all that it says."""
    process = start(tree, *arguments)
    output, errors = process.communicate()
    return process.returncode, output + errors


class TestVirtualenv:
    def test_finds_our_packages(self, made_tree: Path) -> None:
        python = made_tree / ".venv" / "bin" / "python"
        found = subprocess.run([python, "-P", "-c", "import found_by_pth"], check=False, cwd="/", capture_output=True)
        assert found.returncode == 0

    def test_says_nothing_when_all_is_there(self, made_tree: Path) -> None:
        assert prepare(made_tree) == (0, "")

    def test_is_made_anew_at_another_place(self, tree: Path) -> None:
        code, said = prepare(tree)
        assert code == 0
        assert "Making a virtualenv" in said
        assert str(tree) in (tree / ".venv" / "bin" / "pip").read_text()

    def test_is_made_anew_when_its_python_is_gone(self, made_tree: Path) -> None:
        (made_tree / ".venv" / "bin" / "python").unlink()
        code, said = prepare(made_tree)
        assert code == 0
        assert "Making a virtualenv" in said


class TestRefusals:
    def test_tells_an_old_python_in_one_sentence(self) -> None:
        script = (
            "import runpy, sys; sys.version_info = (3, 10, 0); sys.version = '3.10.0 (old)';"
            f"runpy.run_path({str(SOURCE)!r}, run_name='__main__')"
        )
        refused = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert refused.stderr == "aarokya: Python 3.11 or newer is needed, and this is 3.10.0\n"

    def test_old_pythons_can_read_the_file(self) -> None:
        ast.parse(SOURCE.read_text(), feature_version=(3, 7))

    def test_says_what_pip_could_not_find(self, made_tree: Path) -> None:
        lock = "no-such-package==1.0 --hash=sha256:" + "0" * 64 + "\n"
        (made_tree / "requirements-dev.lock").write_text(lock)
        code, said = prepare(made_tree, "--dev")
        assert code == 1
        assert "aarokya: the virtualenv could not be prepared:" in said
        assert "no-such-package" in said
        assert "Traceback" not in said
