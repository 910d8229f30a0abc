"""Refuse masks that cannot be compared."""

import numpy as np

from napari_lungfm._core.exceptions import DataError, GeometryError
from napari_lungfm._core.types import MaskArray


def check_mask(mask: MaskArray, what: str = "mask", *, ndim: int | None = None) -> None:
    """Refuse anything but a boolean array.

    Probabilities and label values are refused, for what counts as inside is not ours to guess.

    Raises
    ------
    DataError
        If it is not boolean.
    GeometryError
        If it has not ``ndim`` axes.
    """
    if mask.dtype != np.bool_:
        msg = f"the {what} must be boolean, not {mask.dtype}; compare it with a label first"
        raise DataError(msg)
    if ndim is not None and mask.ndim != ndim:
        msg = f"the {what} must have {ndim} axes (z, y, x), not the shape {mask.shape}"
        raise GeometryError(msg)


def check_pair(prediction: MaskArray, reference: MaskArray, *, ndim: int | None = None) -> None:
    """Refuse two masks that are not boolean or not of one shape; see `check_mask`."""
    check_mask(prediction, "prediction", ndim=ndim)
    check_mask(reference, "reference", ndim=ndim)
    if prediction.shape != reference.shape:
        msg = (
            f"the prediction has shape {prediction.shape}, the reference {reference.shape} "
            "(z, y, x); bring both onto one grid first"
        )
        raise GeometryError(msg)
