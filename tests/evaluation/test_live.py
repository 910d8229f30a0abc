import math
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import GeometryError, UsageError
from napari_lungfm.evaluation.corrections import effort
from napari_lungfm.evaluation.live import LiveOverlap
from napari_lungfm.metrics import count_overlap, count_overlap_per_slice

SHAPE = (5, 7, 6)
LABEL = 3
#: Another label is painted over the one that is scored, too.
VALUES = [0, 3, 3, 8]


class Atom(NamedTuple):
    """As in napari, the record of a painted box is a tuple."""

    slice_key: tuple
    mask: np.ndarray | None
    old_values: np.ndarray
    new_value: int


def random_labels(random):
    return random.choice(VALUES, SHAPE).astype(np.uint8)


def random_region(random):
    bounds = [np.sort(random.choice(n + 1, 2, replace=False)) for n in SHAPE]
    return tuple(slice(int(a), int(b)) for a, b in bounds)


def paint_box(labels, random):
    """Paint a box as napari does; return its record of it."""
    region = random_region(random)
    box, new = labels[region], int(random.choice(VALUES))
    if random.random() < 0.3:
        atom = Atom(region, None, box.copy(), new)
        box[:] = new
        return atom
    mask = random.random(box.shape) < 0.6
    atom = Atom(region, mask, box[mask], new)
    box[mask] = new
    return atom


def set_voxels(labels, random):
    """Set voxels as napari's `data_setitem` does; some twice."""
    number = int(random.integers(1, 30))
    indices = tuple(random.integers(0, n, number) for n in SHAPE)
    new = random.choice(VALUES, number) if random.random() < 0.5 else int(random.choice(VALUES))
    old = labels[indices]
    labels[indices] = new
    return (indices, old, new)


def replace_box(labels, random, live):
    """Write a box of a propagated slice, told as the session tells it."""
    region = random_region(random)
    before = labels[region].copy()
    labels[region] = random.choice(VALUES, before.shape)
    live.update_box(region, before, labels[region])


def check(live, labels, reference):
    found, true = labels == LABEL, reference == LABEL
    assert live.counts == count_overlap(found, true)
    per_slice = count_overlap_per_slice(found, true)
    for name in ("tp", "fp", "fn"):
        np.testing.assert_array_equal(getattr(live.per_slice, name), getattr(per_slice, name))
    np.testing.assert_array_equal(live.areas, found.sum(axis=(1, 2)))
    wrong = (found != true).sum(axis=(1, 2))
    worst = live.worst_slice()
    assert worst == (int(wrong.argmax()) if wrong.any() else None)
    for z in range(SHAPE[0]):
        assert live.slice_counts(z) == count_overlap(found[z], true[z])
        for step in (1, -1):
            order = [(z + step * k) % SHAPE[0] for k in range(1, SHAPE[0] + 1)]
            assert live.next_disagreement(z, step) == next((i for i in order if wrong[i]), None)


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from("pvbu"), max_size=25))
@settings(max_examples=80, deadline=None)
def test_any_sequence_of_edits_gives_what_counting_anew_gives(seed, edits):
    random = np.random.default_rng(seed)
    labels, reference = random_labels(random), random_labels(random)
    live = LiveOverlap(labels, LABEL, reference)
    check(live, labels, reference)
    for edit in edits:
        before = labels.copy()
        if edit == "b":
            replace_box(labels, random, live)
        else:
            paint = set_voxels if edit == "v" else paint_box
            stroke = [paint(labels, random) for _ in range(int(random.integers(1, 5)))]
            live.update_paint(stroke)
            check(live, labels, reference)
            if edit == "u":
                live.update_paint(stroke, undone=True)
                labels[:] = before
        check(live, labels, reference)


def test_scores_are_those_of_the_metrics():
    random = np.random.default_rng(0)
    labels, reference = random_labels(random), random_labels(random)
    live = LiveOverlap(labels, LABEL, reference)
    counts = count_overlap(labels == LABEL, reference == LABEL)
    assert (live.counts.dice, live.counts.iou) == (counts.dice, counts.iou)
    assert 0 < counts.dice < 1


