"""The paper's Tables II, III and IV with our values beside the printed ones.

Rows are matched by model, training state, kind of prompt and cohort. Where the paper is silent (how
many prompts, on which slices), a prompt on every slice is taken for its, as in the protocol.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import pandas as pd

from napari_lungfm.benchmark.published import Cell, PublishedTables, read_paper
from napari_lungfm.benchmark.records import with_fallback
from napari_lungfm.benchmark.report.columns import BY_KEY, Column, Mark, marks
from napari_lungfm.benchmark.report.scores import AVERAGE, LUNGS, TUMOUR
from napari_lungfm.benchmark.states import training_percent
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS

#: The columns, in the paper's order: structure and score.
COLUMNS = tuple((s, k) for k in ("iou", "dice") for s in (LUNGS, TUMOUR, AVERAGE))
#: As many decimals as the paper prints.
DIGITS = 4
BOX, POINT = "box-every-slice", "point-every-slice"
#: Protocols that stand for the paper's prompts → its name of them in Tables III and IV.
PROMPTS = {BOX: "bounding box", POINT: "point"}
#: Cohort in the paper → how names of ours begin or what they hold, without punctuation.
_COHORTS = {"Lung1": ("lung1", "nsclcradiomics"), "Task06": ("task06",)}
#: Cohort in the paper → its table of training fractions.
FRACTION_TABLES = {"Lung1": "Table III", "Task06": "Table IV"}
_STRUCTURES = {"lungs": LUNGS, "tumor": TUMOUR, "avg.": AVERAGE}

Place = tuple[str, str]


@dataclass(frozen=True)
class PaperMethod:
    """A row of Table II.

    Parameters
    ----------
    row
        As printed.
    model
        Pattern of our model's name; anything after a hyphen or colon may follow.
    protocol
        Ours.
    percent
        Part of the training patients that it was fine-tuned on; ``None`` for models trained from
        scratch.
    """

    row: str
    model: str
    protocol: str = NO_PROMPTS
    percent: float | None = None

    def is_ours(self, model: str, state: str, protocol: str) -> bool:
        """Tell whether a method of ours is the one of this row."""
        if protocol != self.protocol or not re.fullmatch(rf"{self.model}([-:].*)?", model):
            return False
        if self.percent is None:
            return state in ("trained", "small")
        return training_percent(state) == self.percent


#: Its MedSAM 2 of Table II was fine-tuned on half of the patients; what its MedSAM was fine-tuned
#: on is not said, and taken for all.
METHODS = (
    PaperMethod("DeepLabV3", "deeplabv3"),
    PaperMethod("U-Net", "unet"),
    PaperMethod("nnUnet 2d", "nnunet-2d"),
    PaperMethod("nnUnet 3d lowres", "nnunet-3d[-_]lowres"),
    PaperMethod("nnUnet 3d fullres", "nnunet-3d[-_]fullres"),
    PaperMethod("MedSAM", "medsam(-box|-point|-16gb)?", BOX, 100.0),
    PaperMethod("MedSAM 2 Point", "medsam2-zhu", POINT, 50.0),
    PaperMethod("MedSAM 2 BBox", "medsam2-zhu", BOX, 50.0),
)
#: The model of Tables III and IV.
FRACTIONS_MODEL = "medsam2-zhu"


@dataclass(frozen=True)
class OurCell:
    """A mean of ours with its 95 % interval, the cases behind it, and its mark."""

    value: float
    low: float
    high: float
    n: int
    mark: Mark = ""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Parameters
    ----------
    title
        Our method, or the paper's where we have none.
    protocol
        Ours; empty where we have no such row.
    ours
        (structure, score) → mean of ours.
    paper
        (structure, score) → printed value.
    paper_row
        The row as printed; empty where the paper has none.
    skill
        Of the tumour's Dice; NaN where there is none.
    percent
        In tables of training fractions.
    stood_in
        The model that stood in for it, if one did.
    """

    title: str
    protocol: str
    ours: Mapping[Place, OurCell] = field(default_factory=dict)
    paper: Mapping[Place, Cell] = field(default_factory=dict)
    paper_row: str = ""
    skill: float = float("nan")
    percent: float | None = None
    stood_in: str = ""

    @property
    def shown(self) -> str:
        """The title, with the model that stood in for it."""
        return with_fallback(self.title, self.stood_in)

    def difference(self, place: Place) -> float | None:
        """Return ours minus the paper's, where both are there."""
        if place not in self.ours or place not in self.paper:
            return None
        return self.ours[place].value - self.paper[place].value


