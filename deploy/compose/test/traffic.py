"""Callers that never stop asking, and count what they lose."""

import itertools
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

CALLERS = 4
PAUSE_S = 0.03
TIMEOUT_S = 20


@dataclass
class Tally:
    """What a stretch of traffic came to."""

    requests: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0

    def __str__(self) -> str:
        lost = ", ".join(f"{count} × {what}" for what, count in self.lost.items())
        return (
            f"{self.requests} requests, {self.lost.total()} lost{f' ({lost})' if lost else ''}, "
            f"slowest {self.slowest_s:.2f} s"
        )


class Traffic:
    """Reads of all three services, and writes under idempotency keys; nothing that a caller could not repeat."""

    def __init__(self, url: str, admin_key: str) -> None:
        self._url = url
        self._admin = {"admin-api-key": admin_key}
        self._tally = Tally()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._numbers = itertools.count(secrets.randbelow(900_000_000))
        with self._client() as http:
            platform = self._made(
                http.post("/platforms", json={"name": f"Traffic {secrets.token_hex(4)}"}, headers=self._admin)
            )
            key = self._made(
                http.post(f"/platforms/{platform['id']}/api_keys", json={"name": "t"}, headers=self._admin)
            )
            self._partner = {"api-key": str(key["secret"])}
            self._platform_id = str(platform["id"])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask from several threads at once."""
        threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()

    def take(self) -> Tally:
        """Return what was counted since the last time."""
        with self._lock:
            tally, self._tally = self._tally, Tally()
        return tally

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self._url, timeout=TIMEOUT_S, trust_env=False)

    @staticmethod
    def _made(response: httpx.Response) -> dict[str, object]:
        response.raise_for_status()
        body: dict[str, object] = response.json()
        return body

    def _ask_on(self) -> None:
        with self._client() as http:
            body = {
                "phone_country_code": "+91",
                "phone_number": f"9{next(self._numbers):09d}",
                "platform_id": self._platform_id,
            }
            signed_in = http.post("/auth/token", json=body, headers=self._partner).json()
            user, bearer = signed_in["user"]["id"], {"authorization": f"Bearer {signed_in['access_token']}"}
            profile = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1990-05-17"}
            self._made(http.post(f"/users/{user}/complete_onboarding", json=profile, headers=bearer))
            requests: list[Callable[[], httpx.Request]] = [
                lambda: http.build_request("GET", f"/users/{user}/dependants", headers=bearer),
                lambda: http.build_request("GET", "/benefits", headers=bearer),
                lambda: http.build_request("GET", f"/users/{user}", headers=self._admin),
                lambda: http.build_request("GET", f"/users/{user}/accounts", headers=self._partner),
                lambda: http.build_request(
                    "POST", "/platforms", json={"name": f"T {secrets.token_hex(8)}"}, headers=self._keyed()
                ),
                lambda: http.build_request("POST", "/benefit_providers", json=_provider(), headers=self._keyed()),
                lambda: http.build_request(
                    "POST", "/platforms", json={"name": f"T {secrets.token_hex(8)}"}, headers=self._keyed()
                ),
            ]
            for build in itertools.cycle(requests):
                if self._ending.is_set():
                    return
                self._ask(http, build())
                time.sleep(PAUSE_S)

    def _keyed(self) -> dict[str, str]:
        return {**self._admin, "idempotency-key": secrets.token_hex(16)}

    def _ask(self, http: httpx.Client, request: httpx.Request) -> None:
        began = time.monotonic()
        try:
            status = http.send(request).status_code
            what = "" if status < 300 else f"{status} of {request.method} {request.url.path.split('/')[-1][:20]}"
        except httpx.TransportError as error:
            what = f"{type(error).__name__} of {request.method}"
        with self._lock:
            self._tally.requests += 1
            self._tally.slowest_s = max(self._tally.slowest_s, time.monotonic() - began)
            if what:
                self._tally.lost[what] += 1


def _provider() -> dict[str, object]:
    return {
        "code": f"t{secrets.token_hex(8)}",
        "legal_name": "Traffic Clinics Private Limited",
        "display_name": "Traffic",
        "type": "CLINIC",
        "issues_mrn": True,
    }
