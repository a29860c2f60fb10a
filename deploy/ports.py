"""TCP ports of this machine: which are free, and picking some."""

import random
import socket

# Below the ports that Linux, macOS and Windows give to outgoing connections: one of those could take the port of a
# program while it restarts.
PICKED_FROM = range(20_000, 32_000)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen on a port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        # As servers do, so that connections which closed a moment ago do not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError:
            return False
    return True


def pick_ports(count: int) -> list[int]:
    """Return different ports that are free on this machine at the moment."""
    candidates = random.sample(PICKED_FROM, len(PICKED_FROM))
    free = (port for port in candidates if is_free(port))
    return [next(free) for _ in range(count)]
