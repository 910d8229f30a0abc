"""The figures of a report, drawn cohort by cohort."""

import base64
from collections.abc import Iterator
from pathlib import Path

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


def draw_plots(place: Path, content: Content) -> list[Plot]:
    """Draw the plots of all cohorts and write them as SVG and PNG into a new folder."""
    place.mkdir()
    plots = []
    for number, note in enumerate(content.header.cohorts, 1):
        with canvas.style():
            for name, figure in _figures_of(content, note.name):
                svg, _ = _save(figure, place, f"{slug(note.name)}--{name}")
                plots.append(Plot(f"f{number}-{name}", svg, note.name, *_CAPTIONS[name], name))
    return plots


def _save(figure: Figure, place: Path, stem: str) -> tuple[str, bytes]:
    svg, png = canvas.to_svg(figure), canvas.to_png(figure)
    (place / f"{stem}.svg").write_text(svg, encoding="utf-8", newline="\n")
    (place / f"{stem}.png").write_bytes(png)
    return svg, png


def _figures_of(content: Content, cohort: str) -> Iterator[tuple[str, Figure]]:
    cases = content.part(content.cases, cohort)
    if cases.empty:
        return
    summary, costs = content.part(content.summary, cohort), content.part(content.costs, cohort)
    profile, curve, jitter, prompts = (
        frame[frame["cohort"] == cohort]
        for frame in (content.profile, content.curves, content.jitter, content.prompts)
    )
    counts = costs.groupby("method")["parameters"].max().astype(float).dropna()
    parameters = {str(name): float(value) for name, value in counts.items()}
    tuned = [each for each in content.fractions if each.cohort == cohort]
    points, looks = compute.compute_points(summary, costs), content.looks
    made = {
        "dice": figures.dice_by_method(cases, summary, looks),
        "volume": figures.dice_by_volume(cases, looks),
        "slices": figures.dice_along_axis(profile, looks) if len(profile) else None,
        "fractions": fractions.curve_figure(tuned, content.structure),
        "compute": compute.compute_figure(points, looks, cohort, content.structure),
        "cost": figures.cost(summary, parameters, looks),
        "prompts": prompting.prompt_figure(prompts, looks),
        "jitter": prompting.jitter_figure(jitter, looks),
        "corrections": corrections.curve_figure(curve, looks) if len(curve) else None,
    }
    yield from ((name, figure) for name, figure in made.items() if figure is not None)


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
                _, png = _save(figure, place, f"{slug(note.name)}--overlays")
                title = "Figure 1: the same slices under every method"
                # Full of images, which Matplotlib gives one id each time they are shown.
                image = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
                text = f'<img src="{image}" alt="{title}">'
                ids = f"f{number}-overlays"
                plots.append(Plot(ids, text, note.name, title, figure_one.RULE, "overlays"))
    return plots
