from napari_lungfm.benchmark.events import Tally, UnitNews


def news(unit, *, failed=False, again=None):
    return UnitNews(unit, f"unit {unit}", failed, failed if again is None else again)


def tally(total=4, clock=lambda: 0.0):
    events = []
    return Tally(total, events.append, clock), events


def test_rate_and_time_left_come_from_the_units_of_this_call():
    now = [0.0]
    counter, events = tally(10, lambda: now[0])
    counter.skip(4)
    counter.tell("start", "10 units")
    assert (events[-1].done, events[-1].per_minute, events[-1].seconds_left) == (4, None, None)
    now[0] = 30.0
    counter.unit(news("a"))
    counter.unit(news("b"))
    assert (events[-1].done, events[-1].per_minute, events[-1].seconds_left) == (6, 4.0, 60.0)


def test_a_unit_counts_once():
    counter, events = tally()
    for _ in range(3):
        counter.unit(news("a"))
        counter.failure(news("b", failed=True))
    assert [event.kind for event in events] == ["unit", "unit"]
    assert (counter.done, counter.failed) == (2, 1)


def test_a_first_failure_is_no_end():
    counter, events = tally()
    counter.unit(news("a", failed=True))
    assert [(event.kind, event.done) for event in events] == [("retry", 0)]
    counter.unit(news("a", failed=True))  # the second one is told of with its case
    counter.failure(news("a", failed=True))
    assert [(event.kind, event.done, event.failed) for event in events[1:]] == [("unit", 1, 1)]


def test_a_failure_that_no_try_can_mend_is_not_tried_again():
    counter, events = tally()
    counter.unit(news("a", failed=True, again=False))
    assert events == []
    counter.failure(news("a", failed=True, again=False))
    assert events[0].failed == 1
