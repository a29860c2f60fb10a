"""Starts identity: ``python -m identity [provision|migrate|serve|rotate-master-key|replay-erasures FILE]``."""

import gc

# Looking for garbage meanwhile would take a seventh of the time until we serve; see servicekit.gc_tuning.
gc.disable()

from identity.models import SERVICE, data_keys
from identity.replay import replay_erasures
from identity.serve import serve
from servicekit.process import run

run(SERVICE, data_keys, serve, replay_erasures)
