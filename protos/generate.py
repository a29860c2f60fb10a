"""Writes what follows from the protos; `--check` only says whether all is current.

That is their Python beside them, the gateway's shapes, and the golden copy of the OpenAPI document, in this order.
"""

import argparse
import filecmp
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
FOLLOWERS = tuple(PROTOS.parent / "gateway" / name for name in ("generate_schemas.py", "generate_openapi.py"))
PLUGINS = ("mypy", "mypy_grpc")
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def main() -> None:
    """Generate, or compare what would be generated with what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when something is out of date")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        compile_protos(fresh)
        stale = find_differences(fresh)
        if check and stale:
            sys.exit(f"Out of date, run `make generate`: {', '.join(stale)}")
        for name in stale:
            if (fresh / name).exists():
                shutil.copyfile(fresh / name, PROTOS / name)
            else:
                (PROTOS / name).unlink()
    for generator in FOLLOWERS:
        arguments = ["--check"] if check else []
        result = subprocess.run([sys.executable, generator, *arguments], check=False).returncode
        if result != 0:
            sys.exit(result)


def compile_protos(target: Path) -> None:
    """Compile all protos into a folder; only those with services get stubs."""
    services = [name for name in proto_names() if name.endswith("_service.proto")]
    run_protoc([f"--python_out={target}", f"--mypy_out=quiet:{target}", *proto_names()])
    run_protoc([f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", *services])


def proto_names() -> list[str]:
    """Return all our protos, as they import one another."""
    return sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.glob("aarokya/**/*.proto"))


def run_protoc(arguments: list[str]) -> None:
    """Run the compiler of this virtualenv with its plugins; the protos of Google come from the packages."""
    google = importlib.util.find_spec("google.api")
    assert google is not None
    assert google.submodule_search_locations is not None
    packages = Path(next(iter(google.submodule_search_locations))).parents[1]
    plugins = [f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}" for name in PLUGINS]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{packages}", *plugins, *arguments]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit("The protos do not compile.")


def find_differences(fresh: Path) -> list[str]:
    """Return the generated files that are new, changed or no longer made."""
    names = {
        path.relative_to(folder).as_posix()
        for folder in (fresh, PROTOS)
        for pattern in GENERATED
        for path in folder.rglob(pattern)
    }
    _, changed, one_sided = filecmp.cmpfiles(fresh, PROTOS, sorted(names), shallow=False)
    return sorted([*changed, *one_sided])


if __name__ == "__main__":
    main()
