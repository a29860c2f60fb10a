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

CALLERS = 12
PAUSE_S = 0.1
TIMEOUT_S = 20


@dataclass
class Tally:
    """What a stretch of traffic came to."""

    requests: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    # Of those that nobody may repeat without asking: writes without a key.
    lost_writes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0

    def __str__(self) -> str:
        lost = self.lost + self.lost_writes
        named = ", ".join(f"{count} × {what}" for what, count in lost.items())
        return (
            f"{self.requests} requests, {lost.total()} lost{f' ({named})' if named else ''}, "
            f"slowest {self.slowest_s:.2f} s"
        )


class Traffic:
    """Reads of all three services, writes under idempotency keys, and writes without."""

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
            benefit_provider = self._made(http.post("/benefit_providers", json=provider(), headers=self._admin))["id"]
            accounts: list[str] = []

            def remove_account() -> httpx.Request:
                return http.build_request("DELETE", f"/users/{user}/accounts/{accounts.pop()}", headers=bearer)

            def add_account() -> httpx.Request:
                number = {"type": "UPI", "account_number": f"{secrets.token_hex(8)}@okbank"}
                return http.build_request("POST", f"/users/{user}/accounts", json=number, headers=self._keyed(bearer))

            requests: list[Callable[[], httpx.Request]] = [
                lambda: http.build_request("GET", f"/users/{user}/dependants", headers=bearer),
                lambda: http.build_request("GET", "/benefits", headers=bearer),
                lambda: http.build_request("GET", f"/users/{user}", headers=self._admin),
                lambda: http.build_request("GET", f"/users/{user}/accounts", headers=self._partner),
                lambda: http.build_request(
                    "POST", "/platforms", json={"name": f"T {secrets.token_hex(8)}"}, headers=self._keyed()
                ),
                lambda: http.build_request("POST", "/benefit_providers", json=provider(), headers=self._keyed()),
                lambda: http.build_request("POST", "/auth/token", json=body, headers=self._partner),
                lambda: http.build_request(
                    "PATCH", f"/users/{user}", json={"last_name": secrets.token_hex(4)}, headers=bearer
                ),
                lambda: http.build_request(
                    "PATCH",
                    f"/benefit_providers/{benefit_provider}",
                    json={"display_name": secrets.token_hex(4)},
                    headers=self._admin,
                ),
                add_account,
                remove_account,
            ]
            for build in itertools.cycle(requests):
                if self._ending.is_set():
                    return
                if build is remove_account and not accounts:
                    continue
                answer = self._ask(http, build())
                if build is add_account and answer is not None and answer.status_code == 201:
                    accounts.append(answer.json()["id"])
                time.sleep(PAUSE_S)

    def _keyed(self, credential: dict[str, str] | None = None) -> dict[str, str]:
        return {**(credential or self._admin), "idempotency-key": secrets.token_hex(16)}

    def _ask(self, http: httpx.Client, request: httpx.Request) -> httpx.Response | None:
        began = time.monotonic()
        answer = None
        path = request.url.path.split("/")
        what = f"{request.method} {'/'.join(path[1::2])}"
        try:
            answer = http.send(request)
            failed = answer.status_code >= 300
            what = f"{answer.status_code} of {what}"
        except httpx.TransportError as error:
            failed = True
            what = f"{type(error).__name__} of {what}"
        repeatable = request.method in ("GET", "POST")
        with self._lock:
            self._tally.requests += 1
            self._tally.slowest_s = max(self._tally.slowest_s, time.monotonic() - began)
            if failed:
                (self._tally.lost if repeatable else self._tally.lost_writes)[what] += 1
        return answer


def provider() -> dict[str, object]:
    """Return a new benefit provider as a caller sends it."""
    return {
        "code": f"t{secrets.token_hex(8)}",
        "legal_name": "Traffic Clinics Private Limited",
        "display_name": "Traffic",
        "type": "CLINIC",
        "issues_mrn": True,
    }
