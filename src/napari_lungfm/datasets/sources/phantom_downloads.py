"""Cases written as the public data sets come: for rehearsals without any download.

What is written has the layout, the formats and the names of the real thing, so that everything
from `prepare` on can be tried on phantoms; a record beside it says that they are phantoms.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from pydicom.uid import generate_uid

from napari_lungfm import io
from napari_lungfm._core.files import make_folder, write_text
from napari_lungfm._core.types import PathInput
from napari_lungfm.datasets.cases import Case
from napari_lungfm.datasets.sources.cards import LUNG1, TASK06
from napari_lungfm.datasets.sources.origin import record_origin
from napari_lungfm.geometry import LabelMap, Structure

_LUNG_ROIS = {
    int(Structure.LEFT_LUNG): "Lung-Left",
    int(Structure.RIGHT_LUNG): "Lung-Right",
}
_TUMOUR = int(Structure.TUMOUR)
#: What titles of cohorts say of them.
_ORIGIN = "the phantoms of napari-lungfm"


def write_lung1(
    cases: Iterable[Case], out: PathInput, *, lungs: bool = True, seg: bool = True
) -> Path:
    """Write cases like a download of Lung1: collection/patient/study/modality_series/*.dcm.

    Parameters
    ----------
    cases
        Their names become PatientIDs.
    out
        Folder that gets the collection.
    lungs
        Contour the lungs too, as is the case for part of the real patients.
    seg
        Write the DICOM SEG beside the RTSTRUCT.

    Returns
    -------
    Path
        The folder of the collection.
    """
    collection = make_folder(Path(out) / str(LUNG1.collection))
    record_origin(collection, [_ORIGIN])
    for case in cases:
        study = generate_uid(entropy_srcs=["phantom download", "study", case.name])
        series = generate_uid(entropy_srcs=["phantom download", "series", case.name])
        place = collection / case.name / study
        ct = place / f"CT_{series}"
        io.write_series(case.volume, ct, patient_id=case.name, study_uid=study, series_uid=series)
        present = case.reference.present()
        rois = {v: n for v, n in _LUNG_ROIS.items() if lungs and v in present}
        if _TUMOUR in present:
            rois[_TUMOUR] = "GTV-1"
        if rois:
            io.write_rtstruct(case.reference, ct, _object(place, "RTSTRUCT", case.name), rois)
        if seg and _TUMOUR in present:
            path = _object(place, "SEG", case.name)
            io.write_seg(case.reference, ct, path, {_TUMOUR: "Neoplasm, Primary"})
    return collection


def write_task06(cases: Iterable[Case], out: PathInput) -> Path:
    """Write cases like the unpacked Task06: ``imagesTr``, ``labelsTr`` and ``dataset.json``.

    Parameters
    ----------
    cases
        Their names become those of the files.
    out
        Folder that gets ``Task06_Lung``.

    Returns
    -------
    Path
        The folder ``Task06_Lung``.
    """
    folder = make_folder(Path(out) / "Task06_Lung")
    training = []
    for case in cases:
        image, label = f"./imagesTr/{case.name}.nii.gz", f"./labelsTr/{case.name}.nii.gz"
        tumour = case.reference.mask(_TUMOUR)
        make_folder((folder / image).parent)
        io.write_image(case.volume, folder / image)
        mask = LabelMap.from_mask(tumour, case.volume.geometry, label=1, name="cancer")
        io.write_label_map(mask, folder / label)
        training.append({"image": image, "label": label})
    index = {
        "name": "Lung",
        "description": "phantoms in the layout of Task06_Lung",
        "licence": TASK06.licence,
        "labels": {"0": "background", "1": "cancer"},
        "numTraining": len(training),
        "training": training,
        "test": [],
    }
    write_text(folder / "dataset.json", json.dumps(index, indent=1))
    record_origin(folder, [_ORIGIN])
    return folder


def _object(place: Path, modality: str, patient: str) -> Path:
    """Return the file of an object of one file."""
    series = generate_uid(entropy_srcs=["phantom download", modality, patient])
    return make_folder(place / f"{modality}_{series}") / "1-1.dcm"
