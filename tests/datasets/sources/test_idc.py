import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from napari_lungfm._core.download import DownloadCancelledError, DownloadError
from napari_lungfm._core.exceptions import (
    InputFileError,
    MissingDependencyError,
    OutputError,
    UsageError,
)
from napari_lungfm.datasets.sources import LUNG1
from napari_lungfm.datasets.sources.dicom_tree import PatientFiles, SeriesFiles
from napari_lungfm.datasets.sources.idc import (
    choose_patients,
    fetch_series,
    series_from_index,
    series_from_manifest,
)
from napari_lungfm.datasets.sources.origin import read_origin
from napari_lungfm.datasets.sources.series_record import (
    ListedSeries,
    listed_series,
    missing_files,
    unfinished_patients,
)


@pytest.fixture
def filled(bucket):
    """Two patients of three and two series."""
    bucket.add_series("LUNG1-002", "CT", {f"s{n}.dcm": b"ct%d" % n * 50_000 for n in range(3)})
    bucket.add_series("LUNG1-001", "CT", {f"s{n}.dcm": b"CT%d" % n * 50_000 for n in range(5)})
    bucket.add_series("LUNG1-001", "RTSTRUCT", {"r.dcm": b"contours" * 1000})
    bucket.add_series("LUNG1-001", "SEG", {"g.dcm": b"segments" * 1000})
    bucket.add_series("LUNG1-001", "SEG", {"x.dcm": b"x"}, analysis_result_id="others")
    bucket.add_series("LUNG1-001", "SR", {"y.dcm": b"y"})
    bucket.add_series("OTHER", "CT", {"z.dcm": b"z"}, collection_id="another")
    return bucket


def get(bucket, out, *, patients=(), **options):
    series = series_from_manifest(bucket.manifest(), LUNG1)
    return fetch_series(
        choose_patients(series, patients=patients),
        out,
        collection="nsclc_radiomics",
        endpoint=bucket.endpoint,
        pause=0.01,
        **options,
    )


def test_a_manifest_lists_the_publishers_own_series(filled):
    found = series_from_manifest(filled.manifest(), LUNG1)
    assert [(each.patient, each.modality) for each in found] == [
        ("LUNG1-001", "CT"),
        ("LUNG1-001", "RTSTRUCT"),
        ("LUNG1-001", "SEG"),
        ("LUNG1-002", "CT"),
    ]
    assert (found[0].bucket, found[0].prefix) == ("store", "uuid-2")
    assert found[0].licence == "CC BY-NC 3.0"


def test_a_collection_comes_in_the_layout_of_idc(filled, tmp_path):
    steps = []
    fetched = get(filled, tmp_path, progress=lambda *at: steps.append(at))
    assert (fetched.series, fetched.patients) == (4, 2)
    assert (fetched.downloaded, fetched.present) == (10, 0)
    place = tmp_path / "nsclc_radiomics" / "LUNG1-001" / "1.2.001"
    assert sorted(p.name for p in place.iterdir()) == [
        "CT_1.2.3.2",
        "RTSTRUCT_1.2.3.3",
        "SEG_1.2.3.4",
    ]
    assert (place / "CT_1.2.3.2" / "s4.dcm").read_bytes() == b"CT4" * 50_000
    assert steps[-1][0] == steps[-1][1]
    assert not list(tmp_path.rglob("*.part*"))


def test_calling_again_asks_the_server_for_nothing(filled, tmp_path):
    get(filled, tmp_path)
    asked = len(filled.site.requests)
    assert get(filled, tmp_path).present == 10
    assert len(filled.site.requests) == asked


def test_what_failed_is_fetched_by_the_next_call_alone(filled, tmp_path):
    body, _ = filled.objects["uuid-2/s3.dcm"]
    filled.put("uuid-2/s3.dcm", body, status=404)
    with pytest.raises(DownloadError, match=r"uuid-2/s3\.dcm.*no such file"):
        get(filled, tmp_path, jobs=1)
    assert "LUNG1-001" in unfinished_patients(tmp_path)
    assert unfinished_patients(tmp_path / "nsclc_radiomics") == unfinished_patients(tmp_path)
    filled.put("uuid-2/s3.dcm", body)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.dcm")}
    fetched = get(filled, tmp_path)
    assert fetched.downloaded + fetched.present == 10
    assert fetched.downloaded == 10 - len(before)
    assert unfinished_patients(tmp_path) == ()
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())


def test_a_download_is_cancelled_between_files(filled, tmp_path):
    asked = []
    with pytest.raises(DownloadCancelledError):
        get(filled, tmp_path, jobs=2, cancelled=lambda: len(asked) > 5 or asked.append(1))
    assert get(filled, tmp_path).present < 10


def test_a_small_download_ends_only_its_own_marks(filled, tmp_path):
    body, _ = filled.objects["uuid-1/s1.dcm"]
    filled.put("uuid-1/s1.dcm", body, status=404)
    with pytest.raises(DownloadError):
        get(filled, tmp_path, jobs=1)
    assert "LUNG1-002" in unfinished_patients(tmp_path)
    get(filled, tmp_path, patients=["LUNG1-001"])
    assert unfinished_patients(tmp_path) == ("LUNG1-002",)
    filled.put("uuid-1/s1.dcm", body)
    get(filled, tmp_path, patients=["LUNG1-002"])
    assert unfinished_patients(tmp_path) == ()


