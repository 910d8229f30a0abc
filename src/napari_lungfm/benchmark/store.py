"""The folder of a run: what lies where, written whole or not at all.

::

    OUT/config.yaml                 the configuration as it was understood
    OUT/plan.json                   the units of the run, in order
    OUT/records/<unit>.json         one record per unit (`benchmark.records`)
    OUT/masks/<unit>.nii.gz         the predicted label map of the unit
    OUT/trainings/<training>/       the folder of each model that was trained for the run
    OUT/images.json                 hashes of the images, by which patients are known
    OUT/radii.json                  mean tumour sizes of training parts (`benchmark.radii`)
    OUT/previews/<cohort>--<case>.npz   a few slices of each case, for overlays in the report
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from napari_lungfm._core.exceptions import InputFileError
from napari_lungfm._core.files import make_folder, slug, write_json, write_text
from napari_lungfm._core.types import PathInput
from napari_lungfm.benchmark.records import Record, StructureResult, UnitKey, ZhuResult, stood_in
from napari_lungfm.evaluation.corrections import DICE_TARGETS, effort
from napari_lungfm.evaluation.prompt_protocols import is_zhu_validation, parse_protocol

PLAN_SCHEMA = 1


@dataclass(frozen=True)
class RunFolder:
    """Paths and records of one run.

    Parameters
    ----------
    root
        The folder; `create` makes it, `open` wants it to hold a run.
    """

    root: Path

    @classmethod
    def create(cls, root: PathInput) -> "RunFolder":
        """Make the folder, or take one that exists, and make sure that it can be written to."""
        folder = cls(Path(root))
        for path in (folder.root, folder.records, folder.masks, folder.previews):
            make_folder(path)
        return folder

    @classmethod
    def open(cls, root: PathInput) -> "RunFolder":
        """Open the folder of a run.

        Raises
        ------
        InputFileError
            If it holds no run.
        """
        folder = cls(Path(root))
        if not folder.plan_file.is_file():
            msg = f"'{root}' is not the folder of a run (it has no plan.json); make one with: run"
            raise InputFileError(msg)
        return folder

    @property
    def records(self) -> Path:
        """Folder of the records."""
        return self.root / "records"

    @property
    def masks(self) -> Path:
        """Folder of the predicted label maps."""
        return self.root / "masks"

    @property
    def previews(self) -> Path:
        """Folder of the case previews."""
        return self.root / "previews"

    @property
    def trainings(self) -> Path:
        """Folder of the models that were trained for the run."""
        return self.root / "trainings"

    @property
    def images_file(self) -> Path:
        """Hashes of the images (`benchmark.seen`)."""
        return self.root / "images.json"

    @property
    def radii_file(self) -> Path:
        """Mean tumour sizes of training parts (`benchmark.radii`)."""
        return self.root / "radii.json"

    @property
    def config_file(self) -> Path:
        """The configuration."""
        return self.root / "config.yaml"

    @property
    def plan_file(self) -> Path:
        """The list of units."""
        return self.root / "plan.json"

    def record_file(self, key: UnitKey, fingerprint: str) -> Path:
        """Where the record of a unit lies."""
        return self.records / f"{unit_name(key, fingerprint)}.json"

    def mask_file(self, key: UnitKey, fingerprint: str) -> Path:
        """Where the mask of a unit lies."""
        return self.masks / f"{unit_name(key, fingerprint)}.nii.gz"

    def preview_file(self, cohort: str, case: str) -> Path:
        """Where the preview of a case lies."""
        return self.previews / f"{slug(cohort)}--{slug(case)}.npz"

    def write_plan(self, config_yaml: str, units: Iterable[tuple[UnitKey, str]]) -> None:
        """Write the configuration and the units with their fingerprints."""
        write_text(self.config_file, config_yaml)
        rows = [{"key": key.model_dump(), "fingerprint": mark} for key, mark in units]
        write_json(self.plan_file, {"schema_version": PLAN_SCHEMA, "units": rows})

    def read_plan(self) -> list[tuple[UnitKey, str]]:
        """Read the units of the run back, in order."""
        try:
            plan = json.loads(self.plan_file.read_text(encoding="utf-8"))
            if plan["schema_version"] > PLAN_SCHEMA:
                msg = f"'{self.plan_file}' was written by a newer version of napari-lungfm"
                raise InputFileError(msg)
            return [(UnitKey(**row["key"]), row["fingerprint"]) for row in plan["units"]]
        except (OSError, KeyError, TypeError, json.JSONDecodeError, ValidationError) as error:
            if isinstance(error, InputFileError):
                raise
            msg = f"'{self.plan_file}' cannot be read ({_one_line(error)}); run again to mend it"
            raise InputFileError(msg) from error

    def read_record(self, key: UnitKey, fingerprint: str) -> Record | None:
        """Return the record of a unit, or ``None`` if it has not been finished.

        A damaged record counts as not finished: the unit is done again.
        """
        path = self.record_file(key, fingerprint)
        try:
            record = Record.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None
        return record if record.fingerprint == fingerprint else None

    def write_record(self, record: Record) -> None:
        """Write one record."""
        write_text(
            self.record_file(record.key, record.fingerprint), record.model_dump_json(indent=1)
        )

    def load(self) -> list[Record]:
        """Return the records of all finished units of the plan, in plan order."""
        found = (self.read_record(key, mark) for key, mark in self.read_plan())
        return [record for record in found if record is not None]


def unit_name(key: UnitKey, fingerprint: str) -> str:
    """Return the file name stem of a unit: readable, safe on every file system, unique."""
    parts = (key.cohort, key.case, key.method, key.protocol, f"s{key.seed}")
    return "--".join(slug(part) for part in parts) + f"--{fingerprint[:10]}"


def results_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return scores as a tidy table: one row per unit and structure.

    Holds only what a repeated run reproduces exactly (no times), so that two runs can be
    compared as files. Undefined scores are NaN. Columns: the fields of `UnitKey`, ``method``,
    ``status``, ``error``, ``structure``, every score of `StructureResult`, ``note`` (those of the
    record and of the structure), ``stood_in`` (`records.stood_in`), ``n_prompts``, what the effort
    of corrections bought (`evaluation.corrections.Effort`; NaN for protocols without) and
    ``case_<attribute>``.
    """
    rows = []
    for record in records:
        attributes = {f"case_{name}": value for name, value in record.case_attributes.items()}
        for result in record.structures:
            scores = result.model_dump(exclude={"slices", "prompts", "interactions"})
            rows.append(
                {
                    **record.key.model_dump(),
                    "method": record.key.method,
                    "status": record.status,
                    "error": record.error,
                    **scores,
                    "note": "; ".join(filter(None, (*record.notes, result.note))) or None,
                    "stood_in": stood_in(record),
                    "n_prompts": len(result.prompts),
                    **_effort_columns(record.key.protocol, result),
                    **attributes,
                }
            )
    return _as_numbers(pd.DataFrame(rows))


