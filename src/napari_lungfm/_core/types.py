"""Type aliases. Arrays are ``(z, y, x)`` unless an alias says otherwise."""

from collections.abc import Callable
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

#: A path as callers give it.
PathInput: TypeAlias = str | PathLike[str]
#: Voxels ``(z, y, x)`` of any dtype.
VoxelArray: TypeAlias = npt.NDArray[Any]
#: A binary mask ``(z, y, x)``.
MaskArray: TypeAlias = npt.NDArray[np.bool_]
#: A binary mask of one slice ``(y, x)``.
SliceMask: TypeAlias = npt.NDArray[np.bool_]
#: Integer labels ``(z, y, x)``.
LabelArray: TypeAlias = npt.NDArray[np.integer[Any]]
#: Floating-point array of any shape.
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
#: Three integers in array order ``(z, y, x)``.
Index3: TypeAlias = tuple[int, int, int]
#: Three floats; the docstring says in which order and unit.
Vector3: TypeAlias = tuple[float, float, float]
#: Three slices in array order ``(z, y, x)``.
Region: TypeAlias = tuple[slice, slice, slice]
#: Called with the work done so far and the whole of it (any unit).
ProgressCallback: TypeAlias = Callable[[int, int], None]
