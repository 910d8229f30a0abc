"""Outlines of a mask along its pixel edges, and back."""

import numpy as np
import numpy.typing as npt
from skimage.draw import polygon2mask

from napari_lungfm._core.types import SliceMask

#: Steps (y, x) along pixel edges: right, down, left, up.
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))

_Corner = tuple[int, int]


def trace_outlines(mask: SliceMask) -> list[npt.NDArray[np.float64]]:
    """Return the closed outlines of a mask along the edges of its pixels.

    Edges are half a pixel from every pixel centre, so no rounding of the vertices can move a
    pixel across them, and the enclosed area is exactly that of the pixels. Holes are outlines of
    their own; the exclusive-or of all outlines, filled, is the mask. Pixels that touch at a
    corner only get separate outlines.

    Parameters
    ----------
    mask
        Boolean mask ``(y, x)``.

    Returns
    -------
    list of ndarray
        Vertices ``(n, 2)`` in order ``(y, x)``, in pixel indices (centres are whole numbers),
        corners only, not repeated at the end; outer outlines first met from the top.
    """
    edges = _directed_edges(mask)
    outlines = []
    for start in sorted(edges):
        while edges[start]:
            outlines.append(np.array(_follow(edges, start), dtype=np.float64) - 0.5)
    return outlines


def fill_outline(vertices: npt.ArrayLike, shape: tuple[int, int]) -> SliceMask:
    """Return the pixels ``(y, x)`` whose centres lie in a polygon (even-odd rule).

    Parameters
    ----------
    vertices
        ``(n, 2)`` in order ``(y, x)``, in pixel indices.
    shape
        Number of rows and columns.
    """
    points = np.asarray(vertices, dtype=np.float64)
    inside: SliceMask = np.zeros(shape, dtype=np.bool_)
    # Only the rows and columns that the polygon spans need to be looked at.
    start = np.clip(np.floor(points.min(axis=0)).astype(int), 0, shape)
    stop = np.clip(np.ceil(points.max(axis=0)).astype(int) + 1, 0, shape)
    if (stop > start).all():
        part = polygon2mask(tuple(stop - start), points - start)
        inside[start[0] : stop[0], start[1] : stop[1]] = part
    return inside


def _directed_edges(mask: SliceMask) -> dict[_Corner, list[int]]:
    """Corner → directions of the edges that leave it, the mask always to the right of them.

    Corner ``(i, j)`` is the upper left corner of pixel ``(i, j)``.
    """
    padded = np.pad(np.asarray(mask, dtype=np.bool_), 1)
    here, above, left = padded[1:, 1:], padded[:-1, 1:], padded[1:, :-1]
    starts = {
        0: np.argwhere(here & ~above),
        1: np.argwhere(left & ~here),
        2: np.argwhere(above & ~here) + np.array([0, 1]),
        3: np.argwhere(here & ~left) + np.array([1, 0]),
    }
    edges: dict[_Corner, list[int]] = {}
    for direction, corners in starts.items():
        for i, j in corners.tolist():
            edges.setdefault((i, j), []).append(direction)
    return edges


def _follow(edges: dict[_Corner, list[int]], start: _Corner) -> list[_Corner]:
    """Walk one closed outline, take its edges out, and return the corners where it turns."""
    corner, direction = start, edges[start][0]
    first = (corner, direction)
    turns = []
    while True:
        corner = _advance(corner, direction)
        leaving = edges[corner]
        # Where two pixels touch at a corner, the right turn stays with the same pixel.
        order = ((direction + 1) % 4, direction, (direction + 3) % 4)
        turned = next(d for d in order if d in leaving)
        leaving.remove(turned)
        if turned != direction:
            turns.append(corner)
        direction = turned
        if (corner, direction) == first:
            return turns


def _advance(corner: _Corner, direction: int) -> _Corner:
    step = _STEPS[direction]
    return (corner[0] + step[0], corner[1] + step[1])
