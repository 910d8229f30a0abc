import html
import json
import tarfile

import numpy as np
import pytest
import typer
import yaml

from napari_lungfm import io
from napari_lungfm.cli import app as program
from napari_lungfm.cli import datasets
from napari_lungfm.datasets.cases import Case
from napari_lungfm.datasets.sources.download_site import DownloadSite, pack
from napari_lungfm.datasets.sources.phantom_downloads import write_lung1, write_task06
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry

GRID = VolumeGeometry((6, 24, 24), (8.0, 8.0, 8.0), (-92.0, -92.0, -20.0))


@pytest.fixture(autouse=True)
def command(monkeypatch):
    """The command in the program, whether it is registered there or not."""
    if not any(group.name == "datasets" for group in program.app.registered_groups):
        whole = typer.Typer()
        whole.add_typer(datasets.app, name="datasets")
        monkeypatch.setattr(program, "app", whole)


def tiny(name, seed=0):
    reference = np.zeros(GRID.shape, dtype=np.uint8)
    reference[2:4, 10:14, 8 + seed : 11 + seed] = 3
    reference[:, 4:20, 14:20], reference[:, 4:20, 2:7] = 1, 2
    hu = np.where(reference == 3, 40, -700).astype(np.int16)
    return Case(name, Volume(hu, GRID), LabelMap(reference, GRID))


def test_the_list_names_the_licences(bench):
    result = bench("datasets", "list")
    assert result.code == 0
    assert "CC BY-NC 3.0: commercial use is NOT allowed" in result.out
    cards = bench("datasets", "list", "--json").json
    assert [card["name"] for card in cards] == ["lung1", "task06"]
    assert cards[1]["archive"]["md5"] == "8afd997733c7fc0432f71255ba4e52dc"
    assert cards[0]["bad"]["LUNG1-128"]["excludes"] is True


def test_the_split_of_lung1_can_be_seen_without_data(bench):
    result = bench("datasets", "splits", "lung1", "--json").json
    assert result["counts"] == {"test": 58, "train": 246, "spare": 117}
    assert "LUNG1-128" not in json.dumps(result)
    task06 = bench("datasets", "splits", "task06", "--json").json
    assert task06["counts"] == {"test": 12, "train": 51, "spare": 0}
    assert bench("datasets", "splits", "task07").code == 2


def test_lung1_from_a_server_to_a_cohort(bench, tmp_path):
    names = [f"LUNG1-{n:03d}" for n in (1, 2, 3)]
    published = write_lung1([tiny(names[0])], tmp_path / "server")
    others = [tiny(name, n) for n, name in enumerate(names) if n]
    write_lung1(others, tmp_path / "server", seg=False)  # highdicom takes its time
    raw, out = tmp_path / "raw", tmp_path / "cohort"
    with DownloadSite(tmp_path / "server") as site:
        manifest = site.write_manifest(published, tmp_path / "manifest.csv")
        fetch = ["datasets", "fetch", "lung1", "--out", raw, "--manifest", manifest]
        fetch += ["--endpoint", site.endpoint, "--json"]
        result = bench(*fetch)
        again = bench(*fetch)
    assert result.code == 0, result.err
    assert "commercial use is NOT allowed" in result.err
    assert (result.json["patients"], result.json["downloaded"]) == (3, 3 * 7 + 1)
    assert again.json["downloaded"] == 0
    title = f"From {site.endpoint}, not the publisher's. Lung1 (NSCLC-Radiomics)"
    result = bench("datasets", "fetch", "lung1", "--from", raw, "--json")
    assert result.json["series"] == {"CT": 3, "RTSTRUCT": 3, "SEG": 1}
    assert result.json["missing"] == {}
    result = bench("datasets", "prepare", "lung1", raw, "--out", out, "--lungs", "own", "--json")
    assert result.code == 0, result.err
    assert (result.json["prepared"], result.json["done_now"]) == (3, 3)
    assert result.json["split"]["counts"] == {"test": 1, "train": 2, "spare": 0}
    for n, name in enumerate(names):
        reference = io.read_label_map(out / "cases" / name / "reference.nii.gz")
        assert np.array_equal(reference.array, tiny(name, n).reference.array)
    shown = bench("datasets", "splits", out)
    assert f"sha256: {result.json['split']['sha256']}" in shown.out
    assert title in html.unescape((out / "quality.html").read_text())
    assert yaml.safe_load((out / "cohort.yaml").read_text())["title"].startswith(title)
    again = ["datasets", "prepare", "lung1", raw, "--out", out, "--lungs", "own", "--json"]
    assert bench(*again).json["done_now"] == 0
    folder = write_task06([tiny("lung_001")], tmp_path / "other")
    wrong = bench("datasets", "prepare", "task06", folder, "--out", out, "--lungs", "none")
    assert wrong.code == 2
    assert "holds the cohort 'lung1', not 'task06'; choose another folder" in wrong.err


