"""What the network is shown at once: slices, prompts and what is known already, as channels."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from napari_lungfm.models.lungfm.window import LOOK_SIDE

#: Where the expected mask comes from: this very slice, which is to be corrected; the slice before
#: on the way; or interpolation between finished slices on either side.
PriorKind: TypeAlias = Literal["same", "beside", "between"]
PRIOR_KINDS: tuple[PriorKind, ...] = ("same", "beside", "between")
#: HU that become 0 and 1: everything in the chest but bone, and soft tissue.
WINDOWS_HU = ((-1000.0, 400.0), (-160.0, 240.0))
#: HU outside the image.
AIR_HU = -1024.0
#: Distance in mm of the slices shown beside the one asked for, at least; in thin slices the
#: nearest ones would show nothing new.
NEIGHBOUR_MM = 2.0
CHANNELS = 3 * 2 + 2 + 1 + 1 + 1 + 2 + 3 + 4


@dataclass(frozen=True, eq=False)
class Look:
    """One question to the network; images are ``(s, s)`` with s = `LOOK_SIDE`.

    Parameters
    ----------
    planes
        HU ``(3, s, s)``: the slice behind on the way, the one asked for, the one ahead.
    step
        Distance between the slices of the volume, as a fraction of the window's side.
    side_mm
        Side of the window in mm.
    anchor
        HU and mask ``(2, s, s)`` of the prompted slice that the object is carried from.
    anchor_distance
        Distance from it, as a fraction of the window's side.
    prior
        The mask expected, 0 to 1.
    prior_kind
        Where it comes from.
    box
        Coverage of the box.
    clicks
        Spots of positive and of negative clicks ``(2, s, s)``.
    """

    planes: Tensor
    step: float
    side_mm: float
    anchor: Tensor | None = None
    anchor_distance: float = 0.0
    prior: Tensor | None = None
    prior_kind: PriorKind | None = None
    box: Tensor | None = None
    clicks: Tensor | None = None

    def channels(self) -> Tensor:
        """Return the input of the network, float32 ``(CHANNELS, s, s)``."""
        like = self.planes
        empty = like.new_zeros((1, LOOK_SIDE, LOOK_SIDE))
        anchor = self.anchor
        scalars = [float(self.prior_kind == kind) for kind in PRIOR_KINDS]
        scalars += [
            float(self.box is not None),
            8.0 * self.step,
            self.anchor_distance,
            math.log(self.side_mm / 60.0),
        ]
        constant = torch.tensor(scalars, device=like.device)[:, None, None]
        parts = [
            grey_levels(self.planes),
            empty.expand(2, -1, -1) if anchor is None else grey_levels(anchor[:1]),
            empty if anchor is None else anchor[1:],
            empty if self.prior is None else self.prior[None],
            empty if self.box is None else self.box[None],
            empty.expand(2, -1, -1) if self.clicks is None else self.clicks,
            constant.expand(-1, LOOK_SIDE, LOOK_SIDE),
        ]
        return torch.cat(parts)


def grey_levels(planes: Tensor) -> Tensor:
    """Return slices ``(n, s, s)`` in HU through every window, ``(2 n, s, s)``, 0 to 1."""
    return torch.cat([((planes - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS_HU])


def neighbour_steps(spacing_mm: float) -> int:
    """Return how many slices away the neighbours shown are."""
    return max(1, round(NEIGHBOUR_MM / spacing_mm))
