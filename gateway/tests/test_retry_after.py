"""When those who were refused may come back."""

from collections import Counter

from gateway.retry_after import A_SECOND, LONGEST_S, RetryAfter


class TestComebacks:
    def test_few_may_come_back_soon(self, clock):
        retry_after = RetryAfter(clock)
        assert {retry_after.next_seconds() for _ in range(A_SECOND)} == {1}

    def test_many_come_back_one_after_the_other(self, clock):
        retry_after = RetryAfter(clock)
        told = [retry_after.next_seconds() for _ in range(4 * A_SECOND)]
        assert told == sorted(told)
        assert max(told) == 4
        assert all(told.count(seconds) <= A_SECOND + 1 for seconds in range(2, 5))

    def test_nobody_waits_for_too_long_nor_for_the_same_time_when_there_are_very_many(self, clock):
        retry_after = RetryAfter(clock)
        told = [retry_after.next_seconds() for _ in range(100 * A_SECOND)]
        assert max(told) == LONGEST_S
        beyond = Counter(told[LONGEST_S * A_SECOND + 1 :])
        assert beyond.keys() == set(range(LONGEST_S // 2 + 1, LONGEST_S + 1))
        assert max(beyond.values()) < 0.5 * beyond.total()

    def test_what_was_given_passes(self, clock):
        retry_after = RetryAfter(clock)
        for _ in range(100 * A_SECOND):
            retry_after.next_seconds()
        clock.now += LONGEST_S / 2
        assert LONGEST_S / 2 <= retry_after.next_seconds() <= LONGEST_S / 2 + 1
        clock.now += LONGEST_S
        assert retry_after.next_seconds() == 1

    def test_a_crowd_that_keeps_to_it_asks_less_and_less_often(self, clock):
        """Four hundred who are refused each time: with one second for all, each second would bring four hundred."""
        retry_after = RetryAfter(clock)
        due = [clock.now] * 400
        asked = 0
        for _ in range(300):
            clock.now += 0.1
            for number, at in enumerate(due):
                if at <= clock.now:
                    asked += 1
                    due[number] = clock.now + retry_after.next_seconds()
        assert asked < 400 * 30 / 5
