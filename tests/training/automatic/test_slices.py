import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

from napari_lungfm.geometry import Structure  # noqa: E402
from napari_lungfm.training.automatic.config import parse_training  # noqa: E402
from napari_lungfm.training.automatic.prepared import prepare_cohort  # noqa: E402
from napari_lungfm.training.automatic.slices import TrainingSlices, cut_out  # noqa: E402


@pytest.fixture
def make_slices(make_cohort, tiny_values, tmp_path):
    def make(**changes):
        config = parse_training({**tiny_values, **changes})
        cases = prepare_cohort(
            make_cohort("a", "b", "c"),
            tmp_path,
            inputs=config.inputs,
            structures=config.targets,
        )
        return TrainingSlices(cases, config)

    return make


def test_every_slice_comes_once_per_epoch(make_slices):
    slices = make_slices(sampling={"kind": "all"}, augmentation="none")
    everything = sorted((c, z, 0) for c in range(3) for z in range(6))
    for epoch in (0, 1):
        assert sorted(slices.plan(epoch)) == everything
    assert slices.plan(0) != slices.plan(1)
    assert len(slices) == 18


def test_tumours_are_drawn_as_often_as_asked_for(make_slices):
    sampling = {"kind": "foreground", "slices_per_epoch": 2000, "tumour": 0.5, "lungs": 0.3}
    slices = make_slices(sampling=sampling)
    foci = [focus for _, _, focus in slices.plan(0)]
    assert np.mean([focus == Structure.TUMOUR for focus in foci]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([focus in (1, 2) for focus in foci]) == pytest.approx(0.3, abs=0.05)
    assert {z for _, z, focus in slices.plan(0) if focus == Structure.TUMOUR} == {1, 2, 3}


def test_an_item_depends_on_its_epoch_and_number_alone(make_slices):
    one, other = make_slices(), make_slices()
    for number in (7, 0, 7):
        other[0, number]  # what was drawn before must not matter
    for a, b in zip(one[2, 5], other[2, 5], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one[2, 5][0], one[3, 5][0])


def test_items_have_the_shape_that_networks_want(make_slices):
    image, classes = make_slices(
        inputs={"spacing": [3.0, 1.0, 1.0], "size": [32, 48], "neighbours": 1}
    )[0, 0]
    assert (image.shape, image.dtype) == ((3, 32, 48), torch.float32)
    assert (classes.shape, classes.dtype) == ((32, 48), torch.int64)
    assert set(classes.unique().tolist()) <= {0, 1, 2, 3}
    assert image.max() > 0.4


def test_left_and_right_are_never_mirrored(make_slices):
    sampling = {"kind": "foreground", "slices_per_epoch": 40, "tumour": 0.0, "lungs": 0.0}
    slices = make_slices(sampling=sampling)
    for number in range(40):
        classes = slices[0, number][1].numpy()
        left, right = (np.argwhere(classes == side)[:, 1].mean() for side in (1, 2))
        assert left > right


def test_cut_outs_are_filled_up_with_air():
    image = np.arange(1, 13).reshape(1, 3, 4)
    assert cut_out(image, (-1, 2), (3, 4))[0].tolist() == [[0, 0, 0, 0], [3, 4, 0, 0], [7, 8, 0, 0]]
    assert not cut_out(image, (10, 10), (2, 2)).any()


def test_cut_outs_show_what_they_are_centred_on(make_slices):
    sampling = {"kind": "foreground", "slices_per_epoch": 30, "tumour": 1.0, "lungs": 0.0}
    inputs = {"spacing": [3.0, 1.0, 1.0], "size": [32, 32]}
    slices = make_slices(sampling=sampling, inputs=inputs, augmentation="none")
    for number in range(30):
        assert (slices[0, number][1] == 3).any()
