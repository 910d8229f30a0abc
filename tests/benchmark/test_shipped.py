"""Every shipped configuration is valid, can be planned, and names only what there is."""

import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm._core.exceptions import ConfigError, InputFileError
from napari_lungfm.benchmark.cohorts.cohort_file import COHORT_FILE
from napari_lungfm.benchmark.plan import build_cohorts, make_plan
from napari_lungfm.benchmark.shipped import find_config, shipped_benchmarks, shipped_summaries
from napari_lungfm.benchmark.states import training_percent
from napari_lungfm.benchmark.trainings import plan_trainings
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry

PHANTOMS = (
    "cohorts=[{kind: phantom, name: lung1, n_test: 2, n_train: 8},"
    " {kind: phantom, name: task06, n_test: 1, n_train: 8}]"
)
PREPARED = ("auto-prompt", "effort", "jitter", "paper")


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")

    def call(name):
        found = find_config(name, changes=(PHANTOMS,) if name in PREPARED else (), data=base)
        methods, cohorts = found.config.look_up(base), build_cohorts(found.config, base)
        plan = make_plan(found.config, methods, cohorts)
        return plan, plan_trainings(methods, cohorts)

    return call


def test_they_are_listed_with_what_they_are():
    assert set(shipped_benchmarks()) == {"demo", *PREPARED}
    assert shipped_summaries()["paper"].startswith("The paper's Tables II, III and IV")
    assert all(" " in text and "\n" not in text for text in shipped_summaries().values())


@pytest.mark.parametrize("name", sorted(shipped_benchmarks()))
def test_each_can_be_planned_on_phantoms(planned, name):
    plan, _ = planned(name)
    assert plan.config.name == name
    assert {unit.key.cohort for unit in plan.units} == {c.name for c in plan.cohorts}
    marks = [unit.fingerprint for unit in plan.units]
    assert len(set(marks)) == len(marks)


def test_the_paper_has_the_rows_of_its_tables(planned):
    plan, trainings = planned("paper")
    rows = {(u.key.cohort, u.key.model, u.key.state, u.key.protocol) for u in plan.units}
    for cohort in ("lung1", "task06"):
        own = {row[1:] for row in rows if row[0] == cohort}
        automatic = {row[0] for row in own if row[1] == "trained"}
        assert automatic == {
            "deeplabv3-paper", "unet-paper", "nnunet-2d", "nnunet-3d_lowres", "nnunet-3d_fullres",
        }  # fmt: skip
        assert ("medsam", "fine-tuned 100 %", "box-every-slice") in own
        for protocol in ("box-every-slice", "point-every-slice"):
            fractions = {
                training_percent(state)
                for model, state, other in own
                if model == "medsam2-zhu" and other == protocol
            }
            assert fractions == {0.0, 25.0, 50.0, 75.0, 100.0}
    # Five automatic, MedSAM, four parts with boxes and four with points, on either cohort.
    assert len(trainings) == 2 * (5 + 1 + 4 + 4)


@pytest.fixture
def prepared(tmp_path):
    """A folder as `datasets prepare` leaves it, with one case."""
    grid = VolumeGeometry((4, 20, 20), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    place = tmp_path / "data" / "lung1"
    (place / "cases").mkdir(parents=True)
    inside = np.zeros(grid.shape, bool)
    inside[1:3, 5:12, 5:12] = True
    io.write_image(Volume(np.where(inside, 30, -800).astype(np.int16), grid), place / "ct.nii.gz")
    io.write_label_map(LabelMap.from_mask(inside, grid, label=3), place / "reference.nii.gz")
    (place / COHORT_FILE).write_text(
        "kind: files\nname: lung1\ntitle: prepared\nroot: .\ncases:\n"
        "- {name: p1, image: ct.nii.gz, mask: reference.nii.gz, values: {3: tumour}}\n"
    )
    return place


def write_config(tmp_path, cohort):
    file = tmp_path / "c.yaml"
    file.write_text(
        f"name: x\ncohorts: [{cohort}]\nmethods: [{{model: prompt-box, protocols: [box-one]}}]\n"
    )
    return str(file)


def test_a_prepared_cohort_is_read_from_its_folder(prepared, tmp_path):
    file = write_config(tmp_path, "{kind: prepared, name: mine, root: lung1}")
    found = find_config(file, data=tmp_path / "data")
    (cohort,) = found.config.cohorts
    assert (cohort.kind, cohort.name, cohort.title) == ("files", "mine", "prepared")
    assert cohort.root == str(prepared)
    assert build_cohorts(found.config, found.base)[0].test[0].load().structures
    moved = find_config(file, changes=(f"cohorts.0.root={prepared}",))
    assert moved.config == found.config
    assert moved.base == tmp_path


def test_a_cohort_that_is_not_prepared_is_explained(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no prepared cohort in .*lung1.*datasets prepare.*--data"
    ):
        find_config("paper", data=tmp_path)
    file = write_config(tmp_path, "{kind: prepared, name: mine, rot: lung1}")
    with pytest.raises(ConfigError, match="no 'rot'"):
        find_config(file)


def test_a_change_is_checked_like_the_file(prepared, tmp_path):
    file = write_config(tmp_path, "{kind: prepared, name: lung1, root: data/lung1}")
    with pytest.raises(
        ConfigError,
        match=r"with methods.0.protocol=\[\]: methods.0 has no key 'protocol'; did you mean",
    ):
        find_config(file, changes=("methods.0.protocol=[]",))


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(InputFileError, match=r"no file 'papper', .*: auto-prompt, demo, effort"):
        find_config("papper")
