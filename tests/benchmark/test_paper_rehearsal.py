"""The study from the download to the report, as the documented command does it."""

import csv
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "paper_rehearsal.py"


@pytest.mark.slow
def test_the_paper_on_phantoms_from_the_download_to_the_report(tmp_path) -> None:
    pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)
    spec = importlib.util.spec_from_file_location("paper_rehearsal", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.rehearse(tmp_path, 5, 4, quick=True)
    with (tmp_path / "run" / "report" / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    scored = {(row["cohort"], row["method"], row["protocol"], row["structure"]) for row in rows}
    for cohort in ("lung1", "task06"):
        assert (cohort, "U-Net (small)", "none", "tumour") in scored
        assert (cohort, "lungfm-s", "box-every-slice", "tumour") in scored
    boxes = [
        float(row["dice"])
        for row in rows
        if (row["method"], row["protocol"], row["structure"])
        == ("lungfm-s", "box-every-slice", "tumour")
    ]
    assert min(boxes) > 0.8
    page = (tmp_path / "run" / "report" / "report.html").read_text(encoding="utf-8")
    assert "LUNG1-00" in page
