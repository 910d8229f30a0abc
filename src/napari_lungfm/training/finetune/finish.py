"""The end of a fine-tuning: what moved, how validation patients are segmented, the folder."""

import csv
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from napari_lungfm import __version__
from napari_lungfm._core.environment import hardware, package_versions, source_hash
from napari_lungfm._core.files import file_sha256, make_folder
from napari_lungfm.datasets.cases import Case, Cohort
from napari_lungfm.geometry import Structure, to_axial
from napari_lungfm.inference.segmentation import segment_object
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.automatic.trained import (
    WEIGHTS,
    TrainedModel,
    write_description,
)
from napari_lungfm.models.foundation.finetuned import (
    FINE_TUNED,
    FineTunedSettings,
    family_of,
    model_of,
)
from napari_lungfm.models.prompts import Prompt
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.training.around import keep_log
from napari_lungfm.training.automatic.cohort_check import load_for_training
from napari_lungfm.training.automatic.finish import StageListener, describe, lungs_model
from napari_lungfm.training.automatic.split import Split
from napari_lungfm.training.finetune.base import BaseNetwork, write_weights
from napari_lungfm.training.finetune.cases import StoredCase
from napari_lungfm.training.finetune.config import PROMPT_KINDS, FineTuning
from napari_lungfm.training.finetune.moved import MovedWeights, moved_weights
from napari_lungfm.training.finetune.prompts import middle_click, tight_box
from napari_lungfm.training.finetune.recipe import ValidationPrompts
from napari_lungfm.training.fit.run import FitResult


@dataclass(frozen=True, eq=False)
class Ending:
    """What the end of a fine-tuning has to know of its beginning.

    Parameters
    ----------
    config, cohort, cases, split
        The training.
    base
        What it began with.
    before
        The weights of the base; those of `base` itself were trained in place.
    parameters
        Number of parameters of the base.
    trained
        Modules of the network of which anything was trained.
    out
        Folder of the result.
    device
        Where validation patients are segmented.
    tell
        Called as they are.
    """

    config: FineTuning
    cohort: Cohort
    cases: Sequence[StoredCase]
    split: Split[StoredCase]
    base: BaseNetwork
    before: Mapping[str, Tensor]
    parameters: int
    trained: frozenset[str]
    out: Path
    device: str
    tell: StageListener


