"""Patients of Lung1 (NSCLC-Radiomics): a CT series, an RTSTRUCT and mostly a DICOM SEG."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_lungfm import io
from napari_lungfm._core.exceptions import DataError, LungFMError
from napari_lungfm._core.types import LabelArray, PathInput
from napari_lungfm.benchmark.cohorts.contours import contour_volume_ml
from napari_lungfm.benchmark.cohorts.raw import Reading, dice, hash_files
from napari_lungfm.datasets.cases import Part
from napari_lungfm.datasets.sources import LUNG1, KnownProblem
from napari_lungfm.datasets.sources.dicom_tree import PatientFiles, SeriesFiles, find_patients
from napari_lungfm.datasets.sources.series_record import listed_series, missing_files
from napari_lungfm.geometry import LabelMap, Structure, Volume, axis_codes
from napari_lungfm.geometry import to_axial as turn_axial

#: What the tumour is called in an RTSTRUCT, and in a SEG of this collection.
TUMOUR_ROI = "GTV-1"
TUMOUR_SEGMENTS = ("GTV-1", "Neoplasm, Primary", "Neoplasm")
#: What the lungs are called.
LUNG_ROIS: Mapping[Structure, str] = {
    Structure.LEFT_LUNG: "Lung-Left",
    Structure.RIGHT_LUNG: "Lung-Right",
}
BOTH_LUNGS_ROI = "Lungs-Total"


def lung1_cases(
    raw: PathInput, *, progress: Callable[[int], None] | None = None
) -> tuple["Lung1Case", ...]:
    """Find the patients in a download of Lung1, of any layout.

    Parameters
    ----------
    raw
        The folder.
    progress
        See `find_patients`.

    Raises
    ------
    InputFileError
        If there are none.
    """
    found = find_patients(raw, progress=progress)
    missing = missing_files(listed_series(raw), found)
    return tuple(
        Lung1Case(files, LUNG1.bad.get(name), missing=missing.get(name, ()))
        for name, files in found.items()
    )


@dataclass(frozen=True)
class Lung1Case:
    """One patient; see `RawCase`.

    Parameters
    ----------
    files
        Their series.
    known
        What is known to be wrong with them.
    part
        See `RawCase`.
    missing
        Of which series files are missing that the list of the download has; see `missing_files`.
    """

    files: PatientFiles
    known: KnownProblem | None = None
    part: Part | None = None
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the patient."""
        return self.files.patient or "no PatientID"

    @property
    def excluded(self) -> str | None:
        """Why the patient is not even looked at."""
        known = self.known
        return f"known: {known.reason}" if known is not None and known.excludes else None

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Nothing: clinical data are another download."""
        return {}

    def fingerprint(self) -> str:
        """Hash of the names, sizes and times of the files, and of what is missing."""
        paths = [path for each in self.files.series for path in each.paths]
        return hash_files(paths, "lung1 1", *self.missing)

    def read(self) -> Reading:
        """Read the CT, the tumour, and the lungs where they are contoured.

        The tumour is that of the RTSTRUCT; the SEG stands in where there is none that can be
        read, and is compared where both are there.
        """
        volume = _read_ct(self._the_ct())
        notes = [str(note) for note in volume.metadata.get("notes", ())]
        if self.known is not None:
            notes.append(f"known: {self.known.reason}")
        facts: dict[str, Any] = {"missing_files": "; ".join(self.missing)} if self.missing else {}
        contours, no_contours = _attempt(lambda: self._from_rtstruct(volume, facts))
        segment, no_segment = _attempt(lambda: self._from_seg(volume))
        if contours is not None:
            tumour, source = contours, f"RTSTRUCT {TUMOUR_ROI}"
            if segment is not None:
                facts["seg_dice"] = dice(contours.array != 0, segment.array != 0)
            elif self.files.of("SEG"):
                notes.append(f"the SEG was not compared: {no_segment}")
        elif segment is not None:
            tumour, source = segment, "SEG"
            notes.append(f"the tumour is that of the SEG: {no_contours}")
        else:
            msg = f"no tumour: {no_contours}; {no_segment}"
            raise DataError(msg)
        lungs, both = self._lungs(volume, notes)
        reading = Reading(
            volume, tumour.array != 0, lungs, source, facts, notes,
            None if both is None else both.array != 0,
        )  # fmt: skip
        return _axial(reading)

    def _the_ct(self) -> SeriesFiles:
        found = self.files.of("CT")
        if len(found) != 1:
            listed = "; ".join(f"{each.uid} ({len(each.paths)} files)" for each in found)
            msg = f"several CT series: {listed}" if found else "no CT series"
            raise DataError(msg)
        return found[0]

    def _from_rtstruct(self, volume: Volume, facts: dict[str, Any]) -> LabelMap:
        path, number = self._roi(TUMOUR_ROI)
        mask = io.read_rtstruct(
            path, volume.geometry, number, frame_of_reference_uid=_frame(volume)
        )
        facts["contour_ml"] = contour_volume_ml(path, number, volume.geometry)
        return mask

    def _roi(self, name: str) -> tuple[Path, int]:
        """File and number of the one region of a name."""
        paths = [path for each in self.files.of("RTSTRUCT") for path in each.paths]
        found = [
            (path, roi.number)
            for path in paths
            for roi in io.list_rois(path)
            if roi.name.casefold() == name.casefold()
        ]
        if len(found) == 1:
            return found[0]
        if not paths:
            msg = "there is no RTSTRUCT"
        elif not found:
            msg = f"the RTSTRUCT has no '{name}'"
        else:
            msg = f"there are {len(found)} regions '{name}' in {len(paths)} RTSTRUCT files"
        raise DataError(msg)

    def _from_seg(self, volume: Volume) -> LabelMap:
        paths = [path for each in self.files.of("SEG") for path in each.paths]
        for path in paths:
            names = {segment.name.casefold(): segment for segment in io.list_segments(path)}
            for wanted in TUMOUR_SEGMENTS:
                if wanted.casefold() in names:
                    segment = names[wanted.casefold()]
                    return io.read_seg(
                        path, volume.geometry, segment.number, frame_of_reference_uid=_frame(volume)
                    )
        listed = ", ".join(f"'{name}'" for name in TUMOUR_SEGMENTS)
        msg = f"the SEG has none of {listed}" if paths else "there is no SEG"
        raise DataError(msg)

    def _lungs(self, volume: Volume, notes: list[str]) -> tuple[LabelArray | None, LabelMap | None]:
        """Contoured lungs, left and right, or where there are none of these, both as one."""
        lungs = np.zeros(volume.shape, dtype=np.uint8)
        for structure, name in LUNG_ROIS.items():
            mask = self._contoured(name, volume, notes)
            if mask is None:
                return None, self._contoured(BOTH_LUNGS_ROI, volume, notes)
            lungs[mask.array != 0] = int(structure)
        return lungs, None

    def _contoured(self, name: str, volume: Volume, notes: list[str]) -> LabelMap | None:
        try:
            path, number = self._roi(name)
        except LungFMError:
            return None
        try:
            return io.read_rtstruct(
                path, volume.geometry, number, frame_of_reference_uid=_frame(volume)
            )
        except LungFMError as error:
            notes.append(f"the contoured lungs were not used: {error}")
            return None


def _attempt(read: Callable[[], LabelMap]) -> tuple[LabelMap | None, str]:
    try:
        return read(), ""
    except LungFMError as error:
        return None, str(error)


def _frame(volume: Volume) -> str | None:
    uid = volume.metadata.get("frame_of_reference_uid")
    return str(uid) if uid else None


def _read_ct(series: SeriesFiles) -> Volume:
    """Read a series, also where its files lie among those of others."""
    parents = {path.parent for path in series.paths}
    first = series.paths[0].parent
    if len(parents) == 1 and sum(1 for _ in first.iterdir()) == len(series.paths):
        return io.read_series(first, series=series.uid)
    with tempfile.TemporaryDirectory(prefix="napari-lungfm-series-") as folder:
        linked = Path(folder)
        with contextlib.suppress(OSError):  # Windows lets few people make links
            for number, path in enumerate(series.paths):
                (linked / f"{number:05d}.dcm").symlink_to(path.resolve())
        whole = len(list(linked.iterdir())) == len(series.paths)
        return io.read_series(linked if whole else first, series=series.uid)


def _axial(reading: Reading) -> Reading:
    """Return the reading with axial slices along the first axis."""
    geometry = reading.volume.geometry
    if axis_codes(geometry)[0] in "SI":
        return reading
    lungs, both = reading.lungs, reading.both_lungs
    return replace(
        reading,
        volume=turn_axial(reading.volume),
        tumour=turn_axial(LabelMap.from_mask(reading.tumour, geometry)).array != 0,
        lungs=None if lungs is None else turn_axial(LabelMap(lungs, geometry)).array,
        both_lungs=None
        if both is None
        else turn_axial(LabelMap.from_mask(both, geometry)).array != 0,
        notes=(*reading.notes, "its slices are not axial; the case is kept with axial slices"),
    )
