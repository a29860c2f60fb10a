"""6. Records is down."""

import asyncio
from dataclasses import dataclass

from chaos.experiment import Experiment, Finding, Scene, problems_of
from chaos.workload import Outcome, refusals

FOLLOWS_WITHIN_S = 15.0


@dataclass
class RecordsDown(Experiment):
    """Takes records down for a while."""

    number = 6
    title = "records down"
    must_show = "identity and catalogue routes: 0 errors; onboarding succeeds, SELF follows when records is back"

    seconds: float = 60.0
    rate: float = 50.0

    async def measure(self, scene: Scene) -> Finding:
        rig, workload = scene.rig, scene.workload
        start = len(workload.history)
        rig.take_down("records-1")
        async with workload.traffic(self.rate):
            await asyncio.sleep(self.seconds)
            during = workload.history[start:]
            rig.bring_up("records-1")
            joined = [
                operation.person.id
                for operation in during
                if operation.kind == "onboard" and operation.outcome is Outcome.OK and operation.person
            ]

            async def has_followed() -> bool:
                missing = await rig.ask(
                    "records",
                    "SELECT count(*) FROM unnest(%s::uuid[]) AS u WHERE u NOT IN "
                    "(SELECT user_id FROM dependants WHERE relationship = 'SELF')",
                    joined,
                )
                return bool(missing[0][0] == 0)

            followed = await rig.until(has_followed, 60, "every SELF has followed")
        elsewhere = [operation for operation in during if operation.service != "records" and operation.statuses]
        errors = refusals(elsewhere)
        slowest = max(operation.seconds for operation in elsewhere)
        verdict = await scene.verdict()
        finding = Finding(
            f"{errors.total()} errors in {len(elsewhere)} requests to identity and catalogue "
            f"(slowest {slowest:.2f} s); {len(joined)} onboarded, "
            f"all SELF {followed:.1f} s after records was back; {verdict}",
            problems_of(verdict),
        )
        if errors:
            finding.problems.append(f"errors where records is not needed: {dict(errors)}")
        if not joined:
            finding.problems.append("nobody was onboarded meanwhile")
        if followed > FOLLOWS_WITHIN_S:
            finding.problems.append(f"SELF followed only after {followed:.1f} s")
        return finding
