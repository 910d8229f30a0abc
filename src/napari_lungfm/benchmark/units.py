"""One unit: a case segmented by a method, scored, and its cost."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from napari_lungfm._core.environment import hardware, package_versions
from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm._core.seeding import generator
from napari_lungfm.benchmark.loaded import AutomaticMask, Models
from napari_lungfm.benchmark.meter import UnitMeter
from napari_lungfm.benchmark.plan import Unit
from napari_lungfm.benchmark.records import (
    Cost,
    InteractionResult,
    Record,
    SliceScore,
    StructureResult,
    ZhuResult,
    note_of_fallback,
    one_line,
)
from napari_lungfm.datasets.cases import Case
from napari_lungfm.evaluation.prompt_protocols import is_zhu_validation, parse_protocol
from napari_lungfm.evaluation.scoring import StructureScores, score_label_maps
from napari_lungfm.evaluation.shared_model import FeatureUse
from napari_lungfm.evaluation.simulation import Simulation, simulate
from napari_lungfm.evaluation.zhu_validation import ZhuValidation, evaluated_slices, validate
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Structure, axis_codes
from napari_lungfm.models.macs import count_macs
from napari_lungfm.models.prompts import to_dict
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.models.registry import model_card

_NOT_SCORES = {"structure", "prompts", "interactions", "slices", "note"}
_SCORES = set(StructureResult.model_fields) - _NOT_SCORES


@dataclass
class _Work:
    """What came of a unit's work so far."""

    done: dict[Structure, Simulation | ZhuValidation] = field(default_factory=dict)
    use: FeatureUse | None = None
    automatic_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def do_unit(
    unit: Unit, case: Case, case_hash: str, models: Models, prompted_by: AutomaticMask | None = None
) -> tuple[Record, LabelMap]:
    """Segment and score; whatever the model raises becomes a failed record.

    Parameters
    ----------
    unit
        What to do. Of its structures, those that the case has are scored.
    case
        Its case.
    case_hash
        Hash of the case, for the record.
    models
        Gives the model.
    prompted_by
        What the prompts are drawn from in place of the reference, where the protocol says so.

    Returns
    -------
    tuple of (Record, LabelMap)
        The record without its mask file, and the mask on the grid of the case.
    """
    wanted = [structure for structure in unit.structures if structure in case.structures]
    work = _Work()
    error: str | None = None
    meter = UnitMeter()
    try:
        if unit.problem is not None:
            raise DataError(unit.problem)
        if not wanted:
            work.notes.append(_nothing_to_score(unit))
        else:
            _compute(unit, case, wanted, models, meter, prompted_by, work)
    # A model is other people's code: one that fails on one case must not end a long run.
    except Exception as problem:  # noqa: BLE001
        error = one_line(problem)
    # A failure is scored as an empty prediction, as the protocol says.
    done = work.done
    label_map = _label_map(case, done if error is None else {})
    record = make_record(
        unit,
        case,
        _cost(unit, meter, work),
        case_hash=case_hash,
        error=error,
        notes=tuple(work.notes),
        **_results(unit, case, wanted, done, label_map),
    )
    return record, label_map


def count_unit(
    unit: Unit, case: Case, models: Models, prompted_by: AutomaticMask | None = None
) -> int | None:
    """Do a unit once more and count the multiply-accumulates of all its networks.

    It begins with nothing encoded, as if it ran alone. What made the mask that its prompts are
    drawn from is counted too.

    Parameters
    ----------
    unit, case, models, prompted_by
        See `do_unit`, which has done the unit without a failure.

    Returns
    -------
    int or None
        ``None`` where no network ran in this process, as of prompts alone.
    """
    wanted = [structure for structure in unit.structures if structure in case.structures]
    if not wanted or not model_card(unit.runs).parameters:
        return None
    models.close_case()
    macs, _ = count_macs(
        lambda: _compute(unit, case, wanted, models, UnitMeter(), prompted_by, _Work())
    )
    if prompted_by is None:
        return macs or None
    return None if prompted_by.macs is None or not macs else macs + prompted_by.macs


