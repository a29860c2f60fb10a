"""Who calls in a run of the fuzzer, and on what: real callers with real things, made by the API."""

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from tests.e2e.conftest import Caller, Platform, User, World, made
from tests.e2e.running import System

REASON = {"reason": "Asked for by the fuzzer."}
# As many dependants as a platform may allow, so that most of the fuzzer's are not one too many.
MOST_DEPENDANTS = 20
PLATFORM = {"max_dependants": MOST_DEPENDANTS}

Headers = dict[str, str]
Ids = dict[str, str]


@dataclass(frozen=True)
class Cast:
    """The callers of one run, and what they call about.

    Attributes:
        scheme: the kind of credential, as the OpenAPI document names it.
        owner: the headers of the caller whose requests are made up.
        strangers: the headers of callers of the same kind, who must never get at what is the owner's.
        ids: for each parameter or field that holds an id, the id of a thing that the owner may use.
        phone_number: of the user who is the owner, or whom the owner may speak for.
        user: the headers of that user.
    """

    scheme: str
    owner: Headers
    strangers: list[Headers]
    ids: Ids
    phone_number: str
    user: Headers

    @classmethod
    def read(cls, path: Path) -> "Cast":
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Write it down for the fuzzer's process."""
        path.write_text(json.dumps(asdict(self)))


def make_cast(world: World, scheme: str) -> Cast:
    """Make callers of one kind, and one of everything for the first of them."""
    home, elsewhere = world.platform(**PLATFORM), world.platform(**PLATFORM)
    user = world.user(home)
    match scheme:
        case "admin_api_key":
            owner, *strangers = [world.admin.headers]
        case "api_key":
            owner, *strangers = [platform.partner.headers for platform in (home, elsewhere)]
        case "partner_basic":
            owner, *strangers = [_basic(platform) for platform in (home, elsewhere)]
        case "user_token":
            users = (user, world.user(home), world.user(elsewhere))
            owner, *strangers = [each.caller.headers for each in users]
        case _:
            raise ValueError(f"There is no caller with {scheme}.")
    return Cast(scheme, owner, strangers, _make_ids(world, user), user.phone_number, user.caller.headers)


def _basic(platform: Platform) -> Headers:
    credential = base64.b64encode(f"{platform.id}:{platform.secret}".encode()).decode()
    return {"authorization": f"Basic {credential}"}


def _make_ids(world: World, user: User) -> Ids:
    dependant, provider = world.dependant(user), world.provider()
    return {
        "platform_id": user.platform.id,
        "key_id": user.platform.key_id,
        "user_id": user.id,
        "dependant_id": dependant["id"],
        "benefit_provider_id": provider["id"],
        "benefit_id": world.benefit(provider)["id"],
        "account_id": _account(user.caller, user.id),
        # At another provider, so that the fuzzer can link this dependant with this provider.
        "mrn_id": _mrn(user.caller, dependant["id"], world.provider()["id"]),
    }


def _account(user: Caller, user_id: str) -> str:
    body = {"type": "UPI", "account_number": f"{secrets.token_hex(8)}@okbank"}
    return str(made(user.post(f"/users/{user_id}/accounts", body), 201)["id"])


def _mrn(user: Caller, dependant_id: str, benefit_provider_id: str) -> str:
    link = {"dependant_id": dependant_id, "benefit_provider_id": benefit_provider_id, "mrn": "MRN-42"}
    return str(made(user.post("/mrns", link), 201)["id"])


class Supplies:
    """Makes a new thing for each request that would use up the one that all the others need."""

    def __init__(self, cast: Cast, system: System) -> None:
        self._cast = cast
        http = httpx.Client(base_url=system.url, timeout=30, trust_env=False)
        self._world = World(system, http)
        self._user = self._world.caller(cast.user)
        self._platform = self._world.platform(**PLATFORM)
        self._makers: dict[str, Callable[[], tuple[Ids, Headers]]] = {
            "delete_user": lambda: self._other_user(self._world.user(self._platform)),
            "complete_onboarding": lambda: self._other_user(self._world.user(self._platform, is_active=False)),
            **dict.fromkeys(("reactivate_user", "release_phone", "erase_user"), self._deactivated_user),
            **dict.fromkeys(
                ("delete_platform", "suspend_platform", "activate_platform", "revoke_api_key", "rotate_api_key"),
                self._other_platform,
            ),
            "delete_benefit_provider": lambda: ({"benefit_provider_id": self._world.provider()["id"]}, {}),
            "delete_benefit": self._other_benefit,
            "delete_dependant": self._other_dependant,
            "delete_account": lambda: ({"account_id": _account(self._user, cast.ids["user_id"])}, {}),
            "unlink_mrn": self._other_mrn,
        }

    def are_used_up_by(self, operation_id: str) -> bool:
        """Return whether the operation needs a new thing each time."""
        return operation_id in self._makers

    def for_operation(self, operation_id: str) -> tuple[Ids, Headers]:
        """Return the ids to use with an operation, and the headers of who must call it when it isn't the owner."""
        make = self._makers.get(operation_id)
        ids, headers = make() if make else ({}, {})
        return {**self._cast.ids, **ids}, headers

    def make_room(self, operation_id: str) -> None:
        """Take back what earlier requests made, where only so many such things can be."""
        if operation_id == "link_mrn":
            pair = {name: self._cast.ids[name] for name in ("dependant_id", "benefit_provider_id")}
            for mrn in self._user.get("/mrns", params=pair).json()["items"]:
                self._world.admin.delete(f"/mrns/{mrn['id']}")
        if operation_id == "create_dependant":
            path = f"/users/{self._cast.ids['user_id']}/dependants"
            family = self._world.admin.get(path).json()["items"]
            spare = [each for each in family if each["relationship"] != "SELF"]
            for each in spare:
                if len(spare) > MOST_DEPENDANTS // 2 and each["id"] != self._cast.ids["dependant_id"]:
                    self._world.admin.delete(f"{path}/{each['id']}")

    def _other_user(self, user: User) -> tuple[Ids, Headers]:
        return {"user_id": user.id}, user.caller.headers if self._cast.scheme == "user_token" else {}

    def _deactivated_user(self) -> tuple[Ids, Headers]:
        user = self._world.user(self._platform)
        self._world.admin.delete(user.path)
        return {"user_id": user.id}, {}

    def _other_platform(self) -> tuple[Ids, Headers]:
        platform = self._world.platform()
        return {"platform_id": platform.id, "key_id": platform.key_id}, {}

    def _other_benefit(self) -> tuple[Ids, Headers]:
        provider = {"id": self._cast.ids["benefit_provider_id"]}
        return {"benefit_id": self._world.benefit(provider)["id"]}, {}

    def _other_dependant(self) -> tuple[Ids, Headers]:
        body = {"relationship": "OTHER", "gender": "OTHER", "date_of_birth": "1992-11-03"}
        path = f"/users/{self._cast.ids['user_id']}/dependants"
        self.make_room("create_dependant")
        dependant = made(self._user.post(path, {**body, "first_name": self._world.unique("Asha")}), 201)
        return {"dependant_id": dependant["id"]}, {}

    def _other_mrn(self) -> tuple[Ids, Headers]:
        return {"mrn_id": _mrn(self._user, self._cast.ids["dependant_id"], self._world.provider()["id"])}, {}
