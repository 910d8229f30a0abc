"""States are kept within a number and a memory, what they share counted once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from napari_lungfm.inference import AnnotationSession
from napari_lungfm.inference.session.kept import KeptStates, buffers_of
from napari_lungfm.models.prompts import Box, Click


@dataclass(frozen=True, eq=False)
class State:
    slices: dict[int, Any]
    note: object = None


def array(n: int) -> np.ndarray:
    return np.zeros(n, np.uint8)


def size(value: object) -> int:
    return sum(buffers_of(value).values())


def test_buffers_are_counted_once_and_views_as_what_they_are_views_of() -> None:
    a = array(100)
    state = State({1: a, 2: a[:10], 3: (b"12345", [array(7), None, "text", 3])}, State({4: a}))
    assert size(state) == 100 + 5 + 7
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(8, 4)
    assert size({1: tensor, 2: tensor[2:3], 3: tensor.clone()}) == 2 * 128


def test_the_oldest_go_until_the_rest_fits() -> None:
    kept: KeptStates[State] = KeptStates(10, 350)
    shared = array(200)
    for i in range(4):
        kept.keep(bytes([i]), State({0: shared, 1: array(50)}))
    assert [bytes([i]) in kept for i in range(4)] == [False, True, True, True]
    assert kept.nbytes == 350
    kept.get(b"\1")  # used: now 2 is the oldest
    kept.keep(b"\4", State({0: shared, 1: array(60)}))
    assert [bytes([i]) in kept for i in range(5)] == [False, True, False, False, True]
    kept.keep(b"\5", State({0: array(1000)}))  # the latest is kept in any case
    assert len(kept) == 1
    assert b"\5" in kept


def test_the_number_is_bounded_too() -> None:
    kept: KeptStates[State] = KeptStates(2, 10**6)
    for i in range(5):
        kept.keep(bytes([i]), State({}))
    assert len(kept) == 2


def test_a_session_holds_no_more_than_it_may(opened: Any, run_all: Any) -> None:
    """Every propagation brings all slices anew; undo and masks do not mind what was dropped."""
    free, tight = opened(kept_bytes=2**30), opened(kept_bytes=2000)
    for session in (free, tight):
        session.add_prompt(3, Box(4, 2, 2, 9, 10))
        for i in range(6):
            session.add_prompt(3, Click(4, 2 + i, 3))
            run_all(session)
    states = [session._engine.runner.states for session in (free, tight)]
    assert states[0].nbytes > 2000 >= states[1].nbytes
    assert len(states[1]) < len(states[0])
    for _ in range(5):
        for session in (free, tight):
            session.undo()
        assert free.get(3).masks == tight.get(3).masks
    for session in (free, tight):
        session.add_prompt(3, Click(5, 3, 3))
        run_all(session)
    assert free.get(3).masks == tight.get(3).masks
    assert states[1].nbytes <= 2000


def test_closing_frees_them_and_the_session_goes_on(opened: Any, run_all: Any) -> None:
    session: AnnotationSession
    with opened() as session:
        session.add_prompt(3, Box(4, 2, 2, 9, 10))
    assert len(session._engine.runner.states) == 0
    run_all(session)
    assert session.get(3).masks