def test_the_reference_may_use_another_label():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2] = 3
    live = LiveOverlap(labels, 3, labels // 3, reference_label=1)
    assert live.counts.dice == 1
    assert LiveOverlap(labels, 3, labels // 3).counts.dice == 0


def test_without_a_reference_there_are_areas_and_no_scores():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:4, 2:4] = LABEL
    live = LiveOverlap(labels, LABEL)
    live.update_voxels(([4], [0], [0]), [0], LABEL)
    assert live.areas.tolist() == [0, 4, 4, 0, 1]
    assert not live.has_reference
    assert (live.worst_slice(), live.next_disagreement(0)) == (None, None)
    assert math.isnan(live.note_interaction(1, 0.5).dice)


def test_slices_that_changed_unseen_can_be_counted_again():
    random = np.random.default_rng(1)
    labels, reference = random_labels(random), random_labels(random)
    live = LiveOverlap(labels, LABEL, reference)
    labels[3] = LABEL
    live.recount(labels, [3])
    check(live, labels, reference)


def test_small_disagreements_can_be_passed_over():
    reference = np.zeros(SHAPE, np.uint8)
    labels = reference.copy()
    labels[1, 0, 0], labels[3, :2] = LABEL, LABEL
    live = LiveOverlap(labels, LABEL, reference)
    assert live.next_disagreement(0) == 1
    assert live.next_disagreement(0, at_least=5) == 3
    assert live.next_disagreement(3, at_least=5) == 3
    assert live.next_disagreement(1, -1) == 3


def test_the_history_holds_dice_prompts_and_seconds():
    labels, reference = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    reference[2] = LABEL
    live = LiveOverlap(labels, LABEL, reference)
    region = (slice(2, 3), slice(0, 7), slice(0, 6))
    live.note_interaction(1, 0.2)
    live.update_box(region, labels[region], LABEL)
    live.note_interaction(2, 0.1)
    assert [(i.n_prompts, i.dice, i.seconds) for i in live.history] == [(1, 0, 0.2), (2, 1, 0.1)]
    assert effort([i.dice for i in live.history], 1).to_reach[0.9] == 2


def test_what_does_not_fit_is_refused():
    labels = np.zeros(SHAPE, np.uint8)
    with pytest.raises(GeometryError):
        LiveOverlap(labels[0], LABEL)
    with pytest.raises(GeometryError, match="one grid"):
        LiveOverlap(labels, LABEL, labels[1:])
    live = LiveOverlap(labels, LABEL)
    with pytest.raises(GeometryError, match="box"):
        live.update_box((slice(0, 2), slice(0, 2), slice(0, 2)), np.zeros((1, 2, 2)), 3)
    with pytest.raises(UsageError):
        live.next_disagreement(0, 2)


def test_the_work_does_not_grow_with_the_volume():
    """Only the box of the reference is looked at: the rest of it may not even exist."""

    class Watched(np.ndarray):
        looked_at = 0

        def __getitem__(self, key):
            found = super().__getitem__(key)
            Watched.looked_at += np.size(found)
            return found

    labels = np.zeros((50, 64, 64), np.uint8)
    live = LiveOverlap(labels, LABEL, np.zeros_like(labels).view(Watched))
    Watched.looked_at = 0
    region = (slice(7, 8), slice(5, 15), slice(5, 15))
    live.update_box(region, labels[region], LABEL)
    live.update_voxels((np.full(4, 9), np.arange(4), np.arange(4)), np.zeros(4), LABEL)
    live.counts, live.slice_counts(7)
    assert Watched.looked_at == 104


@pytest.fixture
def painted():
    """A napari labels layer whose strokes go to a scorer, and a reference."""
    layers = pytest.importorskip("napari.layers")
    random = np.random.default_rng(2)
    labels = random.choice([0, 3, 8], (6, 30, 30)).astype(np.uint8)
    reference = random.choice([0, 3], labels.shape).astype(np.uint8)
    layer = layers.Labels(labels, scale=(3, 1, -1))
    live = LiveOverlap(layer.data, LABEL, reference)
    layer.events.paint.connect(lambda event: live.update_paint(event.value))
    return layer, live, reference


def test_napari_strokes_of_every_kind_are_understood(painted):
    layer, live, reference = painted
    layer.selected_label = 3
    layer.brush_size = 7
    strokes = [
        lambda: layer.paint((2, 10, 10), 3),
        lambda: layer.paint((2, 11, 13), 0),
        lambda: layer.fill((1, 4, 4), 3),
        lambda: layer.paint_polygon([(3, 2, 2), (3, 20, 4), (3, 12, 22)], 3),
        lambda: layer.data_setitem(tuple(np.array([[0, 0, 5], [1, 2, 3], [4, 5, 6]])), 3),
    ]
    for stroke in strokes:
        stroke()
        assert live.counts == count_overlap(layer.data == LABEL, reference == LABEL)
    with layer.block_history():  # a drag: one event for several positions that overlap
        for x in range(8, 20, 2):
            layer.paint((4, 10, x), 3)
    assert live.counts == count_overlap(layer.data == LABEL, reference == LABEL)
    layer.n_edit_dimensions = 3
    layer.paint((3, 10, 10), 3)
    assert live.counts == count_overlap(layer.data == LABEL, reference == LABEL)


def test_a_stroke_that_napari_undoes_can_be_taken_back(painted):
    layer, live, reference = painted
    strokes = []
    layer.events.paint.connect(lambda event: strokes.append(list(event.value)))
    with layer.block_history():
        for x in range(8, 20, 2):
            layer.paint((4, 10, x), 3 if x % 4 else 0)
    layer.undo()
    live.update_paint(strokes[-1], undone=True)
    assert live.counts == count_overlap(layer.data == LABEL, reference == LABEL)
    layer.redo()
    live.update_paint(strokes[-1])
    assert live.counts == count_overlap(layer.data == LABEL, reference == LABEL)


def test_it_needs_neither_torch_nor_napari():
    code = (
        "import sys, napari_lungfm.evaluation.live; "
        "print([m for m in ('torch', 'napari', 'qtpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
