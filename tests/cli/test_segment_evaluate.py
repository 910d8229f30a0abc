from types import SimpleNamespace

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry, reorient

BOX = "8,18,18,43,43"


def _segment(bench, case, *arguments, out="out.nii.gz", model="prompt-ellipse"):
    target = case.folder / out
    result = bench("segment", "--image", case.image, "--model", model, "--out", target, *arguments)
    return result, target


def test_a_box_becomes_a_ball_and_is_scored(bench, case):
    result, out = _segment(bench, case, "--box", BOX, "--json")
    assert result.code == 0
    assert result.json["first_slice"] <= 5
    assert result.json["last_slice"] >= 11
    assert result.json["voxels"] == np.count_nonzero(io.read_label_map(out).array == 1)
    scored = bench("evaluate", "--pred", out, "--truth", case.mask, "--json").json["scores"]["mask"]
    assert scored["dice"] > 0.9
    assert scored["iou"] == pytest.approx(scored["dice"] / (2 - scored["dice"]))


def test_the_table_names_every_measure(bench, case):
    result = bench("evaluate", "--pred", case.mask, "--truth", case.mask)
    assert result.code == 0
    for word in ("IoU", "Dice", "HD95 (mm)", "NSD at 2 mm", "volume (mL)"):
        assert word in result.out
    assert "1.0000" in result.out


def test_without_propagation_only_the_prompted_slice_is_filled(bench, case):
    result, out = _segment(bench, case, "--box", BOX, "--no-propagate")
    assert result.code == 0
    assert np.flatnonzero(io.read_label_map(out).array.any(axis=(1, 2))).tolist() == [8]


def test_a_stop_ends_the_object(bench, case):
    _, out = _segment(bench, case, "--box", BOX, "--stop", "10")
    slices = np.flatnonzero(io.read_label_map(out).array.any(axis=(1, 2)))
    assert slices.max() == 9
    assert slices.min() <= 5


def test_the_extent_can_be_limited(bench, case):
    _, out = _segment(bench, case, "--box", BOX, "--max-extent-mm", 2 * case.geometry.spacing[0])
    slices = np.flatnonzero(io.read_label_map(out).array.any(axis=(1, 2)))
    assert slices.tolist() == [6, 7, 8, 9, 10]
    for wrong in (["--max-extent-mm", "inf"], ["--max-extent-mm", "9", "--no-propagate"]):
        refused, out = _segment(bench, case, "--box", BOX, *wrong, out="no.nii.gz")
        assert refused.code == 2
        assert "--max-extent-mm limits a propagation to a positive number of mm" in refused.err
        assert not out.exists()


@pytest.mark.parametrize("size", ["0", "16"])
def test_memory_for_encoded_slices_is_an_option(bench, case, size):
    assert _segment(bench, case, "--box", BOX, "--cache-mb", size)[0].code == 0
    assert _segment(bench, case, "--box", BOX, "--cache-mb", "-1", out="no.nii.gz")[0].code == 2


def test_millimetres_and_voxels_mean_the_same(bench, case):
    z, y0, x0, y1, x1 = (int(v) for v in BOX.split(","))
    left, top, height = case.geometry.index_to_world((z, y0, x0))
    right, bottom, _ = case.geometry.index_to_world((z, y1 - 1, x1 - 1))
    _, a = _segment(bench, case, "--box", BOX, out="a.nii.gz")
    _, b = _segment(
        bench, case, "--mm", "--box", f"{height},{top},{left},{bottom},{right}", out="b.nii.gz"
    )
    assert np.array_equal(io.read_label_map(a).array, io.read_label_map(b).array)


def test_the_classical_method_looks_at_the_image(bench, case):
    loose = "8,15,15,46,46"
    _, out = _segment(bench, case, "--box", loose, "--no-propagate", model="classical")
    found = io.read_label_map(out).array[8] == 1
    truth = case.inside[8]
    dice = 2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum())
    assert dice > 0.95


