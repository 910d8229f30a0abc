"""What the DICOM objects that this package writes have in common."""

import contextlib
import datetime
import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

from napari_lungfm import __version__
from napari_lungfm._core.exceptions import OutputError
from napari_lungfm._core.files import make_folder, output_error
from napari_lungfm._core.types import VoxelArray

#: Manufacturer of the objects.
MAKER = "napari-lungfm"
#: Elements of patient and study that a derived object repeats (PS3.3 C.7.1.1, C.7.2.1).
PATIENT_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside ``target`` that takes its name when the block ends well."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        msg = f"cannot write the series to '{target}': it exists already; choose a new folder"
        raise OutputError(msg)
    parent = make_folder(target.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except OSError as error:
        raise output_error(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def new_dataset(sop_class: str, sop_instance: str) -> Any:
    """Return a data set with file meta information and empty patient and study elements."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = sop_instance
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = sop_instance
    dataset.Manufacturer = MAKER
    dataset.SoftwareVersions = __version__
    for keyword in PATIENT_STUDY:
        setattr(dataset, keyword, "")
    return dataset


def copy_patient_study(image: Any, dataset: Any) -> None:
    """Repeat patient and study of an image in an object derived from it."""
    for keyword in PATIENT_STUDY:
        setattr(dataset, keyword, image.get(keyword) or "")


def completed(image: Any) -> Any:
    """Add the elements that highdicom takes for granted and anonymised files may lack."""
    for keyword in (*PATIENT_STUDY, "PositionReferenceIndicator"):
        if keyword not in image:
            setattr(image, keyword, "")
    if not image.get("Modality"):
        image.Modality = "CT"
    image.FrameOfReferenceUID = frame_of_reference(image)
    return image


def frame_of_reference(image: Any) -> str:
    """Return the FrameOfReferenceUID of an image, one derived from its series if it has none."""
    uid = image.get("FrameOfReferenceUID")
    return str(uid or generate_uid(entropy_srcs=[image.SeriesInstanceUID, "frame of reference"]))


def stamp(dataset: Any, date: str, time: str) -> None:
    """Set the elements named ``date`` and ``time`` to now."""
    now = datetime.datetime.now(tz=datetime.UTC).astimezone()
    setattr(dataset, date, now.strftime("%Y%m%d"))
    setattr(dataset, time, now.strftime("%H%M%S"))


def decimals(values: Iterable[float]) -> list[str]:
    """Format numbers as DICOM DS, which has at most 16 characters."""
    return [format_number_as_ds(float(v) + 0.0) for v in values]  # + 0.0 turns −0 into 0


def digest(array: VoxelArray) -> str:
    """Return a hash of the voxels, from which the UIDs of an object are made."""
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
