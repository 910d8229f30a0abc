"""Score lung models on whole-chest phantoms and, where it is, on a real chest.

nice -n 15 .venv/bin/python benchmarks/lungs.py --json benchmarks/results/lungs.json

`lungmask` is scored too where its weights are in the store.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.environment import hardware, package_versions
from napari_lungfm._core.files import write_json
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.geometry import Structure, match_geometry
from napari_lungfm.metrics import count_overlap
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


def on_phantoms(model) -> dict:
    """Dice of each lung; the tumour, which the models count as lung, is left out of both masks."""
    rows, seconds = {}, []
    for source in PHANTOMS.build(Path()).test:
        case = source.load()
        started = time.perf_counter()
        found = model.segment(case.volume)
        seconds.append(time.perf_counter() - started)
        outside = case.reference.array != Structure.TUMOUR
        rows[case.name] = {
            s.title: count_overlap(
                found.mask(int(s)) & outside, case.reference.mask(int(s)) & outside
            ).dice
            for s in LUNGS
        }
        print(model.name, case.name, rows[case.name], file=sys.stderr)
    means = {s.title: float(np.mean([row[s.title] for row in rows.values()])) for s in LUNGS}
    worst = min(value for row in rows.values() for value in row.values())
    return {"means": means, "worst": worst, "seconds": float(np.mean(seconds)), "cases": rows}


def on_real(model, data: Path) -> dict | None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--real-data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    results = {}
    for name, options in (("lungs-classical", {}), ("lungmask", {"fallback": False})):
        device = "cpu" if name == "lungs-classical" else arguments.device
        try:
            model = create_automatic_model(name, device=device, **options)
        except WeightsNotFoundError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        results[name] = {
            "phantoms": on_phantoms(model),
            "acil_thorax": on_real(model, arguments.real_data),
        }
    for name, result in results.items():
        phantoms = result["phantoms"]
        real = result["acil_thorax"]
        print(name, phantoms["means"], phantoms["worst"], real["both lungs"] if real else "")
    if arguments.json:
        write_json(
            arguments.json,
            {
                "command": " ".join(["benchmarks/lungs.py", *sys.argv[1:]]),
                "cohort": PHANTOMS.model_dump(mode="json"),
                "results": results,
                "versions": package_versions(),
                "hardware": hardware(),
            },
        )


if __name__ == "__main__":
    main()
