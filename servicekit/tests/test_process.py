"""What a service's command line loads before it does anything."""

import subprocess
import sys


def test_loads_what_migrates_only_to_migrate():
    code = "import sys, servicekit.process, servicekit.foundation; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    assert not {"alembic", "servicekit.provisioning"} & set(loaded.stdout.split())
