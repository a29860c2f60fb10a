"""docs/security.md links each promise to the test that shows it, and the tests are there."""

import ast
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "security.md"
LINK = re.compile(r"\[`([A-Za-z0-9_:]+)`\]\(([^)]+)\)")
LINKS = sorted(set(LINK.findall(PAGE.read_text())))


def names_in(file: Path) -> set[str]:
    """Return the tests of a file, and the classes with any, as ``Class::test``."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            tests = {f"{node.name}::{name}" for name in functions_in(node.body)}
            names |= tests | ({node.name} if tests else set())
    return names | functions_in(ast.parse(file.read_text()).body)


def functions_in(body: list[ast.stmt]) -> set[str]:
    return {
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("name", "target"), LINKS)
def test_names_tests_that_exist(name: str, target: str) -> None:
    file = (PAGE.parent / target).resolve()
    assert file.name.startswith("test_")
    assert name in names_in(file)


def test_shows_every_promise() -> None:
    """Each row of a table that says what shows it names a test."""
    shown = False
    rows = []
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            shown = False
        elif line.endswith("| shown by |"):
            shown = True
        elif shown and not line.startswith("|---"):
            rows.append(line)
    assert len(rows) > 60
    assert [row for row in rows if not LINK.search(row)] == []
