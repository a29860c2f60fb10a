"""Writes the table of all variables into docs/operations.md, from the settings classes that read them.

`--check` only says whether the table is up to date.
"""

import sys
from collections.abc import Iterator
from enum import Enum
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
    for reader, settings in READERS.items():
        for name, field in settings.model_fields.items():
            readers.setdefault(name, []).append(reader)
            fields.setdefault(name, field)
    rows = (
        f"| `{PREFIX}{name.upper()}` | {_who(readers[name])} | {_default(field)} | {_described(name, field)} |"
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


def _described(name: str, field: FieldInfo) -> str:
    if not field.description:
        sys.exit(f"nothing stands under {name} in the settings class that has it")
    return " ".join(field.description.split())


if __name__ == "__main__":
    main()
