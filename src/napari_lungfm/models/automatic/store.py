"""Trained models by name: folders that were imported under the name of their architecture.

They lie beside the pretrained weights, as ``<weights>/trained/<architecture>/<label>/``.
"""

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_lungfm._core.exceptions import LungFMError, OutputError, UsageError
from napari_lungfm._core.files import atomic_path, file_sha256, make_folder, output_error
from napari_lungfm._core.types import PathInput
from napari_lungfm.models.automatic.nnunet_folders import import_nnunet
from napari_lungfm.models.automatic.nnunet_layout import is_nnunet_folder
from napari_lungfm.models.automatic.trained import (
    DESCRIPTION,
    TrainedModel,
    check_files,
    is_trained_model,
    read_description,
)
from napari_lungfm.models.weights import WeightsNotFoundError, weights_folder

#: Label of a model that was imported without one.
DEFAULT_LABEL = "default"
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,58}[A-Za-z0-9_+-])?")
#: Kept with an imported model where it is there, to read and not to run.
_COMPANIONS = ("config.yaml", "log.csv")
#: Seconds after which what an import has in the making is one that was killed.
_STALE = 24 * 3600.0
#: How the folder ends in which an import is in the making.
_MAKING = ".tmp"


class TrainedStore:
    """The trained models on this computer.

    Parameters
    ----------
    folder
        See `weights_folder`.
    """

    def __init__(self, folder: PathInput | None = None) -> None:
        self.folder = weights_folder(folder) / "trained"

    def names(self, architecture: str | None = None) -> tuple[str, ...]:
        """Return the names of the models here: ``unet``, ``unet:task06``."""
        found = (path.parent for path in self.folder.glob(f"*/*/{DESCRIPTION}"))
        return tuple(
            sorted(
                _full_name(path.parent.name, path.name)
                for path in found
                if architecture in (None, path.parent.name) and _LABEL.fullmatch(path.name)
            )
        )

    def name_of(self, place: Path) -> str:
        """Return the name of the model in a folder that `find` or `add` returned."""
        return _full_name(place.parent.name, place.name)

    def find(self, name: str) -> Path:
        """Return the folder of a model.

        Raises
        ------
        WeightsNotFoundError
            If it is not here; the message says how to get it.
        """
        architecture, _, label = name.partition(":")
        place = self.folder / architecture / (label or DEFAULT_LABEL)
        if (not label or _LABEL.fullmatch(label)) and is_trained_model(place):
            return place
        here = self.names(architecture)
        others = f"; there are {', '.join(here)}" if here else ""
        msg = (
            f"there is no trained '{name}' in '{self.folder}'{others}; nobody publishes one: "
            "train it (napari-lungfm-bench train), then name its folder, or: "
            f"napari-lungfm-bench models import FOLDER --as {name}"
        )
        raise WeightsNotFoundError(msg)

    def add(
        self,
        source: PathInput,
        name: str | None = None,
        *,
        trust: bool = False,
        labels: Mapping[int, str] | None = None,
    ) -> Path:
        """Copy the folder of a trained model into the store.

        Parameters
        ----------
        source
            What a training left, whose run folder is not copied; or a model as nnU-Net keeps it.
        name
            ``unet`` or ``unet:label``; its architecture decides what stands before the colon.
        trust
            Whoever made the folder is trusted. nnU-Net's own are pickles, which can run any code
            when they are read; ours are read without that.
        labels
            See `import_nnunet`.

        Raises
        ------
        UsageError
            If the folder is no trained model, is of nnU-Net's own and not trusted, or the name is
            another architecture's or another model's.
        WeightsError
            If the files were changed.
        OutputError
            If it cannot be copied; what the store had stays as it was.
        """
        if is_nnunet_folder(source) and not is_trained_model(source):
            return self._add_nnunet(Path(source), name, trust, labels)
        if labels:
            msg = f"'{source}' says itself what its labels are; leave them out"
            raise UsageError(msg)
        description = read_description(source)
        target = self._place(name or description.architecture, description.architecture, source)
        check_files(source, description)
        _refuse_another(target, description)
        _copy(Path(source), target, description)
        return target

    def _place(self, name: str, architecture: str, source: PathInput) -> Path:
        """Folder of a model of an architecture that is to get a name."""
        wanted, _, label = name.partition(":")
        if wanted != architecture:
            msg = f"'{source}' is a '{architecture}', it cannot be '{name}'"
            raise UsageError(msg)
        if label and not _LABEL.fullmatch(label):
            msg = f"'{label}' in '{name}' cannot name a model; use letters, digits, '.', '_', '-'"
            raise UsageError(msg)
        return self.folder / architecture / (label or DEFAULT_LABEL)

    def _add_nnunet(
        self, source: Path, name: str | None, trust: bool, labels: Mapping[int, str] | None
    ) -> Path:
        if not trust:
            msg = (
                f"'{source}' is a model as nnU-Net keeps it: pickles, which can run any code when "
                "they are read; if you trust whoever made it, import it with --trust"
            )
            raise UsageError(msg)
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "model"
            try:
                import_nnunet(
                    source,
                    made,
                    labels=labels,
                    check=lambda known: self._place(name or known, known, source),
                )
                return self.add(made, name)
            except LungFMError as error:  # the user knows nothing of the folder in between
                raise type(error)(str(error).replace(str(made), str(source))) from error


