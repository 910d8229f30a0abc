import numpy as np
import pytest

torch = pytest.importorskip("torch")

from napari_lungfm.geometry import Structure, Volume, VolumeGeometry, axis_codes, reorient  # noqa: E402
from napari_lungfm.models.automatic.protocol import (  # noqa: E402
    AutomaticModel,
    SegmentationCancelledError,
)
from napari_lungfm.models.automatic.slice_network import (  # noqa: E402
    InputSpec,
    SliceNetworkModel,
    classify,
    slice_stack,
)

TARGETS = tuple(Structure)


class Bright(torch.nn.Module):
    """Calls tumour what is bright on the middle one of the slices it sees, left lung the grey."""

    def forward(self, images):
        middle = images[:, images.shape[1] // 2]
        logits = torch.zeros(len(images), 4, *middle.shape[1:])
        logits[:, 1] = ((middle > 0.05) & (middle < 0.26)).float()
        logits[:, 3] = (middle > 0.26).float() * 2
        return logits


def _model(**changes):
    inputs = InputSpec(
        **{"spacing": (3.0, 1.0, 1.0), "size": (64, 64), **changes.pop("inputs", {})}
    )
    return SliceNetworkModel("bright", Bright(), inputs, TARGETS, device="cpu", **changes)


@pytest.fixture
def ball():
    """A bright ball in grey lung; voxels of 2 × 1.5 × 1.5 mm, oblique by ten degrees."""
    shape, spacing = (24, 60, 70), (2.0, 1.5, 1.5)
    c, s = np.cos(np.deg2rad(10)), np.sin(np.deg2rad(10))
    direction = ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0))
    geometry = VolumeGeometry(shape, spacing, (-10.0, 20.0, 5.0), direction)
    away = [
        (i - (n - 1) / 2) * mm for i, n, mm in zip(np.indices(shape), shape, spacing, strict=True)
    ]
    inside = sum(a**2 for a in away) <= 14.0**2
    array = np.where(inside, 30, -1000).astype(np.int16)
    array[:, 20:40, 5:15] = -800
    return Volume(array, geometry), inside


def test_the_result_lies_on_the_grid_of_the_image(ball):
    volume, inside = ball
    model = _model()
    assert isinstance(model, AutomaticModel)
    found = model.segment(volume)
    assert found.geometry == volume.geometry
    assert found.array.dtype == np.uint8
    mask = found.mask("tumour")
    assert 2 * np.count_nonzero(mask & inside) / (mask.sum() + inside.sum()) > 0.95
    assert found.mask("left lung").any()


@pytest.mark.parametrize("codes", ["SPL", "IAR", "LSP", "ARS"])
def test_the_axes_of_the_file_do_not_matter(ball, codes):
    volume, _ = ball
    straight = _model().segment(volume)
    turned = _model().segment(reorient(volume, codes))
    assert axis_codes(turned.geometry) == codes
    assert np.array_equal(reorient(turned, axis_codes(volume.geometry)).array, straight.array)


def test_windows_smaller_than_the_slice_change_nothing(ball):
    """A network that looks at one pixel must not notice the windows."""
    volume, _ = ball
    whole = _model(inputs={"size": (128, 128)}).segment(volume)
    small = _model(inputs={"size": (32, 48)}, batch_size=3).segment(volume)
    assert np.array_equal(whole.array, small.array)


def test_neighbours_are_the_slices_beside():
    array = np.arange(5)[:, None, None] * np.ones((5, 2, 2), dtype=int)
    assert slice_stack(array, 2, 1)[:, 0, 0].tolist() == [1, 2, 3]
    assert slice_stack(array, 0, 2)[:, 0, 0].tolist() == [0, 0, 0, 1, 2]
    assert slice_stack(array, 4, 1)[:, 0, 0].tolist() == [3, 4, 4]
    assert slice_stack(array, 3, 0)[:, 0, 0].tolist() == [3]
    inputs = InputSpec(size=(32, 32), neighbours=2)
    image = np.zeros((4, 32, 32), np.float32)
    image[2] = 1.0
    classes = classify(Bright(), image, inputs, device=lambda: torch.device("cpu"))
    assert [int(plane.max()) for plane in classes] == [0, 0, 3, 0]


def test_postprocessing_is_off_until_asked_for(ball):
    volume, _ = ball
    array = volume.array.copy()
    array[0, :3, :3] = 100
    speck = Volume(array, volume.geometry)
    assert _model().segment(speck).mask("tumour")[0].any()
    cleaned = _model(postprocessing="largest-components").segment(speck)
    assert not cleaned.mask("tumour")[0].any()


def test_it_tells_and_can_be_stopped(ball):
    volume, _ = ball
    told = []
    _model().segment(volume, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] == 16  # 48 mm in slices of 3 mm
    with pytest.raises(SegmentationCancelledError):
        _model().segment(volume, cancelled=lambda: len(told) > 0)
