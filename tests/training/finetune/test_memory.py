import math
import warnings

import pytest
import torch

from napari_lungfm._core.exceptions import LungFMWarning
from napari_lungfm.training.finetune.memory import FeatureFiles, FrozenFeatures

CPU = torch.device("cpu")
ONE = 4 * 10  # bytes of the features of a slice


class Encoder:
    """Ten values per slice, and a list of the slices that were asked for."""

    def __init__(self):
        self.made = []

    def __call__(self, key, features, size=10):
        def encode():
            self.made.append(key)
            values = torch.full((size,), float(key[1])) + torch.arange(size) / 3
            return values, values[:0]

        return features.get(key, encode, CPU)


@pytest.fixture
def encoder():
    return Encoder()


def slices(*numbers):
    return [("case", number) for number in numbers]


def test_what_is_kept_stays_and_the_rest_is_computed_anew(encoder):
    features = FrozenFeatures(2 * ONE)
    for key in slices(1, 2, 3, 1, 3, 2):
        assert float(encoder(key, features)[0][0]) == key[1]
    assert encoder.made == slices(1, 2, 3, 3)
    assert (features.computed, features.reused) == (4, 2)


def test_what_has_no_room_in_memory_goes_to_disk_and_is_found_by_another_process(encoder, tmp_path):
    keys = slices(1, 2, 3)
    features = FrozenFeatures(ONE)
    features.keep_in(FeatureFiles(tmp_path, 10**6), 3)
    first = [encoder(key, features) for key in keys]
    again = [encoder(key, features) for key in keys]
    assert encoder.made == keys
    assert len(list(tmp_path.iterdir())) == 2
    assert (features.computed, features.reused, features.notes) == (3, 3, [])
    other = FrozenFeatures(0)
    other.keep_in(FeatureFiles(tmp_path, 10**6), 3)
    third = [encoder(key, other) for key in keys]
    assert encoder.made == [*keys, ("case", 1)]  # it had been in memory
    for found in (again, third):
        for maps, same in zip(first, found, strict=True):
            assert len(maps) == len(same) == 2
            assert all(torch.equal(a, b) for a, b in zip(maps, same, strict=True))


def test_no_more_than_the_room_on_disk_is_used_and_what_does_not_fit_is_told(encoder, tmp_path):
    features = FrozenFeatures(ONE)
    features.keep_in(FeatureFiles(tmp_path, 2 * ONE), 10)
    with pytest.warns(LungFMWarning, match=r"features of 10 slices take .* GiB.*70% of the slices"):
        encoder(("case", 0), features)
    for key in slices(*range(1, 10)):
        encoder(key, features)
    assert len(list(tmp_path.iterdir())) == 2
    assert len(features.notes) == 1
    assert "feature_disk_gb" in features.notes[0]
    # The room that is used up already counts.
    assert FeatureFiles(tmp_path, 10**6).room == 10**6
    used = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert FeatureFiles(tmp_path, 10).room == used


def test_keeping_nothing_is_a_choice(encoder, tmp_path):
    features = FrozenFeatures(0)
    features.keep_in(FeatureFiles(tmp_path, 0), 10)
    for _ in range(2):
        encoder(("case", 1), features)
    assert (features.computed, features.reused, features.notes) == (2, 0, [])
    assert not list(tmp_path.iterdir())


def test_processes_share_the_room(tmp_path):
    assert FeatureFiles(tmp_path, 100, processes=4).room == 25


def test_files_that_are_damaged_are_made_anew(encoder, tmp_path):
    features = FrozenFeatures(0)
    features.keep_in(FeatureFiles(tmp_path, 10**6), 1)
    key = ("case", 1)
    first = encoder(key, features)[0]
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:20])
    assert torch.equal(encoder(key, features)[0], first)
    assert encoder.made == [key, key]
    assert torch.equal(encoder(key, features)[0], first)
    assert encoder.made == [key, key]


def test_a_disk_that_cannot_be_written_makes_it_slower_not_wrong(encoder, tmp_path):
    folder = tmp_path / "features"
    features = FrozenFeatures(0)
    features.keep_in(FeatureFiles(folder, 10**6), 2)
    folder.rmdir()
    folder.write_text("not a folder")
    with pytest.warns(LungFMWarning, match="kept on disk no longer"):
        encoder(("case", 1), features)
    encoder(("case", 2), features)
    assert len(features.notes) == 1


def test_half_precision_does_not_depend_on_what_is_kept(encoder, tmp_path):
    none, memory, disk = (FrozenFeatures(room, "float16") for room in (0, 1000, 0))
    disk.keep_in(FeatureFiles(tmp_path, 10**6), 1)
    key = ("case", 1)
    found = [encoder(key, each)[0] for each in (none, memory, memory, disk, disk)]
    assert all(torch.equal(found[0], each) for each in found[1:])
    exact = encoder(key, FrozenFeatures(0))[0]
    assert found[0].dtype == exact.dtype == torch.float32
    assert not torch.equal(found[0], exact)
    torch.testing.assert_close(found[0], exact, rtol=2**-11, atol=0)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 20 + 200
    # Values beyond its range stay as they are.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        huge = memory.get(("case", 2), lambda: (torch.tensor([1e6 + 0.5]),), CPU)[0]
    assert math.isclose(float(huge[0]), 1e6 + 0.5)
    # What was computed in bfloat16 stays in it.
    half = memory.get(("case", 3), lambda: (torch.ones(3).bfloat16(),), CPU)[0]
    assert half.dtype == torch.bfloat16
