"""One unit: a case segmented by a method, scored, and its cost."""

import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from napari_lungfm._core.environment import hardware, package_versions
from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.measure import Meter
from napari_lungfm._core.seeding import generator
from napari_lungfm.benchmark.plan import Unit
from napari_lungfm.benchmark.records import (
    Cost,
    InteractionResult,
    Record,
    SliceScore,
    StructureResult,
    ZhuResult,
)
from napari_lungfm.datasets.cases import Case
from napari_lungfm.evaluation.prompt_protocols import parse_protocol
from napari_lungfm.evaluation.scoring import StructureScores, score_label_maps
from napari_lungfm.evaluation.shared_model import FeatureUse, SharedModel
from napari_lungfm.evaluation.simulation import Simulation, simulate
from napari_lungfm.evaluation.zhu_validation import ZhuValidation, evaluated_slices, validate
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Structure, Volume, axis_codes
from napari_lungfm.models.prompts import Prompt, to_dict
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.models.registry import create_model, model_card

_SCORES = set(StructureResult.model_fields) - {"structure", "prompts", "interactions", "slices"}


class Models:
    """The models of a run; the one used last stays loaded, since weights take time to read.

    It also stays open on the case, so that the next unit finds the slices encoded.

    Parameters
    ----------
    device
        Where foundation models run.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._held: tuple[str, PromptableModel] | None = None
        self._opened: SharedModel | None = None

    def open(self, unit: Unit, volume: Volume) -> SharedModel:
        """Return the model of a unit, opened on the case; what it does now counts for the unit."""
        if self._held is None or self._held[0] != unit.model_id:
            self.close_case()
            self._held = None  # two large models need not fit into memory together
            here = self._device if model_card(unit.key.model).kind == "foundation" else "auto"
            model = create_model(unit.key.model, device=here, **unit.options)
            self._held = (unit.model_id, model)
        if self._opened is None or self._opened.volume is not volume:
            self.close_case()
            self._opened = SharedModel(self._held[1], volume)
        self._opened.begin()
        return self._opened

    def close_case(self) -> None:
        """Forget what was made of the case; the model stays."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def do_unit(
    unit: Unit, case: Case, case_hash: str, targets: tuple[Structure, ...], models: Models
) -> tuple[Record, LabelMap]:
    """Segment and score; whatever the model raises becomes a failed record.

    Parameters
    ----------
    unit
        What to do.
    case
        Its case.
    case_hash
        Hash of the case, for the record.
    targets
        The structures that the run is about; those that the case has are segmented.
    models
        Gives the model.

    Returns
    -------
    tuple of (Record, LabelMap)
        The record without its mask file, and the mask on the grid of the case.
    """
    wanted = [structure for structure in targets if structure in case.structures]
    done: dict[Structure, Simulation | ZhuValidation] = {}
    error: str | None = None
    use: FeatureUse | None = None
    meter = Meter()
    try:
        # Loading weights is not part of a unit's time: which unit loads them is chance.
        model = models.open(unit, case.volume)
        with meter:
            for structure in wanted:
                done[structure] = _delineate(unit, model, case, structure)
        use = model.use
    # A model is other people's code: one that fails on one case must not end a long run.
    except Exception as problem:  # noqa: BLE001
        error = one_line(problem)
    # A failure is scored as an empty prediction, as the protocol says.
    label_map = _label_map(case, done if error is None else {})
    record = make_record(
        unit,
        case,
        _cost(unit, meter, use, [p for each in done.values() for p in each.prompts]),
        case_hash=case_hash,
        error=error,
        **_results(unit, case, wanted, done, label_map),
    )
    return record, label_map


def _delineate(
    unit: Unit, model: PromptableModel, case: Case, structure: Structure
) -> Simulation | ZhuValidation:
    # The stream does not depend on the model: every method sees the same user.
    rng = generator(unit.key.seed, case.name, unit.key.protocol, structure.title)
    protocol = parse_protocol(unit.key.protocol)
    reference = case.reference.mask(int(structure))
    if protocol.validation:
        slices = evaluated_slices(case.reference)
        return validate(model, case.volume, reference, slices, protocol, rng)
    return simulate(model, case.volume, reference, protocol, rng)


def _label_map(case: Case, done: dict[Structure, Simulation | ZhuValidation]) -> LabelMap:
    array = np.zeros(case.volume.shape, dtype=np.uint8)
    for structure, result in done.items():
        # In the order of the structures: the tumour comes last and wins where they overlap.
        array[result.mask] = int(structure)
    return LabelMap(array, case.volume.geometry, LUNG_LABELS)


def _cost(unit: Unit, meter: Meter, use: FeatureUse | None, prompts: list[Prompt]) -> Cost:
    return Cost(
        seconds=meter.seconds,
        peak_rss_mb=meter.peak_rss_mb,
        n_prompts=len(prompts),
        parameters=model_card(unit.key.model).parameters,
        slices_encoded=None if use is None else use.encoded,
        slices_reused=None if use is None else use.reused,
        saved_seconds=0.0 if use is None else use.saved_seconds,
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
    if parse_protocol(unit.key.protocol).validation:
        # An empty prediction would be worth something here, and a failure is not.
        finished = len(done) == len(wanted)
        found = [(s, r) for s, r in done.items() if finished and isinstance(r, ZhuValidation)]
        return {"zhu": tuple(_zhu_result(structure, result) for structure, result in found)}
    scores = score_label_maps(label_map, case.reference, wanted)
    return {
        "structures": tuple(
            _result(structure, scores[structure], case, done.get(structure)) for structure in wanted
        )
    }


def _result(
    structure: Structure,
    scores: StructureScores,
    case: Case,
    simulation: Simulation | ZhuValidation | None,
) -> StructureResult:
    looks = simulation.interactions if isinstance(simulation, Simulation) else ()
    prompts = simulation.prompts if simulation is not None else ()
    return StructureResult(
        structure=structure.title,
        prompts=tuple(to_dict(prompt) for prompt in prompts),
        interactions=tuple(InteractionResult(**asdict(look)) for look in looks),
        slices=_slice_scores(scores, case),
        **{name: value for name, value in scores.to_dict().items() if name in _SCORES},
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
    error: str | None = None,
) -> Record:
    """Put a record together, of now and of this machine."""
    return Record(
        key=unit.key,
        fingerprint=unit.fingerprint,
        status="ok" if error is None else "failed",
        error=error,
        options=unit.options,
        structures=structures,
        zhu=zhu,
        case_hash=case_hash,
        case_shape=case.volume.shape if case else (0, 0, 0),
        case_spacing_mm=case.volume.spacing if case else (0.0, 0.0, 0.0),
        case_attributes=dict(case.attributes) if case else {},
        case_notes=tuple(case.volume.metadata.get("notes", ())) if case else (),
        mask_file=None,
        cost=cost,
        versions=package_versions(),
        hardware=hardware(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line, with its kind where it is not one of ours."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, LungFMError) else f"{type(error).__name__}: {text}"
