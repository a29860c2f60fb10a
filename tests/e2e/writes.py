"""Writes that can succeed once, for every POST of the contract but the exchange of tokens."""

from dataclasses import dataclass
from typing import Any

import httpx

from tests.e2e.conftest import Caller, World, made
from tests.e2e.contract import WRITES
from tests.e2e.samples import ACCOUNT

POSTS = tuple(o.path for o in WRITES if o.method == "POST" and o.path != "/auth/token")


@dataclass
class Write:
    """A POST that can succeed once.

    Attributes:
        caller: who sends it.
        path: where to.
        body: what succeeds.
        other: another body that the shape allows.
        refused: a body that is refused, and the code.
        secrets: fields that are shown once.
    """

    caller: Caller
    path: str
    body: dict[str, Any]
    other: dict[str, Any]
    refused: tuple[dict[str, Any], str]
    secrets: tuple[str, ...] = ()

    def send(
        self, key: str | bytes, body: dict[str, Any] | None = None, caller: Caller | None = None
    ) -> httpx.Response:
        headers = {"idempotency-key": key}
        return (caller or self.caller).post(self.path, self.body if body is None else body, headers=headers)


def open_write(world: World, path: str) -> Write:
    """Return a POST to a path of the contract, with all that it needs."""
    admin = world.admin
    reason, other_reason = {"reason": "Asked for by the partner."}, {"reason": "Asked for by the user."}
    match path.split("/")[1:]:
        case ["platforms"]:
            taken = {"name": made(admin.post("/platforms", {"name": world.unique("Rides")}), 201)["name"]}
            body, other = {"name": world.unique("Rides")}, {"name": world.unique("Rides")}
            return Write(admin, path, body, other, (taken, "PL-303"))
        case ["platforms", _, action] if action in ("suspend", "activate"):
            platform = f"/platforms/{world.platform().id}"
            if action == "activate":
                made(admin.post(f"{platform}/suspend", reason), 200)
            return Write(admin, f"{platform}/{action}", reason, other_reason, ({}, "RQ-101"))
        case ["platforms", _, "api_keys"]:
            path = f"/platforms/{world.platform().id}/api_keys"
            past = {"name": "test", "expires_at": "2020-01-01T00:00:00Z"}
            return Write(admin, path, {"name": "test"}, {"name": "other"}, (past, "PL-302"), ("secret",))
        case ["platforms", _, "api_keys", _, "rotate"]:
            platform = world.platform()
            path = f"/platforms/{platform.id}/api_keys/{platform.key_id}/rotate"
            refused = ({"overlap_seconds": -1}, "RQ-101")
            return Write(admin, path, {"overlap_seconds": 60}, {"overlap_seconds": 61}, refused, ("secret",))
        case ["users", _, "complete_onboarding"]:
            user = world.user(is_active=False)
            profile = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1990-05-17"}
            path = f"{user.path}/complete_onboarding"
            return Write(user.caller, path, profile, {**profile, "city": "Pune"}, ({"city": "Pune"}, "US-405"))
        case ["users", _, action] if action in ("reactivate", "release_phone", "erase"):
            user = world.user()
            assert user.caller.delete(user.path).status_code == 204
            return Write(admin, f"{user.path}/{action}", reason, other_reason, ({}, "RQ-101"))
        case ["users", _, "dependants"]:
            user = world.user()
            body = {"relationship": "WARD", "first_name": "Arun", "gender": "MALE", "date_of_birth": "2015-08-15"}
            refused = ({**body, "relationship": "SELF"}, "DE-504")
            return Write(user.caller, f"{user.path}/dependants", body, {**body, "first_name": "Anil"}, refused)
        case ["benefit_providers"]:
            body = {"code": world.unique("p"), "legal_name": "Apollo", "display_name": "Apollo", "type": "CLINIC"}
            other = {**body, "code": world.unique("p")}
            return Write(admin, path, body, other, ({**body, "mrn_pattern": "("}, "BP-605"))
        case ["benefits"]:
            body = {
                "benefit_provider_id": world.provider()["id"],
                "code": world.unique("b"),
                "name": "Consultation",
                "type": "CONSULTATION",
                "price_paise": 0,
            }
            unknown = {**body, "benefit_provider_id": "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11"}
            return Write(admin, path, body, {**body, "price_paise": 1}, (unknown, "BP-602"))
        case ["users", _, "accounts"]:
            user = world.user()
            refused = ({**ACCOUNT, "ifsc": None}, "AC-802")
            return Write(user.caller, f"{user.path}/accounts", ACCOUNT, {**ACCOUNT, "is_primary": True}, refused)
        case ["mrns"]:
            user = world.user()
            provider = world.provider(mrn_pattern="MRN-[0-9]+")
            link = {"dependant_id": world.dependant(user)["id"], "benefit_provider_id": provider["id"], "mrn": "MRN-1"}
            return Write(user.caller, path, link, {**link, "mrn": "MRN-2"}, ({**link, "mrn": "no"}, "MR-905"))
    raise AssertionError(f"nothing is known to be sent to {path}")