def test_prepare_names_patients_whose_download_is_not_whole(bench, tmp_path):
    names = ("LUNG1-001", "LUNG1-002")
    published = write_lung1([tiny(name) for name in names], tmp_path / "server", seg=False)
    raw = tmp_path / "raw"
    with DownloadSite(tmp_path / "server") as site:
        manifest = site.write_manifest(published, tmp_path / "manifest.csv")
        fetch = ["datasets", "fetch", "lung1", "--out", raw, "--manifest", manifest]
        fetch += ["--endpoint", site.endpoint, "--json"]
        assert bench(*fetch).code == 0
        hidden = next(published.glob("LUNG1-002/*/CT_*/*"))
        next(raw.glob(f"*/LUNG1-002/*/CT_*/{hidden.name}")).unlink()
        hidden.rename(tmp_path / "hidden")
        assert bench(*fetch).code == 1
        assert bench(*fetch, "--patient", "LUNG1-001").json["present"] == 7
        spoilt = next(raw.glob("*/LUNG1-001/*/CT_*/*"))
        content = spoilt.read_bytes()
        spoilt.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        result = bench(*fetch, "--patient", "LUNG1-001", "--verify")
        assert result.json["replaced"] == 1
        assert "1 of them in place of damaged ones" in result.err
        assert spoilt.read_bytes() == content
    prepare = ["datasets", "prepare", "lung1", raw, "--out", tmp_path / "out", "--lungs", "none"]
    said = bench(*prepare).err
    assert "note: the download of 1 patients has not ended (LUNG1-002); fetch them again" in said
    assert "files of 1 patients are missing: LUNG1-002 (CT: 5 of 6 files)" in said


def test_task06_from_a_folder_or_a_tar(bench, tmp_path):
    folder = write_task06([tiny("lung_001"), tiny("lung_004", 2)], tmp_path / "raw")
    result = bench("datasets", "fetch", "task06", "--from", tmp_path / "raw", "--json")
    assert result.json["cases"] == 2
    with tarfile.open(tmp_path / "wrong.tar", "w") as tar:
        tar.add(folder, "Task06_Lung")
    result = bench("datasets", "fetch", "task06", "--from", tmp_path / "wrong.tar", "--out",
                   tmp_path / "x")  # fmt: skip
    assert result.code == 1
    assert "its md5 is" in result.err
    out = tmp_path / "cohort"
    result = bench("datasets", "prepare", "task06", folder, "--out", out, "--lungs", "none")
    assert result.code == 0, result.err
    assert "2 cases (1 train, 1 test, 0 spare), 0 patients excluded" in result.err


