"""A cohort in nnU-Net's raw layout, with our split.

Images and references are written as axial NIfTI, whatever the orientation of the originals, since
predictions are made on axial volumes too.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_lungfm import io
from napari_lungfm._core.files import make_folder, slug, write_json
from napari_lungfm.datasets.cases import CaseSource, Cohort
from napari_lungfm.geometry import LabelMap, Structure, to_axial
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.automatic.trained import hash_image
from napari_lungfm.training.automatic.cohort_check import (
    for_each_case,
    labels_as_classes,
    load_for_training,
)
from napari_lungfm.training.automatic.kept import case_mark
from napari_lungfm.training.automatic.prepared import hash_labels
from napari_lungfm.training.automatic.split import Split

#: nnU-Net knows data sets by number; each training has folders of its own, so any will do.
DATASET_ID = 501
ENDING = ".nii.gz"
_SCHEMA = 1


@dataclass(frozen=True)
class ExportedCase:
    """A case in the raw layout.

    Parameters
    ----------
    name
        Name of the case in its cohort.
    identifier
        What nnU-Net calls it: the beginning of its files' names.
    image, reference
        Hashes of its CT and of its reference, on their own grid.
    """

    name: str
    identifier: str
    image: str
    reference: str


def dataset_name(cohort: str) -> str:
    """Return what nnU-Net calls a cohort, which is the name of its folders."""
    return f"Dataset{DATASET_ID}_{slug(cohort)}"


def export_cohort(
    cohort: Cohort,
    folder: Path,
    structures: Sequence[Structure],
    *,
    lungs: AutomaticModel | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ExportedCase, ...]:
    """Check and write all training cases; those that were written before are left as they are.

    Parameters
    ----------
    cohort
        The cases.
    folder
        Folder of the data set, such as ``nnUNet_raw/Dataset501_clinic``.
    structures
        The classes, in order, from 1.
    lungs
        See `load_for_training`.
    progress
        Called with the cases done and all of them.

    Raises
    ------
    CohortError
        If cases cannot be used; the message names them.
    OutputError
        If the folder cannot be written.
    """
    for part in ("imagesTr", "labelsTr", "exported"):
        make_folder(folder / part)
    exported: list[ExportedCase] = []

    def work(source: CaseSource) -> None:
        mark = case_mark(_SCHEMA, source, structures, lungs)
        identifier = slug(source.name)
        known = _known(folder, identifier, mark)
        if known is None:
            known = _export(source, folder, identifier, mark, structures, lungs)
        exported.append(ExportedCase(source.name, identifier, known["image"], known["reference"]))

    for_each_case(cohort, work, progress)
    return tuple(exported)


def write_dataset(
    folder: Path, split: Split[ExportedCase], structures: Sequence[Structure]
) -> None:
    """Write ``dataset.json``, and our split as ``splits_final.json``.

    nnU-Net wants validation cases. Where none are set aside it gets those that it trains on, as
    for its own fold ``all``.

    Parameters
    ----------
    folder
        See `export_cohort`.
    split
        All cases.
    structures
        The classes, in order.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    cases = sorted((*split.train, *split.validation), key=lambda case: case.identifier)
    description: dict[str, Any] = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{s.title: n for n, s in enumerate(structures, start=1)}},
        "numTraining": len(cases),
        "file_ending": ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
        "dataset": {
            case.identifier: {
                "images": [f"imagesTr/{case.identifier}_0000{ENDING}"],
                "label": f"labelsTr/{case.identifier}{ENDING}",
            }
            for case in cases
        },
    }
    write_json(folder / "dataset.json", description)
    train = sorted(case.identifier for case in split.train)
    aside = sorted(case.identifier for case in split.validation)
    write_json(folder / "splits_final.json", [{"train": train, "val": aside or train}])


def remove_other_cases(raw: Path, dataset: str, cases: Sequence[ExportedCase]) -> None:
    """Remove what was exported of other cohorts and of cases that are none of these.

    nnU-Net takes every folder with the number of our data set for it, and refuses two of them.

    Parameters
    ----------
    raw
        Folder of all data sets.
    dataset
        Name of the one that stays.
    cases
        Its cases.
    """
    own = {case.identifier for case in cases}
    for folder in raw.glob(f"Dataset{DATASET_ID}_*"):
        kept = own if folder.name == dataset else set()
        for said in (folder / "exported").glob("*.json"):
            if said.stem not in kept:
                files = (f"imagesTr/{said.stem}_0000{ENDING}", f"labelsTr/{said.stem}{ENDING}")
                for path in (said, *(folder / name for name in files)):
                    with contextlib.suppress(OSError):
                        path.unlink()
        if folder.name != dataset:
            for name in ("dataset.json", "splits_final.json"):
                with contextlib.suppress(OSError):
                    (folder / name).unlink()
            for part in ("imagesTr", "labelsTr", "exported", "."):
                with contextlib.suppress(OSError):  # other files are nobody's but the user's
                    (folder / part).rmdir()


def _known(folder: Path, identifier: str, mark: str) -> dict[str, str] | None:
    try:
        text = (folder / "exported" / f"{identifier}.json").read_text(encoding="utf-8")
        values: dict[str, str] = json.loads(text)
    except (OSError, ValueError):
        return None
    return values if values.get("mark") == mark else None


def _export(
    source: CaseSource,
    folder: Path,
    identifier: str,
    mark: str,
    structures: Sequence[Structure],
    lungs: AutomaticModel | None,
) -> dict[str, str]:
    case = load_for_training(source, structures, lungs)
    volume, reference = to_axial(case.volume), to_axial(case.reference)
    names = {n: s.title for n, s in enumerate(structures, start=1)}
    classes = LabelMap(labels_as_classes(reference, structures), reference.geometry, names)
    io.write_image(volume, folder / "imagesTr" / f"{identifier}_0000{ENDING}")
    io.write_label_map(classes, folder / "labelsTr" / f"{identifier}{ENDING}")
    known = {
        "mark": mark,
        "name": case.name,
        "image": hash_image(case.volume),
        "reference": hash_labels(case.reference),
    }
    write_json(folder / "exported" / f"{identifier}.json", known)  # last: the case is complete
    return known
