"""The figures of a report, drawn cohort by cohort."""

import base64
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from napari_lungfm._core.files import slug
from napari_lungfm.benchmark.report import (
    canvas,
    compute,
    corrections,
    figure_one,
    figures,
    fractions,
    montage,
    prompting,
)
from napari_lungfm.benchmark.report.content import Content, Tell
from napari_lungfm.benchmark.report.html import Plot
from napari_lungfm.benchmark.report.overlays import CaseOverlay, choose_cases, overlays
from napari_lungfm.benchmark.store import RunFolder

_CAPTIONS = {
    "dice": (
        "Dice by method",
        "Every dot is a case (seeds averaged). Grey: prompt-only baselines.",
    ),
    "volume": ("Dice by size", "Small structures lose more Dice to the same error in mm."),
    "slices": (
        "Dice along the slices",
        "Mean slice Dice from the first to the last slice of the reference, in order of the slice "
        "index. Slices added beyond the ends are not shown.",
    ),
    "compute": ("Figure 2: Dice and multiply-accumulates per volume", compute.CAPTION),
    "cost": (
        "Dice and time",
        "Mean Dice over mean seconds per case; larger marks have more parameters.",
    ),
    "fractions": (
        "Dice by training patients",
        "Fine-tuned models by the part of the training patients that they saw; 0 % is the model as "
        "it was published. Bars: 95 % CI over patients; small dots: single seeds.",
    ),
    "prompts": (
        "Dice by number of prompts",
        "Mean over cases (band: 95 % CI) of protocols that differ in how many slices are prompted.",
    ),
    "jitter": (
        "Dice with an inexact hand",
        "Mean over cases (band: 95 % CI) with box sides moved by up to so many pixels, clicks by a "
        "Gaussian of half of it; 0: the exact hand.",
    ),
    "corrections": (
        "Dice after each interaction",
        "Mean over cases (band: 95 % CI) after the first prompts and after each correction. Where "
        "nothing was left to correct, the last Dice stands for the rest.",
    ),
}


class Plots:
    """The plots of all cohorts, drawn by this process and by a second one, if there is one.

    Every figure is drawn twice (SVG and PNG), which takes as long as all statistics of a large
    run; figures do not depend on each other, and the same data give the same file in any process.

    Parameters
    ----------
    content
        What is drawn.
    helper
        Draws from now on, while the caller does something else. What it has not begun when
        `write` is called is drawn here.
    """

    def __init__(self, content: Content, helper: Executor | None = None) -> None:
        self._jobs = [
            _Job(f"f{number}-{name}", name, parts)
            for number, note in enumerate(content.header.cohorts, 1)
            if (parts := _parts(content, note.name)) is not None
            for name in _FIGURES
        ]
        self._begun: list[Future[_Drawn | None] | None] = [
            helper.submit(_draw, job.name, job.parts) if helper else None for job in self._jobs
        ]

    def write(self, place: Path) -> list[Plot]:
        """Write the plots as SVG and PNG into a new folder."""
        place.mkdir()
        # From the end: the second process begins at the start.
        drawn = [
            self._drawn(job, begun)
            for job, begun in reversed(list(zip(self._jobs, self._begun, strict=True)))
        ]
        plots = []
        for job, files in zip(self._jobs, reversed(drawn), strict=True):
            if files is not None:
                cohort = job.parts.cohort
                svg = files.write(place, f"{slug(cohort)}--{job.name}")
                plots.append(Plot(job.identifier, svg, cohort, *_CAPTIONS[job.name], job.name))
        return plots

    @staticmethod
    def _drawn(job: "_Job", begun: "Future[_Drawn | None] | None") -> "_Drawn | None":
        if begun is not None and not begun.cancel():
            try:
                return begun.result()
            except BrokenProcessPool:
                pass  # the second process is gone; nothing is lost but time
        return _draw(job.name, job.parts)


@dataclass(frozen=True)
class _Parts:
    """What the figures of one cohort are drawn from."""

    cohort: str
    structure: str
    looks: figures.Rows
    cases: pd.DataFrame
    summary: pd.DataFrame
    costs: pd.DataFrame
    profile: pd.DataFrame
    curves: pd.DataFrame
    jitter: pd.DataFrame
    prompts: pd.DataFrame
    fractions: list[fractions.Curve]


@dataclass(frozen=True)
class _Job:
    identifier: str
    name: str
    parts: _Parts


@dataclass(frozen=True)
class _Drawn:
    svg: str
    png: bytes

    def write(self, place: Path, stem: str) -> str:
        (place / f"{stem}.svg").write_text(self.svg, encoding="utf-8", newline="\n")
        (place / f"{stem}.png").write_bytes(self.png)
        return self.svg


