"""Stopping without losing a request: balancers hear of it first, and send what comes next elsewhere."""

import asyncio

import uvicorn


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
        if self._drain_seconds:
            self.should_exit = False
            asyncio.get_running_loop().call_later(self._drain_seconds, self._stop)
            await super().main_loop()

    def _stop(self) -> None:
        self.should_exit = True
