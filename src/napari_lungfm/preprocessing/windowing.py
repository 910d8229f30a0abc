"""Map HU to the grey values that people and models look at."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm._core.types import VoxelArray
from napari_lungfm.geometry import Volume

#: Range of HU that the paper keeps.
HU_RANGE = (-1000.0, 1000.0)
#: What every image of a chest has something of: air, lung or fat, in HU with room for noise.
_LIGHT_HU = (-1200.0, -50.0)


@dataclass(frozen=True)
class Window:
    """A range of HU by its centre and size, as on a radiology workstation.

    Parameters
    ----------
    level
        Centre in HU.
    width
        Size in HU, above 0.

    Raises
    ------
    UsageError
        If a number is not finite or the width not positive.
    """

    level: float
    width: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.level) and math.isfinite(self.width) and self.width > 0):
            msg = (
                f"a window needs a finite level and a positive width in HU, not level "
                f"{self.level} and width {self.width}"
            )
            raise UsageError(msg)

    @property
    def low(self) -> float:
        """HU that becomes black."""
        return self.level - self.width / 2

    @property
    def high(self) -> float:
        """HU that becomes white."""
        return self.level + self.width / 2

    @classmethod
    def between(cls, low: float, high: float) -> "Window":
        """Return the window from ``low`` to ``high`` HU."""
        return cls((low + high) / 2, high - low)


#: Name → window, the usual presets for chest CT.
WINDOWS: Mapping[str, Window] = MappingProxyType(
    {
        "lung": Window(-600, 1500),
        "mediastinum": Window(40, 400),
        "soft tissue": Window(50, 350),
        "bone": Window(400, 1800),
    }
)


@overload
def to_uint8(image: Volume, window: Window) -> Volume: ...
@overload
def to_uint8(image: VoxelArray, window: Window) -> npt.NDArray[np.uint8]: ...
def to_uint8(image: Volume | VoxelArray, window: Window) -> Volume | npt.NDArray[np.uint8]:
    """Map HU to grey values: ``window.low`` and below to 0, ``window.high`` and above to 255.

    Values between are mapped linearly and rounded to the nearest grey value.

    Parameters
    ----------
    image
        A volume, or an array of any shape, in HU.
    window
        What to show.

    Returns
    -------
    Volume or ndarray
        uint8, a `Volume` for a `Volume`.

    Raises
    ------
    DataError
        If a voxel is NaN.
    """
    if isinstance(image, Volume):
        return Volume(to_uint8(image.array, window), image.geometry, image.metadata)
    grey = np.empty(image.shape, dtype=np.uint8)
    factor = np.float32(255.0 / window.width)
    for part, out in _parts(image, grey):
        check_no_nan(part)
        scaled = (part.astype(np.float32) - np.float32(window.low)) * factor
        np.rint(np.clip(scaled, 0.0, 255.0, out=scaled), out=out, casting="unsafe")
    return grey


def clip_and_scale(
    array: VoxelArray, low: float = HU_RANGE[0], high: float = HU_RANGE[1]
) -> npt.NDArray[np.float32]:
    """Clip HU to ``[low, high]`` and map this range to ``[0, 1]``, float32.

    Raises
    ------
    UsageError
        If ``high`` is not above ``low``.
    DataError
        If a voxel is NaN.
    """
    window = Window.between(low, high)
    unit = np.empty(array.shape, dtype=np.float32)
    for part, out in _parts(array, unit):
        check_no_nan(part)
        np.clip(part, low, high, out=out, casting="unsafe")
        np.subtract(out, np.float32(window.low), out=out)
        np.divide(out, np.float32(window.width), out=out)
    return unit


def check_no_nan(array: VoxelArray) -> None:
    """Refuse NaN.

    Raises
    ------
    DataError
        If a voxel is NaN.
    """
    if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
        count = int(np.count_nonzero(np.isnan(array)))
        msg = f"{count} voxels of the image are NaN; give them a value in HU (air is -1000) first"
        raise DataError(msg)


def told_if_no_hu(volume: Volume) -> str | None:
    """Tell in one line that an image is evidently not in HU; ``None`` if it may be.

    Told are images that were scaled to 0 to 1 or to 8 bit, stored values without their
    intercept, and images of a single value: nothing in them can be air, lung or fat. Images that
    were cut to a usual window still have some of these.

    Parameters
    ----------
    volume
        The image. Mostly the first slices of it are looked at; all only where there is doubt.
    """
    lowest, highest, light = math.inf, -math.inf, False
    for plane in volume.array:
        if np.issubdtype(plane.dtype, np.floating):
            plane = plane[np.isfinite(plane)]  # noqa: PLW2901
        if not plane.size:
            continue
        lowest, highest = min(lowest, float(plane.min())), max(highest, float(plane.max()))
        light = light or bool(((plane > _LIGHT_HU[0]) & (plane < _LIGHT_HU[1])).any())
        if light and lowest < highest:
            return None
    if lowest > highest:
        return None  # nothing to judge by
    found = (
        f"all values are {lowest:g}"
        if lowest == highest
        else (f"values from {lowest:g} to {highest:g}")
    )
    return (
        f"{found}: this does not look like HU (air near -1000, soft tissue 0 to 100), which the "
        "models are made for; give the CT as it was before it was scaled"
    )


def _parts(array: VoxelArray, out: npt.NDArray[Any]) -> "list[tuple[VoxelArray, npt.NDArray[Any]]]":
    """Slices of a volume, so that a float copy of all of it is never needed."""
    return list(zip(array, out, strict=True)) if array.ndim == 3 else [(array, out)]
