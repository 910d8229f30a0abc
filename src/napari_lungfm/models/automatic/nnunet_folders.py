"""Folders of nnU-Net's own: taken in, if their source is trusted, and written for others.

nnU-Net keeps a trained model as ``plans.json``, ``dataset.json`` and ``fold_N/checkpoint_*.pth``.
The checkpoints are pickles, which can run any code when they are read; ours hold tensors only.
"""

import json
import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_lungfm import __version__
from napari_lungfm._core.environment import package_versions, source_hash
from napari_lungfm._core.exceptions import LungFMError, UsageError
from napari_lungfm._core.files import atomic_path, file_sha256, make_folder, write_json
from napari_lungfm._core.imports import require
from napari_lungfm._core.types import PathInput
from napari_lungfm.geometry import Structure
from napari_lungfm.models.automatic.nnunet_layout import FINAL
from napari_lungfm.models.automatic.nnunet_settings import (
    ARCHITECTURES,
    DATASET,
    NNUNET,
    PLANS,
    SMALL_PLANS,
    SMALL_TRAINER,
    NNUNetSettings,
)
from napari_lungfm.models.automatic.trained import (
    WEIGHTS,
    TrainedModel,
    check_files,
    read_description,
    write_description,
)
from napari_lungfm.models.weights import WeightsError
from napari_lungfm.models.weights.files import write_tensors
from napari_lungfm.models.weights.reference import check_finite

#: What we know of a model that we export, beside nnU-Net's own files, and what these files were.
EXPORTED = "napari-lungfm.json"
#: What is kept of nnU-Net's description of its data: nothing that names a case.
_KEPT = ("channel_names", "labels", "numTraining", "file_ending")
UNKNOWN = "unknown"