def test_masks_are_compared_by_place(bench, case):
    turned = case.folder / "turned.nii.gz"
    io.write_label_map(reorient(io.read_label_map(case.mask), "LPS"), turned)
    scored = bench("evaluate", "--pred", turned, "--truth", case.mask, "--json")
    assert scored.json["scores"]["mask"]["dice"] == 1.0


def test_labels_are_scored_one_by_one(bench, case):
    both = case.folder / "both.nii.gz"
    array = np.where(case.inside, 3, 0).astype(np.uint8)
    array[0, 0, :5] = 1
    io.write_label_map(LabelMap(array, case.geometry), both)
    scores = bench("evaluate", "--pred", both, "--truth", both, "--json").json["scores"]
    assert set(scores) == {"label 1", "label 3"}
    arguments = ["evaluate", "--pred", case.mask, "--truth", both, "--label", 3]
    only = bench(*arguments, "--pred-label", 1, "--json")
    assert only.json["scores"]["label 3"]["dice"] == 1.0
    missed = bench(*arguments, "--json")
    assert missed.json["scores"]["label 3"]["dice"] == 0.0
    assert "has no 3, only [1]; see --pred-label" in missed.err
    neither = bench("evaluate", "--pred", case.mask, "--truth", both, "--label", 7)
    assert neither.code == 2
    assert "prediction [1], reference [1, 3]" in neither.err
    alone = bench("evaluate", "--pred", case.mask, "--truth", both, "--pred-label", 1)
    assert alone.code == 2


def test_the_lower_end_is_towards_the_feet(bench, case):
    longer = case.inside.copy()
    longer[: np.flatnonzero(longer.any(axis=(1, 2)))[0]][-2:, 30, 30] = True  # 2 slices below
    predicted = LabelMap.from_mask(longer, case.geometry, label=1)
    for name, codes in (("up.nii.gz", "SPL"), ("down.nii.gz", "IPL"), ("side.nii.gz", "LPS")):
        path = case.folder / name
        io.write_label_map(reorient(predicted, codes), path)
        for pred, truth in ((path, case.mask), (case.mask, path)):
            scores = bench("evaluate", "--pred", pred, "--truth", truth, "--json").json["scores"]
            beyond = (scores["mask"]["slices_beyond_low"], scores["mask"]["slices_beyond_high"])
            assert beyond == ((2, 0) if pred == path else (0, 0))


def test_undefined_scores_are_null(bench, case):
    empty = case.folder / "empty.nii.gz"
    io.write_label_map(LabelMap(np.zeros(case.geometry.shape, np.uint8), case.geometry), empty)
    both = bench("evaluate", "--pred", empty, "--truth", empty, "--json").json["scores"]["mask"]
    assert both["dice"] is None
    one = bench("evaluate", "--pred", empty, "--truth", case.mask, "--json").json["scores"]["mask"]
    assert one["dice"] == 0.0
    assert one["hd95_mm"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--box", "99,18,18,43,43"], 2, "slice 99 is outside the volume, which has slices 0"),
        (["--box", "8,18,18,43,99"], 2, "outside the slice of 60 x 60"),
        (["--box", "8,18,18,18,43"], 2, "is empty"),
        (["--box", "8,18"], 2, "not of the form"),
        ([], 2, "no box, positive click or mask"),
        (["--click", "8,30,30,+", "--click", "8,30,30,-"], 2, "a positive and a negative click"),
        (["--box", BOX, "--device", "cuda"], 2, "runs on the CPU"),
        (["--box", BOX, "--device", "abacus"], 2, "abacus"),
        (["--box", BOX, "--option", "nonsense=1"], 2, "no option 'nonsense'"),
    ],
)
def test_wrong_calls_get_one_line_and_leave_nothing(bench, case, arguments, code, message):
    result, out = _segment(bench, case, *arguments)
    assert result.code == code
    assert message in result.err
    assert result.err.strip().count("\n") == 0
    assert "Traceback" not in result.err
    assert not out.exists()
    assert not list(case.folder.glob(".*"))


