"""What is the same around every training: refuse a used folder, find lungs, score, describe."""

import math
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from napari_lungfm import __version__
from napari_lungfm._core.environment import hardware, package_versions, source_hash
from napari_lungfm._core.exceptions import LungFMWarning, UsageError
from napari_lungfm._core.files import file_sha256
from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.automatic.trained import (
    SeenPatient,
    TrainedModel,
    is_trained_model,
    write_description,
)
from napari_lungfm.models.registry import create_automatic_model
from napari_lungfm.training.automatic.cohort_check import load_for_training
from napari_lungfm.training.automatic.settings import TrainingSettings
from napari_lungfm.training.automatic.split import (
    C,
    Split,
    hash_cases,
    hash_split,
    seen_patients,
)

Stage = Literal["preparing", "measuring", "resampling", "training", "validating"]
#: Called with the stage, the cases done and all of them.
StageListener = Callable[[Stage, int, int], None]


def refuse_used(out: Path, resume: bool) -> None:
    """Refuse a folder that holds a trained model, or a training that is not to be resumed.

    Raises
    ------
    UsageError
        If it does.
    """
    if is_trained_model(out):
        msg = f"'{out}' holds a trained model already; choose another folder or remove it"
        raise UsageError(msg)
    if not resume and (out / "run" / "run.json").is_file():
        msg = f"'{out}' holds a training already; continue it with --resume or choose another"
        raise UsageError(msg)


def lungs_model(config: TrainingSettings, device: str) -> AutomaticModel | None:
    """Return what completes references without lungs; ``None`` if they are to be refused."""
    if config.missing_lungs == "refuse":
        return None
    if config.missing_lungs == "lungmask":
        # A training on lungs of another kind than its configuration says would be a lie.
        return create_automatic_model("lungmask", device=device, fallback=False)
    return create_automatic_model(config.missing_lungs)


def validation_scores(
    model: AutomaticModel,
    config: TrainingSettings,
    cohort: Cohort,
    split: Split[C],
    device: str,
    tell: StageListener,
) -> dict[str, dict[str, float | None]] | None:
    """Return the Dice of validation cases on their own grids, segmented as users will.

    Parameters
    ----------
    model
        The trained model.
    config, cohort, split
        The training.
    device
        Where lungs of references are found, if need be.
    tell
        Called as cases are done.

    Returns
    -------
    dict or None
        Case → structure → Dice; ``None`` where no case was set aside.
    """
    aside = {case.name for case in split.validation}
    if not aside:
        return None
    lungs = lungs_model(config, device)
    sources = [source for source in cohort.train if source.name in aside]
    scores: dict[str, dict[str, float | None]] = {}
    for number, source in enumerate(sources, start=1):
        case = load_for_training(source, config.targets, lungs)
        found = model.segment(case.volume)
        scores[source.name] = {
            structure.title: _or_none(
                count_overlap(found.mask(int(structure)), case.reference.mask(int(structure))).dice
            )
            for structure in config.targets
        }
        tell("validating", number, len(sources))
    return scores


def describe(
    config: TrainingSettings,
    cohort: Cohort,
    cases: Sequence[C],
    split: Split[C],
    out: Path,
    *,
    files: Sequence[str],
    notes: tuple[str, ...],
    earlier: Sequence[SeenPatient] = (),
    **facts: Any,
) -> TrainedModel:
    """Write the description of a trained model, whose files are in place, and return it.

    Parameters
    ----------
    config, cohort, cases, split
        The training.
    out
        Folder of the model.
    files
        What is needed to run it, in `out`.
    notes
        What else must be said; each is a warning too.
    earlier
        Patients that the weights had seen before the training began.
    **facts
        The other fields of `TrainedModel`.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    for text in notes:
        warnings.warn(text, LungFMWarning, stacklevel=4)
    description = TrainedModel(
        title=config.name,
        small=config.small,
        structures=tuple(int(structure) for structure in config.targets),
        files={name: file_sha256(out / name) for name in files},
        seen=tuple(dict.fromkeys((*earlier, *seen_patients(split, cohort.name)))),
        cohort=cohort.name,
        cohort_hash=hash_cases(cases),
        split_hash=hash_split(split),
        code_version=__version__,
        code_hash=source_hash(),
        versions=package_versions(),
        hardware=hardware(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=notes,
        **facts,
    )
    write_description(out, description)
    return description


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
