"""Starts records: ``python -m records [provision|migrate|serve|rotate-master-key|replay-erasures FILE]``."""

from records.models import SERVICE, data_keys
from records.replay import replay_erasures
from records.serve import serve
from servicekit.process import run

run(SERVICE, data_keys, serve, replay_erasures)
