"""The large packages begin with a map, and it names every module once."""

import pkgutil
import re
from types import ModuleType

import pytest

import gateway
import servicekit


@pytest.mark.parametrize("package", [gateway, servicekit], ids=lambda package: package.__name__)
def test_names_every_module(package: ModuleType) -> None:
    assert package.__doc__ is not None
    _, _, listed = package.__doc__.partition("\n\n")
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)} - {"__main__"}
    named = re.findall(r"(?:^ +|\. )((?:\w+, )*\w+):", listed, re.MULTILINE)
    assert sorted(name for names in named for name in names.split(", ")) == sorted(modules)
