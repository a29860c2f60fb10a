"""Compares what clients were told with what is there, as the API shows it and as the databases hold it."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from chaos.http import Answer, HttpClient, NoAnswer, NotSent
from chaos.rig import Rig, RigFailed
from chaos.workload import Operation, Outcome, Workload

SETTLED_S = 60.0
AT_ONCE = 8
SERVICES = ("identity", "catalogue", "records")


@dataclass
class Verdict:
    """What is wrong; nothing, if the system kept its promises.

    Attributes:
        lost: acknowledged writes that are not there.
        doubled: writes that happened more than once.
        uninvited: writes that were refused or never sent, and are there all the same.
        half_done: effects without what belongs in the same transaction.
        torn: broken chains, gaps in versions, events that went missing between outbox and inbox.
        unserved: what did not work again when all was over.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    uninvited: list[str] = field(default_factory=list)
    half_done: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    unserved: list[str] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)

    @property
    def is_clean(self) -> bool:
        return not self._problems()

    def __str__(self) -> str:
        figures = (
            f"{len(self.lost)} lost, {len(self.doubled)} twice, {len(self.half_done)} half-done of "
            f"{self.checked['acknowledged']} acknowledged"
        )
        if self.uninvited or self.torn:
            figures += f", {len(self.uninvited)} uninvited, {len(self.torn)} torn"
        rest = self._problems()
        return figures + (f"; {'; '.join(rest[:6])}" if rest else "")

    def _problems(self) -> list[str]:
        return [*self.lost, *self.doubled, *self.uninvited, *self.half_done, *self.torn, *self.unserved]


