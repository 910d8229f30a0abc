"""What is the same around every training: refuse a used folder, find lungs, score, describe."""

import csv
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_lungfm import __version__
from napari_lungfm._core.environment import hardware, package_versions, source_hash
from napari_lungfm._core.exceptions import ConfigError, LungFMWarning, UsageError
from napari_lungfm._core.files import file_sha256, write_json, write_text
from napari_lungfm._core.types import ProgressCallback
from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.geometry import LabelMap, Volume
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.automatic.protocol import AutomaticModel, CancelCallback
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
    KnownCase,
    Split,
    hash_cases,
    hash_split,
    seen_patients,
)

if TYPE_CHECKING:  # torch and lightning come with it
    from napari_lungfm.training.fit.start import FitStart

#: Keeps the hashes of a training's cases in its run folder.
_CASES = "cases.json"
#: Said of a model without validation scores.
UNMEASURED = "nothing was measured: no validation case was set aside, so nobody knows what it finds"
#: How many differences a message names.
_SHOWN = 5
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


class LungsOnDemand:
    """A model of the lungs that is made when the first case needs it: often none does.

    Parameters
    ----------
    name
        ``lungmask`` or ``lungs-classical``.
    device
        Where it runs.
    """

    def __init__(self, name: str, device: str) -> None:
        self.name = name
        self._device = device
        self._made: AutomaticModel | None = None

    @property
    def labels(self) -> Mapping[int, str]:
        """See `AutomaticModel.labels`."""
        return self._model().labels

    @property
    def parameters(self) -> int:
        """See `AutomaticModel.parameters`."""
        return self._model().parameters

    def segment(
        self,
        volume: Volume,
        *,
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
    ) -> LabelMap:
        """See `AutomaticModel.segment`."""
        return self._model().segment(volume, progress=progress, cancelled=cancelled)

    def _model(self) -> AutomaticModel:
        if self._made is None and self.name == "lungmask":
            # A training on lungs of another kind than its configuration says would be a lie.
            self._made = create_automatic_model(self.name, device=self._device, fallback=False)
        elif self._made is None:
            self._made = create_automatic_model(self.name)
        return self._made


def lungs_model(config: TrainingSettings, device: str) -> AutomaticModel | None:
    """Return what completes references without lungs; ``None`` if they are to be refused."""
    return None if config.missing_lungs == "refuse" else LungsOnDemand(config.missing_lungs, device)


def decided_by(
    config: TrainingSettings, cases: Sequence[KnownCase], split: Split[C]
) -> dict[str, Any]:
    """Return what decides a training, in plain values; see `FitStart`.

    Parameters
    ----------
    config, cases, split
        The training.
    """
    return {**config.decided_by(), "cohort": hash_cases(cases), "split": hash_split(split)}


def begin(
    config: TrainingSettings,
    cases: Sequence[KnownCase],
    start: "FitStart",
    out: Path,
    resume: bool,
) -> tuple[str, ...] | None:
    """Refuse to resume another training, and only then write down what this one is.

    Parameters
    ----------
    config, cases
        The training.
    start
        What decides it, and where it runs.
    out
        Folder of the model.
    resume
        Go on with the training in it, where there is one.

    Returns
    -------
    tuple of str or None
        Why the result will not be the same as without the interruption; ``None`` where the
        training begins now.

    Raises
    ------
    ConfigError
        If another one is to be resumed.
    FitError
        If it cannot be told which one that was.
    OutputError
        If the folder cannot be written.
    """
    run = out / "run"
    notes = None
    if resume and (run / "run.json").is_file():
        refuse_other_cases(run, cases)
        notes = start.compare(run / "run.json")
    else:
        keep_cases(run, cases)
    write_text(out / "config.yaml", config.to_yaml())
    return notes


def keep_cases(run: Path, cases: Sequence[KnownCase]) -> None:
    """Keep what the cases of a training are, for `refuse_other_cases`.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_json(run / _CASES, {case.name: [case.image, case.reference] for case in cases})


def refuse_other_cases(run: Path, cases: Sequence[KnownCase]) -> None:
    """Refuse to resume a training with other cases than it was begun with.

    Parameters
    ----------
    run
        The run folder; one without `keep_cases` is left to the comparison of hashes.
    cases
        The cases now.

    Raises
    ------
    ConfigError
        If they are others; the message names them.
    """
    try:
        before = json.loads((run / _CASES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    now = {case.name: [case.image, case.reference] for case in cases}
    found = [f"case '{name}' is new" for name in now if name not in before]
    for name, (image, reference) in before.items():
        if name not in now:
            found.append(f"case '{name}' is gone")
        elif now[name] != [image, reference]:
            what = "image" if now[name][0] != image else "reference"
            found.append(f"the {what} of case '{name}' is another")
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        msg = (
            f"the training in '{run}' was begun with other cases: {'; '.join(found[:_SHOWN])}"
            f"{more}; resume it with the same, or choose another folder"
        )
        raise ConfigError(msg)


def doubts(log: Path, scores: Mapping[str, Mapping[str, float | None]] | None) -> tuple[str, ...]:
    """Return why a training that has ended may have come to nothing, a line each.

    Parameters
    ----------
    log
        Its ``log.csv``.
    scores
        See `validation_scores`.
    """
    notes = [*told_if_short(log), *([] if scores else [UNMEASURED])]
    losses = [float(row["train/loss"]) for row in _rows(log) if row.get("train/loss")]
    if len(losses) > 1 and losses[-1] >= losses[0]:
        notes.append(
            f"the loss of the last epoch, {losses[-1]:.4g}, is not below that of the first, "
            f"{losses[0]:.4g}: the training diverged or learnt nothing"
        )
    found: dict[str, list[float]] = {}
    for case in (scores or {}).values():
        for title, dice in case.items():
            found.setdefault(title, []).extend([] if dice is None else [dice])
    notes += [
        f"it finds no {title}: Dice 0 in all {len(values)} validation cases"
        for title, values in found.items()
        if values and not any(values)
    ]
    return tuple(notes)


def told_if_short(log: Path) -> tuple[str, ...]:
    """Return a line on a training of a single epoch; nothing for longer ones.

    Parameters
    ----------
    log
        Its ``log.csv``.
    """
    rows = _rows(log)
    if len(rows) != 1:
        return ()
    steps = rows[0].get("step") or "an unknown number of"
    return (
        f"it was trained for one epoch ({steps} step{'' if steps == '1' else 's'}), which shows "
        "that the training runs and not what the model can do",
    )


def _rows(log: Path) -> list[dict[str, str]]:
    if not log.is_file():
        return []
    with log.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


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
    doubtful: tuple[str, ...] = (),
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
    doubtful
        What `doubts` found; whoever shows the result says it.
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
        notes=(*notes, *doubtful),
        **facts,
    )
    write_description(out, description)
    return description


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
