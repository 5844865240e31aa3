"""Durations of steps: the median, slow steps, and pauses that do not count."""

from jaxlm.training.pace import Pace


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def steps(pace, clock, *durations):
    """The durations as the pace sees them."""
    seen = []
    for duration in durations:
        clock.now += duration
        seen.append(pace.step())
    return seen


def test_the_first_step_of_a_segment_counts_as_time_but_not_in_the_median():
    clock = Clock()
    pace = Pace(clock)
    pace.begin()
    assert steps(pace, clock, 50.0, *[2.0] * 9) == [None, *[2.0] * 9]
    assert pace.median is None  # too few
    assert steps(pace, clock, 4.0) == [4.0]
    assert pace.median == 2.0
    assert pace.seconds == 50 + 18 + 4
    pace.begin()
    assert pace.median is None
    assert pace.seconds == 72


def test_pauses_are_no_time_in_steps():
    clock = Clock()
    pace = Pace(clock)
    pace.begin()
    steps(pace, clock, 1.0)
    with pace.paused():
        clock.now += 1000
    assert steps(pace, clock, 1.0) == [1.0]
    assert pace.seconds == 2


def test_slow_steps_are_told_of_at_most_once_a_minute():
    clock = Clock()
    pace = Pace(clock)
    pace.begin()
    steps(pace, clock, 0.0, *[2.0] * 20)
    [usual, slow] = steps(pace, clock, 3.9, 9.0)
    assert pace.slow(usual) is None
    assert pace.slow(slow) == "took 9.0 s, 4.5 times the median of 2.00 s"
    [again, later] = steps(pace, clock, 9.0, 60.0)
    # the second is seen 9 s after the first
    clock.now -= 60
    assert pace.slow(again) is None
    clock.now += 60
    assert pace.slow(later).endswith("as were 1 others since the last such line")


def test_short_steps_may_be_many_times_the_median():
    clock = Clock()
    pace = Pace(clock)
    pace.begin()
    steps(pace, clock, 0.0, *[0.01] * 20)
    assert pace.slow(0.9) is None
    assert pace.slow(None) is None
    assert pace.slow(1.1) is not None
