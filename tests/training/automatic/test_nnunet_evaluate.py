"""nnU-Net's command ``nnUNetv2_evaluate_folder`` and our scores, on the same masks."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("nnunetv2")

from napari_lungfm import io
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, VolumeGeometry
from napari_lungfm.metrics import count_overlap

GRID = VolumeGeometry((6, 30, 34), (3.0, 0.7, 0.8), (-10.0, 5.0, 40.0))
COMMAND = (
    "from nnunetv2.evaluation.evaluate_predictions import evaluate_folder_entry_point as main; "
    "main()"
)


def make_masks(case):
    """A reference and a prediction: apart, alike, one label in one of them or in neither."""
    rng = np.random.default_rng(case)
    truth = rng.integers(0, 4, GRID.shape).astype(np.uint8)
    found = np.where(rng.random(GRID.shape) < 0.7, truth, rng.integers(0, 4, GRID.shape))
    if case == 1:
        found[found == 3] = 0
    if case == 2:
        truth[truth == 3] = 0
        found[found == 3] = 0
    return tuple(LabelMap(a.astype(np.uint8), GRID, LUNG_LABELS) for a in (truth, found))


@pytest.mark.slow
def test_nnunets_command_gives_our_dice_and_iou(tmp_path):
    masks = {f"case{n}": make_masks(n) for n in range(3)}
    for folder, which in (("truth", 0), ("found", 1)):
        (tmp_path / folder).mkdir()
        for name, pair in masks.items():
            io.write_label_map(pair[which], tmp_path / folder / f"{name}.nii.gz")
    labels = {"background": 0, **{title: value for value, title in LUNG_LABELS.items()}}
    dataset, plans = tmp_path / "dataset.json", tmp_path / "plans.json"
    dataset.write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    plans.write_text(
        json.dumps(
            {
                "image_reader_writer": "SimpleITKIO",
                "label_manager": "LabelManager",
                "configurations": {},
            }
        )
    )
    summary = tmp_path / "summary.json"
    subprocess.run(
        [
            *(sys.executable, "-c", COMMAND),
            *(str(tmp_path / "truth"), str(tmp_path / "found")),
            *("-djfile", str(dataset), "-pfile", str(plans), "-o", str(summary), "-np", "1"),
        ],
        check=True,
        capture_output=True,
    )
    cases = json.loads(summary.read_text())["metric_per_case"]
    assert len(cases) == 3
    compared = []
    for case in cases:
        name = case["prediction_file"].rpartition("/")[2].removesuffix(".nii.gz")
        truth, found = masks[name]
        for value in LUNG_LABELS:
            ours = count_overlap(found.mask(value), truth.mask(value))
            theirs = case["metrics"][str(value)]
            assert ours.dice == pytest.approx(theirs["Dice"], abs=1e-12, nan_ok=True)
            assert ours.iou == pytest.approx(theirs["IoU"], abs=1e-12, nan_ok=True)
            compared.append(ours.dice)
    assert 0.0 in compared  # missed by the prediction
    assert sum(np.isnan(compared)) == 1  # in neither
    assert 0.5 < np.nanmax(compared) < 1
