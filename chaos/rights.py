"""Rights that end while somebody is using them at every gateway."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from chaos.experiment import FITTING, Scene
from chaos.http import HttpClient, NoAnswer, NotSent
from chaos.proxy import Faults, Proxy

ENDED_WITHIN_S = 1.0
PATIENCE_S = 10.0
ASK_EVERY_S = 0.02
# Who was refused is not let in again: a remembered state that is late would do that.
ASKED_ON_S = 0.75
# And no longer than this after rights have ended while something is broken, because then it is mended: what is
# remembered lives on, and must not be used before it is known that it still holds.
BROKEN_ON_S = 1.25
MENDED_ON_S = 2.0
# So many answers in a row say for good why somebody is refused.
LAST = 5
LET_IN = "200"
# What the holder of each ended right is told.
REFUSED = {"deactivate": "403 AU-207", "revoke": "401 AU-208", "suspend": "403 AU-209"}
# When identity says that it happened.
HAPPENED = {
    "deactivate": "SELECT deactivated_at FROM users WHERE id = %s",
    "revoke": "SELECT revoked_at FROM api_keys WHERE id = %s",
    "suspend": "SELECT updated_at FROM platforms WHERE id = %s",
}
Headers = dict[str, str]


class Heard(NamedTuple):
    """An answer, and when it was asked for."""

    sent_at: float
    status: str


@dataclass
class Ended:
    """What was seen of an end of rights.

    Attributes:
        seconds: how long after it somebody was still let in, where that lasted longest.
        problems: what must not have happened.
        heard: how often each answer came.
    """

    seconds: float
    problems: list[str] = field(default_factory=list)
    heard: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Holder:
    """A platform of its own with one user, and who may see that user's accounts."""

    platform_id: str
    key_id: str
    user_id: str
    partner: Headers
    user: Headers

    def loses(self, what: str) -> str:
        """Return the id of what is changed to end a right."""
        return {"deactivate": self.user_id, "revoke": self.key_id, "suspend": self.platform_id}[what]


class _Asker:
    """Asks one gateway the same again and again, whether answers come or not."""

    def __init__(self, client: HttpClient, path: str, headers: Headers) -> None:
        self.heard: list[Heard] = []
        self._ask_once = partial(client.request, "GET", path, headers)
        self._asked: set[asyncio.Task[None]] = set()
        self._asking = asyncio.create_task(self._ask())

    async def stop(self) -> None:
        """Ask no more, and wait for what was asked."""
        self._asking.cancel()
        while self._asked:
            await asyncio.wait(list(self._asked))

    def last(self) -> list[str]:
        """Return the answers to the last questions that were answered."""
        return [heard.status for heard in sorted(self.heard)[-LAST:]]

    async def _ask(self) -> None:
        while True:
            asked = asyncio.create_task(self._hear())
            self._asked.add(asked)
            asked.add_done_callback(self._asked.discard)
            await asyncio.sleep(ASK_EVERY_S)

    async def _hear(self) -> None:
        sent_at = time.monotonic()
        try:
            status = (await self._ask_once()).label
        except (NotSent, NoAnswer) as error:
            status = f"no answer: {error}"
        self.heard.append(Heard(sent_at, status))


async def end_rights(scene: Scene, what: str, edges: Sequence[Proxy] = (), faults: Faults | None = None) -> Ended:
    """Give somebody rights, end them at the first gateway, and ask all gateways until all refuse.

    Args:
        scene: the system.
        what: `deactivate`, `revoke` or `suspend`.
        edges: what is broken from just before the end of the rights to some time after it.
        faults: how these are broken.
    """
    clients = [HttpClient(scene.rig.client_port(gateway)) for gateway in scene.rig.replicas("gateway")]
    holder = await _new_holder(scene, clients[0])
    headers = holder.user if what == "deactivate" else holder.partner
    path = f"/users/{holder.user_id}/accounts"
    for client in clients:
        # All remember now that this is allowed.
        await scene.rig.until(partial(_is_allowed, client, path, headers), PATIENCE_S, "it is allowed")
    askers = [_Asker(client, path, headers) for client in clients]
    mended_at = None
    try:
        for edge in edges:
            edge.faults = faults or Faults()
        try:
            ended_at = await _narrow_until_answered(scene, clients[0], what, holder)
            if edges:
                await asyncio.sleep(max(0.0, ended_at + BROKEN_ON_S - time.monotonic()))
        finally:
            for edge in edges:
                edge.heal()
        if edges:
            mended_at = time.monotonic()
            await asyncio.sleep(MENDED_ON_S)
        await _wait_until_refused(askers, REFUSED[what], ended_at)
    finally:
        for asker in askers:
            await asker.stop()
        for client in clients:
            client.close()
    return judge(what, [asker.heard for asker in askers], ended_at, mended_at)


