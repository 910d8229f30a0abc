"""What a run writes down: one record per unit, in a versioned schema.

A *unit* is one case under one method (model + training state + prompt protocol) with one seed.
`Record` holds everything that a report needs and everything that replaying the unit needs.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_lungfm._core.exceptions import LungFMError

#: Version of the record files; readers refuse newer ones.
RECORD_SCHEMA = 3

_MODEL_CONFIG = ConfigDict(extra="forbid", frozen=True)


class UnitKey(BaseModel):
    """Identifies a unit in tables.

    ``model`` is the name of the model; ``label`` stands for it in tables where it is given.
    ``state`` is ``"zero-shot"`` for models as they were published, ``"trained"`` for automatic
    models that were trained here, ``"small"`` for those of them that were trained with a preset
    for demonstrations, and what `benchmark.states` writes for fine-tuned ones.
    """

    model_config = _MODEL_CONFIG

    cohort: str
    case: str
    model: str
    label: str | None = None
    state: str = "zero-shot"
    protocol: str
    seed: int

    @property
    def method(self) -> str:
        """Title in tables: label or model, and the training state where it must be said."""
        return shown_title(self.label or self.model, self.state)


def shown_title(title: str, state: str) -> str:
    """Return the title of a method in tables.

    ``small`` is always said, unless the title says so itself.
    """
    said = state in re.split(r"[^a-z0-9]+", title.lower())
    return title if state in ("zero-shot", "trained") or said else f"{title} ({state})"


def with_fallback(title: str, stood_in: object) -> str:
    """Return the title of a method in tables, with the name of the model that stood in for it.

    ``stood_in`` is no text, or empty, where none did.
    """
    return f"{title} (by {stood_in})" if stood_in and isinstance(stood_in, str) else title


class SliceScore(BaseModel):
    """Overlap on one slice; slices where both masks are empty are not listed."""

    model_config = _MODEL_CONFIG

    z: int
    dice: float
    iou: float


class InteractionResult(BaseModel):
    """Dice after the first prompts or after a correction, and what the model took for it."""

    model_config = _MODEL_CONFIG

    n_prompts: int
    dice: float
    seconds: float


class StructureResult(BaseModel):
    """Scores of one structure; ``None`` stands for undefined (see the protocol's empty rules).

    ``note`` says what a reader must know of how the mask came about, such as that an automatic
    method found nothing to prompt.
    """

    model_config = _MODEL_CONFIG

    structure: str
    dice: float | None
    iou: float | None
    hd95_mm: float | None
    nsd_1mm: float | None
    nsd_2mm: float | None
    volume_ml: float
    reference_volume_ml: float
    volume_difference_ml: float
    slice_dice_mean: float | None
    slice_iou_mean: float | None
    n_reference_slices: int
    slices_beyond_low: int
    slices_beyond_high: int
    volume_beyond_ml: float
    slices: tuple[SliceScore, ...] = ()
    prompts: tuple[dict[str, Any], ...] = ()
    interactions: tuple[InteractionResult, ...] = ()
    note: str | None = None


class ZhuResult(BaseModel):
    """What the validation of Medical SAM 2's code says of one structure.

    Quantities of its own (`evaluation.zhu_validation`), never to be set beside those of
    `StructureResult`. ``None`` where no slice that was evaluated (or, for ``iou_absent``, none
    without the structure) can say. ``slices`` has every evaluated slice. Where ``with_logits`` is
    false the model's mask stood for all thresholds; ``None`` where it was not asked.
    """

    model_config = _MODEL_CONFIG

    structure: str
    iou: float | None
    dice: float | None
    n_slices: int
    n_present: int
    iou_present: float | None
    dice_present: float | None
    iou_absent: float | None
    with_logits: bool | None
    slices: tuple[SliceScore, ...] = ()
    prompts: tuple[dict[str, Any], ...] = ()


class Cost(BaseModel):
    """What the unit cost on the machine that ran it.

    ``slices_encoded`` of a model with an encoder went through it in this unit, another
    ``slices_reused`` were there from earlier units of the case, which saved ``saved_seconds``.
    ``automatic_seconds`` is what the automatic mask took that the prompts come from: it is made
    once for a case, and every unit that draws from it pays the whole. ``macs`` are the
    multiply-accumulates of all networks over the whole unit, as if it had been run alone (slices
    that were reused and an automatic mask that the prompts come from included); ``None`` where
    they were not counted: of models without a network, and of cases where counting, which takes
    another run, was left out. ``peak_gpu_mb`` is the largest memory of tensors on the GPU (MiB);
    ``None`` of units that used none. On Apple's it is what the driver holds when the unit ends.
    """

    model_config = _MODEL_CONFIG

    seconds: float
    peak_rss_mb: float | None
    peak_gpu_mb: float | None = None
    n_prompts: int
    parameters: int | None
    slices_encoded: int | None = None
    slices_reused: int | None = None
    saved_seconds: float = 0.0
    automatic_seconds: float = 0.0
    macs: int | None = None

    @property
    def alone_seconds(self) -> float:
        """Time of the unit if it had been the only one: measured, saved, and of the prompts."""
        return self.seconds + self.saved_seconds + self.automatic_seconds


class Record(BaseModel):
    """One finished or failed unit.

    ``structures`` has the scores, ``zhu`` those of a unit under ``zhu-validation``; never both.
    ``notes`` say what else a reader must know, such as that a fallback stood in for the model.
    ``tries`` counts how often the unit was tried, failures included. ``weights`` has the sha256 of
    every file that the model was made from (none of models without weights), ``config_hash`` that
    of the configuration as ``config.yaml`` had it when the unit was done. Schema 2 had neither.
    """

    model_config = _MODEL_CONFIG

    schema_version: Annotated[int, Field(le=RECORD_SCHEMA)] = RECORD_SCHEMA
    key: UnitKey
    fingerprint: str
    status: Literal["ok", "failed"]
    error: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    structures: tuple[StructureResult, ...]
    zhu: tuple[ZhuResult, ...] = ()
    weights: dict[str, str] = Field(default_factory=dict)
    config_hash: str = ""
    case_hash: str
    case_shape: tuple[int, int, int]
    case_spacing_mm: tuple[float, float, float]
    case_attributes: dict[str, Any]
    case_notes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mask_file: str | None
    cost: Cost
    tries: Annotated[int, Field(ge=1)] = 1
    versions: dict[str, str]
    hardware: dict[str, str]
    finished: str


_STOOD_IN = re.compile(r"segmented by '(?P<model>.+)', which stood in for '.+'")


def note_of_fallback(model: str, wanted: str) -> str:
    """Return the note of a record whose mask another model made than the one that was asked for.

    Parameters
    ----------
    model, wanted
        Names of the model that did it and of the one that was to.
    """
    return f"segmented by '{model}', which stood in for '{wanted}'"


def stood_in(record: Record) -> str | None:
    """Return the name of the model that stood in for that of a record; ``None`` if none did."""
    found = (_STOOD_IN.fullmatch(note) for note in record.notes)
    return next((match["model"] for match in found if match), None)


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line, with its kind where it is not one of ours."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, LungFMError) else f"{type(error).__name__}: {text}"
