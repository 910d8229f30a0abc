"""The folder of a trained model: what is in it, writing it, and reading it again.

``model.json`` says everything about the model, ``weights.safetensors`` has the tensors,
``config.yaml`` the configuration of its training, ``log.csv`` the course of it; nnU-Net's have its
``plans.json`` and ``dataset.json`` too. The description is written last, so a folder without one is
unfinished. Nothing heavy is imported here.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.files import file_sha256, write_json
from napari_lungfm._core.types import PathInput
from napari_lungfm.geometry import Volume, to_axial
from napari_lungfm.models.automatic.nnunet_layout import told_of_nnunet
from napari_lungfm.models.weights import WeightsError

#: Name of the description, which makes a folder a trained model.
DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"
SCHEMA_VERSION = 1


class SeenPatientError(UsageError):
    """A model is to be scored on a patient that it was trained on."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SeenPatient(_Model):
    """A patient that a model has seen.

    Parameters
    ----------
    cohort, case
        Names in the training's configuration.
    part
        ``"train"``: the weights were fitted to it; ``"validation"``: they were chosen by it.
    image
        `hash_image` of its CT, by which it is known under other names.
    """

    cohort: str
    case: str
    part: Literal["train", "validation"]
    image: str

    def is_named(self, case: str, cohort: str | None) -> bool:
        """Tell whether a case of a cohort has this patient's name; names are a cohort's own."""
        return cohort == self.cohort and case == self.case


class TrainedModel(_Model):
    """All that is known of a trained model without loading it.

    Parameters
    ----------
    family
        What reads and runs it: ``"slice-network"`` for U-Net and DeepLabV3, ``"nnunet"``.
    architecture
        The name that it goes by: ``unet``, ``deeplabv3``, ``nnunet-2d``.
    title
        Name of the configuration that it was trained with, for tables.
    small
        It was trained with a preset for demonstrations and says nothing about its architecture.
    settings
        What `family` needs to run it, in plain values.
    structures
        Label values that it finds, in the order of its classes.
    files
        File in the folder → sha256; the weights, and whatever else is needed to run it.
    parameters
        Number of trained parameters.
    seen
        The patients that it has seen.
    cohort, cohort_hash, split_hash
        Name of the training's cohort, hash of all its cases, and of who is in which part.
    validation
        Scores on validation cases, on the grid of each case: case → structure → Dice; ``None``
        where no case was set aside.
    epochs, seconds
        How long it was trained.
    code_version, code_hash
        Version of this package and hash of its code at training time.
    versions, hardware
        Packages and machine.
    finished
        When, ISO 8601 in UTC.
    notes
        What else must be said, such as why a resumed training is not bit for bit.
    """

    schema_version: Literal[1] = 1
    family: str
    architecture: str
    title: str
    small: bool = False
    settings: dict[str, Any]
    structures: tuple[int, ...]
    files: dict[str, str]
    parameters: int
    seen: tuple[SeenPatient, ...]
    cohort: str
    cohort_hash: str
    split_hash: str
    validation: dict[str, dict[str, float | None]] | None = None
    epochs: int
    seconds: float
    code_version: str
    code_hash: str
    versions: dict[str, str] = Field(default_factory=dict)
    hardware: dict[str, str] = Field(default_factory=dict)
    finished: str
    notes: tuple[str, ...] = ()

    def refuse_seen(
        self, case: str, *, cohort: str | None = None, image: str | None = None
    ) -> None:
        """Refuse a patient that the model has seen.

        Parameters
        ----------
        case
            Name of the case.
        cohort
            Name of its cohort. Case names mean something within a cohort only: without it, or
            with another one, only the image counts.
        image
            `hash_image` of its CT.

        Raises
        ------
        SeenPatientError
            If it has; the message names the case and what it was used for.
        """
        patient = self.seen_patient(case, cohort=cohort, image=image)
        if patient is not None:
            used = "trained on" if patient.part == "train" else "chosen by"
            also = "" if patient.is_named(case, cohort) else f" (there '{patient.case}')"
            msg = (
                f"the model '{self.title}' was {used} case '{case}'{also} of cohort "
                f"'{patient.cohort}'; a score on it would say nothing, leave the case out"
            )
            raise SeenPatientError(msg)

    def seen_patient(
        self, case: str, *, cohort: str | None = None, image: str | None = None
    ) -> SeenPatient | None:
        """Return the patient of the training that a case is; see `refuse_seen`."""
        for patient in self.seen:
            same_image = image is not None and image == patient.image
            if same_image or patient.is_named(case, cohort):
                return patient
        return None

    def told_if_seen(self, volume: Volume) -> str | None:
        """Say in a line that the model has seen this very image in its training.

        Parameters
        ----------
        volume
            The CT that it is to segment, as it was read.

        Returns
        -------
        str or None
            ``None`` where it has not, or nothing is known of what it has seen.
        """
        patient = self.find_seen(volume)
        return None if patient is None else self.told_of(patient)

    def told_if_small(self) -> str | None:
        """Say in a line that a preset for demonstrations trained it; ``None`` where none did."""
        if not self.small:
            return None
        return f"'{self.title}' was trained with a preset for demonstrations; do not rely on it"

    def told_of(self, patient: SeenPatient) -> str:
        """Say in a line that a patient's image was seen in the training."""
        return (
            f"'{self.title}' has seen this very image in its training (case "
            f"'{patient.case}' of '{patient.cohort}'); the result says nothing about others"
        )

    def find_seen(self, volume: Volume) -> SeenPatient | None:
        """Return the patient of the training whose CT an image is; ``None`` where it is none's.

        Parameters
        ----------
        volume
            A CT, as it was read.
        """
        return self.seen_patient("", image=hash_image(volume)) if self.seen else None


