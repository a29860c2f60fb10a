"""How Python's garbage collector is set for a process that serves."""

import gc

# Collections by generation. With Python's own 700 a request of ours causes more than one, and each looks at all that
# is new; most of what a request makes goes away without any.
THRESHOLDS = (20_000, 20, 50)


def spare_what_stays() -> None:
    """Never look again at what has been made so far; call it when everything is loaded and nothing is asked yet."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
