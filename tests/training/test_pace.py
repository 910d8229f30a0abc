"""The time that is left of a fit."""

from napari_lungfm.training.fit.pace import Pace


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def _tell(pace, clock, seconds, first, last, steps):
    for step in range(first, last + 1):
        clock.now += seconds
        left = pace.left(step, steps)
    return left


def test_the_first_step_is_not_counted():
    clock = Clock()
    pace = Pace(clock)
    assert _tell(pace, clock, 90.0, 1, 1, 11) is None
    assert _tell(pace, clock, 2.0, 2, 2, 11) == 18.0
    assert _tell(pace, clock, 2.0, 3, 11, 11) == 0.0


def test_a_slow_beginning_is_forgotten():
    clock = Clock()
    pace = Pace(clock)
    _tell(pace, clock, 10.0, 1, 20, 1000)
    assert _tell(pace, clock, 1.0, 21, 60, 1000) == 940.0


def test_a_resumed_fit_begins_anew_and_validations_count():
    clock = Clock()
    pace = Pace(clock)
    assert _tell(pace, clock, 5.0, 500, 500, 1000) is None
    _tell(pace, clock, 1.0, 501, 520, 1000)
    before = pace.left(520, 1000)
    clock.now += 10.0  # a validation
    assert before == 480.0
    assert pace.left(520, 1000) == 960.0


def test_long_fits_take_little_memory():
    clock = Clock()
    pace = Pace(clock)
    assert round(_tell(pace, clock, 0.5, 1, 50_000, 100_000)) == 25_000
    assert len(pace._marks) <= 256