def copied_state(network: torch.nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights of a network, float32 on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def told_of_unmoved(moved: Mapping[str, MovedWeights], trained: Collection[str]) -> tuple[str, ...]:
    """Say which modules were to be trained, and came out as they were.

    Parameters
    ----------
    moved
        What moved in each module; see `moved_weights`.
    trained
        The modules that were to be trained.
    """
    still = [name for name in moved if name in trained and not moved[name].moved]
    if not still:
        return ()
    if len(still) == len(trained):
        return (
            "no weight moved: the result is its base; no sample taught it anything, as where the "
            "base calls the structure absent on all of them, or the learning rate is too small",
        )
    return (f"no weight moved of {', '.join(still)}, though they were to be trained",)


def finish(
    ending: Ending,
    state: Mapping[str, Tensor],
    result: FitResult,
    notes: tuple[str, ...] = (),
    doubtful: tuple[str, ...] = (),
) -> TrainedModel:
    """Write the folder of a fine-tuned model; its description comes last.

    Parameters
    ----------
    ending
        The fine-tuning.
    state
        The trained weights, as the base has them.
    result
        What the fit left.
    notes
        What else must be said of it; each is a warning too.
    doubtful
        The same, for whoever shows the result.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    config, out = ending.config, ending.out
    moved = moved_weights(ending.before, {name: t.detach().cpu() for name, t in state.items()})
    settings = ending.base.settings.model_copy(
        update={
            "recipe": config.recipe.name,
            "prompts": config.prompts,
            "fraction": config.fraction,
            "seed": config.seed,
            "moved": {module: each.model_dump() for module, each in moved.items()},
        }
    )
    write_weights(out / WEIGHTS, state, settings, ending.base.network)
    keep_log(out)
    doubtful = (*told_of_unmoved(moved, ending.trained), *doubtful)
    base = ending.base.description
    return describe(
        config,
        ending.cohort,
        ending.cases,
        ending.split,
        out,
        files=(WEIGHTS,),
        notes=(*notes, *result.notes),
        doubtful=doubtful,
        # The weights come from the patients of the base too.
        earlier=() if base is None else base.seen,
        family=family_of(settings.network),
        architecture=FINE_TUNED,
        settings=settings.model_dump(mode="json"),
        parameters=ending.parameters,
        epochs=result.epochs,
        seconds=result.seconds,
        validation=_validated(ending, settings),
    )


def write_base(
    folder: Path, title: str, network: torch.nn.Module, settings: FineTunedSettings
) -> TrainedModel:
    """Write the folder of a network that was not trained here, to be fine-tuned or run.

    Parameters
    ----------
    folder
        Where to.
    title
        What it is called.
    network
        A network that `settings` describe.
    settings
        How it is built and what it sees.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    make_folder(folder)
    write_weights(folder / WEIGHTS, network.state_dict(), settings, network)
    description = TrainedModel(
        family=family_of(settings.network),
        architecture=FINE_TUNED,
        title=title,
        settings=settings.model_dump(mode="json"),
        structures=(),
        files={WEIGHTS: file_sha256(folder / WEIGHTS)},
        parameters=sum(p.numel() for p in network.parameters()),
        seen=(),
        cohort="",
        cohort_hash="",
        split_hash="",
        epochs=0,
        seconds=0.0,
        code_version=__version__,
        code_hash=source_hash(),
        versions=package_versions(),
        hardware=hardware(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_description(folder, description)
    return description


def _validated(
    ending: Ending, settings: FineTunedSettings
) -> dict[str, dict[str, float | None]] | None:
    """Return the Dice of validation patients, segmented as users would: case → how → Dice."""
    aside = {case.name for case in ending.split.validation}
    ways = _ways(ending.config)
    if not aside or not ways:
        return None
    model = model_of(
        ending.out / WEIGHTS,
        settings,
        ending.config.name,
        file_sha256(ending.out / WEIGHTS),
        ending.device,
    )
    lungs = lungs_model(ending.config, ending.device)
    sources = [source for source in ending.cohort.train if source.name in aside]
    scores: dict[str, dict[str, float | None]] = {}
    for number, source in enumerate(sources, start=1):
        case = load_for_training(source, ending.config.targets, lungs)
        scores[source.name] = {
            f"{structure.title}, {title}": _dice(model, case, structure, how, kind)
            for structure in ending.config.targets
            for title, how, kind in ways
        }
        ending.tell("validating", number, len(sources))
    return scores


def _ways(config: FineTuning) -> list[tuple[str, ValidationPrompts, Literal["box", "point"]]]:
    """Return how validation patients are prompted: what it is called, where, and with what."""
    kinds = PROMPT_KINDS[config.prompts]
    return [
        (f"{'prompted' if len(kinds) == 1 else _WITH[kind]} {_WHERE[how]}", how, kind)
        for how in config.ways_to_validate
        for kind in kinds
    ]


_WHERE: dict[ValidationPrompts, str] = {
    "every-slice": "on every slice",
    "one-slice": "on one slice",
}
_WITH = {"box": "boxed", "point": "clicked"}


def _dice(
    model: PromptableModel,
    case: Case,
    structure: Structure,
    how: ValidationPrompts,
    kind: Literal["box", "point"],
) -> float | None:
    volume, reference = to_axial(case.volume), to_axial(case.reference)
    truth = reference.mask(int(structure))
    areas = truth.sum(axis=(1, 2))
    slices = np.flatnonzero(areas) if how == "every-slice" else [int(np.argmax(areas))]
    give = middle_click if kind == "point" else tight_box
    prompts: list[Prompt] = [give(truth[z], int(z)) for z in slices]
    found = segment_object(model, volume, prompts, fill=how == "one-slice", label=int(structure))
    dice = count_overlap(found.mask(int(structure)), truth).dice
    return None if math.isnan(dice) else round(dice, 6)


def notes_on_validation(log: Path, metric: str, *, best: bool) -> tuple[str, ...]:
    """Return what has to be said of the validation samples over the epochs of a fit.

    Parameters
    ----------
    log
        ``log.csv`` of the fit.
    metric
        Column of the mean Dice.
    best
        The weights are those of its best epoch; else those of the last one.
    """
    if not log.is_file():
        return ()
    with log.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get(metric)]
    dice = {int(row["epoch"]): float(row[metric]) for row in rows}
    if not dice:
        return ()
    highest = max(dice.values())
    epochs = [epoch for epoch, value in dice.items() if value == highest]
    if highest == 0:
        kept = f"; the best weights are those of epoch {epochs[0]} for no reason" if best else ""
        return (f"Dice of the validation samples was 0 after every epoch{kept}",)
    if best and len(epochs) > 1:
        listed = ", ".join(map(str, epochs))
        return (
            f"Dice of the validation samples was alike ({highest:g}) after the epochs {listed}; "
            f"the weights are those of epoch {epochs[0]}",
        )
    return ()
