"""What the actions of a session return: enough for a viewer to draw only what changed."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from napari_lungfm._core.types import Region, SliceMask
from napari_lungfm.inference.session.state import (
    SessionState,
    changed_in_slice,
    changed_region,
)
from napari_lungfm.inference.session.transitions import Findings
from napari_lungfm.models.crops import SliceCrop, whole_mask


@dataclass(frozen=True, eq=False)
class SliceUpdate:
    """An object on one slice, found anew.

    Parameters
    ----------
    z
        The slice.
    crop
        What the object claims on it, cut to its box; ``None`` if nothing.
    changed
        Where it may differ from before, as an index into the volume; ``None`` if nowhere.
    shape
        Rows and columns of the slice.
    """

    z: int
    crop: SliceCrop | None
    changed: Region | None
    shape: tuple[int, int]

    @property
    def mask(self) -> SliceMask:
        """What the object claims on the slice: boolean ``(y, x)``."""
        return whole_mask(self.crop, self.shape)


@dataclass(frozen=True, eq=False)
class PromptOutcome:
    """What followed from an action on prompts.

    Parameters
    ----------
    prompt_ids
        Numbers of the prompts that were given or changed.
    slices
        The prompted slices that were segmented (again).
    changed
        Where the label map may differ from before, as an index into it; ``None`` if nowhere.
    """

    prompt_ids: tuple[int, ...]
    slices: tuple[SliceUpdate, ...]
    changed: Region | None


def outcome_of(
    before: SessionState,
    now: SessionState,
    label: int,
    prompt_ids: tuple[int, ...],
    slices: Iterable[int],
    shape: tuple[int, int],
) -> PromptOutcome:
    """Return what an action on the prompts of an object has led to on these slices."""
    old, new = before.objects[label].masks, now.objects[label].masks
    updates = tuple(
        SliceUpdate(z, new.get(z), changed_in_slice(z, old.get(z), new.get(z)), shape)
        for z in sorted(slices)
    )
    return PromptOutcome(prompt_ids, updates, changed_region(before, now))


def fingerprint(findings: Findings) -> dict[str, Any]:
    """Return what the log keeps of the masks that an action brought, to compare a replay with."""
    mark = hashlib.blake2b(digest_size=8)
    voxels = 0
    for z, crop in findings:
        place = None if crop is None else (crop.y0, crop.x0, crop.shape)
        mark.update(repr((z, place)).encode())
        if crop is not None:
            mark.update(crop.bits)
            voxels += crop.area
    return {"slices": len(findings), "voxels": voxels, "digest": mark.hexdigest()}
