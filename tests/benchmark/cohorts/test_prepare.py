import csv
import json
import os
import shutil

import numpy as np
import pydicom
import pytest
import yaml

from napari_lungfm import io
from napari_lungfm._core.exceptions import DataError, OutputError, UsageError
from napari_lungfm.benchmark.cohorts import prepare as module
from napari_lungfm.benchmark.cohorts.cohort_file import read_cohort, read_split
from napari_lungfm.benchmark.cohorts.lung1 import lung1_cases
from napari_lungfm.benchmark.cohorts.lungs import lung_source
from napari_lungfm.benchmark.cohorts.prepare import CohortPlan, prepare_cohort
from napari_lungfm.benchmark.cohorts.task06 import task06_cases
from napari_lungfm.benchmark.config import parse_config
from napari_lungfm.datasets.sources.phantom_downloads import write_lung1, write_task06
from napari_lungfm.datasets.sources.s3 import StoredObject
from napari_lungfm.datasets.sources.series_record import SeriesRecord
from napari_lungfm.geometry import LabelMap

PLAN = CohortPlan("lung1", "phantoms like Lung1", 58, 246)


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.fixture(scope="module")
def download(tmp_path_factory, make_chest):
    """A download of Lung1 with everything that can be wrong with a patient."""
    root = tmp_path_factory.mktemp("lung1")
    write_lung1([make_chest("LUNG1-001")], root)
    write_lung1([make_chest("LUNG1-128")], root, lungs=False, seg=False)
    write_lung1([make_chest("LUNG1-002", 15.0, (-80.0, 0.0, -20.0))], root, lungs=False, seg=False)
    write_lung1([make_chest("LUNG1-003", 26.0)], root, seg=False, lungs=False)
    write_lung1([make_chest("LUNG1-004", tumour=False)], root)
    write_lung1([make_chest("LUNG1-005")], root, lungs=False, seg=False)
    place = write_lung1([make_chest("LUNG1-006")], root, lungs=False)
    (study,) = (place / "LUNG1-005").iterdir()
    io.write_series(make_chest().volume, study / "CT_2", patient_id="LUNG1-005", series_uid="1.2.3")
    shutil.rmtree(next((place / "LUNG1-006").glob("*/RTSTRUCT_*")))
    write_lung1([make_chest("LUNG1-007")], root, lungs=False, seg=False)
    theirs = next((place / "LUNG1-003").glob("*/RTSTRUCT_*/1-1.dcm"))
    contours = pydicom.dcmread(theirs)  # drawn on another CT
    contours.PatientID = "LUNG1-007"
    contours.save_as(next((place / "LUNG1-007").glob("*/RTSTRUCT_*/1-1.dcm")))
    shutil.rmtree(next((place / "LUNG1-128").glob("*/RTSTRUCT_*")))
    return place


