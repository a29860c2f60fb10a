"""Writes the table of all variables into docs/operations.md, from the settings classes that read them.

`--check` only says whether the table is up to date.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import pairwise
from pathlib import Path

from pydantic.fields import FieldInfo

from gateway.settings import GatewaySettings
from identity.settings import IdentitySettings
from records.settings import RecordsSettings
from servicekit.settings import (
    PREFIX,
    EnvironmentSettings,
    OwnerSettings,
    ProvisioningSettings,
    RotationSettings,
    ServiceSettings,
)

PAGE = Path(__file__).with_name("operations.md")
BEGIN, END = "<!-- variables: make generate -->\n", "<!-- end of variables -->\n"
READERS: dict[str, type[EnvironmentSettings]] = {
    "gateway": GatewaySettings,
    "identity": IdentitySettings,
    "catalogue": ServiceSettings,
    "records": RecordsSettings,
    "`provision`": ProvisioningSettings,
    "`migrate`": OwnerSettings,
    "`rotate-master-key`": RotationSettings,
}
GROUPS = {
    ("gateway", "identity", "catalogue", "records"): "all",
    ("identity", "catalogue", "records"): "services",
}


def main() -> None:
    """Write the table, or compare it."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    written = f"{before}{BEGIN}{table()}{END}{after}"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(written)
    elif written != page:
        sys.exit(f"{PAGE.name} does not list the variables as they are: run make generate")


def table() -> str:
    """Return the table, the variables in the order in which the classes have them."""
    readers: dict[str, list[str]] = {}
    fields: dict[str, FieldInfo] = {}
    texts: dict[str, str] = {}
    for reader, settings in READERS.items():
        for name, field in settings.model_fields.items():
            readers.setdefault(name, []).append(reader)
            fields.setdefault(name, field)
        for base in settings.__mro__:
            if issubclass(base, EnvironmentSettings):
                texts |= {name: text for name, text in _said_in(base).items() if name not in texts}
    rows = (
        f"| `{PREFIX}{name.upper()}` | {_who(readers[name])} | {_default(field)} | {_text(name, texts)} |"
        for name, field in fields.items()
    )
    return "\n".join(["| variable | who | default | what |", "|---|---|---|---|", *rows, ""])


def _who(readers: list[str]) -> str:
    return ", ".join(_grouped(readers))


def _grouped(readers: list[str]) -> Iterator[str]:
    for members, group in GROUPS.items():
        if set(members) <= set(readers):
            yield group
            readers = [reader for reader in readers if reader not in members]
    yield from readers


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Enum):
        value = value.value
    return "none" if value in (None, "", []) else f"`{value}`"


def _text(name: str, texts: Mapping[str, str]) -> str:
    if name not in texts:
        sys.exit(f"nothing stands under {name} in the settings class that has it")
    return texts[name]


def _said_in(settings: type[EnvironmentSettings]) -> dict[str, str]:
    """Return what stands under the fields of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(body.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


if __name__ == "__main__":
    main()