def test_what_is_whole_is_not_marked_by_a_call_that_is_stopped(filled, tmp_path):
    get(filled, tmp_path)
    next(tmp_path.rglob("s4.dcm")).unlink()
    with pytest.raises(DownloadCancelledError):
        get(filled, tmp_path, cancelled=lambda: True)
    assert unfinished_patients(tmp_path) == ("LUNG1-001",)


def test_a_file_that_was_damaged_later_is_found_by_verifying(filled, tmp_path):
    get(filled, tmp_path)
    path = next(tmp_path.rglob("s2.dcm"))
    whole = path.read_bytes()
    path.write_bytes(whole[:10] + b"?" + whole[11:])
    assert get(filled, tmp_path).present == 10  # only sizes are compared
    fetched = get(filled, tmp_path, verify=True)
    assert (fetched.downloaded, fetched.replaced, fetched.present) == (1, 1, 9)
    assert path.read_bytes() == whole
    assert get(filled, tmp_path, verify=True).downloaded == 0


def test_lists_say_which_files_are_missing(filled, tmp_path):
    get(filled, tmp_path)
    listed = listed_series(tmp_path)
    assert listed == listed_series(tmp_path / "nsclc_radiomics")
    assert ListedSeries("LUNG1-001", "CT", "1.2.3.2", 5) in listed
    here = {"LUNG1-001": PatientFiles("LUNG1-001", (
        SeriesFiles("1.2.3.2", "CT", "", (tmp_path,) * 4),
        SeriesFiles("1.2.3.3", "RTSTRUCT", "", (tmp_path,)),
    ))}  # fmt: skip
    assert missing_files(listed, here) == {"LUNG1-001": ("CT: 4 of 5 files", "SEG: 0 of 1 files")}


def test_a_mirror_is_recorded_and_the_publisher_is_not(filled, tmp_path):
    get(filled, tmp_path)
    assert read_origin(tmp_path).elsewhere == (filled.endpoint,)
    sentence = read_origin(tmp_path / "nsclc_radiomics").sentence()
    assert sentence == f"From {filled.endpoint}, not the publisher's"
    series = series_from_manifest(filled.manifest(), LUNG1)
    fetch_series(series, tmp_path, collection="nsclc_radiomics")  # all is there
    assert read_origin(tmp_path).elsewhere == (filled.endpoint,)
    fetch_series([], tmp_path / "other", collection="nsclc_radiomics")
    assert read_origin(tmp_path / "other").sentence() == ""


def test_one_patient_or_the_first_few(filled):
    series = series_from_manifest(filled.manifest(), LUNG1)
    assert {each.patient for each in choose_patients(series, limit=1)} == {"LUNG1-001"}
    assert len(choose_patients(series, patients=["LUNG1-002"])) == 1
    with pytest.raises(UsageError, match="no patient LUNG1-009"):
        choose_patients(series, patients=["LUNG1-009"])


def test_a_full_disk_is_said_before_anything_is_asked(filled, tmp_path):
    for row in filled.rows:
        row["series_size_MB"] = 1e12
    with pytest.raises(OutputError, match="GB are free"):
        get(filled, tmp_path)
    assert filled.listings == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"series_aws_url": "https://x/y"}, "row 1: 'https://x/y' is not of the form"),
        ({"series_aws_url": "s3://store/../x/*"}, "is not of the form"),
        ({"StudyInstanceUID": "../.."}, "'../..' is no StudyInstanceUID"),
        ({"SeriesInstanceUID": ".."}, "'..' is no SeriesInstanceUID"),
        ({"series_size_MB": "much"}, "which is no number"),
        ({"PatientID": ""}, "row 1 has no PatientID"),
    ],
)
def test_manifests_that_cannot_be_used(bucket, change, message):
    bucket.add_series("LUNG1-001", "CT", {"a.dcm": b"a"}, **change)
    with pytest.raises(InputFileError, match=message):
        series_from_manifest(bucket.manifest(), LUNG1)


def test_a_manifest_of_something_else(bucket, tmp_path):
    bucket.add_series("OTHER", "CT", {"z.dcm": b"z"}, collection_id="another")
    with pytest.raises(InputFileError, match="lists no CT, RTSTRUCT, SEG series"):
        series_from_manifest(bucket.manifest(), LUNG1)
    with pytest.raises(InputFileError, match="cannot read the manifest"):
        series_from_manifest(tmp_path / "none.csv", LUNG1)


def test_a_series_that_is_not_in_the_bucket(bucket, tmp_path):
    bucket.add_series("LUNG1-001", "CT", {})
    with pytest.raises(InputFileError, match="is the list out of date"):
        get(bucket, tmp_path)


def test_the_index_of_idc_index_is_read(filled, monkeypatch):
    table = pd.read_csv(filled.manifest())  # absent values are NaN, as in the package's own
    package = SimpleNamespace(
        IDCClient=SimpleNamespace(client=lambda: SimpleNamespace(index=table))
    )
    monkeypatch.setitem(sys.modules, "idc_index", package)
    assert series_from_index(LUNG1) == series_from_manifest(filled.manifest(), LUNG1)


def test_without_idc_index_the_message_names_the_other_way(monkeypatch):
    monkeypatch.setitem(sys.modules, "idc_index", None)
    with pytest.raises(MissingDependencyError, match="without --manifest"):
        series_from_index(LUNG1)
