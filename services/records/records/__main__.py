"""Starts records: ``python -m records [provision|migrate|serve|rotate-master-key]``."""

from records.models import SERVICE, data_keys
from records.serve import serve
from servicekit.process import run

run(SERVICE, data_keys, serve)
