"""When requests are refused because the gateway is late, when they only wait, and that an idle one measures nothing."""

import asyncio

import pytest

from gateway.errors import Refused
from gateway.load_shedding import (
    BEGUN_IN_A_TURN,
    IDLE_S,
    INTERVAL_S,
    LONG_LINE,
    SHEDDING_S,
    TARGET_S,
    TICK_S,
    AdmissionQueue,
    OverloadDetector,
)

LATE = 2 * TARGET_S


def note_for(overload: OverloadDetector, lateness: float, seconds: float, began: float, line: int = 1) -> list[bool]:
    """Tell the same lateness for a time, and return whether somebody who came then was one too many."""
    times = [began + step * TICK_S for step in range(round(seconds / TICK_S))]
    return [overload.should_shed(lateness, time, line) for time in times]


class TestOverload:
    def test_lets_a_crowd_in_that_is_soon_through(self):
        overload = OverloadDetector()
        assert not any(note_for(overload, LATE, 0.9 * INTERVAL_S, 0))
        assert not overload.should_shed(TARGET_S, 0.95 * INTERVAL_S, line=1)
        assert not any(note_for(overload, LATE, 0.9 * INTERVAL_S, INTERVAL_S))

    def test_refuses_once_it_was_late_all_the_time(self):
        overload = OverloadDetector()
        refused = note_for(overload, LATE, 2 * INTERVAL_S, 0)
        assert not any(refused[: round(0.9 * INTERVAL_S / TICK_S)])
        assert all(refused[round(1.1 * INTERVAL_S / TICK_S) :])

    def test_refuses_nobody_while_those_who_wait_are_soon_through(self):
        """As when other processes keep it from the processor: it is late, and has not too much to do."""
        overload = OverloadDetector()
        for number in range(20):
            began = number * INTERVAL_S / 2
            assert not any(note_for(overload, LATE, INTERVAL_S / 2 - TICK_S, began))
            assert not overload.should_shed(LATE, began + INTERVAL_S / 2 - TICK_S, line=0)

    def test_refuses_at_once_who_comes_late_soon_after(self):
        overload = OverloadDetector()
        note_for(overload, LATE, 2 * INTERVAL_S, 0)
        assert not overload.should_shed(TARGET_S, 2 * INTERVAL_S, line=1)
        assert overload.should_shed(LATE, 2 * INTERVAL_S + 0.9 * SHEDDING_S, line=1)

    def test_is_calm_again_after_a_while(self):
        overload = OverloadDetector()
        note_for(overload, LATE, 2 * INTERVAL_S, 0)
        overload.should_shed(TARGET_S, 2 * INTERVAL_S, line=1)
        assert not overload.should_shed(LATE, 2 * INTERVAL_S + 1.1 * SHEDDING_S, line=1)

    def test_stays_wary_while_many_are_refused(self):
        overload = OverloadDetector()
        overload.start_shedding(0)
        for second in range(60):
            # Late for a fifth of the time, and never for long.
            for step in range(100):
                is_late = step % 5 == 0
                assert overload.should_shed(LATE if is_late else TARGET_S, second + step / 100, line=1) == is_late

    def test_is_calm_again_though_a_few_were_refused(self):
        overload = OverloadDetector()
        overload.start_shedding(0)
        refused = [
            overload.should_shed(LATE if step % 100 == 0 else TARGET_S, step / 100, line=1)
            for step in range(round(3 * SHEDDING_S * 100))
        ]
        assert sum(refused) == SHEDDING_S

    @pytest.mark.parametrize("every_s", [1.0, 0.3])
    def test_is_calm_again_though_bursts_are_refused(self, every_s):
        overload = OverloadDetector()
        overload.start_shedding(0)
        refused_at = []
        for burst in range(round(2 * SHEDDING_S / every_s)):
            for number in range(40):
                now = burst * every_s + number / 1000
                if overload.should_shed(0.0, now, line=number):
                    refused_at.append(now)
        assert SHEDDING_S - every_s <= max(refused_at) < SHEDDING_S

    def test_is_calm_again_though_it_is_late_for_no_crowd(self):
        overload = OverloadDetector()
        overload.start_shedding(0)
        for step in range(1000):
            is_late = step % 40 < 30
            refused = overload.should_shed(LATE if is_late else TARGET_S, step / 100, line=0)
            assert refused == (is_late and step / 100 < SHEDDING_S)

    def test_forgets_what_was_long_ago(self):
        overload = OverloadDetector()
        note_for(overload, LATE, 2 * INTERVAL_S, 0)
        assert not overload.should_shed(LATE, 1000, line=1)

    def test_allows_for_no_crowd_when_it_was_told_to_beware(self):
        overload = OverloadDetector()
        overload.start_shedding(0)
        assert not overload.should_shed(TARGET_S, 1, line=1)
        assert overload.should_shed(LATE, 1, line=1)


