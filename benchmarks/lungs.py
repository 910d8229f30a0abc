"""Score lung models on whole-chest phantoms and, where they are, on real chests.

nice -n 15 .venv/bin/python benchmarks/lungs.py --json benchmarks/results/lungs.json
.venv/bin/python benchmarks/lungs.py --phantoms 0 --lung1 RAW/nsclc_radiomics

`lungmask` is scored too where its weights are in the store. `--lung1` compares with the lungs that
were contoured for part of the patients of Lung1: in a download (ROIs Lung-Left and Lung-Right), or
in a cohort that was prepared with `--lungs own`.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.environment import hardware, package_versions
from napari_lungfm._core.exceptions import InputFileError, LungFMError, UsageError
from napari_lungfm._core.files import write_json
from napari_lungfm._core.types import LabelArray, MaskArray
from napari_lungfm.benchmark.cohorts.cohort_file import COHORT_FILE, prepared_lungs, read_cohort
from napari_lungfm.benchmark.cohorts.lung1 import lung1_cases
from napari_lungfm.benchmark.cohorts.lungs import OWN
from napari_lungfm.datasets.cases import Case
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.geometry import Structure, Volume, match_geometry
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.registry import create_automatic_model
from napari_lungfm.models.weights import WeightsNotFoundError

PHANTOMS = PhantomCohort(
    name="lungs",
    seed=7,
    n_test=10,
    shape=(64, 160, 160),
    spacings=((5.0, 2.2, 2.2),),
    diameters_mm=(12.0, 60.0),
    whole_chest=True,
)
LUNGS = (Structure.LEFT_LUNG, Structure.RIGHT_LUNG)


@dataclass(frozen=True, eq=False)
class Chest:
    """A CT with lungs (values 1 left, 2 right) and a mask of the tumour on its grid."""

    name: str
    volume: Volume
    lungs: LabelArray
    tumour: MaskArray


def phantoms(count: int) -> Iterator[Chest]:
    """Make phantoms of the whole chest."""
    for source in PHANTOMS.model_copy(update={"n_test": count}).build(Path()).test:
        yield of_case(source.load())


def contoured(folder: Path) -> Iterator[Chest]:
    """Read the patients of Lung1 whose lungs were contoured, left and right; pass over others."""
    if (folder / COHORT_FILE).is_file():
        if prepared_lungs(folder) != OWN:
            msg = (
                f"the lungs in '{folder}' are not known to be contoured by people: give a download "
                "of Lung1, or a cohort that was prepared with --lungs own"
            )
            raise UsageError(msg)
        cohort = read_cohort(folder).build(folder)
        for source in (*cohort.test, *cohort.train):
            yield of_case(source.load())
        return
    for patient in lung1_cases(folder):
        if patient.excluded:
            continue
        try:
            reading = patient.read()
        except LungFMError as error:
            print(f"left out: {patient.name}: {error}", file=sys.stderr)
            continue
        if reading.lungs is None:
            print(f"left out: {patient.name}: no contours of both lungs", file=sys.stderr)
            continue
        yield Chest(patient.name, reading.volume, reading.lungs, reading.tumour)


def of_case(case: Case) -> Chest:
    """Return a case as a chest."""
    array = case.reference.array
    return Chest(case.name, case.volume, array, array == Structure.TUMOUR)


def score(model: AutomaticModel, chests: Iterable[Chest]) -> dict[str, Any]:
    """Dice of each lung; the tumour, which the models count as lung, is left out of both masks."""
    rows, seconds = {}, []
    for chest in chests:
        started = time.perf_counter()
        found = model.segment(chest.volume)
        seconds.append(time.perf_counter() - started)
        outside = ~chest.tumour
        rows[chest.name] = {
            s.title: count_overlap(
                found.mask(int(s)) & outside, (chest.lungs == int(s)) & outside
            ).dice
            for s in LUNGS
        }
        print(model.name, chest.name, rows[chest.name], file=sys.stderr)
    if not rows:
        msg = "there is no patient with contours of both lungs to compare with"
        raise InputFileError(msg)
    means = {s.title: float(np.mean([row[s.title] for row in rows.values()])) for s in LUNGS}
    worst = min(value for row in rows.values() for value in row.values())
    return {"means": means, "worst": worst, "seconds": float(np.mean(seconds)), "cases": rows}


def on_real(model: AutomaticModel, data: Path) -> dict[str, float] | None:
    """Dice of both lungs together: the reference does not tell them apart."""
    folder = data / "acil_thorax"
    if not folder.is_dir():
        return None
    volume = io.read_volume(folder / "ct-64.nrrd")
    truth = match_geometry(io.read_label_map(folder / "wholeLung-64.nrrd"), volume.geometry)
    found = model.segment(volume)
    return {
        "both lungs": count_overlap(found.array != 0, truth.array != 0).dice,
        "found_ml": float(np.count_nonzero(found.array) * volume.geometry.voxel_volume_ml),
        "reference_ml": float(np.count_nonzero(truth.array) * volume.geometry.voxel_volume_ml),
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--real-data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--phantoms", type=int, default=PHANTOMS.n_test, help="how many; 0: none")
    parser.add_argument("--lung1", type=Path, help="a download of Lung1, or a cohort of it")
    arguments = parser.parse_args(words)
    try:
        results = compare(arguments)
    except LungFMError as error:
        sys.exit(f"error: {error}")
    for name, result in results.items():
        print(name, *(f"{where}: {summary(of)}" for where, of in result.items() if of))
    if arguments.json:
        write_json(
            arguments.json,
            {
                "command": " ".join(["benchmarks/lungs.py", *(words or sys.argv[1:])]),
                "cohort": PHANTOMS.model_dump(mode="json"),
                "results": results,
                "versions": package_versions(),
                "hardware": hardware(),
            },
        )


def compare(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Score each model whose weights are here on all that is asked for."""
    results = {}
    for name, options in (("lungs-classical", {}), ("lungmask", {"fallback": False})):
        device = "cpu" if name == "lungs-classical" else arguments.device
        try:
            model = create_automatic_model(name, device=device, **options)
        except WeightsNotFoundError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        found: dict[str, Any] = {"acil_thorax": on_real(model, arguments.real_data)}
        if arguments.phantoms:
            found["phantoms"] = score(model, phantoms(arguments.phantoms))
        if arguments.lung1 is not None:
            found["lung1"] = score(model, contoured(arguments.lung1))
        results[name] = found
    return results


def summary(of: dict[str, Any]) -> str:
    """Return the numbers of a line."""
    if "means" not in of:
        return f"both lungs {of['both lungs']:.4f}"
    means = ", ".join(f"{title} {value:.4f}" for title, value in of["means"].items())
    return f"{means}, worst {of['worst']:.4f}, n {len(of['cases'])}"


if __name__ == "__main__":
    main()