@pytest.fixture(scope="module")
def prepared(download, tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    return prepare_cohort(lung1_cases(download), out, PLAN, lung_source("lungs-classical"))


def report(prepared, name):
    (found,) = (each for each in prepared.reports if each.name == name)
    return found


def test_every_patient_is_prepared_or_has_a_reason(prepared):
    status = {each.name[-3:]: each.status for each in prepared.reports}
    assert status == {
        "001": "prepared", "002": "prepared", "003": "prepared", "004": "excluded",
        "005": "excluded", "006": "prepared", "007": "excluded", "128": "excluded",
    }  # fmt: skip
    assert "the RTSTRUCT has no 'GTV-1'; there is no SEG" in report(prepared, "LUNG1-004").reason
    assert report(prepared, "LUNG1-005").reason.startswith("several CT series: 1.2.3 (24 files);")
    assert "post-operative" in report(prepared, "LUNG1-128").reason
    assert "another frame of reference" in report(prepared, "LUNG1-007").reason
    assert prepared.done == 8


def test_a_prepared_case_is_the_phantom_that_was_written(prepared, chest):
    folder = prepared.root / "cases" / "LUNG1-001"
    volume = io.read_image(folder / "ct.nii.gz")
    reference = io.read_label_map(folder / "reference.nii.gz")
    assert np.array_equal(volume.array, chest.volume.array)
    assert np.array_equal(reference.array == 3, chest.reference.array == 3)
    for side in (1, 2):
        assert dice(reference.array == side, chest.reference.array == side) > 0.9, side
    facts = report(prepared, "LUNG1-001").facts
    assert facts["seg_dice"] == 1.0
    assert facts["contour_ml"] == pytest.approx(facts["tumour_ml"])
    assert facts["own_lungs_dice"] > 0.9
    assert "own_lungs_dice" not in report(prepared, "LUNG1-002").facts
    assert "seg_dice" not in report(prepared, "LUNG1-003").facts


def test_the_seg_stands_in_for_a_missing_rtstruct(prepared, make_chest):
    found = report(prepared, "LUNG1-006")
    assert found.source == "SEG"
    assert any("the tumour is that of the SEG: there is no RTSTRUCT" in n for n in found.notes)
    reference = io.read_label_map(prepared.root / "cases" / "LUNG1-006" / "reference.nii.gz")
    assert np.array_equal(reference.array == 3, make_chest("LUNG1-006").reference.array == 3)


def test_the_benchmark_reads_the_cohort(prepared):
    cohort = read_cohort(prepared.root).build(prepared.root)
    assert len(cohort.test) == 1
    assert len(cohort.train) == 3
    case = cohort.test[0].load()
    assert {s.title for s in case.structures} == {"left lung", "right lung", "tumour"}
    assert case.attributes["tumour_ml"] > 0
    split = read_split(prepared.root)
    assert split["counts"] == {"test": 1, "train": 3, "spare": 0}
    assert split["test"] == [cohort.test[0].name]
    assert split["train_subsets_percent"][100] == split["train"]
    values = yaml.safe_load((prepared.root / "cohort.yaml").read_text())
    values["root"] = str(prepared.root)
    parse_config({"name": "x", "cohorts": [values], "methods": [
        {"model": "prompt-ellipse", "protocols": ["box-one"]}]})  # fmt: skip


def test_the_quality_report_has_every_patient(prepared):
    with (prepared.root / "quality.csv").open(newline="") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 8
    assert float(rows["LUNG1-001"]["tumour_ml"]) > 30
    assert rows["LUNG1-128"]["reason"] == report(prepared, "LUNG1-128").reason
    page = (prepared.root / "quality.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4
    assert all(name in page for name in rows)
    assert page.count("<svg") == 3
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_what_is_done_is_not_repeated(download, prepared, tmp_path):
    out = tmp_path / "cohort"
    shutil.copytree(prepared.root, out)
    cases = lung1_cases(download)
    again = prepare_cohort(cases, out, PLAN, lung_source("lungs-classical"))
    assert again.done == 0
    assert again.reports == prepared.reports
    for name in ("cohort.yaml", "split.yaml", "quality.csv", "quality.html"):
        assert (out / name).read_bytes() == (prepared.root / name).read_bytes(), name
    other = prepare_cohort(cases, out, PLAN, lung_source("own"))  # another option: all anew
    assert other.done == 8
    assert [each.name for each in other.of("prepared")] == ["LUNG1-001"]
    assert "there are no lungs with the data" in report(other, "LUNG1-002").reason
    assert not (out / "cases" / "LUNG1-002").exists()
    path = next((download / "LUNG1-001").glob("*/RTSTRUCT_*/*.dcm"))
    os.utime(path, ns=(1, 1))
    assert prepare_cohort(lung1_cases(download), out, PLAN, lung_source("own")).done == 1
    (out / "cases" / "LUNG1-001" / "ct.nii.gz").unlink()
    assert prepare_cohort(lung1_cases(download), out, PLAN, lung_source("own")).done == 1


def test_an_interrupted_call_is_gone_on_with(download, prepared, tmp_path, monkeypatch):
    real, names = module._write, []

    def write(folder, *rest):
        names.append(folder.name)
        if len(names) == 3:
            (folder.parent / "half").mkdir()
            raise KeyboardInterrupt
        real(folder, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write", write)
        with pytest.raises(KeyboardInterrupt):
            prepare_cohort(lung1_cases(download), tmp_path, PLAN, lung_source("lungs-classical"))
    result = prepare_cohort(lung1_cases(download), tmp_path, PLAN, lung_source("lungs-classical"))
    assert result.done == 8 - 2
    assert (tmp_path / "quality.csv").read_text() == (prepared.root / "quality.csv").read_text()
    assert (tmp_path / "split.yaml").read_text() == (prepared.root / "split.yaml").read_text()


def test_a_full_disk_is_not_held_against_the_patient(download, tmp_path, monkeypatch):
    def write(*_):
        raise OutputError("the disk is full")

    monkeypatch.setattr(module, "_write", write)
    with pytest.raises(OutputError):
        prepare_cohort(lung1_cases(download), tmp_path, PLAN, lung_source("none"))
    assert not list(tmp_path.glob("excluded/*"))


def test_nobody_left_is_said(download, tmp_path):
    cases = [case for case in lung1_cases(download) if case.name in ("LUNG1-004", "LUNG1-128")]
    with pytest.raises(DataError, match="none of the 2 patients can be used"):
        prepare_cohort(cases, tmp_path, PLAN, lung_source("none"))
    assert "post-operative" in (tmp_path / "quality.html").read_text()


def test_the_layout_of_a_download_does_not_matter(download, tmp_path, make_chest):
    """All files of two patients in one folder, under other names."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for n, path in enumerate(sorted(download.glob("LUNG1-00[23]/**/*.dcm"))):
        shutil.copy(path, flat / f"I{n:06d}")
    result = prepare_cohort(lung1_cases(flat), tmp_path / "out", PLAN, lung_source("none"))
    assert [each.name for each in result.of("prepared")] == ["LUNG1-002", "LUNG1-003"]
    volume = io.read_image(tmp_path / "out" / "cases" / "LUNG1-003" / "ct.nii.gz")
    assert np.array_equal(volume.array, make_chest("LUNG1-003", 26.0).volume.array)


def test_task06_is_prepared(tmp_path, make_chest):
    cases = [make_chest("lung_001"), make_chest("lung_004", 12.0), make_chest("lung_009", 30.0)]
    folder = write_task06(cases, tmp_path)
    empty = LabelMap.from_mask(np.zeros(cases[0].volume.shape), cases[0].volume.geometry, label=1)
    io.write_label_map(empty, folder / "labelsTr" / "lung_004.nii.gz")
    plan = CohortPlan("task06", "phantoms like Task06", 12, 51)
    result = prepare_cohort(task06_cases(tmp_path), tmp_path / "out", plan, lung_source("none"))
    assert [each.name for each in result.of("prepared")] == ["lung_001", "lung_009"]
    assert "reference is empty" in report(result, "lung_004").reason
    reference = io.read_label_map(tmp_path / "out" / "cases" / "lung_009" / "reference.nii.gz")
    assert np.array_equal(reference.array, np.where(cases[2].reference.array == 3, 3, 0))
    kept = json.loads((tmp_path / "out" / "cases" / "lung_009" / "case.json").read_text())
    assert kept["source"] == "label 1"


def test_a_folder_of_another_cohort_is_not_overwritten(prepared, download, tmp_path):
    out = tmp_path / "cohort"
    shutil.copytree(prepared.root, out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    plan = CohortPlan("task06", "phantoms like Task06", 12, 51)
    with pytest.raises(UsageError, match="holds the cohort 'lung1', not 'task06'"):
        prepare_cohort(lung1_cases(download), out, plan, lung_source("none"))
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    (out / "prepared.json").unlink()  # as an earlier version left it
    with pytest.raises(UsageError, match="holds the cohort 'lung1', not 'task06'"):
        prepare_cohort(lung1_cases(download), out, plan, lung_source("none"))


def test_missing_slices_are_told(tmp_path, make_chest):
    """By the list of the download; the slices at the end leave no gap."""
    place = write_lung1([make_chest("LUNG1-001")], tmp_path / "raw", lungs=False, seg=False)
    record = SeriesRecord(place)
    (ct,) = place.glob("LUNG1-001/*/CT_*")
    uid = ct.name.removeprefix("CT_")
    files = [StoredObject(path.name, path.stat().st_size, "") for path in sorted(ct.iterdir())]
    record.keep(uid, "LUNG1-001", "CT", files)
    (case,) = lung1_cases(tmp_path / "raw")
    assert case.missing == ()
    whole = case.fingerprint()
    dicom = {float(pydicom.dcmread(p).ImagePositionPatient[2]): p for p in ct.iterdir()}
    for z in sorted(dicom)[:2]:
        dicom[z].unlink()
    (case,) = lung1_cases(tmp_path / "raw")
    assert case.missing == ("CT: 22 of 24 files",)
    assert case.fingerprint() != whole
    result = prepare_cohort([case], tmp_path / "out", PLAN, lung_source("none"))
    (found,) = result.reports
    assert found.status == "prepared"
    assert found.flags == [
        "the download lacks files (CT: 22 of 24 files): fetch again, then prepare again"
    ]


@pytest.mark.real_data
def test_a_real_rtstruct_gives_its_published_mask(real_data, tmp_path):
    cases = lung1_cases(real_data / "ibsi_lung")
    result = prepare_cohort(cases, tmp_path, PLAN, lung_source("none"))
    (found,) = result.reports
    assert found.status == "prepared", found.reason
    reference = io.read_label_map(tmp_path / "cases" / found.name / "reference.nii.gz")
    assert np.count_nonzero(reference.array == 3) == 125_256
    assert found.facts["contour_difference"] == pytest.approx(0.0, abs=0.02)
    assert not [flag for flag in found.flags if "volumes" in flag]
