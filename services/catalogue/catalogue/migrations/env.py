"""Alembic's entry; see `servicekit.migrations`."""

from catalogue.models import metadata
from servicekit.migrations import run

run(metadata)
