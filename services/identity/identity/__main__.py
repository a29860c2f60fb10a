"""Starts identity: ``python -m identity [provision|migrate|serve|rotate-master-key]``."""

from identity.models import SERVICE, data_keys
from identity.serve import serve
from servicekit.process import run

run(SERVICE, data_keys, serve)
