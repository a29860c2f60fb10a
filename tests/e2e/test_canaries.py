"""Personal values are in answers and nowhere else: not in a database, a file of its server, a log or a metric."""

import base64
import re
from collections.abc import Callable, Iterable

import pytest

from tests.e2e.canaries import Canaries, be_refused, database_files, dumps, live, log_files, other_files
from tests.e2e.conftest import World, made
from tests.e2e.running import OwnSystem, System

Place = Callable[[System], Iterable[tuple[str, bytes]]]
PLACES = (dumps, database_files, log_files, other_files)


@pytest.fixture(scope="module", params=["as it is", "debug"])
def lived(request: pytest.FixtureRequest) -> tuple[World, Canaries]:
    """A system in which somebody has lived: one that logs as usual, and one that logs all that it can."""
    world: World = request.getfixturevalue("world" if request.param == "as it is" else "breakable_world")
    canaries = Canaries()
    be_refused(world, canaries, live(world, canaries))
    return world, canaries


class TestCanaries:
    @pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
    def test_are_nowhere(self, lived: tuple[World, Canaries], place: Place) -> None:
        world, canaries = lived
        found = {name: values for name, content in place(world.system) if (values := canaries.found_in(content))}
        assert found == {}

    def test_are_not_in_the_audit_log_but_for_reasons(self, lived: tuple[World, Canaries]) -> None:
        world, canaries = lived
        page, rows = None, []
        while True:
            parameters = {"page_size": 200, **({"page_token": page} if page else {})}
            answer = made(world.admin.get("/audit_logs", params=parameters), 200)
            rows += answer["items"]
            page = answer["next_page_token"]
            if page is None:
                break
        assert any(canaries.tag in (row["reason"] or "") for row in rows)
        clear = [{name: value for name, value in row.items() if name != "reason"} for row in rows]
        assert canaries.found_in(str(clear).encode()) == []


class TestSecrets:
    """The processes' own: keys, passwords and operators' keys."""

    @pytest.mark.parametrize("place", [dumps, database_files, log_files], ids=lambda place: place.__name__)
    def test_are_nowhere(self, lived: tuple[World, Canaries], place: Place) -> None:
        system = lived[0].system
        kept = str(system.secrets) + f"'admin:{system.admin_key}'"
        secrets = {secret.encode() for secret in re.findall(r"[A-Za-z0-9+/=_-]{32,}", kept)}
        assert len(secrets) > 15
        found = {name for name, content in place(system) if any(secret in content for secret in secrets)}
        assert found == set()


class TestSearch:
    """The search would find them: it finds what is nobody's secret."""

    @pytest.mark.parametrize("place", [dumps, database_files], ids=lambda place: place.__name__)
    def test_finds_what_is_stored_in_clear(self, breakable_world: World, place: Place) -> None:
        public = Canaries()
        breakable_world.provider(display_name=f"Clinic {public.tag}")
        found = {name for name, content in place(breakable_world.system) if public.found_in(content)}
        assert found
        if place is database_files:
            assert any(name.startswith("pg_wal/") for name in found)
            assert any(name.startswith("base/") for name in found)

    def test_reads_the_logs_of_all(self, breakable: OwnSystem) -> None:
        contents = dict(log_files(breakable.system))
        for process in ("gateway", "identity", "catalogue", "records", "postgres"):
            assert contents[f"{process}.log"], process

    @pytest.mark.parametrize(
        "encode",
        [
            str.encode,
            lambda text: text.upper().encode(),
            lambda text: text.encode().hex().encode(),
            lambda text: text.encode("utf-16-le"),
            lambda text: base64.b64encode(f"ab {text} cd".encode()),
        ],
        ids=["as it is", "capitals", "hex", "UTF-16", "base64"],
    )
    def test_knows_other_spellings(self, encode: Callable[[str], bytes]) -> None:
        canaries = Canaries()
        assert canaries.found_in(b"before " + encode(canaries.tag) + b" after")
