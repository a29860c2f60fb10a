"""Starts the catalogue: ``python -m catalogue [provision|migrate|serve|rotate-master-key]``."""

import gc

# Looking for garbage meanwhile would take a seventh of the time until we serve; see servicekit.gc_tuning.
gc.disable()

from catalogue.models import SERVICE, data_keys
from catalogue.serve import serve
from servicekit.process import run

run(SERVICE, data_keys, serve)
