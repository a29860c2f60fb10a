"""The services' refusals and the gateway's registry of codes, held together."""

import importlib
import pkgutil

import pytest

import catalogue
import identity
import records
import servicekit
from gateway.errors import REGISTRY
from servicekit.errors import Refusal


def refusals() -> list[type[Refusal]]:
    """Return every refusal that any module of a service can raise."""
    for package in (identity, catalogue, records, servicekit):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # What runs when it is imported defines none.
            if not module.name.endswith("__main__") and ".migrations" not in module.name:
                importlib.import_module(module.name)
    known, found = [Refusal], []
    while known:
        known += (below := known.pop().__subclasses__())
        found += [refusal for refusal in below if "code" in vars(refusal)]
    return found


@pytest.mark.parametrize("refusal", refusals(), ids=lambda refusal: refusal.__qualname__)
def test_callers_see_every_refusal_under_its_own_code(refusal: type[Refusal]) -> None:
    assert refusal.code in REGISTRY