def _compute(
    unit: Unit,
    case: Case,
    wanted: list[Structure],
    models: Models,
    meter: UnitMeter,
    prompted_by: AutomaticMask | None,
    work: _Work,
) -> None:
    """Let the model of a unit do its work, with prompts or without."""
    if unit.automatic:
        _segment(unit, case, models, meter, work)
    else:
        _prompt(unit, case, wanted, models, meter, prompted_by, work)


def _segment(unit: Unit, case: Case, models: Models, meter: UnitMeter, work: _Work) -> None:
    """Let an automatic model segment the case: one run for all structures."""
    model = models.automatic(unit)  # loading weights is not part of a unit's time
    with meter:
        found = model.segment(case.volume)
    difference = found.geometry.difference(case.volume.geometry)
    if difference is not None:
        msg = f"'{model.name}' gave a mask on another grid than its image: {difference}"
        raise DataError(msg)
    for value, title in found.labels.items() or model.labels.items():
        structure = _structure(title)
        if structure is not None:
            work.done[structure] = Simulation(found.mask(value), (), ())
    if _is_fallback(unit.runs, model.name):
        work.notes.append(note_of_fallback(model.name, unit.key.model))


def _prompt(
    unit: Unit,
    case: Case,
    wanted: list[Structure],
    models: Models,
    meter: UnitMeter,
    prompted_by: AutomaticMask | None,
    work: _Work,
) -> None:
    """Let a simulated user delineate one structure after the other."""
    if prompted_by is not None:
        work.automatic_seconds = prompted_by.seconds
    model = models.open(unit, case.volume)  # loading weights is not part of a unit's time
    with meter:
        for structure in wanted:
            work.done[structure] = _delineate(unit, model, case, structure, prompted_by)
    work.use = model.use


def _delineate(
    unit: Unit,
    model: PromptableModel,
    case: Case,
    structure: Structure,
    prompted_by: AutomaticMask | None,
) -> Simulation | ZhuValidation:
    # The stream does not depend on the model: every method sees the same user.
    rng = generator(unit.key.seed, case.name, unit.key.protocol, structure.title)
    protocol = parse_protocol(unit.key.protocol)
    reference = case.reference.mask(int(structure))
    if protocol.validation:
        slices = evaluated_slices(case.reference)
        return validate(model, case.volume, reference, slices, protocol, rng)
    source = None
    if prompted_by is not None:
        source = prompted_by.mask(structure, case.volume.shape)
    return simulate(model, case.volume, reference, protocol, rng, drawn_from=source)


def _structure(title: str) -> Structure | None:
    try:
        return Structure.from_title(title)
    except UsageError:
        return None


def _is_fallback(asked: str, ran: str) -> bool:
    return "classical" in ran and "classical" not in asked


def _nothing_to_score(unit: Unit) -> str:
    listed = ", ".join(structure.title for structure in unit.structures)
    return f"nothing to score: the reference of this case has none of: {listed}"


def _label_map(case: Case, done: Mapping[Structure, Simulation | ZhuValidation]) -> LabelMap:
    array = np.zeros(case.volume.shape, dtype=np.uint8)
    for structure, result in sorted(done.items()):
        # In the order of the structures: the tumour comes last and wins where they overlap.
        array[result.mask] = int(structure)
    return LabelMap(array, case.volume.geometry, LUNG_LABELS)


def _cost(unit: Unit, meter: UnitMeter, work: _Work) -> Cost:
    use = work.use
    return Cost(
        seconds=meter.seconds,
        peak_rss_mb=meter.peak_rss_mb,
        peak_gpu_mb=meter.peak_gpu_mb,
        n_prompts=sum(len(each.prompts) for each in work.done.values()),
        parameters=None if unit.problem is not None else model_card(unit.runs).parameters,
        slices_encoded=None if use is None else use.encoded,
        slices_reused=None if use is None else use.reused,
        saved_seconds=0.0 if use is None else use.saved_seconds,
        automatic_seconds=work.automatic_seconds,
    )


# ---------------------------------------------------------------------- scores
def _results(
    unit: Unit,
    case: Case,
    wanted: list[Structure],
    done: dict[Structure, Simulation | ZhuValidation],
    label_map: LabelMap,
) -> dict[str, Any]:
    """Return the fields of the record that hold scores: ours, or those of the validation."""
    if is_zhu_validation(unit.key.protocol):
        # An empty prediction would be worth something here, and a failure is not.
        finished = len(done) == len(wanted)
        found = [(s, r) for s, r in done.items() if finished and isinstance(r, ZhuValidation)]
        return {"zhu": tuple(_zhu_result(structure, result) for structure, result in found)}
    scores = score_label_maps(label_map, case.reference, wanted)
    return {
        "structures": tuple(
            _result(structure, scores[structure], case, done.get(structure), unit)
            for structure in wanted
        )
    }


