"""15. Rights end while somebody is using them, at two gateways."""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.http import HttpClient
from chaos.proxy import Proxy
from chaos.rig import Layout
from chaos.workload import percentile

ENDED_WITHIN_S = 1.0
PATIENCE_S = 10.0
# Who was refused is not let in again: a remembered state that is late would do that.
ASKED_ON_S = 0.75
LEAST_REFUSALS = 5
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
    must_show = "refused by both ≤ 1 s after the answer, also while one of identity's replicas can't be reached"
    layout = Layout(replicas=2)

    times: int = 50
    times_cut_off: int = 10
    rate: float = 50.0

    async def measure(self, scene: Scene) -> Finding:
        took: dict[str, list[float]] = {"deactivate": [], "revoke": [], "suspend": []}
        took_cut_off: list[float] = []
        clients = [HttpClient(scene.rig.client_port(gateway)) for gateway in scene.rig.replicas("gateway")]
        async with scene.workload.traffic(self.rate):
            for _ in range(self.times):
                for what, seconds in took.items():
                    seconds.append(await self._end_rights(scene, clients, what))
            for turn in range(self.times_cut_off):
                (edge,) = scene.rig.edges(f"gateway-identity-{1 + turn % 2}")
                what = tuple(took)[turn % len(took)]
                took_cut_off.append(await self._end_rights(scene, clients, what, edge))
                await asyncio.gather(*(scene.rig.until_ready(gateway) for gateway in scene.rig.replicas("gateway")))
        for client in clients:
            client.close()
        verdict = await scene.verdict()
        parts = [
            f"{what} {percentile(seconds, 0.5) * 1000:.0f} ms in the middle, {max(seconds) * 1000:.0f} at most"
            for what, seconds in took.items()
        ]
        finding = Finding(
            f"{self.times} × each: {'; '.join(parts)}; {self.times_cut_off} × with a replica of identity cut off: "
            f"{max(took_cut_off) * 1000:.0f} ms at most; {verdict}",
            problems_of(verdict),
        )
        longest = max(max(seconds) for seconds in (*took.values(), took_cut_off))
        if longest > ENDED_WITHIN_S:
            finding.problems.append(f"something was still allowed after {longest:.2f} s")
        return finding

    async def _end_rights(
        self, scene: Scene, clients: list[HttpClient], what: str, cut_off: Proxy | None = None
    ) -> float:
        """Give somebody rights, end them, and return how long they still counted at the gateway where they did longest.

        The edge that is cut off swallows everything meanwhile.
        """
        holder = await self._holder(scene, clients[0])
        headers = holder.user if what == "deactivate" else holder.partner
        path = f"/users/{holder.user_id}/accounts"
        for client in clients:
            # Both remember now that this is allowed.
            await scene.rig.until(partial(_is_allowed, client, path, headers), PATIENCE_S, "it is allowed")
        if cut_off is not None:
            cut_off.faults.is_black_hole = True
        try:
            await scene.rig.until(partial(self._narrow, scene, clients[0], what, holder), 60, f"{what} is answered")
            ended_at = time.monotonic()
            return max(await asyncio.gather(*(_refused_after(client, path, headers, ended_at) for client in clients)))
        finally:
            if cut_off is not None:
                cut_off.heal()

    async def _holder(self, scene: Scene, client: HttpClient) -> _Holder:
        admin, marker = scene.workload.admin, scene.workload.marker()

        async def made(path: str, headers: Headers, body: object) -> dict[str, str]:
            for _ in range(20):
                answer = await client.request("POST", path, headers, body)
                if answer.status < 500:
                    break
                await asyncio.sleep(0.5)
            assert answer.status < 300, answer.body
            told: dict[str, str] = answer.json
            return told

        platform = await made("/platforms", admin, {"name": f"Narrow {scene.seed} {marker}"})
        key = await made(f"/platforms/{platform['id']}/api_keys", admin, {"name": "one"})
        partner = {"api-key": key["secret"]}
        sign_in = {"phone_number": "9876543210", "platform_id": platform["id"]}
        signed_in: dict[str, Any] = await made("/auth/token", partner, sign_in)
        user = {"Authorization": f"Bearer {signed_in['access_token']}"}
        user_id = str(signed_in["user"]["id"])
        profile = {"first_name": "Ravi", "gender": "MALE", "date_of_birth": "1985-05-17"}
        await made(f"/users/{user_id}/complete_onboarding", user, profile)
        return _Holder(platform["id"], key["id"], user_id, partner, user)

    async def _narrow(self, scene: Scene, client: HttpClient, what: str, holder: _Holder) -> bool:
        """End rights; return whether that was acknowledged. Once more does no harm."""
        method, path, body = {
            "deactivate": ("DELETE", f"/users/{holder.user_id}", None),
            "revoke": ("DELETE", f"/platforms/{holder.platform_id}/api_keys/{holder.key_id}", None),
            "suspend": ("POST", f"/platforms/{holder.platform_id}/suspend", {"reason": "An experiment."}),
        }[what]
        answer = await client.request(method, path, scene.workload.admin, body)
        assert answer.status in (200, 204) or answer.status >= 500, answer.body
        return answer.status < 300


async def _is_allowed(client: HttpClient, path: str, headers: Headers) -> bool:
    return (await client.request("GET", path, headers)).status == 200


async def _refused_after(client: HttpClient, path: str, headers: Headers, ended_at: float) -> float:
    """Ask until nobody was let in for a while; return when the last request that was allowed was sent."""
    last_allowed, refusals = ended_at, 0
    while last_allowed - ended_at < PATIENCE_S and (
        time.monotonic() - last_allowed < ASKED_ON_S or refusals < LEAST_REFUSALS
    ):
        sent_at = time.monotonic()
        # Nobody is let in either while identity is not heard: 503.
        refusals += 1
        if (await client.request("GET", path, headers)).status == 200:
            last_allowed, refusals = sent_at, 0
        await asyncio.sleep(0.01)
    return last_allowed - ended_at
