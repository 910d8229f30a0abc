"""Cases that were made ready before."""

import contextlib
import errno
import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from napari_lungfm.geometry import Structure
from napari_lungfm.training.automatic.kept import case_mark, read_kept, remove_others, write_kept


@dataclass
class Source:
    mark: str = "f"

    def fingerprint(self) -> str:
        return self.mark


def test_whatever_decides_a_case_changes_its_mark() -> None:
    lungs, tumour = SimpleNamespace(name="lungmask"), (Structure.TUMOUR,)
    marks = {
        case_mark(1, Source(), tumour, None),
        case_mark(2, Source(), tumour, None),
        case_mark(1, Source("g"), tumour, None),
        case_mark(1, Source(), (Structure.LEFT_LUNG,), None),
        case_mark(1, Source(), tumour, lungs),
        case_mark(1, Source(), tumour, None, "(3.0, 1.0, 1.0)"),
    }
    assert len(marks) == 6
    assert case_mark(1, Source(), tumour, lungs) in marks


@pytest.fixture
def file_size_limit():
    """Context in which no file may grow beyond a number of bytes."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.mark.parametrize("missing", ["", ".json", "-image.npy"])
def test_only_what_is_whole_is_read(tmp_path, missing) -> None:
    stem = tmp_path / "case"
    (tmp_path / "case.json").write_text(json.dumps({"image": "hash"}))
    np.save(f"{stem}-image.npy", np.zeros(2))
    if missing:
        (tmp_path / f"case{missing}").unlink()
    assert read_kept(stem, ("image",)) == (None if missing else {"image": "hash"})
    (tmp_path / "case.json").write_text("{half")
    assert read_kept(stem, ("image",)) is None


def test_arrays_are_written_as_numpy_does(tmp_path) -> None:
    arrays = {"a": np.arange(24, dtype=np.uint16).reshape(2, 3, 4), "b": np.zeros((0, 2), np.uint8)}
    arrays["c"] = arrays["a"].transpose(2, 0, 1)
    for part, array in arrays.items():
        write_kept(tmp_path / "case", part, array)
        read = np.load(tmp_path / f"case-{part}.npy", mmap_mode="r")
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


def test_a_write_that_fails_says_why_and_leaves_nothing(tmp_path, file_size_limit) -> None:
    with file_size_limit(1000), pytest.raises(OSError) as caught:  # noqa: PT011
        write_kept(tmp_path / "case", "image", np.zeros(10_000, np.uint8))
    assert caught.value.errno == errno.EFBIG  # numpy itself raises an OSError without a number
    assert list(tmp_path.iterdir()) == []


def test_only_what_was_kept_of_other_cases_is_removed(tmp_path) -> None:
    old, own = f"case-{'0' * 16}", f"case-{'1' * 16}"
    files = [f"{stem}{end}" for stem in (old, own) for end in (".json", "-image.npy")]
    others = ["notes.json", f"{old}-other.npy", f"{old}.json.txt", "x-image.npy"]
    for name in files + others:
        (tmp_path / name).write_text("")
    remove_others([tmp_path / own], tmp_path, ("image", "classes"))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*others, f"{own}.json", f"{own}-image.npy"}
