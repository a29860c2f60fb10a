"""Stopping without losing a request: balancers hear of it first, and send what comes next elsewhere."""

import asyncio

import uvicorn

CLOSE = (b"connection", b"close")


class DrainingServer(uvicorn.Server):
    """Serves on for a moment after it is told to stop, then closes its listener, finishes what runs, and ends.

    Until balancers have seen that `/readyz` refuses, they still send requests here. A second signal ends the wait.
    """

    def __init__(self, config: uvicorn.Config, draining: asyncio.Event, drain_seconds: float) -> None:
        """`draining` is set when the stop begins, for `Readiness`."""
        super().__init__(config)
        self._draining = draining
        self._drain_seconds = drain_seconds

    async def main_loop(self) -> None:
        """Serve until told to stop, and on until the time for draining is over."""
        await super().main_loop()
        self._draining.set()
        self._end_kept_connections()
        if self._drain_seconds:
            self.should_exit = False
            asyncio.get_running_loop().call_later(self._drain_seconds, self._stop)
            await super().main_loop()

    def _end_kept_connections(self) -> None:
        """Say with every answer that its connection ends, so that nobody sends a request into a closing one."""
        # Uvicorn adds these headers, and Date, to each answer.
        self.config.encoded_headers.append(CLOSE)
        for connection in self.server_state.connections:
            cycle = getattr(connection, "cycle", None)
            if cycle is not None:
                cycle.default_headers = [*cycle.default_headers, CLOSE]

    def _stop(self) -> None:
        self.should_exit = True
