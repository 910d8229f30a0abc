"""Cohorts of images and masks on disk: DICOM, RTSTRUCT, DICOM SEG, NIfTI, NRRD, MHA."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_lungfm import io
from napari_lungfm._core.exceptions import (
    DataError,
    InputFileError,
    LungFMError,
    LungFMWarning,
)
from napari_lungfm.datasets.cases import Case, Cohort, Part
from napari_lungfm.datasets.names import CohortName
from napari_lungfm.geometry import (
    LUNG_LABELS,
    LabelMap,
    Structure,
    Volume,
    VolumeGeometry,
    axis_codes,
    match_geometry,
    to_axial,
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


#: What stands in `FileCase.values` for a value of the mask that is no structure.
IGNORED = "ignore"


class FileCase(_Model):
    """One case on disk. Paths are relative to the cohort's ``root``.

    The reference is one of: a label image (``mask`` with ``values``), an RTSTRUCT (``rtstruct``
    with ``rois``) or a DICOM SEG (``seg`` with ``segments``). Every value but 0 that the mask has
    must be among ``values``; one that is no structure is given as ``ignore``.
    """

    name: str
    image: str
    series: str | None = None
    mask: str | None = None
    values: dict[int, str] = Field(default_factory=lambda: {1: "tumour"})
    rtstruct: str | None = None
    rois: dict[str, str] = Field(default_factory=lambda: {"GTV-1": "tumour"})
    seg: str | None = None
    segments: dict[str, str] = Field(default_factory=lambda: {"GTV-1": "tumour"})
    part: Part = "test"
    attributes: dict[str, str | float | int | bool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_reference(self) -> Self:
        given = [n for n in ("mask", "rtstruct", "seg") if getattr(self, n) is not None]
        if len(given) != 1:
            what = " and ".join(given) or "none"
            msg = f"case '{self.name}' needs exactly one of mask, rtstruct and seg; given: {what}"
            raise ValueError(msg)
        values = [title for title in self.values.values() if title != IGNORED]
        for titles in (values, self.rois.values(), self.segments.values()):
            for title in titles:
                try:
                    Structure.from_title(title)
                except LungFMError as error:
                    raise ValueError(str(error)) from error
        return self


class FileCohort(_Model):
    """A cohort whose cases are listed one by one."""

    kind: Literal["files"] = "files"
    name: CohortName
    title: str = ""
    root: str = "."
    cases: Annotated[tuple[FileCase, ...], Field(min_length=1)]

    def build(self, base: Path) -> Cohort:
        """Return the cohort; a relative ``root`` counts from ``base``.

        A training needs no test case, so that the files of test cases are looked for when one is
        first asked for: by `FileCaseSource.inputs`, `~FileCaseSource.fingerprint` or
        `~FileCaseSource.load`.

        Raises
        ------
        InputFileError
            If a file or folder of a training case is not there.
        """
        root = base / Path(self.root).expanduser()
        sources = [FileCaseSource(case, root) for case in self.cases]
        train = tuple(s for s in sources if s.case.part == "train")
        for source in train:
            source.check()
        return Cohort(
            self.name,
            self.title or f"images from {self.root}",
            test=tuple(s for s in sources if s.case.part == "test"),
            train=train,
            measure_radius=partial(_mean_radius, list(train)),
        )


@dataclass(frozen=True)
class FileCaseSource:
    """Loads one `FileCase`."""

    case: FileCase
    root: Path

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name

    def check(self) -> None:
        """Refuse a case whose files are not there, before hours are spent.

        Raises
        ------
        InputFileError
            If a file or folder is not there.
        """
        for path in self._paths():
            if not path.exists():
                msg = f"case '{self.name}': there is no file or folder '{path}'"
                raise InputFileError(msg)

    def fingerprint(self) -> str:
        """Hash of the specification and of the names, sizes and times of the files."""
        mark = hashlib.blake2b(self.case.model_dump_json().encode(), digest_size=16)
        for path in self.inputs():
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            for file in files:
                status = file.stat()
                mark.update(f"{file.name}\x1f{status.st_size}\x1f{status.st_mtime_ns}".encode())
        return mark.hexdigest()

    def load(self) -> Case:
        """Read image and reference and match them by geometry.

        An image whose slices along the first axis are not axial is turned, voxel by voxel, for
        models see axial slices; prompts and masks are then those of the turned grid.
        """
        self.check()
        try:
            volume = io.read_volume(self.root / self.case.image, series=self.case.series)
            reference = self._read_reference(volume)
        except LungFMError as error:
            raise type(error)(f"case '{self.name}': {error}") from error
        if not reference.present():
            msg = f"case '{self.name}': the reference is empty"
            raise DataError(msg)
        if axis_codes(volume.geometry)[0] not in "SI":
            volume, reference = to_axial(volume), to_axial(reference)
        return Case(self.name, volume, reference, self.case.attributes)

    def inputs(self) -> tuple[Path, ...]:
        """Return the image and the reference.

        Raises
        ------
        InputFileError
            If one is not there.
        """
        self.check()
        return self._paths()

    def _paths(self) -> tuple[Path, ...]:
        names = (self.case.image, self.case.mask, self.case.rtstruct, self.case.seg)
        return tuple(self.root / name for name in names if name is not None)

    def _read_reference(self, volume: Volume) -> LabelMap:
        case, geometry = self.case, volume.geometry
        frame = volume.metadata.get("frame_of_reference_uid")
        if case.mask is not None:
            return _rename_values(io.read_label_map(self.root / case.mask), case.values, geometry)
        parts: list[tuple[Structure, LabelMap]] = []
        if case.rtstruct is not None:
            for roi, title in case.rois.items():
                contours = io.read_rtstruct(
                    self.root / case.rtstruct, geometry, roi, frame_of_reference_uid=frame
                )
                parts.append((Structure.from_title(title), contours))
        elif case.seg is not None:
            for segment, title in case.segments.items():
                frames = io.read_seg(
                    self.root / case.seg, geometry, segment, frame_of_reference_uid=frame
                )
                parts.append((Structure.from_title(title), frames))
        return _combine(parts, geometry)


def _rename_values(
    label_map: LabelMap, values: Mapping[int, str], geometry: VolumeGeometry
) -> LabelMap:
    unknown = set(label_map.present()) - set(values)
    if unknown:
        msg = (
            f"the mask has the values {sorted(unknown)}, for which no structure is given; "
            f"given are {dict(values)}; name each, or give it as '{IGNORED}'"
        )
        raise DataError(msg)
    matched = match_geometry(label_map, geometry)
    masks = [
        (Structure.from_title(title), LabelMap.from_mask(matched.mask(value), geometry))
        for value, title in values.items()
        if title != IGNORED
    ]
    return _combine(masks, geometry)


def _combine(parts: list[tuple[Structure, LabelMap]], geometry: VolumeGeometry) -> LabelMap:
    """Put structures into one label map; the tumour wins where they overlap."""
    array = np.zeros(geometry.shape, dtype=np.uint8)
    for structure, part in sorted(parts, key=lambda item: item[0]):
        array[part.array != 0] = int(structure)
    return LabelMap(array, geometry, LUNG_LABELS)


def _mean_radius(sources: list[FileCaseSource]) -> float | None:
    """Mean volume-equivalent radius (mm) of the tumours of the given cases.

    Cases that cannot be read are left out with a warning, as they would be in a training.
    """
    radii = []
    for source in sources:
        try:
            reference = source.load().reference
        except LungFMError as error:
            text = f"left out of the mean tumour size: {error}"
            warnings.warn(text, LungFMWarning, stacklevel=2)
            continue
        voxels = np.count_nonzero(reference.mask(int(Structure.TUMOUR)))
        if voxels:
            volume_mm3 = voxels * reference.geometry.voxel_volume_ml * 1000.0
            radii.append((3.0 * volume_mm3 / (4.0 * np.pi)) ** (1.0 / 3.0))
    return float(np.mean(radii)) if radii else None
