"""When requests are refused because the gateway is late, when they only wait, and that an idle one measures nothing."""

import asyncio

import pytest

from gateway.errors import Refused
from gateway.overload import BEGUN_IN_A_TURN, IDLE_S, INTERVAL_S, LONG_LINE, TARGET_S, TICK_S, WARY_S, Door, Overload

LATE = 2 * TARGET_S


def note_for(overload: Overload, lateness: float, seconds: float, began: float) -> list[bool]:
    """Tell the same lateness for a time, and return whether somebody who came then was one too many."""
    times = [began + step * TICK_S for step in range(round(seconds / TICK_S))]
    return [overload.refuses(lateness, time, line=1) for time in times]


class TestOverload:
    def test_lets_a_crowd_in_that_is_soon_through(self):
        overload = Overload()
        assert not any(note_for(overload, LATE, 0.9 * INTERVAL_S, 0))
        assert not overload.refuses(TARGET_S, 0.95 * INTERVAL_S, line=1)
        assert not any(note_for(overload, LATE, 0.9 * INTERVAL_S, INTERVAL_S))

    def test_refuses_once_it_was_late_all_the_time(self):
        overload = Overload()
        refused = note_for(overload, LATE, 2 * INTERVAL_S, 0)
        assert not any(refused[: round(0.9 * INTERVAL_S / TICK_S)])
        assert all(refused[round(1.1 * INTERVAL_S / TICK_S) :])

    def test_refuses_at_once_who_comes_late_soon_after(self):
        overload = Overload()
        note_for(overload, LATE, 2 * INTERVAL_S, 0)
        assert not overload.refuses(TARGET_S, 2 * INTERVAL_S, line=1)
        assert overload.refuses(LATE, 2 * INTERVAL_S + 0.9 * WARY_S, line=1)

    def test_is_calm_again_after_a_while(self):
        overload = Overload()
        note_for(overload, LATE, 2 * INTERVAL_S, 0)
        overload.refuses(TARGET_S, 2 * INTERVAL_S, line=1)
        assert not overload.refuses(LATE, 2 * INTERVAL_S + 1.1 * WARY_S, line=1)

    def test_stays_wary_while_many_are_refused(self):
        overload = Overload()
        overload.beware(0)
        for second in range(60):
            # Late for a fifth of the time, and never for long.
            for step in range(100):
                is_late = step % 5 == 0
                assert overload.refuses(LATE if is_late else TARGET_S, second + step / 100, line=1) == is_late

    def test_is_calm_again_though_a_few_were_refused(self):
        overload = Overload()
        overload.beware(0)
        refused = [
            overload.refuses(LATE if step % 100 == 0 else TARGET_S, step / 100, line=1)
            for step in range(round(3 * WARY_S * 100))
        ]
        assert sum(refused) == WARY_S

    @pytest.mark.parametrize("every_s", [1.0, 0.3])
    def test_is_calm_again_though_bursts_are_refused(self, every_s):
        overload = Overload()
        overload.beware(0)
        refused_at = []
        for burst in range(round(2 * WARY_S / every_s)):
            for number in range(40):
                now = burst * every_s + number / 1000
                if overload.refuses(0.0, now, line=number):
                    refused_at.append(now)
        assert WARY_S - every_s <= max(refused_at) < WARY_S

    def test_is_calm_again_though_it_is_late_for_no_crowd(self):
        overload = Overload()
        overload.beware(0)
        for step in range(1000):
            is_late = step % 40 < 30
            refused = overload.refuses(LATE if is_late else TARGET_S, step / 100, line=0)
            assert refused == (is_late and step / 100 < WARY_S)

    def test_forgets_what_was_long_ago(self):
        overload = Overload()
        note_for(overload, LATE, 2 * INTERVAL_S, 0)
        assert not overload.refuses(LATE, 1000, line=1)

    def test_allows_for_no_crowd_when_it_was_told_to_beware(self):
        overload = Overload()
        overload.beware(0)
        assert not overload.refuses(TARGET_S, 1, line=1)
        assert overload.refuses(LATE, 1, line=1)


