"""Trainings that a benchmark's methods name: read, changed as the method says, and multiplied."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.models.automatic.trained import TrainedModel, is_trained_model, read_description
from napari_lungfm.training.automatic.config import AnyTraining, load_training, parse_training
from napari_lungfm.training.finetune.config import (
    FineTuning,
    is_fine_tuning,
    load_fine_tuning,
    parse_fine_tuning,
)

if TYPE_CHECKING:
    from napari_lungfm.benchmark.methods import MethodSpec

__all__ = ["Fit", "fits_of", "is_fine_tuning", "read_training"]


@dataclass(frozen=True)
class Fit:
    """One fine-tuning of a method.

    Parameters
    ----------
    training
        Its configuration.
    model
        Name of the base in tables.
    base
        The base: a name of the catalogue or a folder.
    earlier
        What is known of a base that was trained here.
    """

    training: FineTuning
    model: str
    base: str
    earlier: TrainedModel | None


def read_training(spec: "MethodSpec", source: str) -> AnyTraining:
    """Return the training of an automatic model that a method names.

    Parameters
    ----------
    spec
        The method.
    source
        Its file, or the name of a shipped configuration.

    Raises
    ------
    LungFMError
        If it cannot be read, is not valid, or the method asks for what goes with fine-tunings.
    """
    for key in ("prompts", "fraction", "seeds"):
        if getattr(spec, key) is not None:
            msg = f"{key}: '{spec.train}' trains an automatic model; it goes with a fine-tuning"
            raise ConfigError(msg)
    training = load_training(source)
    if spec.settings:
        values = _changed(training.model_dump(mode="json", exclude_unset=True), spec.settings)
        training = parse_training(values, where=f"'{spec.train}' with settings")
    _refuse_cohort(spec, training)
    return training


def fits_of(spec: "MethodSpec", source: str, base: Path) -> tuple[Fit, ...]:
    """Return the fine-tunings of a method: one for every part of the patients and every seed.

    Parameters
    ----------
    spec
        The method.
    source
        Its file, or the name of a shipped configuration.
    base
        Folder that relative paths count from.

    Raises
    ------
    LungFMError
        If the configuration cannot be read or is not valid.
    """
    known = load_fine_tuning(source)
    changes = dict(spec.settings)
    if spec.prompts is not None:
        changes["prompts"] = spec.prompts
    where = f"'{spec.train}'" + (" with settings" if changes else "")
    known = parse_fine_tuning(
        _changed(known.model_dump(mode="json", exclude_unset=True), changes), where=where
    )
    _refuse_cohort(spec, known)
    folder = base / known.base
    earlier = read_description(folder) if is_trained_model(folder) else None
    return tuple(
        Fit(
            known.model_copy(update={"fraction": percent, "seed": seed}),
            known.base if earlier is None else earlier.title,
            known.base if earlier is None else str(folder.resolve()),
            earlier,
        )
        for percent in [100 * part for part in spec.fractions] or [known.fraction]
        for seed in spec.seeds or (known.seed,)
    )


def _refuse_cohort(spec: "MethodSpec", training: AnyTraining | FineTuning) -> None:
    if training.cohort is not None:
        msg = (
            f"the training '{spec.train}' names a cohort; a benchmark trains on its own: leave it "
            "out"
        )
        raise ConfigError(msg)


def _changed(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with changes; mappings in mappings are changed key by key."""
    result = dict(values)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = value
        if isinstance(old, dict) and isinstance(value, Mapping):
            # Another recipe, network, ... brings options of its own.
            same = all(value.get(k, old.get(k)) == old.get(k) for k in ("name", "kind"))
            result[key] = _changed(old, value) if same else dict(value)
    return result
