"""What was compared on what: the paper's Table I, the cohorts, and what models may have seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report.columns import DASH, number
from napari_lungfm.benchmark.report.header import CohortNote, cohort_specs
from napari_lungfm.benchmark.report.paper import paper_cohort
from napari_lungfm.benchmark.report.scores import TUMOUR
from napari_lungfm.benchmark.states import training_percent
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS
from napari_lungfm.models.catalogue import checkpoint_card
from napari_lungfm.models.registry import model_card

#: The paper's cohorts, section III: patients of all, trained on and tested on.
PAPER_PATIENTS = {"Lung1": (304, 246, 58), "Task06": (63, 51, 12)}
_NOT_STATED = "not stated"
#: Models that have seen no image at all.
_NOTHING_TRAINED = "none: nothing was trained"


@dataclass(frozen=True)
class ModelLine:
    """A line of Table I.

    Parameters
    ----------
    model, states
        What was run, and in which states of training.
    zero_shot, prompts
        Whether it can be used without training here, and takes prompts.
    training
        How its weights came about.
    training_data, leakage
        What it was trained on before, and what is known of public lung data among that.
    """

    model: str
    states: str
    zero_shot: bool
    prompts: bool
    training: str
    training_data: str
    leakage: str


def model_lines(records: Sequence[Record]) -> list[ModelLine]:
    """Return Table I: a line per model of the run."""
    found: dict[str, tuple[dict[str, None], bool]] = {}
    for record in records:
        key = record.key
        states, prompts = found.get(key.model, ({}, False))
        states[key.state] = None
        found[key.model] = (states, prompts or key.protocol != NO_PROMPTS)
    return [_line(model, list(states), prompts) for model, (states, prompts) in found.items()]


def _line(model: str, states: list[str], prompts: bool) -> ModelLine:
    trained = [state for state in states if state in ("trained", "small")]
    tuned = [state for state in states if training_percent(state)]
    data, leakage = _history(model)
    if trained:
        training = "scratch" + (", small preset" if "small" in trained else "")
        data, leakage = "the training part of the cohort", "none: refused for patients it has seen"
    elif tuned:
        training = "fine-tuned"
        leakage += "; of its fine-tuning none: refused for patients it has seen"
    else:
        training = "as published" if leakage != _NOTHING_TRAINED else "none"
    return ModelLine(
        model,
        ", ".join(states),
        zero_shot="zero-shot" in states,
        prompts=prompts,
        training=training,
        training_data=data,
        leakage=leakage,
    )


def _history(model: str) -> tuple[str, str]:
    """Say what a model was trained on before, and what public lung data may be among it."""
    try:
        card = checkpoint_card(model)
    except LungFMError:
        pass
    else:
        return card.training_data, card.leakage
    try:
        own = model_card(model)
    except LungFMError:
        return _NOT_STATED, _NOT_STATED
    if own.parameters == 0:
        return "nothing", _NOTHING_TRAINED
    if own.name == "lungfm-s":
        return "synthetic chest CTs (phantoms)", "none: no patient was among its training data"
    return _NOT_STATED, _NOT_STATED


def cohort_lines(
    notes: Sequence[CohortNote], units: pd.DataFrame, records: Sequence[Record], config_text: str
) -> list[dict[str, str]]:
    """Return a line per cohort: patients, images and volumes.

    Parameters
    ----------
    notes
        The cohorts.
    units
        `scores.scores_of`.
    records
        All units.
    config_text
        The configuration, which knows the training part.

    Returns
    -------
    list of dict
        ``cohort``, ``test``, ``train``, ``paper`` (patients of the paper's cohort), ``spacing``
        (mm, z × y × x), ``slices``, ``tumour`` and ``lungs`` (mL, median and range).
    """
    specs = cohort_specs(config_text)
    grids: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.case_shape[0]:
            grids.setdefault(record.key.cohort, {}).setdefault(record.key.case, record)
    lines = []
    for note in notes:
        cases = list(grids.get(note.name, {}).values())
        group = paper_cohort(note.name)
        lines.append(
            {
                "cohort": note.name,
                "test": str(note.n_planned),
                "train": _count_training(specs.get(note.name, {})),
                "paper": "{} ({} train, {} test)".format(*PAPER_PATIENTS[group]) if group else "",
                "spacing": _spacings(cases),
                "slices": _range([float(case.case_shape[0]) for case in cases], 0),
                "tumour": _volumes(units, note.name, [TUMOUR], 1),
                "lungs": _volumes(units, note.name, ["left lung", "right lung"], 0),
            }
        )
    return lines


def _count_training(spec: dict[str, Any]) -> str:
    if "n_train" in spec:
        return str(spec["n_train"])
    cases = spec.get("cases")
    if cases is None and "root" in spec:
        try:  # what `datasets prepare` left; the report works without it
            text = (Path(str(spec["root"])) / "cohort.yaml").read_text(encoding="utf-8")
            cases = (yaml.safe_load(text) or {}).get("cases")
        except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
            return DASH
    if not isinstance(cases, list):
        return DASH
    return str(sum(isinstance(case, dict) and case.get("part") == "train" for case in cases))


def _spacings(cases: Sequence[Record]) -> str:
    if not cases:
        return DASH
    table = np.array([case.case_spacing_mm for case in cases])
    low, high = table.min(axis=0), table.max(axis=0)
    parts = [
        f"{a:.2f}" if np.isclose(a, b, atol=5e-3) else f"{a:.2f} to {b:.2f}"
        for a, b in zip(low, high, strict=True)
    ]
    return " × ".join(parts)


def _volumes(units: pd.DataFrame, cohort: str, structures: list[str], digits: int) -> str:
    own = units[(units["cohort"] == cohort) & units["structure"].isin(structures)]
    each = own.groupby(["case", "structure"])["reference_volume_ml"].max().dropna()
    counted = each.groupby("case").agg(["sum", "size"])
    whole = counted.loc[counted["size"] == len(structures), "sum"]
    return _range(whole.tolist(), digits)


def _range(values: Sequence[float], digits: int) -> str:
    if not values:
        return DASH
    text = number(float(np.median(values)), digits)
    return f"{text} ({number(min(values), digits)} to {number(max(values), digits)})"
