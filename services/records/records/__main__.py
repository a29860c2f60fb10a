"""Starts records: ``python -m records [provision|migrate|serve|rotate-master-key|replay-erasures FILE]``."""

import gc

# Looking for garbage meanwhile would take a seventh of the time until we serve; see servicekit.gc_tuning.
gc.disable()

from records.models import SERVICE, data_keys
from records.replay import replay_erasures
from records.serve import serve
from servicekit.process import run

run(SERVICE, data_keys, serve, replay_erasures)
