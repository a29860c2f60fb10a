"""15. Rights end while somebody is using them, at two gateways."""

import asyncio
import time
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.http import HttpClient
from chaos.rig import Layout
from chaos.workload import percentile

ENDED_WITHIN_S = 1.0
PATIENCE_S = 10.0
# Who was refused is not let in again: a remembered state that is late would do that.
ASKED_ON_S = 0.5
Headers = dict[str, str]


@dataclass(frozen=True)
class _Holder:
    """A platform of its own with one user, and who may see that user's accounts."""

    platform_id: str
    key_id: str
    user_id: str
    partner: Headers
    user: Headers


@dataclass
class NarrowRights(Experiment):
    """Deactivates users, revokes keys and suspends platforms at one gateway, and asks both until they refuse."""

    number = 15
    title = "deactivate, revoke, suspend under traffic, two gateways"
    must_show = "refused by both ≤ 1 s after the answer"
    is_fault_free = True
    layout = Layout(replicas=2)

    times: int = 50
    rate: float = 50.0

    async def measure(self, scene: Scene) -> Finding:
        took: dict[str, list[float]] = {"deactivate": [], "revoke": [], "suspend": []}
        clients = [HttpClient(scene.rig.client_port(gateway)) for gateway in scene.rig.replicas("gateway")]
        async with scene.workload.traffic(self.rate):
            for _ in range(self.times):
                for what, seconds in took.items():
                    holder = await self._holder(scene, clients[0])
                    headers = holder.user if what == "deactivate" else holder.partner
                    path = f"/users/{holder.user_id}/accounts"
                    for client in clients:
                        # Both remember now that this is allowed.
                        assert (await client.request("GET", path, headers)).status == 200
                    await self._narrow(scene, clients[0], what, holder)
                    ended_at = time.monotonic()
                    refused = [_refused_after(client, path, headers, ended_at) for client in clients]
                    seconds += await asyncio.gather(*refused)
        for client in clients:
            client.close()
        verdict = await scene.verdict()
        longest = max(max(seconds) for seconds in took.values())
        parts = [
            f"{what} {percentile(seconds, 0.5) * 1000:.0f} ms in the middle, {max(seconds) * 1000:.0f} at most"
            for what, seconds in took.items()
        ]
        finding = Finding(f"{self.times} × each: {'; '.join(parts)}; {verdict}", problems_of(verdict))
        if longest > ENDED_WITHIN_S:
            finding.problems.append(f"something was still allowed after {longest:.2f} s")
        return finding

    async def _holder(self, scene: Scene, client: HttpClient) -> _Holder:
        admin, marker = scene.workload.admin, scene.workload.marker()

        async def made(path: str, headers: Headers, body: object) -> dict[str, str]:
            answer = await client.request("POST", path, headers, body)
            assert answer.status < 300, answer.body
            told: dict[str, str] = answer.json
            return told

        platform = await made("/platforms", admin, {"name": f"Narrow {scene.seed} {marker}"})
        key = await made(f"/platforms/{platform['id']}/api_keys", admin, {"name": "one"})
        partner = {"api-key": key["secret"]}
        sign_in = {"phone_number": "9876543210", "platform_id": platform["id"]}
        answer = await client.request("POST", "/auth/token", partner, sign_in)
        user = {"Authorization": f"Bearer {answer.json['access_token']}"}
        user_id = str(answer.json["user"]["id"])
        profile = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1985-05-17"}
        await made(f"/users/{user_id}/complete_onboarding", user, profile)
        return _Holder(platform["id"], key["id"], user_id, partner, user)

    async def _narrow(self, scene: Scene, client: HttpClient, what: str, holder: _Holder) -> None:
        method, path, body = {
            "deactivate": ("DELETE", f"/users/{holder.user_id}", None),
            "revoke": ("DELETE", f"/platforms/{holder.platform_id}/api_keys/{holder.key_id}", None),
            "suspend": ("POST", f"/platforms/{holder.platform_id}/suspend", {"reason": "An experiment."}),
        }[what]
        answer = await client.request(method, path, scene.workload.admin, body)
        assert answer.status in (200, 204), answer.body


async def _refused_after(client: HttpClient, path: str, headers: Headers, ended_at: float) -> float:
    """Ask until all answers are refusals for a while; return when the last request that was allowed was sent."""
    last_allowed = ended_at
    refused_since = None
    while time.monotonic() - ended_at < PATIENCE_S:
        sent_at = time.monotonic()
        if (await client.request("GET", path, headers)).status in (401, 403):
            refused_since = refused_since or sent_at
            if sent_at - refused_since > ASKED_ON_S:
                return last_allowed - ended_at
            await asyncio.sleep(0.02)
        else:
            last_allowed, refused_since = sent_at, None
    return PATIENCE_S
