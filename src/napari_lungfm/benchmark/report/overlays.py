"""Contours of the reference and of every method on slices of the CT, from the run folder alone."""

import base64
import io as streams
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage import measure

from napari_lungfm import io
from napari_lungfm._core.exceptions import InputFileError, LungFMError
from napari_lungfm._core.types import SliceMask
from napari_lungfm.benchmark.previews import Preview
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.store import RunFolder
from napari_lungfm.geometry import Structure

#: Window name -> (level, width) in HU: the usual reading windows of the chest; "narrow" is for
#: lesions in soft tissue, which differ little from what is around them.
WINDOWS = {
    "lung": (-600, 1500),
    "mediastinal": (40, 400),
    "soft tissue": (40, 400),
    "narrow": (50, 250),
}
#: Below this (HU) there is air or lung; soft tissue and fat are far above.
_AIR_HU = -400
#: Images and contours of all cases together may take this many bytes of the page.
BUDGET = 11_000_000


@dataclass(frozen=True)
class OverlaySlice:
    """One slice of a case.

    ``images`` maps the window to a PNG as base64, ``reference`` and ``contours`` (by method and
    protocol) are SVG path data in units of half a pixel.
    """

    z: int
    largest: bool
    images: dict[str, str]
    reference: str
    contours: dict[tuple[str, str], str]

    @property
    def size(self) -> int:
        """Bytes on the page, nearly."""
        texts = (*self.images.values(), self.reference, *self.contours.values())
        return sum(map(len, texts))


