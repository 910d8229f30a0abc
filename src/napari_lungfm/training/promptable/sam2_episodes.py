"""Episodes as a SAM 2 network takes them: encoded slices, and prompts as labelled points."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_lungfm.models.foundation.sam2_engine import IMAGE_MEAN, IMAGE_STD
from napari_lungfm.models.foundation.sam2_prompts import (
    FIRST_CORNER,
    LAST_CORNER,
    NEGATIVE,
    POSITIVE,
    PointInputs,
)
from napari_lungfm.models.lungfm.look import WINDOWS_HU
from napari_lungfm.models.lungfm.window import LOOK_SIDE, resized
from napari_lungfm.training.promptable.corrections import error_click
from napari_lungfm.training.promptable.episodes import Episode

#: HU that become 0 and 1 in the three colours of the input: those of LungFM-S, and aerated lung.
COLOURS_HU = (*WINDOWS_HU, (-1000.0, -200.0))
#: Label of a point in ``sam2`` that is none.
NO_POINT = -1


@dataclass(frozen=True, eq=False)
class Frame:
    """Encoder features of n slices, finest first, as the stock code passes them on.

    Parameters
    ----------
    maps, positions
        Features and their positions ``(pixels, n, channels)``.
    sizes
        Rows and columns of every map.
    """

    maps: list[Tensor]
    positions: list[Tensor]
    sizes: list[tuple[int, int]]

    def pick(self, members: list[int]) -> "Frame":
        """Return some of the slices."""
        return Frame(
            [m[:, members] for m in self.maps], [p[:, members] for p in self.positions], self.sizes
        )

    def fine(self) -> list[Tensor] | None:
        """Return the finer maps ``(n, channels, y, x)`` as the mask decoder takes them."""
        maps = zip(self.maps[:-1], self.sizes[:-1], strict=True)
        return [m.permute(1, 2, 0).reshape(*m.shape[1:], *size) for m, size in maps] or None


def encoded_slices(
    network: Any, episodes: Sequence[Episode], colours: Sequence[tuple[float, float]]
) -> dict[str, Frame]:
    """Encode all slices of a batch at once.

    Parameters
    ----------
    network
        A ``SAM2Base``.
    episodes
        The batch.
    colours
        See `images_of`.

    Returns
    -------
    dict of str to Frame
        ``"prompt"``, the anchors in the prompts' windows; ``"walk 0"`` and so on; where windows
        differ ``"anchor"``, the anchors in the walks' windows; ``"start"``, the slices before
        those walks that begin elsewhere, in the order of their episodes.
    """
    planes = {"prompt": [e.planes[1] for e in episodes]}
    if any(e.window != e.walk_window for e in episodes):
        planes["anchor"] = [e.anchor_plane for e in episodes]
    starts = [e.start_plane for e in episodes if e.start_plane is not None]
    if starts:
        planes["start"] = starts
    for k in range(episodes[0].walk_truth.shape[0]):
        planes[f"walk {k}"] = [e.walk_planes[k, 1] for e in episodes]
    every = torch.stack([plane for some in planes.values() for plane in some])
    images = images_of(every, int(network.image_size), colours)
    _, maps, positions, sizes = network._prepare_backbone_features(network.forward_image(images))
    counts = [len(some) for some in planes.values()]
    split_maps = zip(*(m.split(counts, dim=1) for m in maps), strict=True)
    split_positions = zip(*(p.split(counts, dim=1) for p in positions), strict=True)
    return {
        name: Frame(list(some), list(places), sizes)
        for name, some, places in zip(planes, split_maps, split_positions, strict=True)
    }


def images_of(planes: Tensor, size: int, colours: Sequence[tuple[float, float]]) -> Tensor:
    """Return slices as the input of a network.

    Parameters
    ----------
    planes
        Slices in HU ``(n, s, s)``.
    size
        Side S of the input in pixels.
    colours
        HU that become 0 and 1 in each of the three channels, before they are normalised as the
        publishers' images are.

    Returns
    -------
    Tensor
        Float ``(n, 3, S, S)``.
    """
    planes = resized(planes, size)
    grey = [((planes - low) / (high - low)).clamp(0, 1) for low, high in colours]
    mean, deviation = (planes.new_tensor(c)[:, None, None] for c in (IMAGE_MEAN, IMAGE_STD))
    return (torch.stack(grey, dim=1) - mean) / deviation


def prompt_inputs(episodes: Sequence[Episode], size: int) -> PointInputs:
    """Return the prompts of episodes as labelled points, each box as its two corners.

    Parameters
    ----------
    episodes
        Either all have a box or none has. One without a click beside its box gets a point that
        is none.
    size
        Side of the network's input in pixels.
    """
    rows = []
    for episode in episodes:
        row = []
        if episode.box is not None:
            y0, y1 = _edges(episode.box.amax(dim=1))
            x0, x1 = _edges(episode.box.amax(dim=0))
            row = [(x0, y0, FIRST_CORNER), (x1, y1, LAST_CORNER)]
        row.append(_place(episode.clicks[0], POSITIVE))
        rows.append(row)
    return _inputs(rows, size, episodes[0].clicks.device)


def click_inputs(found: Tensor, wanted: Tensor, rng: np.random.Generator, size: int) -> PointInputs:
    """Return a click into the largest error of every mask, drawn by `corrections.error_click`.

    Parameters
    ----------
    found, wanted
        Masks, boolean ``(n, s, s)``. Where they are equal there is a point that is none.
    rng
        The draws.
    size
        Side of the network's input in pixels.
    """
    rows = []
    for mask, truth in zip(found, wanted, strict=True):
        click = error_click(mask, truth, rng)
        if click is None:
            rows.append([(0.0, 0.0, NO_POINT)])
        else:
            rows.append([(click.x, click.y, POSITIVE if click.positive else NEGATIVE)])
    return _inputs(rows, size, found.device)


def joined_points(points: PointInputs | None, more: PointInputs) -> PointInputs:
    """Return the points of both."""
    if points is None:
        return more
    return {name: torch.cat([points[name], more[name]], dim=1) for name in points}


def jump_of(episode: Episode) -> int:
    """Return how many slices lie from the anchor to the slice before the walk; 0 if it is that."""
    return round(episode.walk_distance[0] / episode.walk_step) - 1


def _inputs(
    rows: list[list[tuple[float, float, int]]], size: int, device: torch.device
) -> PointInputs:
    """Return points in look pixels ``(x, y, label)`` as tensors in input pixels."""
    table = torch.tensor(rows, device=device)
    return {
        "point_coords": table[..., :2] * (size / LOOK_SIDE),
        "point_labels": table[..., 2].int(),
    }


def _edges(coverage: Tensor) -> tuple[float, float]:
    """Return the sides of a box from how much of each row or column it covers."""
    covered = coverage.nonzero()[:, 0]
    if not len(covered):  # a box beside its window
        return (0.0, 0.0)
    first, last = int(covered[0]), int(covered[-1])
    return (first + 1.0 - float(coverage[first]), last + float(coverage[last]))


def _place(spot: Tensor, label: int) -> tuple[float, float, int]:
    """Return the middle ``(x, y)`` of a spot, to half a pixel, or no point."""
    if not bool(spot.any()):
        return (0.0, 0.0, NO_POINT)
    y, x = divmod(int(spot.argmax()), spot.shape[1])
    return (x + 0.5, y + 0.5, label)
