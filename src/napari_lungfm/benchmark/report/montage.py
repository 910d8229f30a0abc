"""A figure for print: reference and methods side by side on the largest slice of some cases."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from napari_lungfm._core.types import SliceMask
from napari_lungfm.benchmark.report.canvas import Margins, arrange
from napari_lungfm.benchmark.report.figure_one import columns
from napari_lungfm.benchmark.report.overlays import CaseOverlay, apply_window
from napari_lungfm.benchmark.report.style import REFERENCE_COLOUR, Look
from napari_lungfm.evaluation.prompt_protocols import NO_PROMPTS

#: As many methods as can be told apart on a printed page.
MOST_METHODS = 9


def montage(
    overlays: Sequence[CaseOverlay],
    looks: dict[tuple[str, str], Look],
    roles: Mapping[str, tuple[str, ...]],
) -> Figure | None:
    """Draw cases as rows and the CT, the reference and the methods as columns.

    The methods are the automatic ones and those of the first prompt protocol that has masks; the
    reference is drawn thin beside every method. Each case has the first of its windows.

    Parameters
    ----------
    overlays
        Cases of one cohort; those without slices are left out.
    looks
        Colours of the methods, in the order of the plan.
    roles
        The cases to draw, in order, and what each stands for.

    Returns
    -------
    Figure or None
        ``None`` where there is no mask to show.
    """
    of_case = {overlay.case: overlay for overlay in overlays if overlay.slices}
    shown = [of_case[case] for case in roles if case in of_case]
    drawn = {row: None for overlay in shown for row in overlay.masks}
    methods = columns(looks, drawn, MOST_METHODS)
    if not methods:
        return None
    side = 1.32
    margins = Margins(0.36, 0.05, 0.55, 0.05, 0.04, 0.04)
    size = (side * (len(methods) + 2) + 0.41, side * len(shown) + 0.6)
    figure = Figure(figsize=size)
    grid = figure.subplots(len(shown), len(methods) + 2, squeeze=False)
    arrange(figure, margins, rows=len(shown), columns=len(methods) + 2)
    prompted = dict.fromkeys(protocol for _, protocol in methods if protocol != NO_PROMPTS)
    title = f"Prompts by {next(iter(prompted))}" if prompted else "Automatic methods"
    figure.suptitle(title, fontsize=9, x=0.005, y=0.995, ha="left", va="top", parse_math=False)
    for overlay, axes in zip(shown, grid, strict=True):
        for axis in axes:
            _show_slice(axis, overlay)
        _outline(axes[1], overlay.reference, REFERENCE_COLOUR, 1.3)
        label = f"{', '.join(roles[overlay.case])}\n{_short(overlay.case, 22)}"
        axes[0].set_ylabel(label, fontsize=7, parse_math=False)
        for axis, row in zip(axes[2:], methods, strict=True):
            _outline(axis, overlay.reference, REFERENCE_COLOUR, 0.7)
            if row in overlay.masks:
                _outline(axis, overlay.masks[row], looks[row].colour, 1.3)
    for axis, name in zip(grid[0], ["CT", "reference", *(m for m, _ in methods)], strict=True):
        axis.set_title(_wrapped(name), fontsize=7, loc="center", parse_math=False)
    return figure


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _wrapped(name: str) -> str:
    """Break a long name once, at a sign that ends a word."""
    if len(name) <= 16:
        return name
    places = [i + 1 for i, sign in enumerate(name) if sign in "-_ :"]
    middle = min(places, key=lambda i: abs(i - len(name) / 2), default=0)
    halves = (name[:middle], name[middle:]) if middle else (name[:16], name[16:])
    return "\n".join(_short(half.strip(), 20) for half in halves)


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
