"""Networks that are opened once for several users, and Medical SAM 2's own validation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_lungfm._core.seeding import generator
from napari_lungfm.evaluation import parse_protocol
from napari_lungfm.evaluation.shared_model import SharedModel
from napari_lungfm.evaluation.simulation import simulate
from napari_lungfm.evaluation.zhu_validation import validate
from napari_lungfm.geometry import Volume
from napari_lungfm.models.foundation.sam2_build import build_sam2
from napari_lungfm.models.foundation.sam2_video import Sam2Model
from napari_lungfm.models.foundation.sam_image import SamImageModel

PROTOCOLS = ("box-every-3", "point-one+corrections-1", "box-one")


def reference_of(volume: Volume) -> np.ndarray:
    mask = np.zeros(volume.shape, bool)
    mask[2:9, 30:60, 32:64] = True
    return mask


@pytest.fixture(params=["sam", "sam2"])
def either(
    request: pytest.FixtureRequest, tiny_sam: torch.nn.Module, model: Sam2Model, window: Any
) -> Any:
    if request.param == "sam2":
        return model
    known = {"weight_hash": "w", "window": window, "device": "cpu"}
    return SamImageModel("m", tiny_sam, preprocessing="sam", **known)


def test_sharing_changes_no_bit_and_encodes_no_slice_twice(either: Any, volume: Volume) -> None:
    reference = reference_of(volume)
    needed: list[int] = []
    with SharedModel(either, volume) as shared:
        for name in PROTOCOLS:
            protocol = parse_protocol(name)
            with SharedModel(either, volume) as alone:
                apart = simulate(alone, volume, reference, protocol, generator(4))
                needed.append(alone.use.encoded)
            fresh = simulate(either, volume, reference, protocol, generator(4))
            shared.begin()
            together = simulate(shared, volume, reference, protocol, generator(4))
            for other in (apart, fresh):
                assert np.array_equal(together.mask, other.mask)
                assert together.prompts == other.prompts
                assert [i.dice for i in together.interactions] == [
                    i.dice for i in other.interactions
                ]
            # What a unit needs is what it would have encoded by itself.
            assert shared.use.encoded + shared.use.reused == needed[-1]
        assert shared.use.reused > 0
        assert together.mask.any()


def test_logits_are_the_same_bits(model: Sam2Model, volume: Volume) -> None:
    from napari_lungfm.models.prompts import Box

    def logits(opened: Any) -> list[np.ndarray]:
        state = opened.start()
        state, first = opened.prompt(state, 5, [Box(5, 30, 30, 60, 60)])
        return [first.logits, *(p.logits for _, _, p in opened.walk(state, range(3, 8)))]

    fresh = logits(model.open(volume))
    with SharedModel(model, volume) as shared:
        for _ in range(2):
            for one, other in zip(logits(shared.open(volume)), fresh, strict=True):
                assert np.array_equal(one, other)


@pytest.mark.parametrize("base", ["sam2.1_hiera_t", "sam2_hiera_s"])
def test_the_slice_between_is_what_the_stock_predictor_tracks_forward(
    base: str,
    make_config: Callable[..., dict[str, Any]],
    make_random: Callable[..., Any],
    volume: Volume,
    stock: Any,
    window: Any,
) -> None:
    """Boxes on slices 4 and 6, slice 5 tracked: one slice between, so theirs has no others."""
    config = make_config(base=base)
    network = make_random(build_sam2(config))
    model = Sam2Model("tiny", network, weight_hash="w", window=window, device="cpu")
    reference = reference_of(volume)
    protocol = parse_protocol("zhu-validation")
    done = validate(model, volume, reference, range(4, 7), protocol, generator(0))
    theirs = stock(config, network.state_dict(), volume)
    for z in (4, 6):
        theirs.box(z, (32, 30, 63, 59))
    tracked = theirs.walk(start_frame_idx=4, max_frame_num_to_track=2)
    assert done.with_logits
    for z in (4, 5, 6):
        assert np.count_nonzero(done.mask[z] != (tracked[z] > 0)) <= 1  # a logit of about 0
        expected = [
            np.count_nonzero((tracked[z] > t) & reference[z])
            / np.count_nonzero((tracked[z] > t) | reference[z])
            for t in (0.1, 0.3, 0.5, 0.7, 0.9)
        ]
        assert done.scores.slice_iou[z - 4] == pytest.approx(np.mean(expected), abs=1e-3)


def test_all_zero_masks_are_memories_and_no_beginnings(model: Sam2Model, volume: Volume) -> None:
    reference = reference_of(volume)
    reference[7:] = False  # on 2 to 6; slices 0 and 8 are prompted as empty
    protocol = parse_protocol("zhu-validation")
    done = validate(model, volume, reference, range(10), protocol, generator(0))
    assert not done.mask[[0, 1, 8, 9]].any()  # nothing starts from an empty slice
    assert done.mask[[2, 4, 6]].any(axis=(1, 2)).all()
