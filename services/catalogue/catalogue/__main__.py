"""Starts the catalogue: ``python -m catalogue [provision|migrate|serve|rotate-master-key]``."""

from catalogue.models import SERVICE, data_keys
from catalogue.serve import serve
from servicekit.process import run

run(SERVICE, data_keys, serve)
