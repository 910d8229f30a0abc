import numpy as np
import pytest

from napari_lungfm import io
from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.records import Cost, Record, SliceScore, StructureResult, UnitKey
from napari_lungfm.benchmark.report import write_report
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.datasets.cases import Case
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Volume, VolumeGeometry

GRID = VolumeGeometry((12, 40, 44), (3.0, 1.0, 0.5), (-20.0, 7.0, -40.0))
MARK = "0123456789abcdef"

CONFIG = """\
name: small run
cohorts:
- kind: phantom
  name: made
  title: Phantoms with one lesion
- kind: files
  name: real
  title: Public chest CTs
"""


def result(structure="tumour", dice=0.8, **changes):
    """Scores of one structure that follow from its Dice, unless given."""
    iou = None if dice is None else dice / (2 - dice)
    values = {
        "structure": structure,
        "dice": dice,
        "iou": iou,
        "hd95_mm": None if not dice else 10 * (1 - dice),
        "nsd_1mm": dice,
        "nsd_2mm": dice,
        "volume_ml": 8.0,
        "reference_volume_ml": 10.0,
        "volume_difference_ml": -2.0,
        "slice_dice_mean": dice,
        "slice_iou_mean": iou,
        "n_reference_slices": 3,
        "slices_beyond_low": 1,
        "slices_beyond_high": 0,
        "volume_beyond_ml": 0.1,
        "slices": tuple(
            SliceScore(z=z, dice=d, iou=d)
            for z, d in ((3, 0.0), (4, dice or 0.0), (5, 0.5), (6, 0.25))
        ),
        "prompts": ({"kind": "box", "z": 5, "box": [8, 9, 20, 25]},),
    }
    return StructureResult(**(values | changes))


def record(
    case="p1", model="a", dice=0.8, *, protocol="box-one", cohort="made", seed=0, label=None,
    **changes,
):  # fmt: skip
    """One finished unit with a tumour."""
    values = {
        "key": UnitKey(
            cohort=cohort, case=case, model=model, label=label, protocol=protocol, seed=seed
        ),
        "fingerprint": MARK,
        "status": "ok",
        "structures": (result(dice=dice),),
        "case_hash": "h",
        "case_shape": GRID.shape,
        "case_spacing_mm": GRID.spacing,
        "case_attributes": {"size": "small"},
        "mask_file": None,
        "cost": Cost(seconds=2.0, peak_rss_mb=100.0, n_prompts=1, parameters=1_000_000),
        "versions": {"python": "3.11.0"},
        "hardware": {"cpu": "a processor"},
        "finished": "2025-03-01T10:00:00+00:00",
    }
    return Record(**(values | changes))


def half_ellipsoid(radius_mm, shift=0.0):
    """Mask of a ball in the middle of the grid, moved along x by ``shift`` mm."""
    index = np.indices(GRID.shape)
    middle = [(n - 1) / 2 for n in GRID.shape]
    z, y, x = ((i - c) * s for i, c, s in zip(index, middle, GRID.spacing, strict=True))
    return z**2 + y**2 + (x - shift) ** 2 <= radius_mm**2


@pytest.fixture(scope="session")
def make_result():
    return result


@pytest.fixture(scope="session")
def make_record():
    return record


@pytest.fixture(scope="session")
def write():
    """`write_run`, for runs that several tests share."""
    return write_run


@pytest.fixture
def grid():
    return GRID


def write_run(root, records, *, missing=(), config=CONFIG, images=False):
    """Write a run folder from records; ``images`` adds previews and masks for overlays."""
    run = RunFolder.create(root)
    run.write_plan(config, [(key, MARK) for key in [*(r.key for r in records), *missing]])
    for number, one in enumerate(records):
        run.write_record(_with_images(run, one, number % 3) if images else one)
    return run


@pytest.fixture
def make_run(tmp_path):
    """Write a run folder from records; see `write_run`."""

    def make(records, *, name="run", **options):
        return write_run(tmp_path / name, records, **options)

    return make


@pytest.fixture(scope="session")
def several():
    """Two cohorts, three methods, two protocols, one failure."""
    dice = {"prompt-ellipse": 0.6, "a": 0.8, "b": 0.7}
    records = [
        record(f"p{i}", model, value + 0.02 * i, protocol=protocol, cohort=cohort)
        for cohort, n in (("made", 3), ("real", 2))
        for i in range(n)
        for model, value in dice.items()
        for protocol in ("box-every-slice", "box-one")
    ]
    broken = record("p0", "b", 0.0, cohort="real", status="failed", error="out of memory")
    return [*(r for r in records if r.key != broken.key), broken]


@pytest.fixture(scope="session")
def report(several, tmp_path_factory):
    """The report of `several`, with overlays."""
    return write_report(write_run(tmp_path_factory.mktemp("shared") / "run", several, images=True))


def _with_images(run, one, shift):
    reference = half_ellipsoid(8.0)
    rng = np.random.default_rng(0)
    hu = np.where(reference, 40, -800) + rng.normal(0, 30, GRID.shape)
    labels = LabelMap(np.where(reference, 3, 1).astype(np.uint8), GRID, LUNG_LABELS)
    case = Case(one.key.case, Volume(hu.astype(np.int16), GRID), labels)
    Preview.of_case(case).save(run.preview_file(one.key.cohort, one.key.case))
    file = run.mask_file(one.key, one.fingerprint)
    mask = half_ellipsoid(8.0, shift)
    io.write_label_map(LabelMap(np.where(mask, 3, 0).astype(np.uint8), GRID, LUNG_LABELS), file)
    return one.model_copy(update={"mask_file": file.relative_to(run.root).as_posix()})