def _result(
    structure: Structure,
    scores: StructureScores,
    case: Case,
    simulation: Simulation | ZhuValidation | None,
    unit: Unit,
) -> StructureResult:
    looks = simulation.interactions if isinstance(simulation, Simulation) else ()
    prompts = simulation.prompts if simulation is not None else ()
    return StructureResult(
        structure=structure.title,
        prompts=tuple(to_dict(prompt) for prompt in prompts),
        interactions=tuple(InteractionResult(**asdict(look)) for look in looks),
        slices=_slice_scores(scores, case),
        note=_note(structure, simulation, unit),
        **{name: value for name, value in scores.to_dict().items() if name in _SCORES},
    )


def _note(
    structure: Structure, simulation: Simulation | ZhuValidation | None, unit: Unit
) -> str | None:
    if simulation is None or unit.prompted_by is None or simulation.prompts:
        return None
    return (
        f"nothing to prompt: '{unit.prompted_by.key.method}' found no {structure.title}; "
        "the prediction is empty"
    )


def _slice_scores(scores: StructureScores, case: Case) -> tuple[SliceScore, ...]:
    """Scores by the case's own slice numbers; they were computed on axial slices, feet first."""
    geometry = case.volume.geometry
    upside_down = axis_codes(geometry)[0] == "I"
    own = {geometry.shape[0] - 1 - z if upside_down else z: d for z, d in scores.slice_dice.items()}
    # On one slice IoU = Dice / (2 - Dice), both being functions of the same three counts.
    return tuple(
        SliceScore(z=z, dice=dice, iou=dice / (2.0 - dice)) for z, dice in sorted(own.items())
    )


def _zhu_result(structure: Structure, result: ZhuValidation) -> ZhuResult:
    scores = result.scores
    rows = zip(scores.z, scores.slice_dice, scores.slice_iou, strict=True)
    return ZhuResult(
        structure=structure.title,
        iou=_or_none(scores.iou),
        dice=_or_none(scores.dice),
        n_slices=len(scores.z),
        n_present=scores.n_present,
        iou_present=_or_none(scores.iou_present),
        dice_present=_or_none(scores.dice_present),
        iou_absent=_or_none(scores.iou_absent),
        with_logits=result.with_logits,
        slices=tuple(SliceScore(z=z, dice=dice, iou=iou) for z, dice, iou in rows),
        prompts=tuple(to_dict(prompt) for prompt in result.prompts),
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


# ---------------------------------------------------------------------- records
def unread_record(unit: Unit, error: BaseException) -> Record:
    """Return the record of a unit whose case could not be read; it has no scores."""
    cost = Cost(seconds=0.0, peak_rss_mb=None, n_prompts=0, parameters=None)
    return make_record(unit, None, cost, error=one_line(error))


def make_record(
    unit: Unit,
    case: Case | None,
    cost: Cost,
    *,
    structures: tuple[StructureResult, ...] = (),
    zhu: tuple[ZhuResult, ...] = (),
    case_hash: str = "",
    notes: tuple[str, ...] = (),
    error: str | None = None,
) -> Record:
    """Put a record together, of now and of this machine."""
    return Record(
        key=unit.key,
        fingerprint=unit.fingerprint,
        status="ok" if error is None else "failed",
        error=error,
        options=unit.options,
        weights=dict(unit.weights),
        config_hash=unit.config_hash,
        structures=structures,
        zhu=zhu,
        case_hash=case_hash,
        case_shape=case.volume.shape if case else (0, 0, 0),
        case_spacing_mm=case.volume.spacing if case else (0.0, 0.0, 0.0),
        case_attributes=dict(case.attributes) if case else {},
        case_notes=tuple(case.volume.metadata.get("notes", ())) if case else (),
        notes=notes,
        mask_file=None,
        cost=cost,
        versions=package_versions(),
        hardware=hardware(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