async def turns(count: int) -> None:
    """Let the event loop run so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def come(door: Door) -> bool:
    """Come in, and return whether that was allowed."""
    if door.is_overloaded():
        return False
    await door.enter()
    return True


class TestDoor:
    async def be_full_behind_a_line(self, door: Door) -> None:
        """Let a service turn out to be full while somebody waits in the line."""
        assert not door.is_overloaded()
        crowd = [asyncio.create_task(door.enter()) for _ in range(BEGUN_IN_A_TURN + 1)]
        await turns(1)
        door.beware()
        await asyncio.gather(*crowd)

    async def test_lets_a_few_in_at_each_turn_and_in_order(self, clock):
        door = Door(clock)
        inside: list[int] = []

        async def note(number: int) -> None:
            assert await come(door)
            inside.append(number)

        crowd = [asyncio.create_task(note(number)) for number in range(3 * BEGUN_IN_A_TURN)]
        await turns(1)
        assert inside == list(range(BEGUN_IN_A_TURN))
        await asyncio.gather(*crowd)
        assert inside == list(range(3 * BEGUN_IN_A_TURN))

    async def test_goes_on_when_somebody_in_the_line_gives_up(self, clock):
        door = Door(clock)
        assert not door.is_overloaded()
        crowd = [asyncio.create_task(door.enter()) for _ in range(2 * BEGUN_IN_A_TURN)]
        await turns(1)
        for task in crowd[BEGUN_IN_A_TURN:-1]:
            task.cancel()
        await crowd[-1]

    async def test_takes_a_long_line_for_lateness(self, clock):
        door = Door(clock)
        assert not door.is_overloaded()
        crowd = [asyncio.create_task(door.enter()) for _ in range(2 * BEGUN_IN_A_TURN)]
        await turns(1)
        door.beware()
        clock.now += LATE
        assert door.is_overloaded()
        await asyncio.gather(*crowd)

    async def test_adds_nobody_to_a_long_line_after_an_overload(self, clock):
        door = Door(clock)
        assert not door.is_overloaded()
        crowd = [asyncio.create_task(door.enter()) for _ in range(BEGUN_IN_A_TURN + LONG_LINE)]
        await turns(1)
        assert not door.is_overloaded()
        door.beware()
        assert door.is_overloaded()
        await asyncio.gather(*crowd)
        assert not door.is_overloaded()

    async def test_adds_nobody_to_a_line_at_whose_end_there_is_no_room(self, clock):
        door = Door(clock)
        room = 2 * LONG_LINE
        door.lead_to(lambda: room)
        assert not door.is_overloaded()
        for _ in range(100):
            assert not door.turns_away()
            door.expect()
        came = await asyncio.gather(*(come(door) for _ in range(100)))
        assert came == [True] * (BEGUN_IN_A_TURN + room) + [False] * (100 - BEGUN_IN_A_TURN - room)

    async def test_lets_a_short_line_find_out_whether_there_is_room(self, clock):
        door = Door(clock)
        door.lead_to(lambda: 0)
        came = await asyncio.gather(*(come(door) for _ in range(100)))
        assert came == [True] * (BEGUN_IN_A_TURN + LONG_LINE) + [False] * (100 - BEGUN_IN_A_TURN - LONG_LINE)

    async def test_is_not_wary_for_longer_because_some_have_no_room(self, clock):
        door = Door(clock)
        door.lead_to(lambda: 0)
        for _ in range(2):
            await asyncio.gather(*(come(door) for _ in range(100)))
            clock.now += 0.6 * WARY_S
        door.lead_to(lambda: 100)
        assert all(await asyncio.gather(*(come(door) for _ in range(100))))

    async def test_turns_away_those_alone_who_would_be_refused(self, clock):
        door = Door(clock)
        assert not door.turns_away()
        await self.be_full_behind_a_line(door)
        assert not door.is_overloaded()
        assert not door.turns_away()
        clock.now += TICK_S + LATE
        assert door.turns_away()

    async def test_counts_into_the_line_who_has_come_and_not_asked_yet(self, clock):
        door = Door(clock)
        await self.be_full_behind_a_line(door)
        for _ in range(LONG_LINE):
            assert not door.turns_away()
            door.expect()
        assert door.turns_away()
        assert not door.is_overloaded()
        assert not door.turns_away()

    async def test_refuses_nobody_for_a_service_that_hangs_while_nobody_waits(self, clock):
        door = Door(clock)
        assert not door.is_overloaded()
        door.beware()
        clock.now += TICK_S + LATE
        assert not door.is_overloaded()

    async def test_refuses_who_waited_for_long_when_a_service_is_full(self, clock):
        door = Door(clock)
        assert not door.is_overloaded()
        crowd = [asyncio.create_task(door.enter()) for _ in range(BEGUN_IN_A_TURN + 1)]
        await turns(1)
        clock.now += LATE
        door.beware()
        *inside, last = await asyncio.gather(*crowd, return_exceptions=True)
        assert not any(inside)
        assert isinstance(last, Refused)
        assert last.code == "RQ-111"

    async def test_takes_a_tick_that_is_overdue_for_lateness(self, clock):
        door = Door(clock)
        await self.be_full_behind_a_line(door)
        assert not door.is_overloaded()
        clock.now += TICK_S + LATE
        assert door.is_overloaded()

    async def test_measures_only_while_there_are_requests(self, clock, monkeypatch):
        door = Door(clock)
        asked: list[float] = []
        has_ticked = asyncio.Event()
        loop = asyncio.get_running_loop()
        real = loop.call_later

        def call_later(delay, callback, *arguments, **options):
            # The loop is shared with what other tests have left behind.
            if getattr(callback, "__self__", None) is not door:
                return real(delay, callback, *arguments, **options)

            def tick() -> None:
                callback()
                has_ticked.set()

            asked.append(delay)
            return real(0, tick)

        monkeypatch.setattr(loop, "call_later", call_later)
        assert not door.is_overloaded()
        assert asked == [TICK_S]
        clock.now += IDLE_S
        await has_ticked.wait()
        assert asked == [TICK_S]
        assert not door.is_overloaded()
        assert asked == [TICK_S, TICK_S]

    def test_serves_one_loop_after_another(self, clock):
        door = Door(clock)

        async def come() -> bool:
            is_refused = door.is_overloaded()
            await door.enter()
            return is_refused

        asyncio.run(self.be_full_behind_a_line(door))
        for _ in range(2):
            assert not asyncio.run(come())
            clock.now += LATE
