"""A first region around clicks, where no box says how large the object is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_lungfm._core.types import FloatArray, SliceMask, VoxelArray
from napari_lungfm.models.prompts import Click

#: How far intensities may lie from those at the clicks, in HU, from soft tissue to lung borders.
TOLERANCES_HU = (30.0, 45.0, 65.0, 100.0, 150.0, 230.0, 350.0)
#: Radii of the openings that cut an object off vessels and walls, in mm.
OPENINGS_MM = (0.0, 1.5, 3.0, 6.0, 10.0)
#: Radius of the neighbourhood of a click that tells its intensity, in mm.
SAMPLE_MM = 3.0
#: What is left of the score of a region that would go on beyond the limit.
LEAK_PENALTY = 0.5
#: Finer pixels are thinned out to about this, in mm: the region is a first guess.
WORKING_MM = 0.9
#: Samples this much below the dense ones are taken for the blurred border to lung.
BORDER_STEP_HU = 100.0
#: Intensity steps beyond this are all equally clear, in HU.
STEP_LIMIT_HU = 100.0


def region_of_clicks(
    slice_image: VoxelArray,
    clicks: Sequence[Click],
    spacing: tuple[float, float],
    max_radius_mm: float,
) -> SliceMask:
    """Grow a region around the positive clicks of a slice.

    Regions of intensities near those at the clicks are tried at several tolerances, opened by
    several radii. The one with the clearest and roundest border is taken: the score is the mean
    intensity step across the border, up to a limit, times the roundness: the area as a fraction
    of that of the disc around its centre of mass that holds it.

    Parameters
    ----------
    slice_image
        HU ``(y, x)``.
    clicks
        Clicks on this slice, at least one of them positive.
    spacing
        Pixel spacing ``(y, x)`` in mm.
    max_radius_mm
        No region reaches farther than this from the clicks; one that would counts half.

    Returns
    -------
    ndarray
        Boolean ``(y, x)``, never empty: at the least the neighbourhood of the clicks.
    """
    window = _window(slice_image.shape, clicks, spacing, max_radius_mm)
    thinning = max(1, int(WORKING_MM / min(spacing)))
    grid = _Grid(
        (window[0].start, window[1].start), thinning, (spacing[0] * thinning, spacing[1] * thinning)
    )
    smooth = ndimage.gaussian_filter(slice_image[window].astype(np.float64), 0.7 * thinning)
    image = smooth[::thinning, ::thinning]
    positive = [click for click in clicks if click.positive]
    seeds = _dense(image, grid.near(image.shape, positive, SAMPLE_MM))
    barred = grid.near(image.shape, [c for c in clicks if not c.positive], SAMPLE_MM)
    allowed = grid.near(image.shape, positive, max_radius_mm)
    limit = allowed & ~ndimage.binary_erosion(allowed, border_value=1)
    best, best_score = seeds, 0.0
    for region in _candidates(image, seeds, allowed & ~barred, grid.spacing):
        score = _score(image, region, grid.spacing)
        if (region & limit).any():
            score *= LEAK_PENALTY
        if score > best_score:
            best, best_score = region, score
    mask = np.zeros(slice_image.shape, dtype=bool)
    fine = best.repeat(thinning, axis=0).repeat(thinning, axis=1)
    mask[window] = fine[: smooth.shape[0], : smooth.shape[1]]
    return mask


@dataclass(frozen=True)
class _Grid:
    """Where the thinned-out pixels lie in the slice."""

    origin: tuple[int, int]
    thinning: int
    spacing: tuple[float, float]

    def near(self, shape: tuple[int, ...], clicks: Sequence[Click], radius_mm: float) -> SliceMask:
        """Pixels within a radius of any click, the clicked pixels always among them."""
        near = np.zeros(shape, dtype=bool)
        y, x = np.ogrid[: shape[0], : shape[1]]
        for click in clicks:
            cy = (click.y - self.origin[0]) // self.thinning
            cx = (click.x - self.origin[1]) // self.thinning
            distance = np.hypot((y - cy) * self.spacing[0], (x - cx) * self.spacing[1])
            near |= distance <= radius_mm
            near[cy, cx] = True
        return near


def _candidates(
    image: FloatArray, seeds: SliceMask, allowed: SliceMask, spacing: tuple[float, float]
) -> Iterator[SliceMask]:
    level = float(np.median(image[seeds]))
    for tolerance in TOLERANCES_HU:
        similar = _touching((np.abs(image - level) <= tolerance) & allowed, seeds)
        if not similar.any():
            continue
        rows, columns = (np.flatnonzero(similar.any(axis=axis)) for axis in (1, 0))
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        filled = ndimage.binary_fill_holes(similar[part]) & allowed[part]
        for opened in _opened(filled, seeds[part], spacing):
            region = np.zeros_like(similar)
            region[part] = opened
            yield region


def _opened(mask: SliceMask, seeds: SliceMask, spacing: tuple[float, float]) -> Iterator[SliceMask]:
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1]
    for radius in OPENINGS_MM:
        core = _touching(depth > radius, seeds)
        if not core.any():
            return  # a larger opening removes even more
        if radius == 0.0:
            yield core
        else:
            reach = ndimage.distance_transform_edt(~core, sampling=spacing)
            yield mask & (reach <= radius)


def _dense(image: FloatArray, near: SliceMask) -> SliceMask:
    """Pixels near a click that are of the object; the click may lie on its blurred border."""
    dense: SliceMask = near & (image >= np.percentile(image[near], 85.0) - BORDER_STEP_HU)
    return dense


def _touching(mask: SliceMask, seeds: SliceMask) -> SliceMask:
    parts, _ = ndimage.label(mask)
    kept = np.unique(parts[seeds])
    touching: SliceMask = np.isin(parts, kept[kept > 0])
    return touching


def _score(image: FloatArray, region: SliceMask, spacing: tuple[float, float]) -> float:
    ring = ndimage.binary_dilation(region, iterations=2) & ~region
    rim = region & ~ndimage.binary_erosion(region)
    if not ring.any():
        return 0.0
    level = float(np.median(image[region]))
    step = np.minimum(np.abs(image[ring] - level), STEP_LIMIT_HU).mean()
    y, x = (axis * mm for axis, mm in zip(np.nonzero(rim), spacing, strict=True))
    cy, cx = (np.mean(axis) * mm for axis, mm in zip(np.nonzero(region), spacing, strict=True))
    radius = float(np.hypot(y - cy, x - cx).max()) + 0.5 * max(spacing)
    roundness = region.sum() * spacing[0] * spacing[1] / (np.pi * radius**2)
    return float(step / STEP_LIMIT_HU * roundness)


def _window(
    shape: tuple[int, ...],
    clicks: Sequence[Click],
    spacing: tuple[float, float],
    max_radius_mm: float,
) -> tuple[slice, slice]:
    margin = [int(np.ceil(max_radius_mm / mm)) + 2 for mm in spacing]
    return (
        slice(
            max(0, min(c.y for c in clicks) - margin[0]),
            min(shape[0], max(c.y for c in clicks) + margin[0] + 1),
        ),
        slice(
            max(0, min(c.x for c in clicks) - margin[1]),
            min(shape[1], max(c.x for c in clicks) + margin[1] + 1),
        ),
    )
