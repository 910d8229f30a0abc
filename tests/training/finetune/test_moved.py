import pytest
import torch

from napari_lungfm.training.finetune.finish import told_of_unmoved
from napari_lungfm.training.finetune.moved import moved_weights


def test_what_moved_is_told_by_module():
    before = {
        "encoder.a": torch.ones(4),
        "encoder.b": torch.ones(4),
        "decoder.a": torch.ones(2, 2),
    }
    after = {name: tensor.clone() for name, tensor in before.items()}
    after["encoder.a"][1] = 3.0
    after["encoder.b"][0] += 1e-3  # less than half a step of bfloat16 at 1, which is 2**-7
    moved = moved_weights(before, after)
    assert moved["decoder"].moved == moved["decoder"].largest == 0
    encoder = moved["encoder"]
    assert (encoder.entries, encoder.moved, encoder.largest) == (8, 0.25, 2.0)
    assert encoder.moved_in_bfloat16 == 0.125
    assert encoder.mean == pytest.approx(2.001 / 8)


def test_other_networks_cannot_be_compared():
    with pytest.raises(ValueError, match="different networks: b"):
        moved_weights({"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)})


def test_it_is_said_what_was_trained_and_has_not_moved():
    before = {"a.w": torch.zeros(3), "b.w": torch.zeros(3), "c.w": torch.zeros(3)}
    nothing = moved_weights(before, before)
    assert told_of_unmoved(nothing, {"a"})[0].startswith("no weight moved: the result is its base")
    some = moved_weights(before, {**before, "a.w": torch.ones(3)})
    assert told_of_unmoved(some, {"a"}) == ()
    (note,) = told_of_unmoved(some, {"a", "b"})
    assert note == "no weight moved of b, though they were to be trained"