def _parts(content: Content, cohort: str) -> _Parts | None:
    """``None`` for a cohort without a score."""
    cases = content.part(content.cases, cohort)
    if cases.empty:
        return None
    profile, curves, jitter, prompts = (
        frame[frame["cohort"] == cohort]
        for frame in (content.profile, content.curves, content.jitter, content.prompts)
    )
    return _Parts(
        cohort,
        content.structure,
        content.looks,
        cases,
        content.part(content.summary, cohort),
        content.part(content.costs, cohort),
        profile,
        curves,
        jitter,
        prompts,
        [each for each in content.fractions if each.cohort == cohort],
    )


def _draw(name: str, parts: _Parts) -> _Drawn | None:
    """Draw one figure; ``None`` where there is nothing that it could show."""
    with canvas.style():
        figure = _FIGURES[name](parts)
        return None if figure is None else _Drawn(canvas.to_svg(figure), canvas.to_png(figure))


def _compute(parts: _Parts) -> Figure | None:
    points = compute.compute_points(parts.summary, parts.costs)
    return compute.compute_figure(points, parts.looks, parts.cohort, parts.structure)


def _cost(parts: _Parts) -> Figure | None:
    counts = parts.costs.groupby("method")["parameters"].max().astype(float).dropna()
    parameters = {str(name): float(value) for name, value in counts.items()}
    return figures.cost(parts.summary, parameters, parts.looks)


def _slices(parts: _Parts) -> Figure | None:
    return figures.dice_along_axis(parts.profile, parts.looks) if len(parts.profile) else None


def _corrections(parts: _Parts) -> Figure | None:
    return corrections.curve_figure(parts.curves, parts.looks) if len(parts.curves) else None


#: By name, in the order in which they are shown.
_FIGURES: dict[str, Callable[[_Parts], Figure | None]] = {
    "dice": lambda parts: figures.dice_by_method(parts.cases, parts.summary, parts.looks),
    "volume": lambda parts: figures.dice_by_volume(parts.cases, parts.looks),
    "slices": _slices,
    "fractions": lambda parts: fractions.curve_figure(parts.fractions, parts.structure),
    "compute": _compute,
    "cost": _cost,
    "prompts": lambda parts: prompting.prompt_figure(parts.prompts, parts.looks),
    "jitter": lambda parts: prompting.jitter_figure(parts.jitter, parts.looks),
    "corrections": _corrections,
}


def draw_overlays(
    run: RunFolder, content: Content, most: int, tell: Tell
) -> tuple[list[CaseOverlay], str]:
    """Draw the overlays of at most so many cases of each cohort; say how they were chosen."""
    chosen: list[tuple[str, str]] = []
    rules = []
    for note in content.header.cohorts:
        cases = content.part(content.cases, note.name)
        if cases.empty:
            continue
        first = cases.iloc[0]
        own = cases[(cases["method"] == first["method"]) & (cases["protocol"] == first["protocol"])]
        dice = [(str(v.case), float(v.dice)) for v in own.itertuples(index=False)]
        ruled = list(_roles(content, note.name))[:most]
        names = choose_cases([pair for pair in dice if pair[0] not in ruled], most - len(ruled))
        chosen += [(note.name, name) for name, _ in dice if name in {*ruled, *names}]
        if len(names) + len(ruled) < len(dice):
            rules.append(
                f"{note.name}: {len(names) + len(ruled)} of {len(dice)} cases: those of Figure 1, "
                f"and others by their Dice under {first['method']} ({first['protocol']}): best, "
                "median, worst and evenly spaced ranks between."
            )
    return overlays(run, content.own, chosen, tell) if chosen else [], " ".join(rules)


def _roles(content: Content, cohort: str) -> dict[str, tuple[str, ...]]:
    cases = content.part(content.cases, cohort)
    divided = [division for division in content.divisions if division.cohort == cohort]
    return figure_one.choose(cases, divided, content.looks)


def draw_figure_one(place: Path, content: Content, drawn: list[CaseOverlay]) -> list[Plot]:
    """Draw Figure 1 of every cohort from its overlays."""
    plots = []
    for number, note in enumerate(content.header.cohorts, 1):
        own = [overlay for overlay in drawn if overlay.cohort == note.name]
        if not own:
            continue
        with canvas.style():
            figure = montage.montage(own, content.looks, _roles(content, note.name))
            if figure is not None:
                drawn_one = _Drawn(canvas.to_svg(figure), canvas.to_png(figure))
                drawn_one.write(place, f"{slug(note.name)}--overlays")
                title = "Figure 1: the same slices under every method"
                # Full of images, which Matplotlib gives one id each time they are shown.
                image = f"data:image/png;base64,{base64.b64encode(drawn_one.png).decode('ascii')}"
                text = f'<img src="{image}" alt="{title}">'
                ids = f"f{number}-overlays"
                plots.append(Plot(ids, text, note.name, title, figure_one.RULE, "overlays"))
    return plots
