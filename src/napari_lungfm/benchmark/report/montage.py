"""A figure for print: reference and methods side by side on the largest slice of some cases."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napari_lungfm._core.types import SliceMask
from napari_lungfm.benchmark.report.overlays import CaseOverlay, apply_window
from napari_lungfm.benchmark.report.style import REFERENCE_COLOUR, Look

#: As many cases and methods as can be told apart on a printed page.
MOST_CASES, MOST_METHODS = 4, 7


def montage(overlays: Sequence[CaseOverlay], looks: dict[tuple[str, str], Look]) -> Figure | None:
    """Draw cases as rows and the CT, the reference and the methods as columns.

    The methods are those of the first prompt protocol that has masks; the reference is drawn
    thin beside every method. Each case has the first of its windows.

    Parameters
    ----------
    overlays
        Cases of one cohort; those without slices are left out.
    looks
        Colours of the methods, in the order of the plan.

    Returns
    -------
    Figure or None
        ``None`` where there is no mask to show.
    """
    drawn = {row for overlay in overlays for row in overlay.masks}
    rows = [row for row in looks if row in drawn]
    columns = [row for row in rows if row[1] == rows[0][1]][:MOST_METHODS]
    if not columns:
        return None
    shown = _spread([overlay for overlay in overlays if overlay.slices])
    size = (1.55 * (len(columns) + 2), 1.62 * len(shown) + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(shown), len(columns) + 2, squeeze=False)
    figure.suptitle(f"Prompts by {columns[0][1]}", fontsize=9, x=0.01, ha="left", parse_math=False)
    for overlay, axes in zip(shown, grid, strict=True):
        for axis in axes:
            _show_slice(axis, overlay)
        _outline(axes[1], overlay.reference, REFERENCE_COLOUR, 1.3)
        axes[0].set_ylabel(overlay.case, fontsize=8, parse_math=False)
        for axis, row in zip(axes[2:], columns, strict=True):
            _outline(axis, overlay.reference, REFERENCE_COLOUR, 0.7)
            if row in overlay.masks:
                _outline(axis, overlay.masks[row], looks[row].colour, 1.3)
    for axis, title in zip(grid[0], ["CT", "reference", *(m for m, _ in columns)], strict=True):
        axis.set_title(title, fontsize=8, loc="center", parse_math=False)
    return figure


def _spread(overlays: Sequence[CaseOverlay]) -> list[CaseOverlay]:
    """Evenly spaced cases in the order of the plan."""
    places = np.linspace(0, len(overlays) - 1, min(MOST_CASES, len(overlays)))
    return [overlays[round(place)] for place in places]


def _show_slice(axis: Axes, overlay: CaseOverlay) -> None:
    height, width = overlay.spacing
    axis.imshow(
        apply_window(overlay.hu, overlay.windows[0]),
        cmap="gray",
        vmin=0,
        vmax=255,
        aspect=height / width,
        interpolation="nearest",
    )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def _outline(axis: Axes, mask: SliceMask, colour: str, width: float) -> None:
    if mask.any() and not mask.all():
        axis.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=[width])
