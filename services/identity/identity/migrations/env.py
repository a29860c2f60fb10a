"""Alembic's entry; see `servicekit.migrations`."""

from identity.models import metadata
from servicekit.migrations import run

run(metadata)