def hash_image(volume: Volume) -> str:
    """Return a hash of the voxels and spacing of a CT, the same however its axes are stored."""
    axial = to_axial(volume)
    mark = hashlib.blake2b(digest_size=16)
    mark.update(repr((axial.shape, tuple(round(mm, 4) for mm in axial.spacing))).encode())
    for plane in axial.array:
        mark.update(np.ascontiguousarray(np.rint(plane), dtype=np.int16).data)
    return mark.hexdigest()


def is_trained_model(path: PathInput) -> bool:
    """Tell whether a path is the folder of a trained model."""
    return (Path(path) / DESCRIPTION).is_file()


def write_description(folder: Path, description: TrainedModel) -> None:
    """Write the description of a model whose files are in place.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_json(folder / DESCRIPTION, description.model_dump(mode="json"))


def read_description(folder: PathInput) -> TrainedModel:
    """Read the description of a trained model.

    Raises
    ------
    UsageError
        If the folder is no trained model.
    WeightsError
        If its description is damaged or of another version.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        msg = told_of_nnunet(folder) or (
            f"'{folder}' is no trained model: it has no {DESCRIPTION}; a training writes that "
            "last, continue it with: napari-lungfm-bench train CONFIG --out FOLDER --resume"
        )
        raise UsageError(msg)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            msg = (
                f"'{path}' has schema version {version}, this program reads {SCHEMA_VERSION}; "
                "train or export the model again"
            )
            raise WeightsError(msg)
        description = TrainedModel.model_validate(content)
    except (OSError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        msg = f"'{path}' cannot be read ({_problem(error)}); train or copy the model again"
        raise WeightsError(msg) from error
    for name in description.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            msg = f"'{path}' names a file outside its folder; train or copy the model again"
            raise WeightsError(msg)
    return description


def check_files(folder: PathInput, description: TrainedModel) -> None:
    """Compare the files of a trained model with what its description says.

    Raises
    ------
    InputFileError
        If one is gone.
    WeightsError
        If one was changed.
    """
    for name, expected in description.files.items():
        path = Path(folder) / name
        if file_sha256(path) != expected:
            msg = f"'{path}' was changed since training; copy or train the model again"
            raise WeightsError(msg)


def hash_parts(parts: Mapping[str, Sequence[str]]) -> str:
    """Return a hash of who is in which part of a split, whatever the order of the cases."""
    text = json.dumps({part: sorted(names) for part, names in parts.items()}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return " ".join(str(error).split())[:120]
