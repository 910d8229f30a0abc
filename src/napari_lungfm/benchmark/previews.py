"""A few slices of each case, kept with the run so that reports need neither images nor models."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import InputFileError
from napari_lungfm._core.files import atomic_path
from napari_lungfm._core.types import LabelArray
from napari_lungfm.datasets.cases import Case
from napari_lungfm.geometry import LabelMap, Structure, bounding_region, to_axial

PREVIEW_SCHEMA = 1
#: Space (mm) left around the tumour on every side, so that its surroundings can be judged.
MARGIN_MM = 25.0
#: What numpy and zipfile raise on files that are cut off, altered or something else altogether.
_DAMAGE = (
    OSError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, eq=False)
class Preview:
    """Axial slices around the tumour of one case.

    Parameters
    ----------
    slices
        Slice indices in the case turned to axial axes (`geometry.to_axial`), ascending:
        the first and last slice of the tumour and the quartiles between, the one with the
        largest area among them.
    largest
        The slice with the largest tumour area.
    rows, columns
        The part ``[start, stop)`` of each slice that is kept.
    hu
        Image, int16 ``(n, y, x)``.
    reference
        Labels of the reference, uint8 ``(n, y, x)``.
    spacing
        Voxel spacing ``(z, y, x)`` in mm.
    """

    slices: tuple[int, ...]
    largest: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    hu: npt.NDArray[np.int16]
    reference: npt.NDArray[np.uint8]
    spacing: tuple[float, float, float]

    @classmethod
    def of_case(cls, case: Case) -> "Preview":
        """Cut the preview out of a case; without a tumour, every structure counts."""
        volume, reference = to_axial(case.volume), to_axial(case.reference)
        mask = reference.mask(int(Structure.TUMOUR))
        if not mask.any():
            mask = reference.array > 0
        region = bounding_region(mask)
        if region is None:
            region = (
                slice(0, volume.shape[0]),
                slice(0, volume.shape[1]),
                slice(0, volume.shape[2]),
            )
        areas = mask.sum(axis=(1, 2))
        largest = int(areas.argmax())
        low, high = region[0].start, region[0].stop - 1
        quartiles = {round(low + (high - low) * part) for part in (0.0, 0.25, 0.5, 0.75, 1.0)}
        chosen = tuple(sorted(quartiles | {largest}))
        rows = _widen(region[1], volume.spacing[1], volume.shape[1])
        columns = _widen(region[2], volume.spacing[2], volume.shape[2])
        picked = np.ix_(chosen, range(*rows), range(*columns))
        return cls(
            chosen,
            largest,
            rows,
            columns,
            np.clip(np.rint(volume.array[picked]), -32768, 32767).astype(np.int16),
            reference.array[picked].astype(np.uint8),
            volume.spacing,
        )

    def pick(self, label_map: LabelMap) -> LabelArray:
        """Return the same part ``(n, y, x)`` of a label map on the grid of the case."""
        axial = to_axial(label_map)
        return axial.array[np.ix_(self.slices, range(*self.rows), range(*self.columns))]

    def save(self, path: Path) -> None:
        """Write the preview atomically."""
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                schema_version=PREVIEW_SCHEMA,
                slices=self.slices,
                largest=self.largest,
                rows=self.rows,
                columns=self.columns,
                hu=self.hu,
                reference=self.reference,
                spacing=self.spacing,
            )

    @classmethod
    def load(cls, path: Path) -> "Preview":
        """Read a preview.

        Raises
        ------
        InputFileError
            If the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                if data["schema_version"] > PREVIEW_SCHEMA:
                    raise ValueError("it was written by a newer version of napari-lungfm")
                z, y, x = (float(s) for s in data["spacing"])
                preview = cls(
                    tuple(int(i) for i in data["slices"]),
                    int(data["largest"]),
                    (int(data["rows"][0]), int(data["rows"][1])),
                    (int(data["columns"][0]), int(data["columns"][1])),
                    data["hu"],
                    data["reference"],
                    (z, y, x),
                )
            preview._check()
        except _DAMAGE as error:
            msg = f"the preview '{path}' cannot be read ({error}); run again to make it anew"
            raise InputFileError(msg) from error
        return preview

    def _check(self) -> None:
        shape = (len(self.slices), *(stop - start for start, stop in (self.rows, self.columns)))
        if self.hu.shape != shape or self.reference.shape != shape:
            raise ValueError("its images do not have the size that it states")
        if self.largest not in self.slices:
            raise ValueError("its largest slice is not among its slices")


def _widen(part: slice, spacing: float, size: int) -> tuple[int, int]:
    margin = round(MARGIN_MM / spacing)
    return (max(0, part.start - margin), min(size, part.stop + margin))
