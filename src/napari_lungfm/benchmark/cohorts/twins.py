"""The same CT under two names: found by a hash of its voxels, and kept on one side of the split."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from napari_lungfm import io
from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.files import slug
from napari_lungfm.benchmark.cohorts.report import CaseReport
from napari_lungfm.benchmark.cohorts.split import CohortSplit
from napari_lungfm.models.automatic.trained import hash_image

_PARTS = {"test": "tested", "train": "trained on", "spare": "spare"}


def with_hash(report: CaseReport, root: Path) -> CaseReport:
    """Return a report with the hash of its CT; one of an earlier version has none yet.

    It stays without where its CT cannot be read, which whoever reads the case will say.

    Parameters
    ----------
    report
        Of a prepared case.
    root
        Folder of the cohort.
    """
    if report.status != "prepared" or report.facts.get("image_hash"):
        return report
    folder = root / "cases" / slug(report.name)
    try:
        mark = hash_image(io.read_image(folder / "ct.nii.gz"))
    except LungFMError:
        return report
    found = replace(report, facts={**report.facts, "image_hash": mark})
    found.save(folder / "case.json")
    return found


def twins(reports: Sequence[CaseReport]) -> tuple[tuple[str, ...], ...]:
    """Return the names of the cases that have one CT, a tuple for each CT of several."""
    names: dict[str, list[str]] = {}
    for report in reports:
        mark = report.facts.get("image_hash")
        if report.status == "prepared" and mark:
            names.setdefault(str(mark), []).append(report.name)
    return tuple(tuple(sorted(each)) for each in names.values() if len(each) > 1)


def on_one_side(split: CohortSplit, groups: Sequence[Sequence[str]]) -> CohortSplit:
    """Take training patients whose CT is tested under another name out of a drawn split.

    They become spare: who is tested does not change.

    Parameters
    ----------
    split
        The split; one that was given is left as it is.
    groups
        What `twins` found.
    """
    if split.seed is None:
        return split
    tested = set(split.test)
    out = {name for group in groups if tested & set(group) for name in group} & set(split.train)
    return replace(
        split,
        train=tuple(name for name in split.train if name not in out),
        spare=tuple(sorted({*split.spare, *out})),
    )


def with_twins(
    reports: Sequence[CaseReport],
    groups: Sequence[Sequence[str]],
    drawn: CohortSplit,
    split: CohortSplit,
) -> list[CaseReport]:
    """Return the reports, those of twins with a flag that names the others and their parts.

    Parameters
    ----------
    reports
        All of them.
    groups
        What `twins` found.
    drawn, split
        The split before and after `on_one_side`.
    """
    part = {name: words for key, words in _PARTS.items() for name in getattr(split, key)}
    moved = set(drawn.train) - set(split.train)
    flags: dict[str, str] = {}
    for group in groups:
        parts = {part.get(name) for name in group}
        leak = {"tested", "trained on"} <= parts
        for name in group:
            others = ", ".join(_named(other, part) for other in group if other != name)
            text = f"the same CT as {others}"
            if leak:
                text += f", while this one is {part[name]}: a score on it would say nothing"
            elif name in moved:
                text += ", so this one was taken out of the training"
            flags[name] = text
    return [
        replace(each, flags=[*each.flags, flags[each.name]]) if each.name in flags else each
        for each in reports
    ]


def _named(name: str, part: Mapping[str, str]) -> str:
    return f"'{name}' ({part[name]})" if name in part else f"'{name}'"
