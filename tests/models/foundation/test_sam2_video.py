"""What a session relies on: encoding once, undo, ends, gaps, zoom, memory banks."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from napari_lungfm import LungFMError
from napari_lungfm._core.exceptions import DataError, PromptError, UsageError
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference.propagation import propagate_object
from napari_lungfm.inference.segmentation import segment_object
from napari_lungfm.models.foundation.sam2_engine import prepare_images
from napari_lungfm.models.foundation.sam2_memory import SelfSortingBank
from napari_lungfm.models.foundation.sam2_state import SliceEntry, Walk
from napari_lungfm.models.foundation.sam2_video import NO_MINIMUM, Sam2Model
from napari_lungfm.models.foundation.sam2_walks import PlannedWalk, plan_walks
from napari_lungfm.models.foundation.slices import SliceSource
from napari_lungfm.models.foundation.zoom import Crop, Zoom
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Stop
from napari_lungfm.models.protocols import ObjectTracker, PromptableModel, VolumePredictor
from napari_lungfm.preprocessing.windowing import Window

BOX = Box(5, 30, 30, 60, 60)


def finish(predictor: Any, state: Any, slices: range) -> Any:
    for latest, _, _ in predictor.walk(state, slices):
        state = latest
    return state


class Script:
    """Stands in for the engine's verdicts: says on which slices the object is."""

    def __init__(self, predictor: Any, present: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[int, bool]] = []
        look = predictor._engine.look

        def scripted(z: int, *args: Any, **kwargs: Any) -> SliceEntry:
            entry = look(z, *args, **kwargs)
            self.asked.append((z, kwargs.get("reverse", False)))
            logits = entry.logits.abs() if z in present else torch.full_like(entry.logits, -1024.0)
            return SliceEntry(logits, entry.pointer, entry.object_score, entry.iou, entry.memory)

        monkeypatch.setattr(predictor._engine, "look", scripted)


def test_it_is_what_the_layers_above_expect(model: Sam2Model, volume: Volume) -> None:
    predictor = model.open(volume)

    assert isinstance(model, PromptableModel)
    assert isinstance(predictor, VolumePredictor)
    assert isinstance(predictor, ObjectTracker)


# ---------------------------------------------------------------------- encoding
def test_opening_and_starting_encode_nothing(model: Sam2Model, volume: Volume) -> None:
    predictor = model.open(volume)
    predictor.start([BOX])

    assert predictor.encoded == 0


def test_every_slice_is_encoded_once(model: Sam2Model, volume: Volume) -> None:
    predictor = model.open(volume)
    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    assert predictor.encoded == 1
    state = finish(predictor, state, range(12))
    assert predictor.encoded == 12
    state, _ = predictor.prompt(state, 8, [Click(8, 45, 45, positive=False)])
    state = finish(predictor, state, range(12))
    other, _ = predictor.prompt(predictor.start(), 3, [Box(3, 5, 5, 20, 20)])  # another object
    finish(predictor, other, range(12))

    assert predictor.encoded == 12