@dataclass(frozen=True, eq=False)
class CaseOverlay:
    """The overlays of one case.

    ``shape`` (rows, columns) in pixels, ``spacing`` (row, column) in mm. ``masks`` holds the
    largest slice of each method, for the printed figure, ``hu`` and ``reference`` the same of
    the case. ``windows`` are the two of `WINDOWS` that suit the case. ``problems`` says what
    could not be shown; without a preview there are no slices.
    """

    cohort: str
    case: str
    structure: str
    shape: tuple[int, int]
    spacing: tuple[float, float]
    slices: tuple[OverlaySlice, ...]
    n_omitted: int
    windows: tuple[str, str]
    hu: npt.NDArray[np.int16]
    reference: SliceMask
    masks: dict[tuple[str, str], SliceMask] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def choose_cases(dice: Sequence[tuple[str, float]], n: int) -> list[str]:
    """Choose ``n`` cases by rank: best and worst, the median, and evenly spaced ones between.

    Parameters
    ----------
    dice
        Case names with the Dice of the method that decides; undefined ranks lowest.
    n
        How many cases; all of them when there are not more.

    Returns
    -------
    list of str
        The chosen names, in the order of ``dice``.
    """
    if len(dice) <= n:
        return [name for name, _ in dice]
    if n <= 0:
        return []
    order = sorted(range(len(dice)), key=lambda i: -np.nan_to_num(dice[i][1], nan=-1.0))
    ranks = {round(r) for r in np.linspace(0, len(dice) - 1, n)} if n > 1 else {len(dice) // 2}
    if n > 2:
        middle = (len(dice) - 1) // 2
        if middle not in ranks:
            nearest = min(ranks - {0, len(dice) - 1}, key=lambda r: (abs(r - middle), r))
            ranks = (ranks - {nearest}) | {middle}
    chosen = {order[r] for r in ranks}
    return [name for i, (name, _) in enumerate(dice) if i in chosen]


def choose_windows(hu: npt.NDArray[np.integer[Any]]) -> tuple[str, str]:
    """Return the two windows that show a case: those of the chest only where there is lung.

    Lesions elsewhere, and images whose HU were limited to soft tissue (as in some published
    collections), would be a grey surface in a lung window.
    """
    return ("lung", "mediastinal") if (hu < _AIR_HU).any() else ("soft tissue", "narrow")


def case_overlay(
    run: RunFolder, cohort: str, case: str, records: Sequence[Record], *, budget: int
) -> CaseOverlay:
    """Draw one case; without a readable preview nothing is drawn, and ``problems`` says so.

    Parameters
    ----------
    run
        The run.
    cohort, case
        Which case.
    records
        The finished units of this case to draw, one per method and protocol.
    budget
        Bytes that images and contours may take; slices farthest from the largest one go first.
    """
    try:
        preview = Preview.load(run.preview_file(cohort, case))
    except InputFileError:
        return _without_preview(cohort, case)
    present = set(np.unique(preview.reference).tolist()) - {0}
    label = int(Structure.TUMOUR) if int(Structure.TUMOUR) in present or not present else None
    masks, problems = _read_masks(run, records, preview, label)
    reference = _choose(preview.reference, label)
    windows = choose_windows(preview.hu)
    slices = _slices_within(preview, windows, reference, masks, budget)
    middle = preview.slices.index(preview.largest)
    return CaseOverlay(
        cohort,
        case,
        "tumour" if label is not None else "all structures",
        (preview.hu.shape[1], preview.hu.shape[2]),
        (preview.spacing[1], preview.spacing[2]),
        slices,
        len(preview.slices) - len(slices),
        windows,
        preview.hu[middle],
        reference[middle],
        {row: mask[middle] for row, mask in masks.items()},
        tuple(problems),
    )


def _without_preview(cohort: str, case: str) -> CaseOverlay:
    problem = "no overlays: the preview of the case is missing or damaged; run again to make it"
    nothing = np.zeros((0, 0), dtype=np.int16)
    return CaseOverlay(
        cohort,
        case,
        "",
        (0, 0),
        (1.0, 1.0),
        slices=(),
        n_omitted=0,
        windows=choose_windows(nothing),
        hu=nothing,
        reference=nothing > 0,
        problems=(problem,),
    )


def _choose(labels: npt.NDArray[Any], label: int | None) -> npt.NDArray[np.bool_]:
    return np.asarray(labels > 0 if label is None else labels == label)


def _read_masks(
    run: RunFolder, records: Sequence[Record], preview: Preview, label: int | None
) -> tuple[dict[tuple[str, str], npt.NDArray[np.bool_]], list[str]]:
    masks, problems = {}, []
    for record in records:
        row = (record.key.method, record.key.protocol)
        file = run.mask_file(record.key, record.fingerprint)
        if row in masks or record.status == "failed":
            continue
        try:
            masks[row] = _choose(preview.pick(io.read_label_map(file)), label)
        except (LungFMError, IndexError) as error:
            problems.append(f"the mask of {row[0]} under {row[1]} cannot be shown: {error}")
    return masks, problems


def _slices_within(
    preview: Preview,
    windows: tuple[str, str],
    reference: npt.NDArray[np.bool_],
    masks: dict[tuple[str, str], npt.NDArray[np.bool_]],
    budget: int,
) -> tuple[OverlaySlice, ...]:
    """Draw slices, nearest to the largest one first, until the budget is used up."""
    middle = preview.slices.index(preview.largest)
    order = sorted(range(len(preview.slices)), key=lambda i: (abs(i - middle), i))
    drawn: list[OverlaySlice] = []
    used = 0
    for i in order:
        one = OverlaySlice(
            preview.slices[i],
            i == middle,
            {name: encode_png(apply_window(preview.hu[i], name)) for name in windows},
            outline(reference[i]),
            {row: path for row, mask in masks.items() if (path := outline(mask[i]))},
        )
        used += one.size
        if drawn and used > budget:
            break
        drawn.append(one)
    return tuple(sorted(drawn, key=lambda one: one.z))


def apply_window(hu: npt.NDArray[np.integer[Any]], window: str) -> npt.NDArray[np.uint8]:
    """Map HU to grey values 0 to 255 by a window of `WINDOWS`."""
    level, width = WINDOWS[window]
    scaled = (hu.astype(np.float32) - (level - width / 2)) / width
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def encode_png(grey: npt.NDArray[np.uint8]) -> str:
    """Return a grey image as base64 PNG."""
    stream = streams.BytesIO()
    Image.fromarray(grey).save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def outline(mask: SliceMask) -> str:
    """Return the contour of a mask as SVG path data in units of half a pixel.

    The contour is the 0.5 level set on pixel centres; pixel ``i`` covers ``[2i, 2i + 2]``, its
    centre is at ``2i + 1``. All its corners are whole numbers in these units, which keeps the
    path short and exact.
    """
    if not mask.any():
        return ""
    padded = np.pad(mask, 1).astype(np.float32)
    parts = [_closed_path(line) for line in measure.find_contours(padded, 0.5)]
    return "".join(parts)


def _closed_path(line: npt.NDArray[np.float64]) -> str:
    # The padding moved every pixel by one: centre 2(c - 1) + 1.
    points = np.rint(2 * line - 1).astype(int)[:-1, ::-1]
    steps = np.roll(points, -1, axis=0) - points
    # Only corners are kept: points where the direction changes.
    corners = points[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]
    moves = np.diff(corners, axis=0)
    text = " ".join(f"{x} {y}" for x, y in moves)
    return f"M{corners[0][0]} {corners[0][1]}l{text}z"


def overlays(
    run: RunFolder,
    records: Sequence[Record],
    chosen: Sequence[tuple[str, str]],
    tell: Callable[[str], None],
) -> list[CaseOverlay]:
    """Draw the chosen (cohort, case) pairs."""
    found = []
    for number, (cohort, case) in enumerate(chosen, 1):
        tell(f"overlays {number}/{len(chosen)}: {cohort}/{case}")
        own = [r for r in records if (r.key.cohort, r.key.case) == (cohort, case)]
        found.append(case_overlay(run, cohort, case, own, budget=BUDGET // len(chosen)))
    return found
