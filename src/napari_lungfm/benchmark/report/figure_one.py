"""Figure 1: the same slices under every method, of cases that a rule has chosen."""

from collections.abc import Mapping

import pandas as pd

from napari_lungfm.benchmark.report.figures import Rows
from napari_lungfm.benchmark.report.subgroups import CONTACT, Division
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS

#: Divisions that tell of the pleura, and their groups that touch it.
_PLEURAL = (("contact with the pleura", "yes"), (CONTACT, "touches"))
RULE = (
    "Cases chosen by rule from the median Dice of each case over all methods but the prompt-only "
    "baselines: the case in the middle (median), the best and the worst; the smallest and the "
    "largest tumour; and of the tumours that touch the pleura or the edge of the lung the one in "
    "the middle. A case may stand for several. Yellow: the reference."
)


def choose(
    cases: pd.DataFrame, divisions: list[Division], looks: Rows
) -> dict[str, tuple[str, ...]]:
    """Choose the cases of the figure.

    Parameters
    ----------
    cases
        `scores.case_scores` of one cohort and structure.
    divisions
        Those of the cohort.
    looks
        Tells baselines.

    Returns
    -------
    dict
        Case → what it stands for, in the order of `RULE`.
    """
    rows = zip(cases["method"], cases["protocol"], strict=True)
    models = cases[[not looks[str(m), str(p)].baseline for m, p in rows]]
    part = models if len(models) else cases
    middle = part.groupby("case", sort=False)["dice"].median().dropna()
    if middle.empty:
        return {}
    ranked = middle.sort_values(kind="stable")
    chosen: list[tuple[str, str]] = [
        ("median", _middle(ranked)),
        ("best", str(ranked.index[-1])),
        ("worst", str(ranked.index[0])),
    ]
    volumes = cases.groupby("case", sort=False)["reference_volume_ml"].max().dropna()
    volumes = volumes[volumes > 0].sort_values(kind="stable")
    if len(volumes):
        chosen += [("small", str(volumes.index[0])), ("large", str(volumes.index[-1]))]
    touching = _touching(divisions)
    pleural = ranked[[case in touching for case in ranked.index]]
    if len(pleural):
        chosen.append(("pleural", _middle(pleural)))
    roles: dict[str, tuple[str, ...]] = {}
    for role, case in chosen:
        roles[case] = (*roles.get(case, ()), role)
    return roles


def _middle(ranked: "pd.Series[float]") -> str:
    return str(ranked.index[(len(ranked) - 1) // 2])


def _touching(divisions: list[Division]) -> set[str]:
    for title, group in _PLEURAL:
        for division in divisions:
            if division.title == title:
                return {case for case, name in division.groups.items() if name == group}
    return set()


def columns(
    looks: Rows, drawn: Mapping[tuple[str, str], object], most: int
) -> list[tuple[str, str]]:
    """Return the methods of the figure: automatic ones, then those of the first prompt protocol.

    Parameters
    ----------
    looks
        All rows, in the order of the plan.
    drawn
        Those that have masks.
    most
        How many fit.
    """
    there = [row for row in looks if row in drawn]
    automatic = [row for row in there if row[1] == NO_PROMPTS]
    prompted = [row for row in there if row[1] != NO_PROMPTS]
    protocol = prompted[0][1] if prompted else NO_PROMPTS
    same = [row for row in prompted if row[1] == protocol]
    # Models before baselines where not all fit.
    same = sorted(same, key=lambda row: looks[row].baseline)
    fit = [*automatic, *same][:most]
    return [row for row in there if row in fit]