async def turns(count: int) -> None:
    """Let the event loop run so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def come(admission: AdmissionQueue) -> bool:
    """Come in, and return whether that was allowed."""
    if admission.is_overloaded():
        return False
    await admission.enter()
    return True


class TestAdmissionQueue:
    async def be_full_behind_a_line(self, admission: AdmissionQueue) -> None:
        """Let a service turn out to be full while somebody waits in the line."""
        assert not admission.is_overloaded()
        crowd = [asyncio.create_task(admission.enter()) for _ in range(BEGUN_IN_A_TURN + 1)]
        await turns(1)
        admission.start_shedding()
        await asyncio.gather(*crowd)

    async def test_lets_a_few_in_at_each_turn_and_in_order(self, clock):
        admission = AdmissionQueue(clock)
        inside: list[int] = []

        async def note(number: int) -> None:
            assert await come(admission)
            inside.append(number)

        crowd = [asyncio.create_task(note(number)) for number in range(3 * BEGUN_IN_A_TURN)]
        await turns(1)
        assert inside == list(range(BEGUN_IN_A_TURN))
        await asyncio.gather(*crowd)
        assert inside == list(range(3 * BEGUN_IN_A_TURN))

    async def test_goes_on_when_somebody_in_the_line_gives_up(self, clock):
        admission = AdmissionQueue(clock)
        assert not admission.is_overloaded()
        crowd = [asyncio.create_task(admission.enter()) for _ in range(2 * BEGUN_IN_A_TURN)]
        await turns(1)
        for task in crowd[BEGUN_IN_A_TURN:-1]:
            task.cancel()
        await crowd[-1]

    async def test_takes_a_long_line_for_lateness(self, clock):
        admission = AdmissionQueue(clock)
        assert not admission.is_overloaded()
        crowd = [asyncio.create_task(admission.enter()) for _ in range(2 * BEGUN_IN_A_TURN)]
        await turns(1)
        admission.start_shedding()
        clock.now += LATE
        assert admission.is_overloaded()
        await asyncio.gather(*crowd)

    async def test_adds_nobody_to_a_long_line_after_an_overload(self, clock):
        admission = AdmissionQueue(clock)
        assert not admission.is_overloaded()
        crowd = [asyncio.create_task(admission.enter()) for _ in range(BEGUN_IN_A_TURN + LONG_LINE)]
        await turns(1)
        assert not admission.is_overloaded()
        admission.start_shedding()
        assert admission.is_overloaded()
        await asyncio.gather(*crowd)
        assert not admission.is_overloaded()

    async def test_adds_nobody_to_a_line_at_whose_end_there_is_no_room(self, clock):
        admission = AdmissionQueue(clock)
        room = 2 * LONG_LINE
        admission.limit_by(lambda: room)
        assert not admission.is_overloaded()
        for _ in range(100):
            assert not admission.should_shed_early()
            admission.note_arrival()
        came = await asyncio.gather(*(come(admission) for _ in range(100)))
        assert came == [True] * (BEGUN_IN_A_TURN + room) + [False] * (100 - BEGUN_IN_A_TURN - room)

    async def test_lets_a_short_line_find_out_whether_there_is_room(self, clock):
        admission = AdmissionQueue(clock)
        admission.limit_by(lambda: 0)
        came = await asyncio.gather(*(come(admission) for _ in range(100)))
        assert came == [True] * (BEGUN_IN_A_TURN + LONG_LINE) + [False] * (100 - BEGUN_IN_A_TURN - LONG_LINE)

    async def test_is_not_wary_for_longer_because_some_have_no_room(self, clock):
        admission = AdmissionQueue(clock)
        admission.limit_by(lambda: 0)
        for _ in range(2):
            await asyncio.gather(*(come(admission) for _ in range(100)))
            clock.now += 0.6 * SHEDDING_S
        admission.limit_by(lambda: 100)
        assert all(await asyncio.gather(*(come(admission) for _ in range(100))))

    async def test_turns_away_those_alone_who_would_be_refused(self, clock):
        admission = AdmissionQueue(clock)
        assert not admission.should_shed_early()
        await self.be_full_behind_a_line(admission)
        assert not admission.is_overloaded()
        assert not admission.should_shed_early()
        clock.now += TICK_S + LATE
        assert admission.should_shed_early()

    async def test_counts_into_the_line_who_has_come_and_not_asked_yet(self, clock):
        admission = AdmissionQueue(clock)
        await self.be_full_behind_a_line(admission)
        for _ in range(LONG_LINE):
            assert not admission.should_shed_early()
            admission.note_arrival()
        assert admission.should_shed_early()
        assert not admission.is_overloaded()
        assert not admission.should_shed_early()

    async def test_refuses_nobody_for_a_service_that_hangs_while_nobody_waits(self, clock):
        admission = AdmissionQueue(clock)
        assert not admission.is_overloaded()
        admission.start_shedding()
        clock.now += TICK_S + LATE
        assert not admission.is_overloaded()

    async def test_refuses_who_waited_for_long_when_a_service_is_full(self, clock):
        admission = AdmissionQueue(clock)
        assert not admission.is_overloaded()
        crowd = [asyncio.create_task(admission.enter()) for _ in range(BEGUN_IN_A_TURN + 1)]
        await turns(1)
        clock.now += LATE
        admission.start_shedding()
        *inside, last = await asyncio.gather(*crowd, return_exceptions=True)
        assert not any(inside)
        assert isinstance(last, Refused)
        assert last.code == "RQ-111"

    async def test_takes_a_tick_that_is_overdue_for_lateness(self, clock):
        admission = AdmissionQueue(clock)
        await self.be_full_behind_a_line(admission)
        assert not admission.is_overloaded()
        clock.now += TICK_S + LATE
        assert admission.is_overloaded()

    async def test_measures_only_while_there_are_requests(self, clock, monkeypatch):
        admission = AdmissionQueue(clock)
        asked: list[float] = []
        has_ticked = asyncio.Event()
        loop = asyncio.get_running_loop()
        real = loop.call_later

        def call_later(delay, callback, *arguments, **options):
            # The loop is shared with what other tests have left behind.
            if getattr(callback, "__self__", None) is not admission:
                return real(delay, callback, *arguments, **options)

            def tick() -> None:
                callback()
                has_ticked.set()

            asked.append(delay)
            return real(0, tick)

        monkeypatch.setattr(loop, "call_later", call_later)
        assert not admission.is_overloaded()
        assert asked == [TICK_S]
        clock.now += IDLE_S
        await has_ticked.wait()
        assert asked == [TICK_S]
        assert not admission.is_overloaded()
        assert asked == [TICK_S, TICK_S]

    def test_serves_one_loop_after_another(self, clock):
        admission = AdmissionQueue(clock)

        async def come() -> bool:
            is_refused = admission.is_overloaded()
            await admission.enter()
            return is_refused

        asyncio.run(self.be_full_behind_a_line(admission))
        for _ in range(2):
            assert not asyncio.run(come())
            clock.now += LATE
