"""Seeded traffic of partners and users, and a history of what each request was told.

A write is `ok` when a 2xx answer came, `failed` when it was certainly refused or never sent, and `unknown` when nobody
can say: then it may have happened once, and never twice. Each write carries a marker of its own, by which the checker
finds its effect.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from chaos.http import Answer, HttpClient, NoAnswer, NotSent
from chaos.rig import Rig

PATIENCE_S = 40.0
REQUEST_S = 8.0
MOST_OUTSTANDING = 2000
MOST_DEPENDANTS = 18
FIRST_PEOPLE = 12
# How statuses begin when there is no answer.
NOT_SENT, NO_ANSWER = SILENT = ("not sent", "no answer")
# When everything works again, what may be repeated succeeds within so long, and anything else after a few tries.
RECOVERED_S = 10.0
TRIED_AFTER_S = (0.0, 1.0, 2.0, 4.0)
READS = ("read user", "list dependants", "list benefits", "list accounts")
# Who joined before so many others has left the road: processes remember who called lately, and how many these are has
# to become steady.
MOST_ACTIVE = 1000
# How often each kind of request is made.
MIX = {
    "read user": 15,
    "list dependants": 15,
    "list benefits": 15,
    "list accounts": 10,
    "register": 7,
    "add dependant": 12,
    "change dependant": 8,
    "add account": 8,
    "link mrn": 5,
    "change profile": 5,
    "add benefit": 5,
}
SERVICE_OF = {
    "read user": "identity",
    "register": "identity",
    "onboard": "identity",
    "change profile": "identity",
    "list benefits": "catalogue",
    "add benefit": "catalogue",
}


class Outcome(StrEnum):
    """What the client knows of a request."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Person:
    """A user, and what the client has to know to act as one."""

    id: str
    phone: str
    headers: dict[str, str]
    dependants: list[str] = field(default_factory=list)
    asked_for: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a request was sent: what was answered, and when."""

    status: str
    began: float
    seconds: float

    @property
    def ended(self) -> float:
        return self.began + self.seconds

    @property
    def is_good(self) -> bool:
        return self.status.startswith("2")

    @property
    def is_silent(self) -> bool:
        return self.status.startswith(SILENT)


@dataclass(slots=True)
class Operation:
    """One request with its retries, and what became of it."""

    kind: str
    method: str
    path: str
    headers: dict[str, str]
    body: Any = None
    marker: str = ""
    person: Person | None = None
    key: str | None = None
    is_idempotent: bool = False
    # Whether it only tries whether everything works again when an experiment is over.
    is_trial: bool = False
    outcome: Outcome = Outcome.UNKNOWN
    began: float = 0.0
    seconds: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)
    replays: int = 0
    answer: Answer | None = None

    @property
    def is_read(self) -> bool:
        return self.method == "GET"

    @property
    def statuses(self) -> list[str]:
        """What became of each attempt."""
        return [attempt.status for attempt in self.attempts]

    @property
    def service(self) -> str:
        """The service that owns what is asked for."""
        return SERVICE_OF.get(self.kind, "records")

    @property
    def scope(self) -> bytes:
        """By what the owning service remembers the idempotency key."""
        caller = ["USER", self.person.id] if self.person else ["ADMIN", None]
        return hashlib.sha256(json.dumps([*caller, self.path, self.key]).encode()).digest()


class Workload:
    """The clients of one rig."""

    def __init__(self, rig: Rig, seed: int, *, keyed: float = 0.75, mix: dict[str, int] | None = None) -> None:
        """Describe the clients.

        Args:
            rig: the system.
            seed: decides on everything that is random.
            keyed: which share of the POSTs carries an Idempotency-Key and is retried.
            mix: how often each kind of request is made.
        """
        self.rig = rig
        self.seed = seed
        self.history: list[Operation] = []
        self.people: list[Person] = []
        self.platform_id = ""
        self.provider_id = ""
        self._rng = random.Random(seed)
        self._keyed = keyed
        self._mix = mix or MIX
        self._clients = {name: HttpClient(rig.client_port(name)) for name in rig.replicas("gateway")}
        self._ready = set(self._clients)
        self._turn = 0
        self._markers = 0
        self._unlinked: list[tuple[Person, str]] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._phones = 0
        self._is_trying = False
        # Every answer, also to requests of which nothing else is kept.
        self.told: Counter[str] = Counter()
        # What the traffic began, what it left out because too much was under way, and how long it lasted.
        self.begun = 0
        self.left_out = 0
        self.traffic_s = 0.0
        self.broken: list[BaseException | None] = []
        self.partner: dict[str, str] = {}
        self.admin = {"admin-api-key": rig.admin_key}

    # Requests.

    async def open(self) -> None:
        """Make the platform, a provider and the first people."""
        platform = await self._made("/platforms", {"name": f"Rides {self.seed}", "max_dependants": 20})
        self.platform_id = platform["id"]
        key = await self._made(f"/platforms/{self.platform_id}/api_keys", {"name": "chaos"})
        self.partner = {"api-key": key["secret"]}
        provider = {"legal_name": "Apollo Clinics", "display_name": "Apollo", "type": "CLINIC", "issues_mrn": True}
        self.provider_id = (await self._made("/benefit_providers", {"code": "apollo", **provider}))["id"]
        await asyncio.gather(*(self.register() for _ in range(FIRST_PEOPLE)))
        await asyncio.gather(*(self.run(self.new_dependant(person)) for person in self.people))

    async def run(self, operation: Operation) -> Operation:
        """Make a request, again while nobody knows what became of it and repeating is safe; keep it in the history."""
        loop = asyncio.get_running_loop()
        self.history.append(operation)
        operation.began = loop.time()
        operation.is_trial = self._is_trying
        patience_s = RECOVERED_S if operation.is_trial else PATIENCE_S
        may_have_happened = False
        while True:
            sent_at = loop.time()
            try:
                answer = await self.send_once(operation)
            except (NotSent, NoAnswer) as error:
                operation.answer = None
                operation.attempts.append(Attempt(_silence(error), sent_at, loop.time() - sent_at))
                may_have_happened |= isinstance(error, NoAnswer)
            else:
                operation.attempts.append(Attempt(answer.label, sent_at, answer.seconds))
                operation.answer = answer
                operation.replays += answer.headers.get("idempotency-replayed") == "true"
                if answer.status < 300:
                    operation.outcome = Outcome.OK
                    break
                if answer.status < 500 and answer.code != "RQ-109":
                    operation.outcome = Outcome.FAILED
                    break
                may_have_happened = True
            is_safe = operation.key is not None or operation.is_idempotent
            if not is_safe or loop.time() - operation.began > patience_s:
                operation.outcome = Outcome.UNKNOWN if may_have_happened and not operation.is_read else Outcome.FAILED
                break
            await asyncio.sleep(self._pause(operation))
        operation.seconds = loop.time() - operation.began
        return operation

    def _pause(self, operation: Operation) -> float:
        """Return how long a well-behaved client waits: as long as it was told to, else longer each time."""
        told = operation.answer.headers.get("retry-after", "") if operation.answer else ""
        pause = float(told) if told else min(0.2 * 2 ** len(operation.attempts), 2.0)
        return pause * (0.5 + self._rng.random())

    async def send_once(self, operation: Operation) -> Answer:
        """Make a request once, and keep nothing of it but a tally.

        Raises:
            NotSent, NoAnswer: there is no answer.
        """
        headers = dict(operation.headers)
        if operation.key is not None:
            headers["Idempotency-Key"] = operation.key
        try:
            answer = await self._client().request(
                operation.method, operation.path, headers, operation.body, timeout_s=REQUEST_S
            )
        except (NotSent, NoAnswer) as error:
            self.told[_silence(error)] += 1
            raise
        self.told[answer.label] += 1
        return answer

    def _client(self) -> HttpClient:
        """Take the next gateway that is ready, as a balancer does."""
        names = [name for name in self._clients if name in self._ready] or list(self._clients)
        self._turn += 1
        return self._clients[names[self._turn % len(names)]]

    @asynccontextmanager
    async def balancing(self, every_s: float = 0.1) -> AsyncIterator[None]:
        """Send requests only to gateways that say they are ready, for as long as the block runs."""

        async def look(name: str) -> None:
            while True:
                if await self.rig.probe(name, "/readyz") == 200:
                    self._ready.add(name)
                else:
                    self._ready.discard(name)
                    self._clients[name].close()
                await asyncio.sleep(every_s)

        looking = [asyncio.create_task(look(name)) for name in self._clients]
        try:
            yield
        finally:
            for task in looking:
                task.cancel()

    async def _made(self, path: str, body: dict[str, Any]) -> Any:
        operation = Operation("set up", "POST", path, self.admin, body, key=self.marker(), is_idempotent=True)
        await self.run(operation)
        self.history.remove(operation)
        assert operation.answer is not None, operation.statuses
        return operation.answer.json

    def marker(self) -> str:
        """Return a word that nothing else in this run has; also a name that a person could have."""
        self._markers += 1
        number, letters = self._markers, ""
        while number:
            number, digit = divmod(number, 26)
            letters += chr(ord("a") + digit)
        return f"Q{letters}"

    def key(self) -> str | None:
        """Return an idempotency key, or for some requests none."""
        return self._new_key() if self._rng.random() < self._keyed else None

    def _new_key(self) -> str:
        return f"{self.seed}-{self.marker()}"

    def give_key(self, operation: Operation) -> None:
        """Make a POST safe to repeat."""
        operation.key = operation.key or self._new_key()

    # What is asked for.

    async def register(self) -> Person | None:
        """Sign a new user in and complete the onboarding."""
        self._phones += 1
        phone = phone_number(self.seed, self._phones)
        sign_in = await self.run(self.new_token(phone))
        if sign_in.outcome is not Outcome.OK:
            return None
        assert sign_in.answer is not None
        told = sign_in.answer.json
        person = Person(told["user"]["id"], phone, {"Authorization": f"Bearer {told['access_token']}"})
        body = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1985-05-17", "last_name": self.marker()}
        onboarding = await self.run(
            Operation(
                "onboard",
                "POST",
                f"/users/{person.id}/complete_onboarding",
                person.headers,
                body,
                marker=body["last_name"],
                person=person,
                key=self._new_key(),
            )
        )
        if onboarding.outcome is Outcome.OK:
            self.people.append(person)
            return person
        return None

    def new_token(self, phone: str) -> Operation:
        """Exchange a phone number for a token."""
        body = {"phone_country_code": "+91", "phone_number": phone, "platform_id": self.platform_id}
        return Operation("register", "POST", "/auth/token", self.partner, body, marker=phone, is_idempotent=True)

    def new_dependant(self, person: Person) -> Operation:
        """Add a member to a family."""
        person.asked_for += 1
        name = self.marker()
        body = {"relationship": "OTHER", "first_name": name, "gender": "FEMALE", "date_of_birth": "1992-11-03"}
        path = f"/users/{person.id}/dependants"
        return Operation("add dependant", "POST", path, person.headers, body, name, person, self.key())

    def new_account(self, person: Person) -> Operation:
        """Add an account."""
        name = self.marker()
        digits = f"{50_000_000_000 + self._markers}"
        body = {"type": "BANK", "account_number": digits, "ifsc": "HDFC0001234", "holder_name": name}
        path = f"/users/{person.id}/accounts"
        return Operation("add account", "POST", path, person.headers, body, name, person, self.key())

    def new_benefit(self) -> Operation:
        """Add a benefit."""
        code = self.marker().lower()
        body = {"code": code, "name": f"Visit {code}", "type": "CONSULTATION", "price_paise": 0, "status": "active"}
        body["benefit_provider_id"] = self.provider_id
        return Operation("add benefit", "POST", "/benefits", self.admin, body, code, key=self.key())

    def new_profile(self, person: Person) -> Operation:
        """Change a profile, which reaches records as an event."""
        name = self.marker()
        return Operation(
            "change profile", "PATCH", f"/users/{person.id}", person.headers, {"last_name": name}, name, person
        )

    def new_name(self, person: Person) -> Operation:
        """Change a dependant."""
        name = self.marker()
        path = f"/users/{person.id}/dependants/{self._rng.choice(person.dependants)}"
        return Operation("change dependant", "PATCH", path, person.headers, {"first_name": name}, name, person)

    def new_mrn(self) -> Operation:
        """Link an MRN to a dependant that has none."""
        return self.new_link(*self._unlinked.pop(self._rng.randrange(len(self._unlinked))))

    def new_link(self, person: Person, dependant_id: str) -> Operation:
        """Link an MRN to a dependant."""
        name = self.marker()
        body = {"dependant_id": dependant_id, "benefit_provider_id": self.provider_id, "mrn": name}
        return Operation("link mrn", "POST", "/mrns", person.headers, body, name, person, self.key())

    def read(self, kind: str, person: Person) -> Operation:
        """Read something."""
        path = {
            "read user": f"/users/{person.id}",
            "list dependants": f"/users/{person.id}/dependants",
            "list benefits": "/benefits?page_size=20",
            "list accounts": f"/users/{person.id}/accounts",
        }[kind]
        return Operation(kind, "GET", path, person.headers, person=person)

    # Traffic.

    async def act(self) -> None:
        """Make one request of the mix."""
        kind = self._rng.choices(list(self._mix), list(self._mix.values()))[0]
        person = self._rng.choice(self.people[-MOST_ACTIVE:])
        if (kind == "change dependant" and not person.dependants) or (kind == "link mrn" and not self._unlinked):
            kind = "add dependant"
        if kind == "add dependant" and person.asked_for >= MOST_DEPENDANTS:
            kind = "register"
        if kind == "register":
            await self.register()
            return
        operation = await self.run(self._make(kind, person))
        if kind == "add dependant":
            self._note_dependant(person, operation)

    def _make(self, kind: str, person: Person) -> Operation:
        """Return a request of any kind but `register`, which takes two."""
        match kind:
            case "add dependant":
                return self.new_dependant(person)
            case "change dependant":
                return self.new_name(person)
            case "add account":
                return self.new_account(person)
            case "link mrn":
                return self.new_mrn()
            case "change profile":
                return self.new_profile(person)
            case "add benefit":
                return self.new_benefit()
            case _:
                return self.read(kind, person)

    def _note_dependant(self, person: Person, added: Operation) -> None:
        if added.outcome is Outcome.OK and added.answer is not None:
            person.dependants.append(added.answer.json["id"])
            self._unlinked.append((person, person.dependants[-1]))

    @asynccontextmanager
    async def traffic(self, rate: float, *, by_chance: bool = False) -> AsyncIterator[None]:
        """Make requests at a rate for as long as the block runs, whether answers come or not; then wait for them.

        Args:
            rate: how many a second.
            by_chance: whether they come independently of one another (a Poisson process), and not evenly.
        """
        going = asyncio.create_task(self._keep_going(rate, by_chance=by_chance))
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            going.cancel()
            self.traffic_s += loop.time() - began
            await self.settle()

    async def _keep_going(self, rate: float, *, by_chance: bool) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += self._rng.expovariate(rate) if by_chance else 1 / rate
            if len(self._tasks) < MOST_OUTSTANDING:
                self.begun += 1
                self.begin(self.act())
            else:
                self.left_out += 1
            await asyncio.sleep(max(0.0, due - loop.time()))

    def begin(self, doing: Any) -> asyncio.Task[Any]:
        """Let something run beside everything else; `settle` waits for it."""
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.broken.append(task.exception())

    async def settle(self) -> None:
        """Wait until every request has ended."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        if self.broken:
            raise RuntimeError(f"{len(self.broken)} clients broke") from self.broken[0]

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()

    # Whether everything works again.

    async def try_everything(self) -> list[str]:
        """Make one request of every kind as soon as traffic has ended; return what did not succeed soon."""
        await self.settle()
        self._is_trying = True
        try:
            person = await self._joins()
            if person is None:
                return [f"nobody could join: {self.history[-1].kind} {self.history[-1].statuses[-3:]}"]
            return [problem for kind in MIX if (problem := await self._try(kind, person))]
        finally:
            self._is_trying = False

    async def _joins(self) -> Person | None:
        # What is asked for with a key is repeated for as long anyway.
        for pause_s in TRIED_AFTER_S:
            await asyncio.sleep(pause_s)
            if (person := await self.register()) is not None:
                return person
        return None

    async def _try(self, kind: str, person: Person) -> str:
        problem = ""
        for pause_s in TRIED_AFTER_S:
            await asyncio.sleep(pause_s)
            tried = await self._once(kind, person)
            if tried is None or tried.outcome is Outcome.OK:
                return problem if tried is None else ""
            problem = f"{kind} does not work again: {tried.statuses[-3:]}"
        return problem

    async def _once(self, kind: str, person: Person) -> Operation | None:
        """Make one request, a POST with a key; None when the kind has been tried or needs what could not be made."""
        if kind == "register" or (kind == "change dependant" and not person.dependants):
            return None
        if kind == "link mrn" and not self._unlinked:
            return None
        operation = self._make(kind, person)
        if operation.method == "POST":
            self.give_key(operation)
        await self.run(operation)
        if kind == "add dependant":
            self._note_dependant(person, operation)
        return operation

    # What came out.

    def seen(self, chosen: Callable[[Operation], bool]) -> Sequence[Operation]:
        """Return the operations for which something holds."""
        return [operation for operation in self.history if chosen(operation)]


def phone_number(seed: int, number: int) -> str:
    """Return a phone number that no other person of a run has, in national digits."""
    return f"9{((seed % 9000 + 1000) * 100_000 + number) % 10**9:09d}"


def _silence(error: NotSent | NoAnswer) -> str:
    return f"{NOT_SENT if isinstance(error, NotSent) else NO_ANSWER}: {error}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def refusals(operations: Sequence[Operation]) -> Counter[str]:
    """Return what was answered that was no success, by status and code."""
    return Counter(status for operation in operations for status in operation.statuses if not status.startswith("2"))
