"""What is kept beside a download of series: the list of each one's files, and what is unfinished.

``.lists/UID.json`` says which files a series has; what a list says never changes. The mark
``.unfinished/UID`` holds the patient's name from the start of the download of a series until all
its files are there. Marks of other series stay, so that a small download ends only its own.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from napari_lungfm._core.files import make_folder, write_json, write_text
from napari_lungfm._core.types import PathInput
from napari_lungfm.datasets.sources.dicom_tree import PatientFiles
from napari_lungfm.datasets.sources.s3 import StoredObject

_LISTS, _UNFINISHED = ".lists", ".unfinished"
_NAMES = ("patient", "modality", "uid")


@dataclass(frozen=True)
class ListedSeries:
    """What a list says of a series: patient, modality, UID and number of files."""

    patient: str
    modality: str
    uid: str
    count: int


@dataclass(frozen=True)
class SeriesRecord:
    """The records in the folder of a collection."""

    collection: Path

    def files(self, uid: str) -> tuple[StoredObject, ...] | None:
        """Return the files that a series has, or ``None`` where no list is kept."""
        try:
            values = json.loads(self._list(uid).read_text(encoding="utf-8"))
            return tuple(StoredObject(**each) for each in values["files"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep(self, uid: str, patient: str, modality: str, files: Sequence[StoredObject]) -> None:
        """Keep the list of the files of a series."""
        values = {"uid": uid, "patient": patient, "modality": modality}
        write_json(self._list(uid), {**values, "files": [asdict(each) for each in files]})

    def begin(self, uid: str, patient: str) -> None:
        """Mark a series as unfinished."""
        marks = self.collection / _UNFINISHED
        if marks.is_file():  # what earlier versions left
            marks.unlink()
        write_text(make_folder(marks) / uid, patient)

    def end(self, uid: str) -> None:
        """Take the mark away."""
        (self.collection / _UNFINISHED / uid).unlink(missing_ok=True)

    def _list(self, uid: str) -> Path:
        return self.collection / _LISTS / f"{uid}.json"


def unfinished_patients(folder: PathInput) -> tuple[str, ...]:
    """Name the patients whose download has not ended, in a collection or the folder that holds it.

    Returns
    -------
    tuple of str
        Sorted; empty where all that was begun has ended.
    """
    marks = [mark for place in _collections(folder) for mark in place.glob(f"{_UNFINISHED}/[!.]*")]
    return tuple(sorted({mark.read_text(encoding="utf-8") for mark in marks}))


def listed_series(folder: PathInput) -> tuple[ListedSeries, ...]:
    """Return what the kept lists say, of a collection or of the folder that holds it."""
    found = []
    for place in _collections(folder):
        for path in sorted(place.glob(f"{_LISTS}/[!.]*.json")):
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
                patient, modality, uid = (str(values[key]) for key in _NAMES)
                found.append(ListedSeries(patient, modality, uid, len(values["files"])))
            except (OSError, ValueError, TypeError, KeyError):
                continue  # without it there is nothing to compare with
    return tuple(found)


def missing_files(
    listed: Sequence[ListedSeries], found: Mapping[str, PatientFiles]
) -> dict[str, tuple[str, ...]]:
    """Say of which series of the patients that are there files are missing.

    Parameters
    ----------
    listed
        What the lists say.
    found
        What is there, by patient.

    Returns
    -------
    dict of str to tuple of str
        Patient → one text per series, such as ``"CT: 20 of 24 files"``.
    """
    problems: dict[str, list[str]] = {}
    for each in listed:
        if each.patient not in found:
            continue
        there = _count(each, found[each.patient])
        if there < each.count:
            text = f"{each.modality}: {there} of {each.count} files"
            problems.setdefault(each.patient, []).append(text)
    return {patient: tuple(texts) for patient, texts in sorted(problems.items())}


def _count(listed: ListedSeries, files: PatientFiles) -> int:
    """Files of a series, by their tags or by their folder: a list may use another UID for it."""
    folder = f"{listed.modality}_{listed.uid}"
    tagged = sum(len(one.paths) for one in files.series if one.uid == listed.uid)
    lying = sum(path.parent.name == folder for one in files.series for path in one.paths)
    return max(tagged, lying)


def _collections(folder: PathInput) -> Iterator[Path]:
    place = Path(folder)
    yield place
    yield from sorted(path for path in place.glob("*") if path.is_dir())