def import_nnunet(
    source: PathInput,
    target: Path,
    *,
    labels: Mapping[int, str] | None = None,
    check: Callable[[str], object] | None = None,
) -> TrainedModel:
    """Make the folder of a trained model from one of nnU-Net's own. Reads pickles: trusted only.

    All folds that are there become one model, which takes the mean of their logits. What was
    exported from here is known again, as long as its files are those that were written.

    Parameters
    ----------
    source
        A folder such as ``nnUNetTrainer__nnUNetPlans__2d``.
    target
        Where to write.
    labels
        Label value → title of the `Structure`, where nnU-Net's names of the labels do not say.
    check
        Called with the architecture as soon as it is known, before anything is converted; may
        raise.

    Returns
    -------
    TrainedModel
        Its description; of models of others it is not known which patients they have seen.

    Raises
    ------
    UsageError
        If its labels are no structures, it is of a kind that cannot be run here, or a checkpoint
        lacks something.
    WeightsError
        If its files cannot be read or do not fit together.
    OutputError
        If the target cannot be written.
    """
    folder = Path(source)
    plans, dataset = (_read_json(folder / name) for name in (PLANS, DATASET))
    structures = _structures(dataset, labels or {}, folder)
    paths = sorted(folder.glob(f"fold_*/{FINAL}"), key=str)
    names = [WEIGHTS, *(f"fold-{n}.safetensors" for n in range(1, len(paths)))]
    first = _read_checkpoint(paths[0])
    settings, epochs = _settings(first, paths[0], tuple(names))
    if check is not None:
        check(ARCHITECTURES[settings.configuration])
    checkpoints = [first, *(_read_checkpoint(path) for path in paths[1:])]
    states = [_weights(each, path) for each, path in zip(checkpoints, paths, strict=True)]
    make_folder(target)
    for name, state in zip(names, states, strict=True):
        write_weights(target / name, state)
    write_nnunet_files(target, plans, dataset)
    title = f"{ARCHITECTURES[settings.configuration]} ({plans.get('dataset_name', folder.name)})"
    model = _open(target, title, settings, structures)  # raises where it cannot be run
    files = {name: file_sha256(target / name) for name in (PLANS, DATASET, *names)}
    known = _exported_here(folder)
    if known is not None:
        if known.structures != structures:
            msg = f"'{folder}' was exported from here and says what its labels are; leave them out"
            raise UsageError(msg)
        own = settings.model_copy(update={"postprocessing": _postprocessing(known)})
        description = known.model_copy(
            update={"files": files, "settings": own.model_dump(mode="json")}
        )
        write_description(target, description)
        return description
    description = TrainedModel(
        family=NNUNET,
        architecture=ARCHITECTURES[settings.configuration],
        title=title,
        small=settings.trainer == SMALL_TRAINER or plans.get("plans_name") == SMALL_PLANS,
        settings=settings.model_dump(mode="json"),
        structures=structures,
        files=files,
        parameters=model.parameters,
        seen=(),
        cohort=str(plans.get("dataset_name", UNKNOWN)),
        cohort_hash=UNKNOWN,
        split_hash=UNKNOWN,
        epochs=epochs,
        seconds=0.0,
        code_version=__version__,
        code_hash=source_hash(),
        versions=package_versions(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=("imported from nnU-Net: which patients it has seen is not known",),
    )
    write_description(target, description)
    return description


def export_nnunet(folder: PathInput, out: PathInput) -> Path:
    """Write a trained nnU-Net as nnU-Net itself keeps it, and our description of it.

    ``nnUNetv2_predict_from_modelfolder`` takes the folder.

    Parameters
    ----------
    folder
        The folder of a trained model.
    out
        Folder to write; must not exist.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UsageError
        If the model is no nnU-Net, or `out` exists.
    WeightsError
        If its files were changed.
    OutputError
        If `out` cannot be written.
    """
    torch = require("torch", purpose="nnU-Net")
    place, target = Path(folder), Path(out)
    description = read_description(place)
    if description.family != NNUNET:
        msg = f"'{folder}' is a '{description.architecture}'; only nnU-Net's models are exported"
        raise UsageError(msg)
    if target.exists():
        msg = f"'{out}' is there already; choose another folder"
        raise UsageError(msg)
    check_files(place, description)
    settings = NNUNetSettings.model_validate(description.settings)
    plans, dataset = (_read_json(place / name) for name in (PLANS, DATASET))
    model = _open(place, description.title, settings, description.structures)
    make_folder(target)
    for fold, state in enumerate(model.weights):
        checkpoint = {
            "network_weights": state,
            "trainer_name": settings.trainer,
            "inference_allowed_mirroring_axes": settings.mirroring,
            "current_epoch": description.epochs,
            "init_args": {
                "plans": plans,
                "configuration": settings.configuration,
                "fold": fold,
                "dataset_json": dataset,
            },
        }
        with atomic_path(target / f"fold_{fold}" / FINAL) as temporary:
            torch.save(checkpoint, temporary)
    write_nnunet_files(target, plans, dataset)
    written = [PLANS, DATASET, *(f"fold_{fold}/{FINAL}" for fold in range(len(model.weights)))]
    files = {name: file_sha256(target / name) for name in written}
    values = description.model_copy(update={"files": files}).model_dump(mode="json")
    write_json(target / EXPORTED, values)
    return target


def write_nnunet_files(folder: Path, plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
    """Write nnU-Net's plans and description of its data, without the names of cases.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    write_json(folder / PLANS, plans)
    write_json(folder / DATASET, {key: dataset[key] for key in _KEPT if key in dataset})


def write_weights(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state dict of tensors as safetensors, each tensor once.

    nnU-Net's networks hold most of their layers under two or three names.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    once: dict[tuple[int, ...], str] = {}
    for key, t in state.items():
        once.setdefault((t.data_ptr(), t.storage_offset(), *t.shape), key)
    write_tensors(path, {key: state[key] for key in once.values()})


def _open(folder: Path, title: str, settings: NNUNetSettings, structures: tuple[int, ...]) -> Any:
    require("torch", purpose="nnU-Net")
    from napari_lungfm.models.automatic.nnunet_model import open_nnunet  # noqa: PLC0415

    return open_nnunet(folder, title, settings, structures, device="cpu")


def _exported_here(folder: Path) -> TrainedModel | None:
    """Return what `export_nnunet` wrote; ``None`` unless the files are still the same."""
    try:
        content = json.loads((folder / EXPORTED).read_text(encoding="utf-8"))
        description = TrainedModel.model_validate(content)
    except (OSError, ValueError):
        return None
    present = {path.relative_to(folder).as_posix() for path in folder.glob(f"fold_*/{FINAL}")}
    if description.family != NNUNET or {PLANS, DATASET, *present} != set(description.files):
        return None
    same = all(file_sha256(folder / name) == mark for name, mark in description.files.items())
    return description if same else None


def _postprocessing(description: TrainedModel) -> tuple[str, ...]:
    return NNUNetSettings.model_validate(description.settings).postprocessing


def _settings(
    checkpoint: Mapping[str, Any], path: Path, weights: tuple[str, ...]
) -> tuple[NNUNetSettings, int]:
    """Return what a checkpoint says of its model, and for how many epochs it was trained."""
    configuration = _entry(_entry(checkpoint, "init_args", path), "configuration", path)
    if configuration not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        msg = f"'{path}' is of the configuration '{configuration}'; only {known} can be run here"
        raise UsageError(msg)
    trainer = _entry(checkpoint, "trainer_name", path)
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    try:
        settings = NNUNetSettings(
            configuration=configuration,
            trainer=trainer,
            mirroring=None if axes is None else tuple(axes),
            weights=weights,
        )
        return settings, int(checkpoint.get("current_epoch", 0))
    except (TypeError, ValueError) as error:
        what = " ".join(str(error).split())[:120]
        msg = f"'{path}' is no checkpoint of nnU-Net v2 that can be run here: {what}"
        raise UsageError(msg) from error


def _weights(checkpoint: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Return the tensors of a checkpoint, all of them finite."""
    state = _entry(checkpoint, "network_weights", path)
    if not isinstance(state, Mapping) or not all(hasattr(t, "data_ptr") for t in state.values()):
        msg = f"'{path}' is no checkpoint of nnU-Net v2: its 'network_weights' are no tensors"
        raise UsageError(msg)
    check_finite(state, where=f"'{path}'")
    return state


def _entry(values: Any, key: str, path: Path) -> Any:
    if not isinstance(values, Mapping) or key not in values:
        msg = (
            f"'{path}' has no '{key}', which every checkpoint of nnU-Net v2 has; take the file "
            "that its training wrote"
        )
        raise UsageError(msg)
    return values[key]


def _structures(
    dataset: Mapping[str, Any], given: Mapping[int, str], folder: Path
) -> tuple[int, ...]:
    """Label values of ours in the order of nnU-Net's classes."""
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    if len(channels) != 1:
        msg = f"'{folder}' wants {len(channels)} images at once; only CT alone can be given here"
        raise UsageError(msg)
    labels = dict(dataset.get("labels", {}))
    if any(not isinstance(value, int) for value in labels.values()):
        msg = f"'{folder}' finds regions that overlap; only labels can be run here"
        raise UsageError(msg)
    named = {value: str(name) for name, value in labels.items()}
    values = sorted(v for v, name in named.items() if v != 0 and name != "ignore")
    strange = [value for value in given if value not in values]
    if strange:
        listed = ", ".join(f"{value} '{named[value]}'" for value in values) or "none"
        msg = f"there is no label {strange[0]} in '{folder}'; its labels: {listed}"
        raise UsageError(msg)
    found: list[int] = []
    for value in values:
        title = given.get(value, named[value])
        try:
            structure = Structure.from_title(title)
        except LungFMError as error:
            known = ", ".join(s.title for s in Structure)
            msg = (
                f"label {value} of '{folder}' is '{title}', which is none of {known}; "
                f"say which it is: --label {value}=tumour"
            )
            raise UsageError(msg) from error
        if int(structure) in found:
            first = values[found.index(int(structure))]
            msg = (
                f"labels {first} and {value} of '{folder}' would both be {structure.title}; "
                f"say which one is something else: --label {first}=STRUCTURE"
            )
            raise UsageError(msg)
        found.append(int(structure))
    if not found:
        msg = f"'{folder}' finds nothing: there are no labels in {DATASET}"
        raise UsageError(msg)
    return tuple(found)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"'{path}' cannot be read ({' '.join(str(error).split())[:80]}); copy it again"
        raise WeightsError(msg) from error
    if not isinstance(content, dict):
        msg = f"'{path}' holds no mapping; copy it again"
        raise WeightsError(msg)
    return content


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that is trusted; as plain values and tensors where that is enough."""
    torch = require("torch", purpose="nnU-Net")
    plain = [np.dtype, type(np.float64(0)), type(np.float32(0)), *_numpy_types()]
    try:
        try:
            with torch.serialization.safe_globals(plain):
                content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            content = torch.load(path, map_location="cpu", weights_only=False)
    # A pickle may raise anything.
    except Exception as error:
        msg = f"'{path}' cannot be read ({' '.join(str(error).split())[:80]}); copy it again"
        raise WeightsError(msg) from error
    if not isinstance(content, dict):
        msg = f"'{path}' is no checkpoint of nnU-Net"
        raise WeightsError(msg)
    return content


def _numpy_types() -> list[Any]:
    """Return what numpy's numbers are pickled by."""
    core = getattr(np, "_core", None) or np.core
    return [core.multiarray.scalar, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8"))]