def judge(what: str, heard: Sequence[Sequence[Heard]], ended_at: float, mended_at: float | None = None) -> Ended:
    """Say how long somebody was let in, and what else was wrong.

    Args:
        what: the right that ended.
        heard: the answers of each gateway.
        ended_at: when the right ended.
        mended_at: since when nothing was broken any more; None if nothing was.
    """
    answers = [answer for answers in heard for answer in answers]
    let_in = [answer.sent_at for answer in answers if answer.status == LET_IN]
    ended = Ended(max([0.0, *(sent_at - ended_at for sent_at in let_in)]))
    ended.heard.update(answer.status for answer in answers)
    if ended.seconds > ENDED_WITHIN_S:
        ended.problems.append(f"{what}: still allowed after {ended.seconds:.2f} s")
    if mended_at is not None and (again := sum(sent_at >= mended_at for sent_at in let_in)):
        ended.problems.append(f"{what}: {again} let in after all was mended")
    if strange := set(ended.heard) - {LET_IN, REFUSED[what], *FITTING}:
        ended.problems.append(f"{what}: answers {', '.join(sorted(strange))}")
    for answers_of_one in heard:
        last = {answer.status for answer in sorted(answers_of_one)[-LAST:]}
        if last != {REFUSED[what]}:
            ended.problems.append(f"{what}: ended in {', '.join(sorted(last))} instead of {REFUSED[what]}")
    return ended


async def _narrow_until_answered(scene: Scene, client: HttpClient, what: str, holder: _Holder) -> float:
    """End rights, and return when that happened, as identity's database says.

    An answer may be late, or belong to a repeat of what was done but not answered.
    """
    await scene.rig.until(partial(_narrow, scene, client, what, holder), 60, f"{what} is answered")
    answered_at = time.monotonic()
    moment: datetime = (await scene.rig.ask("identity", HAPPENED[what], holder.loses(what)))[0][0]
    return min(answered_at, time.monotonic() - (time.time() - moment.timestamp()))


async def _wait_until_refused(askers: Sequence[_Asker], refusal: str, ended_at: float) -> None:
    """Wait until nobody was let in for a while and all gateways say why, or until patience is over."""
    while time.monotonic() - ended_at < PATIENCE_S:
        quiet_since = max(
            [ended_at, *(heard.sent_at for one in askers for heard in one.heard if heard.status == LET_IN)]
        )
        is_quiet = time.monotonic() - quiet_since >= ASKED_ON_S
        if is_quiet and all(asker.last() == [refusal] * LAST for asker in askers):
            return
        await asyncio.sleep(ASK_EVERY_S)


async def _new_holder(scene: Scene, client: HttpClient) -> _Holder:
    admin, marker = scene.workload.admin, scene.workload.marker()

    async def made(path: str, headers: Headers, body: object) -> dict[str, Any]:
        for _ in range(20):
            answer = await client.request("POST", path, headers, body)
            if answer.label not in FITTING:
                break
            await asyncio.sleep(0.5)
        assert answer.status < 300, answer.body
        told: dict[str, Any] = answer.json
        return told

    platform = await made("/platforms", admin, {"name": f"Narrow {scene.seed} {marker}"})
    key = await made(f"/platforms/{platform['id']}/api_keys", admin, {"name": "one"})
    partner = {"api-key": key["secret"]}
    sign_in = {"phone_number": "9876543210", "platform_id": platform["id"]}
    signed_in = await made("/auth/token", partner, sign_in)
    user = {"Authorization": f"Bearer {signed_in['access_token']}"}
    user_id = signed_in["user"]["id"]
    profile = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1985-05-17"}
    await made(f"/users/{user_id}/complete_onboarding", user, profile)
    return _Holder(platform["id"], key["id"], user_id, partner, user)


async def _narrow(scene: Scene, client: HttpClient, what: str, holder: _Holder) -> bool:
    """End rights; return whether that was acknowledged. Once more does no harm."""
    method, path, body = {
        "deactivate": ("DELETE", f"/users/{holder.user_id}", None),
        "revoke": ("DELETE", f"/platforms/{holder.platform_id}/api_keys/{holder.key_id}", None),
        "suspend": ("POST", f"/platforms/{holder.platform_id}/suspend", {"reason": "An experiment."}),
    }[what]
    answer = await client.request(method, path, scene.workload.admin, body)
    assert answer.status in (200, 204) or answer.label in FITTING, answer.body
    return answer.status < 300


async def _is_allowed(client: HttpClient, path: str, headers: Headers) -> bool:
    return (await client.request("GET", path, headers)).status == 200