@dataclass(frozen=True)
class Table:
    """A table of one cohort: its name in the paper, what it shows, and its rows."""

    name: str
    cohort: str
    group: str
    rows: tuple[Row, ...]

    @property
    def has_paper(self) -> bool:
        """Whether any row has a printed value."""
        return any(row.paper for row in self.rows)


@lru_cache(maxsize=1)
def published() -> PublishedTables:
    """Return the paper's tables."""
    return read_paper()


def paper_cohort(name: str) -> str | None:
    """Return what the paper calls a cohort of ours; ``None`` for cohorts that it has not."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for title, parts in _COHORTS.items():
        if any(part in plain for part in parts):
            return title
    return None


def printed(table: str, group: str) -> dict[str, dict[Place, Cell]]:
    """Return the printed values of a table: row → (structure, score) → value."""
    rows: dict[str, dict[Place, Cell]] = {}
    for cell in published().cells:
        if (cell.table, cell.group) == (table, group):
            place = (_STRUCTURES[cell.structure.lower()], cell.kind)
            rows.setdefault(cell.row, {})[place] = cell
    return rows


def table_two(summary: pd.DataFrame, cohort: str) -> Table | None:
    """Return Table II of a cohort that the paper has; ``None`` for others.

    Our rows are all automatic methods and everything under a prompt on every slice, prompt-only
    baselines included, in the order of the plan; rows of the paper that the run has not got
    follow with the printed values alone.

    Parameters
    ----------
    summary
        `summary.summarise`.
    cohort
        Name of ours.
    """
    group = paper_cohort(cohort)
    if group is None:
        return None
    values = printed("Table II", group)
    part = summary[(summary["cohort"] == cohort) & summary["protocol"].isin([NO_PROMPTS, *PROMPTS])]
    rows: list[Row] = []
    for row in our_rows(part):
        found = _matching(row)
        rows.append(row if found is None else _with_paper(row, found.row, values[found.row]))
    there = {row.paper_row for row in rows}
    missing = [Row(name, "", paper=cells, paper_row=name) for name, cells in values.items()]
    rows += [row for row in missing if row.paper_row not in there]
    return Table("Table II", cohort, group, tuple(_plain(row) for row in marked(rows)))


@dataclass(frozen=True)
class _Named(Row):
    """A row of ours that still knows its model and state."""

    model: str = ""
    state: str = ""


def our_rows(part: pd.DataFrame) -> Iterator[_Named]:
    """Yield the rows of a summary of one cohort, the structures side by side."""
    for (method, protocol), group in part.groupby(["method", "protocol"], sort=False):
        ours = {}
        for _, values in group.iterrows():
            for structure, key in COLUMNS:
                if values["structure"] == structure and int(values[f"{key}_n"]):
                    ours[structure, key] = OurCell(
                        float(values[key]),
                        float(values[f"{key}_low"]),
                        float(values[f"{key}_high"]),
                        int(values[f"{key}_n"]),
                    )
        tumour = group[group["structure"] == TUMOUR]
        skill = float(tumour["skill"].iloc[0]) if len(tumour) else float("nan")
        first = group.iloc[0]
        yield _Named(
            str(method),
            str(protocol),
            ours,
            skill=skill,
            model=str(first["model"]),
            state=str(first["state"]),
            stood_in=first["stood_in"] if isinstance(first["stood_in"], str) else "",
        )


def _matching(row: _Named) -> PaperMethod | None:
    return next((m for m in METHODS if m.is_ours(row.model, row.state, row.protocol)), None)


def _with_paper(row: _Named, name: str, cells: Mapping[Place, Cell]) -> _Named:
    return _Named(**{**vars(row), "paper": cells, "paper_row": name})


def _plain(row: Row) -> Row:
    return Row(**{name: getattr(row, name) for name in Row.__dataclass_fields__})


def marked(rows: Iterable[Row]) -> list[Row]:
    """Return rows with the best and the second-best of ours marked in every column."""
    rows = list(rows)
    marks_of: list[dict[Place, Mark]] = [{} for _ in rows]
    for place in COLUMNS:
        there = [i for i, row in enumerate(rows) if place in row.ours]
        cells = [rows[i].ours[place] for i in there]
        column = _column(place[1])
        found = marks([c.value for c in cells], [c.n for c in cells], column)
        for i, mark in zip(there, found, strict=True):
            marks_of[i][place] = mark
    return [
        type(row)(
            **{
                **vars(row),
                "ours": {
                    place: OurCell(**{**vars(cell), "mark": own.get(place, "")})
                    for place, cell in row.ours.items()
                },
            }
        )
        for row, own in zip(rows, marks_of, strict=True)
    ]


def _column(key: str) -> Column:
    """Return the column of a score with as many decimals as these tables have."""
    return Column(**{**vars(BY_KEY[key]), "digits": DIGITS})
