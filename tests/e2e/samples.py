"""One of everything, with good bodies for every write, so that a test can walk all operations of the contract."""

import base64
from dataclasses import dataclass
from typing import Any

from tests.e2e.conftest import Caller, User, World, made
from tests.e2e.contract import Operation

ACCOUNT = {"type": "BANK", "account_number": "123456789012", "ifsc": "HDFC0001234", "holder_name": "Ravi Kumar"}
REASON = {"reason": "Asked for by the partner."}


@dataclass
class Samples:
    """One of everything, and who may touch it.

    Attributes:
        user: an active user.
        ids: for each parameter of a path, the id of a thing that exists.
        callers: who has the credential, by the letters of the contract's table.
        bodies: good bodies for POST, by path.
    """

    user: User
    ids: dict[str, str]
    callers: dict[str, Caller]
    bodies: dict[str, dict[str, Any]]

    def path(self, operation: Operation) -> str:
        """Return the operation's path with the ids of what exists."""
        return operation.path.format(**self.ids)

    def caller(self, operation: Operation) -> Caller:
        """Return the weakest of those who may call the operation."""
        return self.callers[operation.callers[-1]]

    def body(self, operation: Operation) -> dict[str, Any]:
        """Return a body that has the shape which the operation takes, whether or not the thing's state allows it."""
        return {} if operation.method == "PATCH" else self.bodies[operation.path]


def make_samples(world: World) -> Samples:
    """Make one of everything."""
    user = world.user()
    platform = user.platform
    dependant = world.dependant(user)
    provider = world.provider()
    benefit = world.benefit(provider)
    account = made(user.caller.post(f"{user.path}/accounts", ACCOUNT), 201)
    link = {"dependant_id": dependant["id"], "benefit_provider_id": provider["id"], "mrn": "MRN-42"}
    mrn = made(user.caller.post("/mrns", link), 201)
    ids = {
        "platform_id": platform.id,
        "key_id": platform.key_id,
        "user_id": user.id,
        "dependant_id": dependant["id"],
        "benefit_provider_id": provider["id"],
        "benefit_id": benefit["id"],
        "account_id": account["id"],
        "mrn_id": mrn["id"],
    }
    basic = base64.b64encode(f"{platform.id}:{platform.secret}".encode()).decode()
    callers = {
        "A": world.admin,
        "P": platform.partner,
        "U": user.caller,
        "B": world.caller({"authorization": f"Basic {basic}"}),
    }
    bodies = {
        "/auth/token": {"phone_number": user.phone_number, "platform_id": platform.id},
        "/platforms": {"name": world.unique("Rides")},
        "/platforms/{platform_id}/suspend": REASON,
        "/platforms/{platform_id}/activate": REASON,
        "/platforms/{platform_id}/api_keys": {"name": "test"},
        "/platforms/{platform_id}/api_keys/{key_id}/rotate": {"overlap_seconds": 60},
        "/users/{user_id}/complete_onboarding": {},
        "/users/{user_id}/reactivate": REASON,
        "/users/{user_id}/release_phone": REASON,
        "/users/{user_id}/erase": REASON,
        "/users/{user_id}/dependants": {
            "relationship": "SON",
            "first_name": "Arun",
            "gender": "MALE",
            "date_of_birth": "2015-08-15",
        },
        "/benefit_providers": {
            "code": world.unique("p"),
            "legal_name": "Apollo Clinics Private Limited",
            "display_name": "Apollo",
            "type": "CLINIC",
        },
        "/benefits": {
            "benefit_provider_id": provider["id"],
            "code": world.unique("b"),
            "name": "Consultation",
            "type": "CONSULTATION",
            "price_paise": 0,
        },
        "/users/{user_id}/accounts": ACCOUNT,
        "/mrns": link,
    }
    return Samples(user, ids, callers, bodies)