class Checker:
    """Checks one rig after its traffic has ended and everything runs again."""

    def __init__(self, rig: Rig, workload: Workload) -> None:
        self._rig = rig
        self._workload = workload
        self._http = HttpClient(rig.client_port(rig.replicas("gateway")[0]))
        self._limit = asyncio.Semaphore(AT_ONCE)
        # What users are called, and what their SELF is called.
        self._last_names: dict[str, str | None] = {}
        self._self_names: dict[str, str | None] = {}
        self.verdict = Verdict()

    async def check(self) -> Verdict:
        """Wait until events have arrived and audit rows are chained, and compare everything."""
        await self._workload.settle()
        for gateway in self._rig.replicas("gateway"):
            await self._rig.until_ready(gateway)
        await self._until_settled()
        writes = [operation for operation in self._workload.history if not operation.is_read]
        self.verdict.checked["acknowledged"] = sum(operation.outcome is Outcome.OK for operation in writes)
        present = await self._present()
        self._compare(writes, present)
        await self._check_keys(writes, present)
        await self._check_identity()
        await self._check_records()
        await self._check_events()
        await self._check_audit()
        self._http.close()
        return self.verdict

    async def _until_settled(self) -> None:
        async def is_settled() -> bool:
            waiting = (await self._rig.ask("identity", "SELECT count(*) FROM outbox WHERE delivered_at IS NULL"))[0][0]
            for service in SERVICES:
                missing = "SELECT (SELECT count(*) FROM audit_log) - (SELECT count(*) FROM audit_chain)"
                waiting += (await self._rig.ask(service, missing))[0][0]
            return bool(waiting == 0)

        try:
            await self._rig.until(is_settled, SETTLED_S, "events delivered and audit rows chained")
        except RigFailed as error:
            self.verdict.torn.append(str(error))

    # What the API shows.

    async def _present(self) -> Counter[tuple[str, str]]:
        """Count every marker that the API shows, by the kind of its operation."""
        found: Counter[tuple[str, str]] = Counter()
        async for benefit in self._pages("/benefits?page_size=200", self._workload.admin):
            found["add benefit", benefit["code"]] += 1
        platform = self._workload.platform_id
        async for user in self._pages(f"/users?page_size=200&platform_id={platform}", self._workload.admin):
            found["register", user["phone_number"].removeprefix("+91")] += 1
            self._last_names[user["id"]] = user["last_name"]
        people = {operation.person.id for operation in self._workload.history if operation.person}
        for part in await asyncio.gather(*(self._family(user_id) for user_id in sorted(people))):
            found.update(part)
        return found

    async def _family(self, user_id: str) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        base = f"/users/{user_id}/dependants"
        async for person in self._pages(f"{base}?include_removed=true&page_size=200", self._workload.admin):
            versions = [person]
            if person["version"] > 1:
                path = f"{base}/{person['id']}/versions?page_size=200"
                versions = [version async for version in self._pages(path, self._workload.admin)]
            numbers = sorted(version["version"] for version in versions)
            if numbers != list(range(1, person["version"] + 1)):
                self.verdict.torn.append(f"dependant {person['id']} has the versions {numbers}")
            if person["relationship"] == "SELF":
                self._self_names[user_id] = person["last_name"]
            for version in versions:
                is_first = version["version"] == 1
                if person["relationship"] == "SELF":
                    found["onboard" if is_first else "change profile", version["last_name"] or ""] += 1
                else:
                    found["add dependant" if is_first else "change dependant", version["first_name"]] += 1
        partner = self._workload.partner
        async for account in self._pages(f"/users/{user_id}/accounts?page_size=200", partner):
            found["add account", account["holder_name"]] += 1
        async for mrn in self._pages(f"/mrns?user_id={user_id}&page_size=200", partner):
            found["link mrn", mrn["mrn"]] += 1
        return found

    async def _pages(self, path: str, headers: dict[str, str]) -> Any:
        token = ""
        while True:
            body = (await self._get(path + token, headers)).json
            for item in body["items"]:
                yield item
            if not body["next_page_token"]:
                return
            token = f"&page_token={body['next_page_token']}"

    async def _get(self, path: str, headers: dict[str, str]) -> Answer:
        for _ in range(20):
            try:
                async with self._limit:
                    answer = await self._http.request("GET", path, headers)
                if answer.status == 200:
                    return answer
                problem = f"{answer.status} {answer.code}"
            except (NotSent, NoAnswer) as error:
                problem = repr(error)
            await asyncio.sleep(0.25)
        raise AssertionError(f"GET {path}: {problem}")

    def _compare(self, writes: list[Operation], present: Counter[tuple[str, str]]) -> None:
        for operation in writes:
            times = present[operation.kind, operation.marker]
            what = f"{operation.kind} {operation.marker} {operation.statuses[-4:]}"
            if operation.outcome is Outcome.OK and times == 0:
                self.verdict.lost.append(what)
            if times > 1:
                self.verdict.doubled.append(what)
            if operation.outcome is Outcome.FAILED and times > 0:
                self.verdict.uninvited.append(what)

    # What the databases hold.

    async def _check_keys(self, writes: list[Operation], present: Counter[tuple[str, str]]) -> None:
        """An idempotency key is remembered exactly when its effect has happened."""
        remembered = {
            service: {bytes(row[0]) for row in await self._rig.ask(service, "SELECT scope FROM idempotency_keys")}
            for service in SERVICES
        }
        for operation in writes:
            if operation.key is None:
                continue
            has_happened = present[operation.kind, operation.marker] > 0
            if operation.outcome is not Outcome.UNKNOWN:
                has_happened = operation.outcome is Outcome.OK
            if (operation.scope in remembered[operation.service]) != has_happened:
                self.verdict.half_done.append(f"the key of {operation.kind} {operation.marker}: {operation.outcome}")

    async def _check_identity(self) -> None:
        rows = await self._rig.ask(
            "identity",
            "SELECT id FROM users WHERE status = 'active' AND id NOT IN (SELECT owner_id FROM outbox)",
        )
        self.verdict.half_done += [f"user {row[0]} is active and no event says so" for row in rows]
        # Clients change nothing of an active user that records need not know.
        rows = await self._rig.ask(
            "identity",
            "SELECT u.id, u.version, max(o.owner_version) FROM users u JOIN outbox o ON o.owner_id = u.id "
            "WHERE u.status = 'active' GROUP BY u.id, u.version HAVING max(o.owner_version) <> u.version",
        )
        self.verdict.half_done += [f"user {row[0]} has version {row[1]}, the last event {row[2]}" for row in rows]
        rows = await self._rig.ask(
            "identity",
            "SELECT u.id, u.version, count(a.id) FROM users u LEFT JOIN audit_log a ON a.entity_id = u.id::text "
            "AND a.action IN ('user.complete_onboarding', 'user.update') WHERE u.status <> 'deactivated' "
            "GROUP BY u.id, u.version HAVING count(a.id) <> u.version - 1",
        )
        self.verdict.half_done += [f"user {row[0]} has version {row[1]} and {row[2]} audited changes" for row in rows]
        rows = await self._rig.ask(
            "identity",
            "SELECT u.id FROM users u LEFT JOIN audit_log a ON a.entity_id = u.id::text "
            "AND a.action = 'user.complete_onboarding' WHERE u.status = 'active' GROUP BY u.id HAVING count(a.id) <> 1",
        )
        self.verdict.half_done += [f"user {row[0]} is active and was not audited to join once" for row in rows]
        await self._each_has_audit("identity", "users", "user.create")

    async def _check_records(self) -> None:
        gaps = await self._rig.ask(
            "records",
            "SELECT id FROM dependants GROUP BY id HAVING count(*) <> max(version) OR min(version) <> 1",
        )
        self.verdict.torn += [f"dependant {row[0]} has gaps" for row in gaps]
        await self._each_has_audit("records", "accounts", "account.create")
        await self._each_has_audit("records", "mrns", "mrn.link")
        await self._each_has_audit("catalogue", "benefits", "benefit.create")
        rows = await self._rig.ask(
            "records",
            "SELECT coalesce(d.id::text, a.entity_id) "
            "FROM (SELECT id, count(*) AS n FROM dependants GROUP BY id) d FULL JOIN "
            "(SELECT entity_id, count(*) AS n FROM audit_log WHERE entity_type = 'dependant' AND action IN "
            "('dependant.create', 'dependant.update', 'dependant.delete') GROUP BY entity_id) a "
            "ON a.entity_id = d.id::text WHERE a.n IS DISTINCT FROM d.n",
        )
        self.verdict.half_done += [f"dependant {row[0]} has not one audit row a version" for row in rows]

    async def _each_has_audit(self, service: str, table: str, action: str) -> None:
        rows = await self._rig.ask(
            service,
            f"SELECT t.id FROM {table} t LEFT JOIN audit_log a ON a.entity_id = t.id::text "  # noqa: S608
            f"AND a.action = '{action}' GROUP BY t.id HAVING count(a.id) <> 1",
        )
        self.verdict.half_done += [f"{table} {row[0]} has not one {action} in the audit log" for row in rows]
        rows = await self._rig.ask(
            service,
            f"SELECT a.entity_id FROM audit_log a LEFT JOIN {table} t ON t.id::text = a.entity_id "  # noqa: S608
            f"WHERE a.action = '{action}' AND t.id IS NULL",
        )
        self.verdict.half_done += [f"the audit log tells of {action} {row[0]}, which is not there" for row in rows]

    async def _check_events(self) -> None:
        """Every event that was delivered was applied, nothing else was, and the last one of each user has won."""
        sent = await self._rig.ask("identity", "SELECT id, owner_id, owner_version FROM outbox ORDER BY owner_version")
        applied = {row[0] for row in await self._rig.ask("records", "SELECT event_id FROM inbox")}
        if missing := {row[0] for row in sent} - applied:
            self.verdict.torn.append(f"{len(missing)} events were never applied")
        if strange := applied - {row[0] for row in sent}:
            self.verdict.torn.append(f"{len(strange)} events were applied that nobody sent")
        versions: dict[Any, list[int]] = defaultdict(list)
        for _, owner, version in sent:
            versions[owner].append(version)
        known = dict(await self._rig.ask("records", "SELECT id, version FROM users"))
        selves = dict(
            await self._rig.ask(
                "records", "SELECT user_id, max(version) FROM dependants WHERE relationship = 'SELF' GROUP BY user_id"
            )
        )
        for owner, numbers in versions.items():
            if known.get(owner) != numbers[-1]:
                self.verdict.torn.append(f"records knows version {known.get(owner)} of user {owner}, not {numbers[-1]}")
            if selves.get(owner) != len(numbers):
                self.verdict.torn.append(f"SELF of user {owner}: {selves.get(owner)} versions, {len(numbers)} events")
        for user_id, name in self._self_names.items():
            if name != (called := self._last_names.get(user_id)):
                self.verdict.torn.append(f"user {user_id} is called {called}, SELF {name}")
        self.verdict.checked["events"] = len(sent)

    async def _check_audit(self) -> None:
        """The audit chains hold, from the first row to the last."""
        for service in SERVICES:
            start = 1
            while start is not None:
                path = f"/audit_logs/verify?service={service}&from_sequence={start}"
                item = (await self._get(path, self._workload.admin)).json["items"][0]
                if not item["intact"]:
                    self.verdict.torn.append(f"audit chain of {service} breaks at {item['first_broken_sequence']}")
                self.verdict.checked["audit rows"] += item["rows"]
                start = item["next_from_sequence"]
