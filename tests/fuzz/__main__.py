"""Runs Schemathesis against the gateway, once for each kind of caller; `make fuzz`.

Left out are, with the reason:
- `object_level_authorization` for operators, who may see everything, and for Basic, which is for one operation that
  has no object. `strangers_are_refused` in hooks.py covers writes for the others, too.
- `use_after_free` on the operations that schemathesis.toml names.
- `max_response_time`: how fast answers are is the load test's business.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.e2e.conftest import World
from tests.e2e.running import System, own_system
from tests.fuzz.cast import Cast, make_cast

HERE = Path(__file__).parent
SCHEMES = ("admin_api_key", "api_key", "partner_basic", "user_token")
WITHOUT_OBJECTS = ("admin_api_key", "partner_basic")
MAX_EXAMPLES = 25
# More at once would keep a small machine so busy that the gateway can't hear from identity, and rightly answers 503.
AT_ONCE = 2
LONGEST_S = 1800


def main() -> None:
    """Fuzz a system of its own, or the running one that AAROKYA_TEST_DATA_DIR names."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="repeats a run's made-up values")
    parser.add_argument("--max-examples", type=int, default=MAX_EXAMPLES, help="requests for each operation and phase")
    parser.add_argument("--only", choices=SCHEMES, action="append", help="one kind of caller; can be repeated")
    options, others = parser.parse_known_args()
    print(f"Seed {options.seed}; make fuzz ARGS='--seed {options.seed}' makes the same values up again.", flush=True)
    arguments = ["--seed", str(options.seed), "--max-examples", str(options.max_examples), *others]
    schemes = options.only or SCHEMES
    with _system() as system, ThreadPoolExecutor(AT_ONCE) as runs:
        findings = {scheme: runs.submit(_fuzz, system, scheme, arguments) for scheme in schemes}
        failed = [scheme for scheme in schemes if not findings[scheme].result()]
    if failed:
        raise SystemExit(f"Failures as {', '.join(failed)}, seed {options.seed}.")


@contextmanager
def _system() -> Iterator[System]:
    running = os.environ.get("AAROKYA_TEST_DATA_DIR")
    if running:
        yield System.read(Path(running))
        return
    with tempfile.TemporaryDirectory() as data, own_system(Path(data)) as own:
        yield own.system


def _fuzz(system: System, scheme: str, arguments: list[str]) -> bool:
    """Run Schemathesis as one kind of caller, print what it says, and return whether all is well."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        with httpx.Client(base_url=system.url, timeout=30, trust_env=False) as http:
            document = http.get("/api_docs/openapi.json").json()
            cast = make_cast(World(system, http), scheme)
        files = {name: Path(folder, f"{name}.json") for name in ("callers", "cast", "answers")}
        files["callers"].write_text(json.dumps(_callers(cast)))
        cast.write(files["cast"])
        operations = [
            operation["operationId"]
            for path in document["paths"].values()
            for operation in path.values()
            if {scheme: []} in operation["security"] or (scheme == SCHEMES[0] and not operation["security"])
        ]
        if scheme in WITHOUT_OBJECTS:
            arguments = [*arguments, "--exclude-checks", "object_level_authorization"]
        for operation in operations:
            arguments = [*arguments, "--include-operation-id", operation]
        environment = {
            **os.environ,
            "AAROKYA_FUZZ_DATA_DIR": str(system.data),
            **{f"AAROKYA_FUZZ_{name.upper()}": str(path) for name, path in files.items()},
        }
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
        url = f"{system.url}/api_docs/openapi.json"
        run = subprocess.run(
            [*command, url, *arguments],
            cwd=folder,
            env=environment,
            check=False,
            capture_output=True,
            timeout=LONGEST_S,
        )
        answers = json.loads(files["answers"].read_text()) if files["answers"].exists() else {}
    never = [name for name in operations if not any(code.startswith("2") for code in answers.get(name, {}))]
    print(f"\n{scheme}\n\n{run.stdout.decode()}{run.stderr.decode()}", flush=True)
    print(f"{scheme} took {time.monotonic() - started:.0f} s.", flush=True)
    for name in never:
        print(f"As {scheme}, {name} never succeeded, so it was not really tried: {answers.get(name)}.", flush=True)
    return run.returncode == 0 and not never


def _callers(cast: Cast) -> dict[str, list[dict[str, object]]]:
    """Return the callers as Web Fuzzing Commons writes them. Who has no stranger is one."""
    identities = {"owner": cast.owner, "stranger": [*cast.strangers, cast.owner][0]}
    return {
        "auth": [
            {"name": name, "fixedHeaders": [{"name": key, "value": value} for key, value in headers.items()]}
            for name, headers in identities.items()
        ]
    }


if __name__ == "__main__":
    main()
