"""Walks a partner's journey through the running system and shows each step."""

import json
import os
import sys
from pathlib import Path

from deploy.journey import JourneyEnded, walk
from deploy.options import data_folder


def main() -> None:
    """Walk the journey against what runs on the data folder."""
    folder = data_folder(os.environ)
    try:
        runtime = json.loads((folder / "runtime.json").read_text())
        admin_key = Path(runtime["admin_api_key_file"]).read_text().strip()
    except OSError:
        sys.exit(f"aarokya: nothing runs on {folder}; start it with `make run`")
    try:
        for number, answer in enumerate(walk(runtime["gateway"]["url"], admin_key), 1):
            step = answer.step
            print(f"\n{number}. {step.title}\n   {step.method} {answer.path}")
            if step.body:
                print(f"   > {json.dumps(step.body)}")
            shown = "" if answer.body is None else json.dumps(answer.body, indent=2, ensure_ascii=False)
            print(f"   {answer.status} {shown}".replace("\n", "\n   "))
    except JourneyEnded as end:
        sys.exit(f"aarokya: the journey ended early: {end}")
    print("\nThe journey is complete.")


if __name__ == "__main__":
    main()