def zhu_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return what units under ``zhu-validation`` scored: one row per unit and structure.

    Apart from `results_frame`, because it is another quantity. A unit that failed has one row
    without scores, for there is no rule that scores it. Columns: the fields of `UnitKey`,
    ``method``, ``status``, ``error``, the fields of `ZhuResult` but slices and prompts,
    ``share_present``, ``empty_iou`` (what an empty prediction scores, ``1 − share_present``) and
    ``n_prompts``. Empty without such units.
    """
    rows = []
    for record in records:
        if not is_zhu_validation(record.key.protocol):
            continue
        head = {
            **record.key.model_dump(),
            "method": record.key.method,
            "status": record.status,
            "error": record.error,
        }
        for result in record.zhu:
            share = result.n_present / result.n_slices if result.n_present else None
            rows.append(
                {
                    **head,
                    **result.model_dump(exclude={"slices", "prompts"}),
                    "share_present": share,
                    "empty_iou": None if share is None else 1.0 - share,
                    "n_prompts": len(result.prompts),
                }
            )
        if not record.zhu:
            rows.append({**head, "structure": None})
    results = [name for name in ZhuResult.model_fields if name not in ("slices", "prompts")]
    columns = [*UnitKey.model_fields, "method", "status", "error", *results]
    columns += ["share_present", "empty_iou", "n_prompts"]
    return _as_numbers(pd.DataFrame(rows, columns=columns))


def _effort_columns(protocol: str, result: StructureResult) -> dict[str, float | None]:
    """Columns of one structure that tell what corrections bought."""
    names = [f"interactions_to_{target:.2f}" for target in DICE_TARGETS]
    # Automatic models have no protocol that could be parsed, and one look gives no curve.
    if "corrections-" not in protocol:
        return dict.fromkeys(["first_dice", "effort_area", *names])
    allowed = parse_protocol(protocol).corrections
    # A unit that failed counts as an empty prediction after every interaction.
    found = effort([look.dice for look in result.interactions] or [0.0], allowed)
    reached = dict(zip(names, found.to_reach.values(), strict=True))
    return {"first_dice": found.dice[0], "effort_area": found.area, **reached}


def costs_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return what each unit cost: one row per unit, `Cost` fields, hardware and time.

    ``seconds`` was measured; ``alone_seconds`` is what the unit would have taken without what
    earlier units had encoded.
    """
    rows = [
        {
            **record.key.model_dump(),
            "method": record.key.method,
            "status": record.status,
            **record.cost.model_dump(),
            "alone_seconds": record.cost.alone_seconds,
            "n_slices": record.case_shape[0],
            "cpu": record.hardware.get("cpu", ""),
            "finished": record.finished,
        }
        for record in records
    ]
    return _as_numbers(pd.DataFrame(rows))


def _as_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Make columns of numbers and ``None`` floating-point columns with NaN."""
    for name in frame.columns:
        values = frame[name]
        if values.dtype == object:
            known = values.dropna()
            numeric = known.map(lambda v: isinstance(v, int | float) and not isinstance(v, bool))
            if len(known) == 0 or numeric.all():
                frame[name] = values.astype(float) if name != "error" else values
    return frame


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
