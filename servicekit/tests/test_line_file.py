"""Files of JSON lines that outlive crashes and replicas."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from servicekit.erasures import Erasure, ErasureFile
from servicekit.line_file import LineFile


class TestLineFile:
    def test_is_empty_before_anything_is_written(self, tmp_path: Path) -> None:
        assert list(LineFile(tmp_path / "lines").read()) == []

    def test_skips_a_line_that_a_crash_cut_off(self, tmp_path: Path) -> None:
        path = tmp_path / "lines"
        LineFile(path).append([{"n": 1}])
        with path.open("a") as file:
            file.write('{"n": 2')
        LineFile(path).append([{"n": 3}])
        assert list(LineFile(path).read()) == [{"n": 1}, {"n": 3}]

    def test_skips_a_line_that_is_no_object_or_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "lines"
        path.write_bytes(b'{"n": 1}\n5\nnull\n[]\n\xff\xfe\n{"n": 2}\n')
        assert list(LineFile(path).read()) == [{"n": 1}, {"n": 2}]

    def test_loses_nothing_of_what_replicas_write_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "folder" / "lines"

        def write(number: int) -> None:
            file = LineFile(path)
            with file.alone():
                file.replace([*file.read(), {"n": number}])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(40)))
        assert {line["n"] for line in LineFile(path).read()} == set(range(40))


class TestErasureFile:
    def test_reads_each_person_once(self, tmp_path: Path) -> None:
        file = ErasureFile(tmp_path / "erasures")
        one, other = (Erasure(uuid4(), uuid4(), datetime(2026, 11, day, 9, 30, 0, 5, tzinfo=UTC)) for day in (1, 2))
        file.append([one])
        file.append([one, other])
        assert file.read() == [one, other]

    @pytest.mark.parametrize(
        "line", ['{"user_id": 1}', '{"user_id": "x", "platform_id": "y", "erased_at": "z"}', '{"erased_at": null}']
    )
    def test_leaves_out_a_damaged_line(self, tmp_path: Path, line: str) -> None:
        path = tmp_path / "erasures"
        path.write_text(f"{line}\n")
        erasure = Erasure(uuid4(), uuid4(), datetime(2026, 11, 1, tzinfo=UTC))
        ErasureFile(path).append([erasure])
        assert ErasureFile(path).read() == [erasure]
