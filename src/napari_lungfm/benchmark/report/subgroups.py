"""Scores by kind of case: size of the tumour, its kind, contact with the edge of the lung."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy import ndimage

from napari_lungfm._core.exceptions import InputFileError, UsageError
from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report.scores import ROW
from napari_lungfm.benchmark.report.summary import skills
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.evaluation.statistics import mean_intervals
from napari_lungfm.geometry import Structure

T = TypeVar("T")

#: Limits of the size groups in mm: the T1, T2 and larger sizes of the TNM classification.
_LIMITS_MM = (30.0, 50.0)
SIZE = "size (diameter of the sphere of the reference's volume)"
CONTACT = "edge of the lung (pleura or mediastinum)"
#: Attributes of cases with a title of their own.
_TITLES = {"tumour_kind": "kind of tumour", "pleural_contact": "contact with the pleura"}
_YES_NO = {"True": "yes", "False": "no"}
#: Attributes of more values than this are no groups.
_MOST = 8


@dataclass(frozen=True)
class Division:
    """Cases of a cohort in groups: title of the division, and group by case."""

    cohort: str
    title: str
    groups: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """The groups, in order."""
        return list(dict.fromkeys(self.groups.values()))


def size_group(volume_ml: float) -> str:
    """Return the size group of a volume, by the diameter of its sphere."""
    diameter = (6 * volume_ml * 1000 / np.pi) ** (1 / 3)
    small, large = (f"{limit:g}" for limit in _LIMITS_MM)
    if diameter <= _LIMITS_MM[0]:
        return f"≤ {small} mm"
    return f"{small} to {large} mm" if diameter <= _LIMITS_MM[1] else f"> {large} mm"


#: All size groups, in order.
_SIZES = tuple(size_group(volume_ml) for volume_ml in (1.0, 40.0, 1e3))


def divisions(run: RunFolder, records: Sequence[Record], cases: pd.DataFrame) -> list[Division]:
    """Return the divisions of every cohort that part its cases into two groups or more.

    By size; by every attribute of the cases that has a few values; and, where no attribute tells
    of the pleura, by whether the tumour touches the edge of the lung on the slices of the
    previews.

    Parameters
    ----------
    run
        The run, for its previews.
    records
        All units.
    cases
        `scores.case_scores` of the main structure.
    """
    found = []
    attributes = {(r.key.cohort, r.key.case): r.case_attributes for r in records if r.case_hash}
    for cohort, own in cases.groupby("cohort", sort=False):
        names = [str(name) for name in dict.fromkeys(own["case"])]
        volumes = own.groupby("case")["reference_volume_ml"].max()
        sizes = {n: size_group(volumes[n]) for n in names if volumes[n] > 0}
        known = {name: attributes.get((str(cohort), name), {}) for name in names}
        every = [Division(str(cohort), SIZE, _sorted(sizes, _SIZES))]
        every += _by_attribute(str(cohort), known)
        if not any("pleural_contact" in values for values in known.values()):
            touching = {n: touches_edge(run, str(cohort), n) for n in names}
            words = {n: "touches" if t else "apart" for n, t in touching.items() if t is not None}
            every.append(Division(str(cohort), CONTACT, _sorted(words, ["apart", "touches"])))
        found += [division for division in every if len(division.names) > 1]
    return found


def find_group(found: Sequence[Division], wanted: str) -> tuple[str, set[str]]:
    """Return the title and the cases of a group.

    Parameters
    ----------
    found
        The divisions of a cohort.
    wanted
        ``DIVISION=GROUP``: a title, an attribute or the beginning of either; and a group, its
        beginning, or ``small``, ``medium`` and ``large`` of sizes.

    Raises
    ------
    UsageError
        If there is no such group, or more than one; the message has those that there are.
    """
    key, equals, name = (part.strip().lower() for part in wanted.partition("="))
    if not equals:
        msg = f"--subgroup {wanted}: write DIVISION=GROUP, as in size=small"
        raise UsageError(msg)
    attribute = {title: attribute for attribute, title in _TITLES.items()}
    names = {d.title: (d.title.lower(), attribute.get(d.title, "")) for d in found}
    division = _one(
        wanted,
        {d.title: d for d in found},
        lambda title: any(n.startswith(key) for n in names[title]),
    )
    groups = {group: group for group in division.names}
    small = dict(zip(("small", "medium", "large"), _SIZES, strict=True))
    name = small.get(name, name).lower() if division.title == SIZE else name
    exact = {group: group for group in groups if group.lower() == name}
    group = _one(wanted, exact or groups, lambda each: each.lower().startswith(name))
    return f"{division.title}: {group}", {c for c, own in division.groups.items() if own == group}


def _one(wanted: str, there: Mapping[str, T], fits: Callable[[str], bool]) -> T:
    chosen = [value for name, value in there.items() if fits(name)]
    if len(chosen) != 1:
        listed = ", ".join(f"'{name}'" for name in there) or "none"
        msg = f"--subgroup {wanted}: it is {'more than one' if chosen else 'none'} of: {listed}"
        raise UsageError(msg)
    return chosen[0]


def _sorted(groups: dict[str, str], order: Sequence[str]) -> dict[str, str]:
    return dict(sorted(groups.items(), key=lambda item: order.index(item[1])))


def _by_attribute(cohort: str, known: Mapping[str, Mapping[str, object]]) -> list[Division]:
    found = []
    for attribute in dict.fromkeys(name for values in known.values() for name in values):
        values = {case: own[attribute] for case, own in known.items() if attribute in own}
        kinds = {type(value) for value in values.values()}
        if not (kinds <= {str} or kinds <= {bool}) or len(set(values.values())) > _MOST:
            continue
        groups = {case: _YES_NO.get(str(value), str(value)) for case, value in values.items()}
        title = _TITLES.get(attribute, attribute.replace("_", " "))
        found.append(Division(cohort, title, _sorted(groups, sorted(set(groups.values())))))
    return found


def touches_edge(run: RunFolder, cohort: str, case: str) -> bool | None:
    """Tell whether a tumour touches what is not lung on any slice of the case's preview.

    ``None`` where the preview cannot be read, or the reference has no lungs to tell from.
    """
    try:
        preview = Preview.load(run.preview_file(cohort, case))
    except InputFileError:
        return None
    labels = preview.reference
    tumour = labels == int(Structure.TUMOUR)
    lungs = np.isin(labels, [int(Structure.LEFT_LUNG), int(Structure.RIGHT_LUNG)])
    if not tumour.any() or not lungs.any():
        return None
    around = np.stack([ndimage.binary_dilation(part) for part in tumour]) & ~tumour
    # A few voxels outside may be a vessel that the lung mask left out.
    return bool((around & ~lungs).sum() > 0.05 * around.sum())


def subgroup_scores(cases: pd.DataFrame, found: Sequence[Division]) -> pd.DataFrame:
    """Return mean Dice with its interval per group, method and protocol.

    Parameters
    ----------
    cases
        `scores.case_scores` of the main structure.
    found
        The divisions.

    Returns
    -------
    DataFrame
        ``cohort``, ``division``, ``group``, ``protocol``, ``method``, ``structure``, ``dice``,
        ``dice_low``, ``dice_high``, ``n``, ``skill``.
    """
    names = ["cohort", "division", "group", "protocol", "method", "structure"]
    parts = []
    for division in found:
        own = cases[cases["cohort"] == division.cohort]
        group = own["case"].map(dict(division.groups))
        parts.append(own.assign(division=division.title, group=group)[group.notna()])
    if not parts:
        return pd.DataFrame(columns=[*names, "dice", "dice_low", "dice_high", "n", "skill"])
    every = pd.concat(parts, ignore_index=True)
    scored = [part["dice"].to_numpy(dtype=float) for _, part in every.groupby(names, sort=False)]
    padded = np.full((max(map(len, scored)), len(scored)), np.nan)
    for column, values in enumerate(scored):
        padded[: len(values), column] = values
    means = mean_intervals(padded)
    rows = every.drop_duplicates(names)[names].reset_index(drop=True)
    rows["dice"], rows["dice_low"] = means["mean"], means["low"]
    rows["dice_high"], rows["n"] = means["high"], means["n"]
    skill = skills(every.drop_duplicates([*names, "case"]), [*ROW, "division", "group"])
    return rows.merge(skill.drop(columns="skill_n"), on=[*ROW, "division", "group"], how="left")


def subgroup_tables(scores: pd.DataFrame, found: Sequence[Division], cohort: str) -> list[dict]:  # type: ignore[type-arg]
    """Return the tables of one cohort for the page: a division each.

    Each has ``title``, ``groups`` (name and number of cases) and ``rows`` with ``method``,
    ``protocol`` and ``cells`` (``value``, ``low``, ``high``, ``n``, ``skill``; ``None`` where a
    method has none).
    """
    tables = []
    for division in (d for d in found if d.cohort == cohort):
        own = scores[(scores["cohort"] == cohort) & (scores["division"] == division.title)]
        counts = pd.Series(list(division.groups.values())).value_counts()
        rows = []
        for (protocol, method), part in own.groupby(["protocol", "method"], sort=False):
            cells = {str(row["group"]): row for row in part.to_dict("records")}
            rows.append(
                {
                    "method": method,
                    "protocol": protocol,
                    "cells": [cells.get(name) for name in division.names],
                }
            )
        groups = [(name, int(counts[name])) for name in division.names]
        tables.append({"title": division.title, "groups": groups, "rows": rows})
    return tables
