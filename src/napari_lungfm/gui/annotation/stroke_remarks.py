"""What a stroke has done that its painter may not have meant."""

import numpy as np
import numpy.typing as npt

from napari_lungfm.geometry import LUNG_LABELS, Structure
from napari_lungfm.inference.session import SessionState
from napari_lungfm.inference.session.transitions import free_name

#: A slice that is filled is remarked on from so many times the largest slice of an object on,
#: and from this share of the whole slice on.
_TIMES, _SHARE = 10, 0.5


def remark_on_stroke(
    changed: npt.NDArray[np.bool_],
    label: int,
    state: SessionState,
    *,
    filled: bool,
    slice_area: int,
) -> str:
    """Return what to say of a stroke, nothing of an ordinary one.

    Parameters
    ----------
    changed
        Voxels that were changed ``(z, y, x)``.
    label
        The object that was painted.
    state
        The session before it.
    filled
        Whether it was made with the paint bucket.
    slice_area
        Voxels of a whole slice.
    """
    said, objects = [], state.objects
    if label not in objects and (objects or label != Structure.TUMOUR):
        name = free_name(state, LUNG_LABELS.get(label, f"object {label}"))
        said.append(f"No object has the number {label}: a new one, '{name}', was made of it.")
    largest = max((m.area for o in objects.values() for m in o.masks.values()), default=0)
    limit = min(_TIMES * largest or np.inf, _SHARE * slice_area)
    most = int(changed.sum(axis=(1, 2)).max(initial=0))
    if filled and most > limit:
        much = f"{most / slice_area:.0%} of the slice"
        said.append(f"The bucket has filled {much}: Ctrl+Z takes it back.")
    return " ".join(said)
