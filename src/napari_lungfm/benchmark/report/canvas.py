"""Matplotlib without global state: figures to deterministic SVG and PNG."""

import io as streams
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from napari_lungfm.benchmark.report.style import Look

#: Colour of text and axes. The page replaces it by its own text colour (dark and light mode).
INK = "#121314"
_RC = {
    "svg.hashsalt": "napari-lungfm",
    "svg.fonttype": "path",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    # A place that is given is not measured out.
    "axes.titley": 1.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "figure.dpi": 150,
    # See-through, so that the page shows behind them in dark mode too.
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Use the report's look while figures are made and written."""
    with mpl.rc_context(_RC):
        yield


@dataclass(frozen=True)
class Margins:
    """Space around and between panels, in inches.

    Matplotlib's own layouts measure every label several times, which takes most of the time of a
    figure; the labels of ours have known sizes.
    """

    left: float = 0.62
    right: float = 0.15
    top: float = 0.3
    bottom: float = 0.48
    between_columns: float = 0.2
    between_rows: float = 0.42


def arrange(figure: Figure, margins: Margins, *, rows: int = 1, columns: int = 1) -> None:
    """Set the panels of a figure out; ``rows`` and ``columns`` of them share its space."""
    width, height = figure.get_size_inches()
    each = (
        width - margins.left - margins.right - (columns - 1) * margins.between_columns
    ) / columns
    tall = (height - margins.top - margins.bottom - (rows - 1) * margins.between_rows) / rows
    figure.subplots_adjust(
        left=margins.left / width,
        right=1 - margins.right / width,
        top=1 - margins.top / height,
        bottom=margins.bottom / height,
        wspace=margins.between_columns / each,
        hspace=margins.between_rows / tall,
    )


def panels(
    names: Sequence[str], labels: tuple[str, str], *, width: float, height: float, most: int
) -> tuple[Figure, list[Axes]]:
    """Make a figure with one titled panel per name, at most ``most`` in a row.

    ``labels`` are those of the x and y axes; ``width`` of the figure and ``height`` of a row of
    panels are in inches.
    """
    columns = min(most, max(1, len(names)))
    rows = math.ceil(len(names) / columns) or 1
    figure = Figure(figsize=(width, height * rows + 0.1))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    # Inner ticks need room only where a panel below is missing.
    arrange(figure, Margins(), rows=rows, columns=columns)
    axes = list(grid.flat)
    for unused in axes[len(names) :]:
        unused.remove()
    for i, (axis, name) in enumerate(zip(axes, names, strict=False)):
        axis.set_title(name, parse_math=False)
        if i + columns >= len(names):
            # The panel below may have been removed: this one must show the ticks.
            axis.tick_params(labelbottom=True)
            axis.set_xlabel(labels[0])
        if i % columns == 0:
            axis.set_ylabel(labels[1])
    return figure, axes[: len(names)]


def plain_log(axis: Axes) -> None:
    """Make the x axis logarithmic with plain numbers (0.1, 1, 10) at its ticks."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def legend(figure: Figure, entries: Sequence[tuple[str, Look]], *, columns: int = 4) -> None:
    """Put one legend for all panels under the figure, which grows by its height."""
    rows = math.ceil(len(entries) / columns)
    old, more = figure.get_figheight(), 0.1 + 0.19 * rows
    figure.set_figheight(old + more)
    for axis in figure.axes:  # the panels keep their sizes
        box = axis.get_position()
        moved = ((box.y0 * old + more) / (old + more), box.height * old / (old + more))
        axis.set_position((box.x0, moved[0], box.width, moved[1]))
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="", markersize=5)
        for _, look in entries
    ]
    # Matplotlib drops labels that begin with an underscore.
    labels = [f" {name}" if name.startswith("_") else name for name, _ in entries]
    made = figure.legend(handles, labels, loc="lower center", ncols=columns, handletextpad=0.2)
    for text in made.get_texts():
        text.set_parse_math(False)


def to_svg(figure: Figure) -> str:
    """Return the figure as SVG text; the same figure gives the same text."""
    stream = streams.StringIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def to_png(figure: Figure) -> bytes:
    """Return the figure as PNG, 150 dpi, on white."""
    stream = streams.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(
        stream,
        format="png",
        facecolor="white",
        metadata={"Software": None},
        pil_kwargs={"compress_level": 1},
    )
    return stream.getvalue()


def inline_svg(svg: str, prefix: str) -> str:
    """Return an SVG to be set into the page: own ids, the page's text colour, no headers."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'(\s)id="', rf'\1id="{prefix}-', body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-")
    body = re.sub(r'<svg ([^>]*?)width="[^"]*pt"', r"<svg \1", body, count=1)
    body = re.sub(r'<svg ([^>]*?)height="[^"]*pt"', r"<svg \1", body, count=1)
    return body.replace(INK, "currentColor")