def test_a_tar_of_task06_from_elsewhere(bench, tmp_path):
    folder = write_task06([tiny("lung_001"), tiny("lung_004", 2)], tmp_path / "server")
    tar = tmp_path / "server" / "subset.tar"
    md5 = pack(folder, tar)
    with DownloadSite(tmp_path / "server") as site:
        fetch = ["datasets", "fetch", "task06", "--out", tmp_path / "raw", "--url"]
        fetch += [site.address(tar), "--json"]
        wrong = bench(*fetch, "--md5", "0" * 32)
        assert wrong.code == 1
        assert f"the md5 of what came is {md5}" in wrong.err
        assert bench(*fetch, "--md5", md5).json["cases"] == 2
        again = bench(*fetch, "--md5", md5)
        assert "was there already and is left as it is; --url did nothing" in again.err
        other = bench(*fetch)  # the published one is wanted now
        assert other.code == 1
        assert f"was unpacked from a tar with the md5 {md5}" in other.err
    title = bench("datasets", "prepare", "task06", tmp_path / "raw", "--out", tmp_path / "out",
                  "--lungs", "none")  # fmt: skip
    assert title.code == 0
    title = yaml.safe_load((tmp_path / "out" / "cohort.yaml").read_text())["title"]
    assert title.startswith("From the phantoms of napari-lungfm, http://127.0.0.1:")
    assert bench("datasets", "fetch", "task06", "--md5", "12").code == 2
    assert (tmp_path / "raw" / "Task06_Lung" / "dataset.json").is_file()


def test_any_folder_is_imported(bench, tmp_path):
    folder = write_task06([tiny("a"), tiny("b", 1)], tmp_path / "raw")
    config = tmp_path / "clinic.yaml"
    config.write_text(
        'name: clinic\nimage: "imagesTr/{case}.nii.gz"\nmask: "labelsTr/{case}.nii.gz"\n'
    )
    call = ["datasets", "import", folder, "--config", config, "--out", tmp_path / "out", "--json"]
    result = bench(*call)
    assert result.code == 0, result.err
    assert result.json["prepared"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fetch", "lung2"], 2, "there is no data set 'lung2'"),
        (["fetch", "lung1", "--url", "http://x"], 2, "--url is for task06"),
        (["fetch", "task06", "--limit", "3"], 2, "--limit is for lung1"),
        (["fetch", "task06", "--jobs", "3"], 2, "--jobs is for lung1"),
        (["fetch", "task06", "--verify"], 2, "--verify is for lung1"),
        (
            ["fetch", "lung1", "--from", "{here}", "--out", "o", "--manifest", "n", "--jobs", "2"],
            2,
            "--out, --manifest, --jobs does nothing with --from and a folder",
        ),
        (
            ["fetch", "lung1", "--from", "{here}", "--limit", "1", "--patient", "NOBODY"],
            2,
            "--patient, --limit does nothing",
        ),
        (
            ["fetch", "task06", "--from", "{here}", "--keep-archive", "--url", "x", "--md5", "y"],
            2,
            "--url, --md5, --keep-archive does nothing with --from and a folder",
        ),
        (
            ["fetch", "task06", "--from", "{here}/a.tar", "--url", "x", "--out", "o"],
            2,
            "--url does nothing with --from and a tar, which is unpacked and kept",
        ),
        (["prepare", "lung1", "{here}", "--out", "{here}/out", "--lungs", "none"], 2, "lies in"),
        (["prepare", "task06", "{here}", "--out", "o", "--lungs", "none"], 1, "dataset.json"),
        (["prepare", "lung1", "{here}", "--out", "o", "--lungs", "unknown"], 2, "unknown"),
        (["prepare", "lung1", "{here}/x", "--out", "o", "--lungs", "none"], 1, "no such folder"),
        (["import", "{here}", "--config", "{here}/x.yaml", "--out", "o"], 1, "cannot be read"),
    ],
)
def test_calls_that_cannot_work_give_one_line(bench, tmp_path, arguments, code, message):
    result = bench("datasets", *(a.format(here=tmp_path) for a in arguments))
    assert result.code == code
    lines = result.err.strip().splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("error: ")


def test_without_weights_the_message_says_what_to_do(bench, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    result = bench("datasets", "prepare", "lung1", tmp_path, "--out", tmp_path.parent / "o")
    assert result.code == 1
    assert "models fetch lungmask" in result.err
    assert "--lungs lungs-classical" in result.err
