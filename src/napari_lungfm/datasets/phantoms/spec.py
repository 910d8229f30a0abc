"""What to generate: patient, acquisition, tumours; all checked here."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias, get_args

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import Index3, Vector3

#: Phase of the contrast medium.
Contrast: TypeAlias = Literal["none", "arterial", "venous"]
#: Reconstruction kernel.
Kernel: TypeAlias = Literal["soft", "lung"]

#: Largest number of voxels along ``(z, y, x)``.
MAX_SHAPE: Index3 = (1024, 1024, 1024)
#: Largest number of voxels of one phantom, twice the 512 × 512 × 300 of a whole thin-slice chest.
MAX_VOXELS = 2 * 512 * 512 * 300
#: Tumour diameters in mm: smaller than 3 mm is a micronodule, larger than 150 mm fits no lung.
MIN_DIAMETER_MM, MAX_DIAMETER_MM = 3.0, 150.0
MAX_TUMOURS = 20


class TumourKind(StrEnum):
    """How a tumour looks and what it lies against."""

    SOLID_ROUND = "solid-round"
    LOBULATED = "lobulated"
    SPICULATED = "spiculated"
    PART_SOLID = "part-solid"
    GROUND_GLASS = "ground-glass"
    JUXTA_PLEURAL = "juxta-pleural"
    JUXTA_VASCULAR = "juxta-vascular"
    ATELECTASIS = "atelectasis"
    NECROTIC = "necrotic"
    CAVITATING = "cavitating"


@dataclass(frozen=True)
class TumourSpec:
    """One tumour; what is ``None`` is drawn from the seed.

    Parameters
    ----------
    kind
        A `TumourKind` or its value, for example ``"spiculated"``.
    diameter_mm
        Diameter of the sphere of the same volume, before the pleura cuts it off.
    centre
        LPS ``(x, y, z)`` in mm in the patient's frame.

    Raises
    ------
    UsageError
        If the kind is unknown or a number is out of range.
    """

    kind: TumourKind | str | None = None
    diameter_mm: float | None = None
    centre: Vector3 | None = None

    def __post_init__(self) -> None:
        if self.kind is not None:
            object.__setattr__(self, "kind", _kind(self.kind))
        if self.diameter_mm is not None:
            _in_range("tumour diameter", self.diameter_mm, MIN_DIAMETER_MM, MAX_DIAMETER_MM, "mm")
        if self.centre is not None:
            _three_finite("tumour centre (x, y, z)", self.centre)


@dataclass(frozen=True)
class Imaging:
    """How the scanner sees the patient.

    Parameters
    ----------
    slice_thickness
        Width of the slice profile in mm; ``None`` = the slice spacing.
    kernel
        ``"soft"`` (smooth) or ``"lung"`` (sharp, noisier).
    contrast
        Phase of the contrast medium.
    noise_hu
        Standard deviation of the noise in HU in the middle of the chest; 0 = none.
    streaks_hu
        Amplitude in HU of the horizontal photon-starvation streaks through the shoulders.
    table
        Put the patient on a table.
    seed
        Seed of the noise; ``None`` = the seed of the patient.

    Raises
    ------
    UsageError
        If a value is unknown or out of range.
    """

    slice_thickness: float | None = None
    kernel: Kernel = "soft"
    contrast: Contrast = "none"
    noise_hu: float = 12.0
    streaks_hu: float = 4.0
    table: bool = True
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.slice_thickness is not None:
            _in_range("slice thickness", self.slice_thickness, 0.1, 20.0, "mm")
        _choice("kernel", self.kernel, get_args(Kernel))
        _choice("contrast", self.contrast, get_args(Contrast))
        _in_range("noise", self.noise_hu, 0.0, 500.0, "HU")
        _in_range("streak amplitude", self.streaks_hu, 0.0, 200.0, "HU")


@dataclass(frozen=True)
class PhantomSpec:
    """Everything that decides the voxels of a phantom.

    Parameters
    ----------
    seed
        Seed of the patient, and of what has no seed of its own.
    shape
        Voxels ``(z, y, x)``.
    spacing
        Distance between voxel centres ``(z, y, x)`` in mm.
    centre
        Middle of the grid, LPS ``(x, y, z)`` in mm; ``None`` = the middle of the lungs. Grids are
        shifted by less than half a voxel so that voxel centres lie at whole multiples of the
        spacing: two grids of one spacing then share their voxels.
    focus
        Index of the tumour to centre the grid on; instead of ``centre``.
    imaging
        The acquisition.
    tumours
        What is known of the tumours; the list is filled up to ``n_tumours``.
    n_tumours
        Number of tumours; ``None`` = as many as ``tumours`` lists, at least one.
    tumour_seed
        Seed of the tumours; ``None`` = ``seed``.
    tissues
        Also return the map of tissues.

    Raises
    ------
    UsageError
        If something is out of range or contradictory.
    """

    seed: int = 0
    shape: Index3 = (64, 256, 256)
    spacing: Vector3 = (5.0, 1.4, 1.4)
    centre: Vector3 | None = None
    focus: int | None = None
    imaging: Imaging = field(default_factory=Imaging)
    tumours: tuple[TumourSpec, ...] = ()
    n_tumours: int | None = None
    tumour_seed: int | None = None
    tissues: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tumours", tuple(self.tumours))
        _check_grid(self.shape, self.spacing)
        number = self.tumour_count
        if not 0 <= number <= MAX_TUMOURS or number < len(self.tumours):
            msg = (
                f"n_tumours is {number} with {len(self.tumours)} tumours given; it must lie "
                f"between their number and {MAX_TUMOURS}"
            )
            raise UsageError(msg)
        if self.centre is not None:
            _three_finite("centre (x, y, z)", self.centre)
            if self.focus is not None:
                msg = "give either centre or focus, not both"
                raise UsageError(msg)
        if self.focus is not None and not 0 <= self.focus < number:
            msg = f"focus is tumour {self.focus}, but there are {number} (counted from 0)"
            raise UsageError(msg)

    @property
    def tumour_count(self) -> int:
        """Number of tumours of the phantom."""
        return self.n_tumours if self.n_tumours is not None else max(1, len(self.tumours))


def _kind(kind: TumourKind | str) -> TumourKind:
    try:
        return TumourKind(str(kind).strip().lower().replace("_", "-"))
    except ValueError as error:
        names = ", ".join(f"'{k.value}'" for k in TumourKind)
        msg = f"there is no tumour kind '{kind}'; choose from {names}"
        raise UsageError(msg) from error


def _choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        msg = f"there is no {what} '{value}'; choose from {', '.join(map(repr, choices))}"
        raise UsageError(msg)


def _in_range(what: str, value: float, low: float, high: float, unit: str) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        msg = f"the {what} must lie between {low:g} and {high:g} {unit}, not {value:g}"
        raise UsageError(msg)


def _three_finite(what: str, value: tuple[float, ...]) -> None:
    if len(value) != 3 or not all(math.isfinite(v) for v in value):
        msg = f"the {what} must be three finite numbers in mm, not {value}"
        raise UsageError(msg)


def _check_grid(shape: Index3, spacing: Vector3) -> None:
    if len(shape) != 3 or any(
        n != int(n) or not 1 <= n <= limit for n, limit in zip(shape, MAX_SHAPE, strict=False)
    ):
        msg = f"the shape (z, y, x) must be three numbers from 1 to {MAX_SHAPE[0]}, not {shape}"
        raise UsageError(msg)
    if math.prod(int(n) for n in shape) > MAX_VOXELS:
        msg = f"a phantom of shape {shape} has more than {MAX_VOXELS} voxels; ask for fewer"
        raise UsageError(msg)
    if len(spacing) != 3:
        msg = f"the spacing (z, y, x) must be three numbers in mm, not {spacing}"
        raise UsageError(msg)
    for value in spacing:
        _in_range("spacing", value, 0.1, 20.0, "mm")
