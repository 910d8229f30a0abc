import numpy as np
import pytest

from napari_lungfm._core.exceptions import InputFileError
from napari_lungfm._core.seeding import generator
from napari_lungfm.training.synthetic import ClipBank, fill_bank, make_clip
from napari_lungfm.training.synthetic.clips import MAX_SLICES, SIDE, Sampling


@pytest.mark.parametrize("source", ["phantom", "organ", "scene"])
def test_a_clip_shows_one_whole_object_in_hounsfield_units(source) -> None:
    clip = make_clip(7, 3, source)
    assert clip.source == source
    assert clip.image.dtype == np.int16
    assert clip.image.shape == clip.mask.shape
    assert clip.image.shape[1:] == (SIDE, SIDE)
    assert clip.image.min() >= -1024
    largest = clip.mask[int(np.argmax(clip.mask.sum(axis=(1, 2))))]
    assert largest.sum() >= 12
    assert not largest[[0, -1]].any()
    assert not largest[:, [0, -1]].any()


def test_the_same_numbers_give_the_same_clip() -> None:
    a, b, c = make_clip(1, 5, "scene"), make_clip(1, 5, "scene"), make_clip(2, 5, "scene")
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.mask, b.mask)
    assert a.image.shape != c.image.shape or (a.image != c.image).any()


def test_grids_hold_objects_of_every_size_with_their_ends() -> None:
    draws = [Sampling.draw(generator("sampling", i)) for i in range(400)]
    diameters = np.array([d.diameter_mm for d in draws])
    assert diameters.min() < 5
    assert diameters.max() > 100
    for draw in draws:
        assert draw.slices <= MAX_SLICES
        assert draw.slices * draw.spacing[0] >= 1.3 * draw.diameter_mm
        assert SIDE * draw.spacing[1] >= 1.9 * draw.diameter_mm


def test_objects_of_scenes_can_be_told_from_what_is_around_them() -> None:
    contrasts = []
    for index in range(12):
        clip = make_clip(11, index, "scene")
        z = int(np.argmax(clip.mask.sum(axis=(1, 2))))
        inside, outside = clip.image[z][clip.mask[z]], clip.image[z][~clip.mask[z]]
        contrasts.append(abs(float(np.median(inside)) - float(np.median(outside))))
    assert np.median(contrasts) > 50


def test_a_bank_gives_back_what_was_put_in(tmp_path) -> None:
    fill_bank(tmp_path, 3, [0, 2], "scene")
    bank = ClipBank(tmp_path)
    assert bank.indices() == [0, 2]
    kept, made = bank.read(2), make_clip(3, 2, "scene")
    np.testing.assert_array_equal(kept.image, made.image)
    np.testing.assert_array_equal(kept.mask, made.mask)
    assert kept.spacing == made.spacing
    assert kept.source == "scene"


def test_a_full_bank_is_left_as_it_is(tmp_path) -> None:
    fill_bank(tmp_path, 3, [0], "scene")
    before = (tmp_path / "0000000.npz").stat().st_mtime_ns
    fill_bank(tmp_path, 3, [0], "scene")
    assert (tmp_path / "0000000.npz").stat().st_mtime_ns == before


def test_a_missing_or_broken_clip_is_named(tmp_path) -> None:
    bank = ClipBank(tmp_path)
    with pytest.raises(InputFileError, match="0000004"):
        bank.read(4)
    bank.path(4).write_bytes(b"nothing")
    with pytest.raises(InputFileError, match="0000004"):
        bank.read(4)