def test_an_unknown_model_lists_the_known_ones(bench, case):
    result, _ = _segment(bench, case, "--box", BOX, model="prompt-elipse")
    assert result.code == 2
    assert "did you mean 'prompt-ellipse'" in result.err


def test_bad_files(bench, case):
    missing = bench("evaluate", "--pred", case.folder / "no.nii.gz", "--truth", case.mask)
    assert missing.code == 1
    assert "no.nii.gz" in missing.err
    other = case.folder / "other.nii.gz"
    io.write_label_map(
        LabelMap(np.ones((16, 60, 60), np.uint8), VolumeGeometry((16, 60, 60))), other
    )
    mismatch = bench("evaluate", "--pred", other, "--truth", case.mask)
    assert mismatch.code == 1
    assert "not on the voxel grid" in mismatch.err
    unknown, _ = _segment(bench, case, "--box", BOX, out="mask.png")
    assert unknown.code == 2
    assert ".nii.gz" in unknown.err
    blocked = case.folder / "file"
    blocked.write_text("x")
    nowhere, _ = _segment(bench, case, "--box", BOX, out="file/mask.nii.gz")
    assert nowhere.code == 1
    assert "cannot write" in nowhere.err
    assert blocked.read_text() == "x"


def test_no_input_is_ever_overwritten(bench, case):
    before = case.image.read_bytes()
    result, _ = _segment(bench, case, "--box", BOX, out="image.nii.gz")
    assert result.code == 2
    assert "would overwrite the input" in result.err
    log, _ = _segment(bench, case, "--box", BOX, "--log", case.image)
    assert log.code == 2
    assert case.image.read_bytes() == before
    series = case.folder / "dicom"
    io.write_series(io.read_volume(case.image), series)
    inside = bench(
        "segment", "--image", series, "--model", "prompt-box", "--box", BOX,
        "--out", series / "sub" / "mask.nii.gz",
    )  # fmt: skip
    assert inside.code == 2
    assert "lies in the DICOM folder" in inside.err
    assert not (series / "sub").exists()


def test_a_stop_without_propagation_is_refused(bench, case):
    result, out = _segment(bench, case, "--box", BOX, "--stop", "10", "--no-propagate")
    assert result.code == 2
    assert "--stop ends a propagation" in result.err
    assert not out.exists()


def test_a_volume_with_sagittal_slices_can_be_converted_and_segmented(bench, case):
    sagittal = case.folder / "sagittal.nii.gz"
    io.write_image(reorient(io.read_volume(case.image), "LPS"), sagittal)
    refused, _ = _segment(bench, SimpleNamespace(image=sagittal, folder=case.folder), "--box", BOX)
    assert refused.code == 1
    assert "napari-lungfm-bench convert" in refused.err
    done = bench("convert", "--image", sagittal, "--out", case.folder / "axial")
    assert done.code == 0
    assert "written with axial slices" in done.err
    axial = io.read_volume(case.folder / "axial" / "image.nii.gz")
    assert np.array_equal(axial.array, io.read_volume(case.image).array)


@pytest.mark.parametrize("model", ["prompt-ellipse", "lungs-classical"])
def test_an_image_that_is_no_ct_in_hu_is_told_and_segmented(bench, case, model):
    out = case.folder / "out.nii.gz"
    call = ["segment", "--model", model, "--out", out, "--image"]
    box = ["--box", "8,20,20,40,40"] if model == "prompt-ellipse" else []
    assert "look like HU" not in bench(*call, case.image, *box).err
    scaled = case.folder / "scaled.nii.gz"
    grey = np.clip((io.read_volume(case.image).array + 1000.0) / 8, 0, 255).astype(np.int16)
    io.write_image(Volume(grey, case.geometry), scaled)
    result = bench(*call, scaled, *box)
    assert result.code == 0, result.err
    told = [line for line in result.err.splitlines() if "does not look like HU" in line]
    assert len(told) == 1
    assert told[0].startswith("note: values from ")
