from dataclasses import replace

import numpy as np
import pytest

from napari_lungfm._core.exceptions import InputFileError
from napari_lungfm.benchmark.previews import MARGIN_MM, Preview
from napari_lungfm.datasets import Case
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, reorient


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    grid = VolumeGeometry((20, 100, 120), (2.0, 1.0, 1.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[5:12, 50:60, 40:52] = 3
    labels[7, 45:65, 40:52] = 3
    volume = Volume(rng.integers(-1000, 400, grid.shape).astype(np.int16), grid)
    return Case("a", volume, LabelMap(labels, grid))


def test_the_preview_holds_the_ends_and_the_largest_slice(case, tmp_path):
    preview = Preview.of_case(case)
    assert preview.slices[0] == 5
    assert preview.slices[-1] == 11
    assert preview.largest == 7
    assert preview.rows == (45 - MARGIN_MM, 65 + MARGIN_MM)
    picked = case.volume.array[np.ix_(preview.slices, range(20, 90), range(15, 77))]
    assert np.array_equal(preview.hu, picked)
    preview.save(tmp_path / "p.npz")
    again = Preview.load(tmp_path / "p.npz")
    assert again.slices == preview.slices
    assert np.array_equal(again.hu, preview.hu)
    assert np.array_equal(again.pick(case.reference), preview.reference)


def test_turned_cases_look_the_same(case):
    turned = Case("t", reorient(case.volume, "ILP"), reorient(case.reference, "ILP"))
    straight, other = Preview.of_case(case), Preview.of_case(turned)
    assert np.array_equal(straight.hu, other.hu)
    assert np.array_equal(other.pick(turned.reference), straight.reference)


def test_a_case_without_tumour_shows_the_middle(case):
    empty = LabelMap(np.zeros_like(case.reference.array), case.reference.geometry)
    preview = Preview.of_case(Case("e", case.volume, empty))
    assert preview.slices[0] == 0
    assert preview.slices[-1] == 19


def test_a_damaged_preview_is_named(tmp_path):
    bad = tmp_path / "p.npz"
    bad.write_bytes(b"PK nothing")
    with pytest.raises(InputFileError, match=r"p\.npz"):
        Preview.load(bad)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.99])
def test_a_preview_that_was_cut_off_is_named(case, tmp_path, keep):
    file = tmp_path / "p.npz"
    Preview.of_case(case).save(file)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputFileError, match=r"p\.npz"):
        Preview.load(file)


def test_altered_bytes_are_found_or_do_no_harm(case, tmp_path):
    file = tmp_path / "p.npz"
    whole = Preview.of_case(case)
    whole.save(file)
    data = file.read_bytes()
    rng = np.random.default_rng(1)
    found = 0
    for place in rng.integers(0, len(data), 300):
        broken = bytearray(data)
        broken[place] ^= int(rng.integers(1, 256))
        file.write_bytes(broken)
        try:
            again = Preview.load(file)
        except InputFileError:
            found += 1
        else:
            assert np.array_equal(again.hu, whole.hu)
    assert found > 200


def test_other_files_under_the_name_are_no_preview(case, tmp_path):
    file = tmp_path / "p.npz"
    with file.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(InputFileError, match=r"p\.npz"):
        Preview.load(file)
    preview = Preview.of_case(case)
    replace(preview, hu=preview.hu[:1]).save(file)
    with pytest.raises(InputFileError, match="size"):
        Preview.load(file)
    replace(preview, largest=99).save(file)
    with pytest.raises(InputFileError, match="largest"):
        Preview.load(file)
