import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import LungFMWarning, UsageError
from napari_lungfm.models.foundation.zoom import CROP_GRID, Crop, CropChooser, Zoom, hull_of
from napari_lungfm.models.prompts import Box, Click, MaskPrompt, Stop

SHAPE = (512, 480)


def test_whole_slices_keep_the_publishers_rule() -> None:
    """Index times size over shape, the last pixel of a box inside."""
    crop = Crop.whole((512, 512))

    assert crop.pixel(100, 200, (1024, 1024)) == (200.0, 400.0)
    assert crop.pixel_box(Box(0, 10, 20, 30, 60), (1024, 1024)) == (40.0, 20.0, 118.0, 58.0)


def test_zoomed_crops_map_centre_on_centre() -> None:
    """A voxel shown as 8 × 8 pixels: its centre is between pixels 3 and 4."""
    crop = Crop(64, 32, 128, 96, zoomed=True)

    assert crop.pixel(64, 32, (512, 512)) == (3.5, 3.5)
    # A box of one voxel covers all of its 8 pixels, a box of all voxels the whole input.
    assert crop.pixel_box(Box(0, 65, 34, 66, 35), (512, 512)) == (16.0, 8.0, 23.0, 15.0)
    assert crop.pixel_box(Box(0, 64, 32, 128, 96), (512, 512)) == (0.0, 0.0, 511.0, 511.0)


@given(
    st.integers(0, 500),
    st.integers(0, 470),
    st.integers(1, 200),
    st.integers(1, 200),
    st.floats(1.0, 5.0),
    st.floats(1.0, 200.0),
)
def test_a_crop_is_a_square_inside_that_holds_the_prompts(
    y: int, x: int, height: int, width: int, margin: float, size_mm: float
) -> None:
    box = Box(3, y, x, min(y + height, SHAPE[0]), min(x + width, SHAPE[1]))
    crop = Zoom(margin, size_mm).crop([box], SHAPE, (0.8, 0.8))

    assert 0 <= crop.y0 < crop.y1 <= SHAPE[0]
    assert 0 <= crop.x0 < crop.x1 <= SHAPE[1]
    assert crop.holds([box])
    if crop.zoomed:
        side = crop.shape[0]
        assert crop.shape == (side, side)
        assert side % CROP_GRID == 0
        extent = max(box.y1 - box.y0, box.x1 - box.x0)
        assert side >= max(margin * extent, size_mm / 0.8)
    else:
        assert crop == Crop.whole(SHAPE)


def test_neighbouring_prompts_share_a_crop() -> None:
    """So that a box drawn anew two pixels off encodes nothing."""
    zoom = Zoom(2.0, 60.0)
    crops = {zoom.crop([Box(3, 190, 200, 220 + i, 228)], SHAPE, (1.0, 1.0)) for i in range(3)}

    assert len(crops) == 1


def test_nothing_to_look_at_shows_everything() -> None:
    assert Zoom().crop([Stop(3)], SHAPE, (1.0, 1.0)) == Crop.whole(SHAPE)
    assert hull_of([Stop(1), MaskPrompt(2, np.zeros((4, 4), bool))]) is None


def test_the_hull_holds_every_kind_of_prompt() -> None:
    mask = np.zeros((50, 50), bool)
    mask[7:9, 30:41] = True

    hull = hull_of([Click(1, 20, 5), Box(2, 10, 10, 12, 12), MaskPrompt(3, mask)])

    assert hull == Box(1, 7, 5, 21, 41)


NODULE = Box(3, 250, 250, 258, 258)  # 6 mm at 0.75 mm


def sides(*zooms: Zoom) -> list[int]:
    return [zoom.crop([NODULE], (512, 512), (0.75, 0.75)).shape[0] for zoom in zooms]


def test_a_factor_counts_on_small_lesions() -> None:
    assert sides(Zoom(3.0), Zoom(8.0)) == [112, 112]  # the smallest side of 80 mm decides
    assert sides(*(Zoom(f, None) for f in (3.0, 6.0, 8.0, 12.0))) == [32, 48, 64, 96]
    assert sides(Zoom(3.0, 30.0), Zoom(8.0, 30.0)) == [48, 64]
    # A click does not say how large the object is.
    assert Zoom(8.0, None).crop([Click(3, 9, 9)], (512, 512), (0.75, 0.75)).shape == (112, 112)


def test_zoom_that_does_not_apply_says_so_once() -> None:
    chooser = CropChooser(Zoom(2.0, None))
    large = Box(3, 10, 10, 300, 300)
    with pytest.warns(LungFMWarning, match=r"zoom does not apply: the square .* \(592 voxels, 444"):
        assert chooser.crop([large], (512, 512), (0.75, 0.75)) == Crop.whole((512, 512))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chooser.crop([large], (512, 512), (0.75, 0.75))
        assert CropChooser(Zoom(2.0)).crop([], SHAPE, (1.0, 1.0)) == Crop.whole(SHAPE)
        assert CropChooser(None).crop([large], SHAPE, (1.0, 1.0)) == Crop.whole(SHAPE)
        assert chooser.crop([NODULE], (512, 512), (0.75, 0.75)).zoomed


@pytest.mark.parametrize("options", [{"margin": 0.5}, {"min_size_mm": 0.0}, {"margin": np.inf}])
def test_options_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Zoom(**options)