def test_only_slices_that_are_reached_are_encoded(
    model: Sam2Model, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = model.open(volume)
    script = Script(predictor, {4, 5, 6}, monkeypatch)

    found = dict(predictor.propagate([BOX], range(12), fill=True))

    assert sorted(found) == [4, 5, 6]
    # Two slices without the object at either end, to be sure, and no further.
    assert sorted(z for z, _ in script.asked) == [2, 3, 4, 5, 6, 7, 8]
    assert predictor.encoded == 7


def test_upcoming_slices_are_encoded_in_batches(network: Any, volume: Volume, window: Any) -> None:
    sizes = []
    forward = network.forward_image
    network.forward_image = lambda images: sizes.append(len(images)) or forward(images)
    options = {"weight_hash": "w0", "window": window, "device": "cpu"}
    batched = Sam2Model("tiny", network, **options, batch_size=4).open(volume)

    masks = {z: p.logits for z, p in batched.propagate([BOX], range(12), fill=True)}

    assert sizes == [1, 2, 2, 1, 2, 2, 2]  # see the next test
    network.forward_image = forward
    single = Sam2Model("tiny", network, **options).open(volume)
    for z, prediction in single.propagate([BOX], range(12), fill=True):
        np.testing.assert_allclose(masks[z], prediction.logits, atol=1e-4)


def test_batches_look_ahead_no_further_than_the_object_is_likely_to_go(
    network: Any, make_volume: Callable[..., Volume], window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, encoded = make_volume(40, 64), {}
    for batch in (1, 8):
        options = {"weight_hash": "w0", "window": window, "device": "cpu", "batch_size": batch}
        predictor = Sam2Model("tiny", network, **options).open(volume)
        script = Script(predictor, set(range(18, 23)), monkeypatch)
        found = dict(predictor.propagate([Box(20, 20, 20, 40, 40)], range(40), fill=True))
        assert sorted(found) == list(range(18, 23))
        assert sorted(z for z, _ in script.asked) == list(range(16, 25))
        encoded[batch] = predictor.encoded

    assert encoded == {1: 9, 8: 9}


def test_prompted_slices_are_encoded_in_batches(
    network: Any, volume: Volume, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box on every slice: all slices are known before the first is looked at."""
    sizes: list[int] = []
    forward = network.forward_image
    monkeypatch.setattr(network, "forward_image", lambda x: sizes.append(len(x)) or forward(x))
    options = {"weight_hash": "w0", "window": window, "device": "cpu"}
    prompts = [Box(z, 30, 30, 60, 60) for z in range(12)]
    for batch, expected in ((8, [8, 4]), (None, [1] * 12)):
        predictor = Sam2Model("tiny", network, **options, batch_size=batch).open(volume)
        state = predictor.start(prompts)
        assert sizes == []
        for prompt in prompts:
            state, _ = predictor.prompt(state, prompt.z, [prompt])
        assert sizes == expected
        sizes.clear()


def test_the_window_is_part_of_the_key(network: Any, volume: Volume, window: Any) -> None:
    def key(window: Window, weights: str) -> Any:
        model = Sam2Model("tiny", network, weight_hash=weights, window=window, device="cpu")
        predictor = model.open(volume)
        return predictor._engine.features.key(5, predictor.start().crop)

    keys = [key(window, "a"), key(Window(40, 400), "a"), key(window, "b")]

    assert len({k.digest for k in keys}) == 3
    assert key(window, "a").digest == keys[0].digest


def test_slices_are_windowed_resized_and_normalised(window: Any) -> None:
    hu = np.full((1, 8, 8), -600, np.int16)  # the middle of the window
    hu[..., 4:] = 2000
    source = SliceSource(hu, window)
    grey = source.grey(0, Crop.whole((8, 8)))

    image = prepare_images([grey], 8)[0]

    expected = (np.array([128, 255])[None] / 255 - np.array([[0.485], [0.456], [0.406]])) / (
        np.array([[0.229], [0.224], [0.225]])
    )
    np.testing.assert_allclose(image[:, 3, [0, 7]], expected, rtol=1e-6)
    assert prepare_images([grey, grey], 16).shape == (2, 3, 16, 16)


def test_nan_voxels_are_refused(model: Sam2Model) -> None:
    array = np.zeros((3, 32, 32), np.float32)
    array[1, 3, 3] = np.nan
    predictor = model.open(Volume(array, VolumeGeometry(array.shape)))

    with pytest.raises(DataError, match="NaN"):
        predictor.prompt(predictor.start(), 1, [Box(1, 2, 2, 9, 9)])
    predictor.prompt(predictor.start(), 0, [Box(0, 2, 2, 9, 9)])  # the others are good


# ---------------------------------------------------------------------- states
def test_old_states_stay_good(model: Sam2Model, volume: Volume) -> None:
    """Undo is going on from an old state, redo doing the same again."""
    predictor = model.open(volume)
    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    walked = finish(predictor, state, range(12))
    before = {z: entry.logits.clone() for z, entry in walked.tracked.items()}

    corrected, first = predictor.prompt(walked, 8, [Click(8, 45, 45, positive=False)])
    finish(predictor, corrected, range(12))
    _, again = predictor.prompt(walked, 8, [Click(8, 45, 45, positive=False)])

    assert np.array_equal(first.logits, again.logits)
    assert walked.prompted == (5,)
    assert all(torch.equal(walked.tracked[z].logits, before[z]) for z in before)


def test_states_share_the_slices_that_did_not_change(model: Sam2Model, volume: Volume) -> None:
    predictor = model.open(volume)
    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    states = [state for state, _, _ in predictor.walk(state, range(12))]

    for old, new in pairwise(states):
        assert all(new.tracked[z] is entry for z, entry in old.tracked.items())
    # 64² B of logits, 16 · 8² · 2 B of memory and little else for a slice of the tiny network
    assert states[-1].tracked[7].nbytes < 7000


def test_forgetting_a_slice_is_as_if_it_had_never_been_prompted(
    model: Sam2Model, volume: Volume
) -> None:
    predictor = model.open(volume)
    one, _ = predictor.prompt(predictor.start(), 5, [BOX])
    two, _ = predictor.prompt(one, 9, [Box(9, 20, 20, 40, 40)])
    two = finish(predictor, two, range(12))

    forgotten = finish(predictor, predictor.forget(two, 9), range(12))

    expected = finish(predictor, one, range(12))
    assert forgotten.prompted == (5,)
    assert set(forgotten.tracked) == set(expected.tracked)
    for z, entry in expected.tracked.items():
        assert torch.equal(forgotten.tracked[z].logits, entry.logits)


def test_cancelled_walks_keep_what_was_there(model: Sam2Model, volume: Volume) -> None:
    predictor = model.open(volume)
    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    state = finish(predictor, state, range(12))
    state, _ = predictor.prompt(state, 7, [Click(7, 45, 45, positive=False)])

    stream = predictor.walk(state, range(12))
    partial = [next(stream)[0] for _ in range(2)][-1]
    stream.close()

    assert set(partial.tracked) | set(partial.conditioning) == set(range(12))
    renewed = {z for z, e in partial.tracked.items() if e.walk and e.walk.run == partial.run}
    assert len(renewed) == 2
    whole, expected = finish(predictor, partial, range(12)), finish(predictor, state, range(12))
    for z, entry in expected.tracked.items():
        assert torch.equal(whole.tracked[z].logits, entry.logits)


def test_a_prompt_is_needed(model: Sam2Model, volume: Volume) -> None:
    predictor = model.open(volume)

    with pytest.raises(PromptError, match="slice 4 has no box, click or mask"):
        predictor.prompt(predictor.start(), 4, [Stop(4)])


# ---------------------------------------------------------------------- walks
def test_each_slice_comes_from_the_nearer_prompted_slice() -> None:
    walks = plan_walks({2: True, 7: True, 9: True}, range(12))

    assert walks == [
        PlannedWalk(2, range(3, 5), open=False),
        PlannedWalk(7, range(6, 4, -1), open=False),
        PlannedWalk(7, range(8, 9), open=False),
        PlannedWalk(2, range(1, -1, -1), open=True),
        PlannedWalk(9, range(10, 12), open=True),
    ]


def test_holes_are_walls() -> None:
    walks = plan_walks({2: True, 5: False, 7: True}, range(1, 9))

    assert walks == [
        PlannedWalk(2, range(3, 5), open=True),
        PlannedWalk(7, range(6, 5, -1), open=True),
        PlannedWalk(2, range(1, 0, -1), open=True),
        PlannedWalk(7, range(8, 9), open=True),
    ]
    assert plan_walks({}, range(5)) == []
    assert plan_walks({3: False}, range(5)) == []


def test_a_blink_does_not_end_an_object(
    model: Sam2Model, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = model.open(volume)
    Script(predictor, {3, 4, 5, 6, 8}, monkeypatch)

    found = dict(predictor.propagate([BOX], range(12), fill=True))

    assert sorted(found) == [3, 4, 5, 6, 8]


def test_stray_voxels_end_an_object_where_one_asks_for_it(
    network: Any, volume: Volume, window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default a single voxel keeps a walk going, as nothing ends one in the stock predictor."""
    options = {"weight_hash": "w0", "window": window, "device": "cpu"}
    small = replace(NO_MINIMUM, min_area_mm2=100.0)
    runs = {}
    for name, end in (("stock", NO_MINIMUM), ("minimum", small)):
        predictor = Sam2Model("tiny", network, **options, end=end).open(volume)
        look, asked = predictor._engine.look, []

        def stray(z: int, *args: Any, look: Any = look, asked: Any = asked, **named: Any) -> Any:
            entry = look(z, *args, **named)
            asked.append(z)
            logits = torch.full_like(entry.logits, -10.0)
            logits[..., 2:4, 2:4] = 10.0  # some 40 mm² on every slice
            if 3 <= z <= 7 and z != 4:
                logits[..., 10:20, 10:20] = 10.0
            return replace(entry, logits=logits)

        monkeypatch.setattr(predictor._engine, "look", stray)
        stream = dict(predictor.propagate([BOX], range(12), fill=True))
        runs[name] = sorted(stream), sorted(asked)

    assert runs["stock"] == (list(range(12)), list(range(12)))
    # Slice 4 is a blink that the walk survives; two slices at either end to be sure.
    assert runs["minimum"] == ([3, 5, 6, 7], list(range(1, 10)))


def test_the_middle_of_a_gap_is_tracked_whatever_comes(
    model: Sam2Model, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = model.open(volume)
    script = Script(predictor, {1, 5, 10}, monkeypatch)
    prompts = [Box(1, 30, 30, 60, 60), Box(10, 30, 30, 60, 60)]

    list(predictor.propagate(prompts, range(1, 11), fill=True))

    assert script.asked[2:] == [(z, False) for z in range(2, 6)] + [
        (z, True) for z in range(9, 5, -1)
    ]


def test_slices_beyond_an_end_are_forgotten(
    model: Sam2Model, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = model.open(volume)
    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    state = finish(predictor, state, range(12))
    assert set(state.tracked) == set(range(12)) - {5}
    Script(predictor, {4, 5, 6}, monkeypatch)

    state = finish(predictor, state, range(12))

    assert set(state.tracked) == {4, 6}


def test_no_more_than_the_prompted_slices_without_fill(model: Sam2Model, volume: Volume) -> None:
    predictor = model.open(volume)
    prompts = [BOX, Box(9, 20, 20, 40, 40)]

    assert [z for z, _ in predictor.propagate(prompts, range(12), fill=False)] == [5, 9]
    assert predictor.encoded == 2


def test_negative_clicks_on_other_slices_are_corrections(model: Sam2Model, volume: Volume) -> None:
    predictor = model.open(volume)
    doubt = Click(8, 45, 45, positive=False)
    state, _ = predictor.prompt(predictor.start(), 5, [BOX])
    state, expected = predictor.prompt(finish(predictor, state, range(12)), 8, [doubt])

    stream = list(predictor.propagate([BOX, doubt], range(12), fill=True))

    slices = [z for z, _ in stream]
    assert len(set(slices)) == len(slices)
    assert slices[:2] == [5, 8]
    assert np.array_equal(dict(stream)[8].logits, expected.logits)


def test_a_whole_object_through_the_engine(model: Sam2Model, volume: Volume) -> None:
    """Stops, limits in mm and hand edits hold whatever the model says."""
    mask = np.zeros((96, 96), bool)
    mask[10:20, 10:20] = True
    prompts = [BOX, MaskPrompt(7, mask), Stop(10)]

    stream = dict(propagate_object(model.open(volume), prompts, volume.geometry, max_extent_mm=6.0))

    assert set(stream) == {3, 4, 5, 6, 7, 8, 9}
    assert np.array_equal(stream[7].mask, mask)
    result = segment_object(model, volume, prompts)
    assert np.array_equal(result.array[7] == 3, mask)
    assert not result.array[10:].any()


def test_a_volume_of_one_slice(model: Sam2Model, make_volume: Callable[..., Volume]) -> None:
    predictor = model.open(make_volume(1, 64))
    state, _ = predictor.prompt(predictor.start(), 0, [Box(0, 10, 10, 30, 30)])
    state = predictor._settled(state).begun(range(1))

    _, corrected = predictor.prompt(state, 0, [Click(0, 20, 20)])

    assert np.isfinite(corrected.logits).all()


# ---------------------------------------------------------------------- zoom
def test_zoom_sees_the_crop_and_nothing_else(
    network: Any, window: Any, make_volume: Callable[..., Volume]
) -> None:
    volume = make_volume(6, 128)
    model = Sam2Model(
        "tiny", network, weight_hash="w", window=window, device="cpu", zoom=Zoom(2.0, 40.0)
    )
    small = Box(3, 60, 50, 72, 66)
    predictor = model.open(volume)
    state, prediction = predictor.prompt(predictor.start([small]), 3, [small])
    crop = state.crop

    assert crop.zoomed
    assert crop.shape == (48, 48)
    outside = np.ones((128, 128), bool)
    outside[crop.slices] = False
    assert (prediction.logits[outside] == -1024.0).all()
    changed = volume.array.copy()
    changed[:, outside] = 1000
    again = model.open(Volume(changed, volume.geometry))
    same = again.prompt(again.start([small]), 3, [small])[1]
    assert np.array_equal(same.logits, prediction.logits)


def test_prompts_outside_the_zoomed_part_are_refused(
    network: Any, window: Any, make_volume: Callable[..., Volume]
) -> None:
    options = {"weight_hash": "w", "window": window, "device": "cpu", "zoom": Zoom(2.0, 32.0)}
    predictor = Sam2Model("tiny", network, **options).open(make_volume(4, 128))
    state = predictor.start([Box(1, 60, 60, 70, 70)])

    with pytest.raises(PromptError, match=r"slice 2 lies outside the zoomed rows 48:80"):
        predictor.prompt(state, 2, [Click(2, 5, 5)])


# ---------------------------------------------------------------------- memory banks
def entry(memory: list[float], iou: float = 0.9) -> SliceEntry:
    nothing = torch.zeros(1, 1)
    return SliceEntry(nothing, nothing, nothing, iou, torch.tensor(memory))


def fill(bank: SelfSortingBank, vectors: list[list[float]], iou: float = 0.9) -> None:
    for z, vector in enumerate(vectors):
        bank.add(z, entry(vector, iou), lambda: torch.ones(3))


def test_the_self_sorting_bank_becomes_more_diverse() -> None:
    """Fifteen memories along x and one along y: what is new along z replaces one of the x."""
    bank = SelfSortingBank(Walk(0, reverse=False, run=1), 6)
    fill(bank, [[1.0, 0.01 * i, 0.0] for i in range(15)] + [[0.0, 1.0, 0.0]])
    assert bank.slices == tuple(range(16))

    bank.add(20, entry([0.0, 0.0, 1.0]), lambda: torch.ones(3))

    # Least similar to the new one: all are orthogonal to it, the first counts (a = 0); its most
    # similar mate is slice 1 (b); 0 < sim(0, 1), so b goes.
    assert bank.slices == (0, 20, *range(2, 16))


def test_the_self_sorting_bank_keeps_out_what_adds_nothing_or_is_poor() -> None:
    bank = SelfSortingBank(Walk(0, reverse=False, run=1), 6)
    fill(bank, [[1.0, 0.01 * i, 0.0] for i in range(15)] + [[0.0, 1.0, 0.0]])
    before = bank.slices

    # Least similar is a = 15 (along y), its mate b = 14; the new one is nearer to a than b is.
    bank.add(30, entry([1.0, 0.9, 0.0]), lambda: torch.ones(3))
    assert bank.slices == before
    # Different enough, but of poor quality; then just good enough.
    bank.add(31, entry([0.0, 0.0, 1.0], iou=0.79), lambda: torch.ones(3))
    assert bank.slices == before
    bank.add(32, entry([0.0, 0.0, 1.0], iou=0.81), lambda: torch.ones(3))
    assert 32 in bank.slices


def test_the_self_sorting_bank_draws_by_similarity_and_alike_again() -> None:
    bank = SelfSortingBank(Walk(0, reverse=False, run=1), 6)
    alike, other = torch.tensor([1.0, 0, 0]), torch.tensor([-1.0, 0, 0])
    for z in range(1, 16):
        bank.add(z, entry([1.0, float(z), 0.0]), lambda z=z: alike if z % 2 else other)

    seen = [bank.recall(16, lambda: alike) for _ in range(2)]

    assert list(seen[0]) == list(seen[1])
    assert all(seen[0][z].memory is seen[1][z].memory for z in seen[0])
    drawn = [
        int(bank.recall(z, lambda: alike)[z - 1].memory[1]) for z in range(2, 16) for _ in range(2)
    ]
    # softmax of similarities ±1: odd slices are e² = 7.4 times as likely
    assert sum(z % 2 for z in drawn) > 0.6 * len(drawn)
    # The pointers stay those of the slices at these positions.
    assert all(seen[0][z].iou == 0.9 for z in range(10, 16))


def test_the_self_sorting_bank_in_propagation(network: Any, volume: Volume, window: Any) -> None:
    options = {"weight_hash": "w", "window": window, "device": "cpu"}
    stock = Sam2Model("tiny", network, **options).open(volume)
    sorting = Sam2Model("tiny", network, **options, memory_bank="self-sorting").open(volume)

    runs = [
        {z: p.logits for z, p in predictor.propagate([BOX], range(12), fill=True)}
        for predictor in (stock, sorting, sorting)
    ]

    assert all(np.array_equal(runs[1][z], runs[2][z]) for z in runs[1])  # replays alike
    assert np.array_equal(runs[0][6], runs[1][6])  # no tracked slices to choose from yet
    assert not np.array_equal(runs[0][11], runs[1][11])
    state, _ = sorting.prompt(sorting.start(), 5, [BOX])
    _, corrected = sorting.prompt(
        finish(sorting, state, range(12)), 9, [Click(9, 45, 45, positive=False)]
    )
    assert np.isfinite(corrected.logits).all()
    assert sorting.encoded == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_bank": "newest"}, "no memory bank 'newest'"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"device": "tpu"}, "no device 'tpu'"),
    ],
)
def test_options_that_make_no_sense(
    network: Any, window: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Sam2Model("tiny", network, **{"weight_hash": "w", "window": window, **options})
    assert isinstance(caught.value, LungFMError)


def test_warming_up_is_not_counted(model: Sam2Model, volume: Volume) -> None:
    model.warm_up()

    assert model.open(volume).encoded == 0
