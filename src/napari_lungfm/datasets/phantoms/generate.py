"""`generate_phantom`: from a specification to a case."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_lungfm._core.types import Vector3
from napari_lungfm.datasets.phantoms.patient import Patient, draw_patient
from napari_lungfm.datasets.phantoms.render import Rendering, render
from napari_lungfm.datasets.phantoms.spec import PhantomSpec, TumourKind, TumourSpec
from napari_lungfm.datasets.phantoms.tumours import Tumour, draw_tumours
from napari_lungfm.geometry import LabelMap, Volume, VolumeGeometry


@dataclass(frozen=True)
class TumourInfo:
    """What is known of one tumour of a phantom.

    Attributes
    ----------
    kind
        How it looks.
    diameter_mm
        Diameter asked for: of the sphere of the same volume, uncut by the pleura.
    longest_diameter_mm
        Longest axial diameter of the reference on this grid (RECIST); 0 when it is not in it.
    volume_ml
        Volume of the reference on this grid.
    centre
        LPS ``(x, y, z)`` in mm.
    mean_hu
        Mean of the noise-free image over the reference; NaN when it is not in the grid.
    pleural_contact
        Whether the tumour touches chest wall, diaphragm or mediastinum.
    """

    kind: TumourKind
    diameter_mm: float
    longest_diameter_mm: float
    volume_ml: float
    centre: Vector3
    mean_hu: float
    pleural_contact: bool


@dataclass(frozen=True)
class TumourSize:
    """Size of a tumour's shape, known without rendering."""

    seed: int
    kind: TumourKind
    diameter_mm: float
    longest_diameter_mm: float
    volume_ml: float


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic case.

    Attributes
    ----------
    spec
        What it was made from; it makes the same voxels again.
    volume
        CT in HU, int16 ``(z, y, x)``.
    labels
        Reference: 1 left lung, 2 right lung, 3 tumour; uint8.
    tumours
        One entry per tumour, in the order of the specification.
    tissues
        Map of `Tissue`, if asked for.
    """

    spec: PhantomSpec
    volume: Volume
    labels: LabelMap
    tumours: tuple[TumourInfo, ...]
    tissues: LabelMap | None = None


def generate_phantom(spec: PhantomSpec) -> Phantom:
    """Generate a chest CT with its reference.

    The same specification gives the same voxels on every run. Patient, tumours and acquisition
    have random streams of their own: another noise level, grid or tumour leaves the rest as it
    was.

    Raises
    ------
    UsageError
        If the centre of a tumour is given and does not lie in a lung.
    """
    patient = draw_patient(spec.seed)
    tumours = _tumours(spec, patient)
    geometry = _geometry(spec, patient, tumours)
    rendering = render(patient, tumours, geometry, spec.imaging, tissues=spec.tissues)
    return Phantom(
        spec,
        rendering.volume,
        rendering.labels,
        _infos(tumours, rendering),
        rendering.tissues,
    )


def phantom_geometry(spec: PhantomSpec) -> VolumeGeometry:
    """Return the grid of a phantom without rendering it."""
    patient = draw_patient(spec.seed)
    tumours = _tumours(spec, patient) if spec.focus is not None else ()
    return _geometry(spec, patient, tumours)


def tumour_sizes(specs: Iterable[PhantomSpec]) -> tuple[TumourSize, ...]:
    """Sizes of all tumours of a cohort, without rendering any image.

    Parameters
    ----------
    specs
        The cases; their grids and acquisitions do not matter.
    """
    return tuple(
        TumourSize(spec.seed, t.kind, t.diameter_mm, t.longest_diameter_mm, t.volume_ml)
        for spec in specs
        for t in _tumours(spec, draw_patient(spec.seed))
    )


def _tumours(spec: PhantomSpec, patient: Patient) -> tuple[Tumour, ...]:
    missing = spec.tumour_count - len(spec.tumours)
    wanted = (*spec.tumours, *([TumourSpec()] * missing))
    seed = spec.tumour_seed if spec.tumour_seed is not None else spec.seed
    return draw_tumours(patient, wanted, seed)


def _geometry(spec: PhantomSpec, patient: Patient, tumours: tuple[Tumour, ...]) -> VolumeGeometry:
    centre = patient.centre if spec.centre is None else spec.centre
    if spec.focus is not None:
        centre = tumours[spec.focus].centre
    spacing = np.asarray(spec.spacing)[::-1]
    half = (np.asarray(spec.shape)[::-1] - 1) / 2 * spacing
    ox, oy, oz = (np.rint((np.asarray(centre) - half) / spacing) * spacing).tolist()
    return VolumeGeometry(spec.shape, spec.spacing, (ox, oy, oz))


def _infos(tumours: tuple[Tumour, ...], rendering: Rendering) -> tuple[TumourInfo, ...]:
    voxel = rendering.volume.geometry.voxel_volume_ml
    return tuple(
        TumourInfo(
            kind=t.kind,
            diameter_mm=t.diameter_mm,
            longest_diameter_mm=tally.diameter_mm,
            volume_ml=tally.voxels * voxel,
            centre=t.centre,
            mean_hu=tally.hu_sum / tally.voxels if tally.voxels else float("nan"),
            pleural_contact=t.pleural_contact,
        )
        for t, tally in zip(tumours, rendering.tallies, strict=True)
    )
