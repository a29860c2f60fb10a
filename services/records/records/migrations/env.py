"""Alembic's entry; see `servicekit.migrations`."""

from records.models import metadata
from servicekit.migrations import run

run(metadata)
