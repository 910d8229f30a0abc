"""Train an automatic model on phantoms and score it on phantoms it has not seen.

nice -n 15 .venv/bin/python benchmarks/automatic_phantoms.py unet-phantoms --out /tmp/unet-phantoms
    --json benchmarks/results/automatic_phantoms_unet.json

Any shipped configuration or YAML file can stand in the place of ``unet-phantoms``; an interrupted
run goes on when the same command is given again. Training and test phantoms differ in patient,
tumour, noise and position; all ten kinds of tumours and three phases of contrast medium are dealt
out in turn.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from napari_lungfm._core.environment import hardware, package_versions
from napari_lungfm._core.files import write_json
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.evaluation.scoring import score_structure
from napari_lungfm.geometry import Structure
from napari_lungfm.models.automatic.trained import hash_image, is_trained_model
from napari_lungfm.models.registry import create_automatic_model, trained_model
from napari_lungfm.training.automatic.config import load_training
from napari_lungfm.training.automatic.nnunet.config import NNUNetTraining
from napari_lungfm.training.automatic.run import train_automatic
from napari_lungfm.training.automatic.settings import TrainingSettings


def cohort(arguments: argparse.Namespace) -> PhantomCohort:
    """Return the phantoms: chests of 346 mm in plane, tumours of 15 to 60 mm."""
    return PhantomCohort(
        name="automatic-phantoms",
        title="whole-chest phantoms, not patients",
        seed=arguments.seed,
        n_train=arguments.train,
        n_test=arguments.test,
        shape=(arguments.slices, 144, 144),
        spacings=((5.0, 2.4, 2.4),),
        diameters_mm=(15.0, 60.0),
        whole_chest=True,
    )


def score(folder: Path, spec: PhantomCohort, device: str) -> list[dict]:
    """Return the scores of every structure of every test case."""
    model = create_automatic_model(str(folder), device=device)
    description = trained_model(str(folder))
    rows = []
    for source in spec.build(Path()).test:
        case = source.load()
        description.refuse_seen(case.name, cohort=spec.name, image=hash_image(case.volume))
        started = time.perf_counter()
        found = model.segment(case.volume)
        seconds = time.perf_counter() - started
        for structure in case.structures:
            scores = score_structure(
                found.mask(int(structure)),
                case.reference.mask(int(structure)),
                case.reference.geometry,
            )
            rows.append(
                {
                    "case": case.name,
                    "structure": structure.title,
                    "dice": None if np.isnan(scores.dice) else round(scores.dice, 4),
                    "iou": None if np.isnan(scores.iou) else round(scores.iou, 4),
                    "tumour_kind": case.attributes["tumour_kind"],
                    "seconds": round(seconds, 2),
                }
            )
            print(f"{case.name}: {structure.title} Dice {scores.dice:.3f}", file=sys.stderr)
    return rows


def fewer_epochs(config: TrainingSettings, epochs: int) -> TrainingSettings:
    """Return the same training with so many epochs; nnU-Net's stand beside its other settings."""
    if isinstance(config, NNUNetTraining):
        return config.model_copy(update={"epochs": epochs})
    return config.model_copy(update={"fit": config.fit.model_copy(update={"epochs": epochs})})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--train", type=int, default=100)
    parser.add_argument("--test", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slices", type=int, default=60, help="of each phantom, 5 mm apart")
    parser.add_argument("--epochs", type=int, help="fewer, to try it out")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    spec = cohort(arguments)
    config = load_training(arguments.config).model_copy(update={"cohort": spec})
    if arguments.epochs:
        config = fewer_epochs(config, arguments.epochs)

    def listener(progress) -> None:
        if progress.epoch_ended:
            left = (progress.seconds_left or 0) / 60
            values = {name: round(value, 4) for name, value in progress.metrics.items()}
            print(f"epoch {progress.epoch}: {values}, {left:.1f} min left", file=sys.stderr)

    if not is_trained_model(arguments.out):
        resume = (arguments.out / "run" / "run.json").is_file()
        train_automatic(
            config,
            arguments.out,
            base=Path(),
            device=arguments.device,
            resume=resume,
            listener=listener,
        )
    rows = score(arguments.out, spec, arguments.device)
    means = {
        structure.title: float(
            np.mean([r["dice"] or 0.0 for r in rows if r["structure"] == structure.title])
        )
        for structure in Structure
    }
    description = trained_model(str(arguments.out))
    result = {
        "what": "Dice on unseen phantoms, on their own grid; phantoms, not patients",
        "command": " ".join(["benchmarks/automatic_phantoms.py", *sys.argv[1:]]),
        "means": {title: round(value, 4) for title, value in means.items()},
        "lungs": round((means["left lung"] + means["right lung"]) / 2, 4),
        "cases": rows,
        "cohort": spec.model_dump(mode="json"),
        "training": description.model_dump(mode="json", exclude={"seen", "versions", "hardware"}),
        "log": (arguments.out / "log.csv").read_text(encoding="utf-8").splitlines(),
        "versions": package_versions(),
        "hardware": hardware(),
    }
    print(f"tumour {means['tumour']:.3f}, lungs {result['lungs']:.3f}")
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