def _refuse_another(place: Path, description: TrainedModel) -> None:
    """Refuse to put a model in the place of another, of which this may be the only copy."""
    try:
        there = read_description(place)
    except LungFMError:  # there is none, or nothing that could be lost
        return
    if there.files != description.files:
        name = _full_name(place.parent.name, place.name)
        msg = (
            f"'{name}' is another model already ('{there.title}', trained on '{there.cohort}', "
            f"{there.finished}); choose another name with --as {place.parent.name}:LABEL, or "
            f"remove '{place}' first"
        )
        raise UsageError(msg)


def _copy(source: Path, target: Path, description: TrainedModel) -> None:
    """Copy a model to its place. There is a whole one at every moment, once there was one."""
    if target.exists() and target.samefile(source):
        return
    make_folder(target.parent)
    _remove_stale(target.parent)
    companions = (name for name in _COMPANIONS if (source / name).is_file())
    present = tuple(dict.fromkeys((*description.files, *companions, DESCRIPTION)))
    try:
        if _is_model(target) or not _move_in(source, target, present):
            _refuse_another(target, description)  # one that came in meanwhile
            _refresh(source, target, present)
    except OutputError:
        raise
    except OSError as error:
        raise output_error(target, error) from error


def _move_in(source: Path, target: Path, names: Sequence[str]) -> bool:
    """Give a copy its name as a whole; ``False`` where another import was faster."""
    # A folder of its own for every import, however many want the same name.
    making = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_MAKING, dir=target.parent))
    try:
        fresh = making / "model"
        for name in names:
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, fresh / name)
        if target.exists() and not _is_model(target):  # remains, of which nothing can be run
            target.rename(making / "remains")
        try:
            fresh.rename(target)
        except OSError:
            if not _is_model(target):
                raise
            return False
        return True
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _refresh(source: Path, target: Path, names: Sequence[str]) -> None:
    """Write a model over itself, each file whole or not at all: what is there stays runnable."""
    for name in names:
        there = target / name
        if there.is_file() and file_sha256(there) == file_sha256(source / name):
            continue
        with atomic_path(there) as temporary:
            shutil.copyfile(source / name, temporary)


def _is_model(place: Path) -> bool:
    try:
        read_description(place)
    except LungFMError:
        return False
    return True


def _remove_stale(folder: Path) -> None:
    """Remove what imports that were killed have left."""
    for making in folder.glob(f".*{_MAKING}"):
        with contextlib.suppress(OSError):
            if time.time() - making.stat().st_mtime > _STALE:
                shutil.rmtree(making, ignore_errors=True)


def _full_name(architecture: str, label: str) -> str:
    return architecture if label == DEFAULT_LABEL else f"{architecture}:{label}"
