import json

import pytest

from napari_lungfm._core.exceptions import OutputError
from napari_lungfm.benchmark.estimate import USUAL_BYTES, estimate_run
from napari_lungfm.benchmark.radii import Radii
from napari_lungfm.benchmark.runner import run_benchmark
from napari_lungfm.cli.estimate_output import estimate_lines

UNET = {"train": "unet-small"}


@pytest.fixture
def estimate(make_config, tmp_path):
    def call(**changes):
        return estimate_run(make_config(**changes), tmp_path / "run", base=tmp_path)

    return call


@pytest.fixture
def run(make_config, tmp_path):
    def call(**changes):
        return run_benchmark(make_config(**changes), tmp_path / "run", base=tmp_path)

    return call


def contents(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_nothing_is_known_before_the_first_run_and_nothing_is_written(estimate, tmp_path):
    before = contents(tmp_path)
    found = estimate()
    assert contents(tmp_path) == before
    assert (len(found.units), found.pending, found.unknown, found.cases) == (6, 6, 6, 2)
    assert [(g.method, g.protocol, g.units, g.seconds) for g in found.groups] == [
        ("prompt-ellipse", "box-every-slice", 2, None),
        ("prompt-ellipse", "box-one", 2, None),
        ("prompt-box", "box-every-slice", 2, None),
    ]
    assert not found.bytes_measured
    assert found.bytes_needed["masks"] == 6 * USUAL_BYTES["masks"]
    assert found.bytes_needed["previews"] == 2 * USUAL_BYTES["previews"]
    assert found.bytes_free > 0


def test_what_is_done_is_not_counted_again(estimate, run):
    run()
    found = estimate()
    assert (found.pending, found.seconds, found.unknown, found.cases) == (0, 0.0, 0, 0)
    assert all(finished for _, finished in found.units)
    assert sum(found.bytes_needed.values()) == 0


def test_time_and_disk_go_by_the_records_that_are_there(estimate, run):
    folder = run()
    for record in folder.load():
        path = folder.record_file(record.key, record.fingerprint)
        values = json.loads(path.read_text())
        values["cost"]["seconds"] = 10.0 if record.key.protocol == "box-one" else 2.0
        path.write_text(json.dumps(values))
    found = estimate(seeds=[0, 1, 2])
    assert (len(found.units), found.pending) == (18, 12)
    by_group = {(g.method, g.protocol): (g.pending, g.seconds) for g in found.groups}
    assert by_group["prompt-ellipse", "box-one"] == (4, 40.0)
    assert by_group["prompt-box", "box-every-slice"] == (4, 8.0)
    assert (found.seconds, found.unknown) == (56.0, 0)
    assert found.bytes_measured
    size = sum(path.stat().st_size for path in folder.masks.iterdir()) / 6
    assert found.bytes_needed["masks"] == round(12 * size)
    other = [{"model": "prompt-box", "label": "other", "protocols": ["box-one"]}]
    assert estimate(methods=other).unknown == 2


def test_models_to_train_and_to_fetch_are_listed(make_config, estimate, monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    values = json.loads(make_config().model_dump_json())
    values["cohorts"][0]["cases"][0]["part"] = "train"
    methods = [
        {**UNET, "settings": {"structures": ["tumour"]}},
        {"model": "medsam2-ma", "protocols": ["box-one"]},
        {"model": "lungfm-s", "protocols": ["box-one"]},
    ]
    found = estimate(cohorts=values["cohorts"], methods=methods)
    (training,) = found.trainings
    assert (training.text, training.cases, training.state) == ("unet-small on c", 1, "to do")
    (weights,) = found.weights
    assert (weights.name, weights.size) == ("medsam2-ma", 156_040_129)
    assert "models fetch medsam2-ma" in weights.how
    (tmp_path / "run" / "trainings" / training.folder / "run").mkdir(parents=True)
    again = estimate(cohorts=values["cohorts"], methods=methods)
    assert again.trainings[0].state == "begun"


def test_trainings_take_disk_by_their_cases_and_networks(estimate, tmp_path):
    cohort = {"kind": "phantom", "name": "p", "n_test": 1, "n_train": 10, "shape": [50, 100, 100]}
    methods = [
        {"train": "unet-paper", "settings": {"missing_lungs": "refuse"}},
        {"train": "nnunet-2d"},
        {"train": "medsam2-zhu", "protocols": ["box-one"]},
    ]
    found = estimate(cohorts=[cohort], methods=methods)
    unet, nnunet, tuned = (training.bytes_needed for training in found.trainings)
    voxels = 10 * 50 * 100 * 100
    assert unet["cases"] == 3 * voxels
    assert nnunet["cases"] == 4.5 * voxels
    assert unet["weights"] == 4 * 31_030_788
    assert unet["checkpoints"] == 3 * unet["weights"]  # the last one alone
    assert nnunet["checkpoints"] == 6 * nnunet["weights"]
    assert tuned["features"] > 0
    total = sum(sum(each.values()) for each in (unet, nnunet, tuned))
    assert found.bytes_needed["trainings"] == total
    # What an interrupted training has written already is not written again.
    place = tmp_path / "run" / "trainings" / found.trainings[0].folder / "run"
    place.mkdir(parents=True)
    (place / "case.npy").write_bytes(bytes(1_000_000))
    again = estimate(cohorts=[cohort], methods=methods).trainings[0].bytes_needed
    assert again["cases"] == unet["cases"] - 1_000_000


def test_sizes_of_files_tell_of_their_voxels(make_config, tmp_path):
    from napari_lungfm.benchmark.plan import build_cohorts
    from napari_lungfm.benchmark.training_size import _voxels

    (cohort,) = build_cohorts(make_config(), tmp_path)
    source = cohort.test[0]
    compressed = source.inputs()[0].stat().st_size
    assert _voxels(source, None) == compressed
    assert _voxels(source, (2, 3, 4)) == 24


def test_mean_tumour_sizes_are_measured_once(make_config, tmp_path, monkeypatch):
    from napari_lungfm.benchmark.plan import build_cohorts
    from napari_lungfm.datasets.cases import Cohort

    values = json.loads(make_config().model_dump_json())
    values["cohorts"][0]["cases"][0]["part"] = "train"
    (cohort,) = build_cohorts(make_config(cohorts=values["cohorts"]), tmp_path)
    file = tmp_path / "radii.json"
    assert Radii(file, measure=False).of(cohort) is None
    first = Radii(file)
    radius = first.of(cohort)
    first.save()
    assert 5 < radius < 8
    unread = Cohort(cohort.name, "", cohort.test, cohort.train, measure_radius=None)
    assert Radii(file).of(unread) == radius  # to measure again would raise
    file.write_text("[")
    assert Radii(file, measure=False).of(cohort) is None


def test_trainings_of_one_base_are_told_apart_and_add_up(estimate):
    cohort = {"kind": "phantom", "name": "p", "n_test": 1, "n_train": 10, "shape": [50, 100, 100]}
    tuned = {"train": "medsam2-zhu", "fraction": [0.5, 1.0]}
    methods = [
        {**tuned, "prompts": "box", "protocols": ["box-one"]},
        {**tuned, "prompts": "point", "protocols": ["point-every-slice"]},
    ]
    found = estimate(cohorts=[cohort], methods=methods)
    texts = [training.text for training in found.trainings]
    assert len(set(texts)) == 4
    assert [", box prompts" in text for text in texts] == [True, True, False, False]
    assert [", point prompts" in text for text in texts] == [False, False, True, True]
    for training in found.trainings:
        kind = "point" if "point" in training.text else "box"
        assert f"--{kind}--" in training.folder
    kept = sum(training.bytes_kept for training in found.trainings)
    passing = {training.bytes_while_running for training in found.trainings}
    assert found.bytes_needed["trainings"] == kept + max(passing)
    lines = [line for line in estimate_lines(found, 1) if line.startswith("training ")]
    assert all(" that stay and " in line for line in lines)
    assert all(" more while it runs" in line for line in lines)
    (disk,) = (line for line in estimate_lines(found, 1) if line.startswith("disk: "))
    assert " that stay and at most " in disk


def test_a_dry_run_into_a_file_is_refused(estimate, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        estimate()
    assert (tmp_path / "run").read_text() == "mine"
