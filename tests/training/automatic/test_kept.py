"""Cases that were made ready before."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from napari_lungfm.geometry import Structure
from napari_lungfm.training.automatic.kept import case_mark, read_kept


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
