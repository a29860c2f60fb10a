"""What a gateway loads before it serves: a process that is restarted all the time must not spend its time on that."""

import subprocess
import sys


def test_loads_neither_a_database_nor_redis():
    code = "import sys, gateway.app; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    assert not {"sqlalchemy", "psycopg", "alembic", "redis", "limits"} & set(loaded.stdout.split())
