"""Where weights live, and finding them again.

``<folder>/<model>/<variant>/`` holds one file of weights and ``manifest.json``. The manifest is
written last and removed first, so a folder without one is unfinished and counts as empty.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.files import write_json
from napari_lungfm._core.types import PathInput
from napari_lungfm.models.automatic.published import needed_weights
from napari_lungfm.models.catalogue import CheckpointCard, checkpoint_card, full_name, resolve
from napari_lungfm.models.weights.errors import WeightsError, WeightsNotFoundError

#: Names another folder than the user's data folder.
ENVIRONMENT_VARIABLE = "NAPARI_LUNGFM_WEIGHTS"
SCHEMA_VERSION = 1
_MANIFEST = "manifest.json"


def weights_folder(folder: PathInput | None = None) -> Path:
    """Return the folder where weights live.

    Parameters
    ----------
    folder
        A folder of the caller's choice; otherwise `ENVIRONMENT_VARIABLE` decides, and without it
        the user's data folder.
    """
    chosen = folder or os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    # appauthor=False: without it Windows nests the name twice.
    return platformdirs.user_data_path("napari-lungfm", appauthor=False) / "weights"


@dataclass(frozen=True)
class Manifest:
    """What is recorded with a file of weights.

    Parameters
    ----------
    model, variant
        Its name in the catalogue, and which of the model's weights it is.
    file
        Name of the file beside the manifest.
    source
        Address or path it came from.
    sha256
        Of the file as stored.
    size
        Bytes.
    architecture
        What it was detected to be.
    wrapper, prefix
        What `detect.normalise` takes off.
    checked
        The published check values that agreed; empty for a user's own weights and where none
        is published.
    imported
        When, ISO 8601 in UTC.
    licence
        Licence of the weights according to the card.
    licence_accepted
        Whether the user said yes to it; imported files are not asked about.
    fine_tuned
        What the file says of its training with this package.
    schema_version
        Version of this record.
    """

    model: str
    variant: str
    file: str
    source: str
    sha256: str
    size: int
    architecture: str
    wrapper: str | None
    prefix: str | None
    checked: tuple[str, ...]
    imported: str
    licence: str
    licence_accepted: bool
    fine_tuned: dict[str, Any] | None = field(default=None)
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class StoredWeights:
    """A file of weights in the store.

    Parameters
    ----------
    path
        The file.
    card
        Card of its model.
    manifest
        Its record.
    """

    path: Path
    card: CheckpointCard
    manifest: Manifest

    @property
    def name(self) -> str:
        """The name that stands for it: ``medsam``, ``medsam2-ma:CTLesion``."""
        return full_name(self.card.name, self.manifest.variant, self.card)


class WeightStore:
    """The weights on this computer.

    Parameters
    ----------
    folder
        See `weights_folder`. It need not exist.
    """

    def __init__(self, folder: PathInput | None = None) -> None:
        self.folder = weights_folder(folder)

    def place(self, card: CheckpointCard, variant: str) -> Path:
        """Return the folder of one file, whether it exists or not."""
        return self.folder / card.name / variant

    def find(self, name: str) -> StoredWeights:
        """Return weights by name.

        The file's size is compared with the record; `verify.verify` compares its content.

        Raises
        ------
        UsageError
            If there is no such model.
        WeightsNotFoundError
            If the weights are not here; the message says how to get them.
        WeightsError
            If they are incomplete.
        """
        card, variant = resolve(name)
        folder = self.place(card, variant)
        if not (folder / _MANIFEST).is_file():
            raise WeightsNotFoundError(self._how_to_get(card, variant))
        manifest = _read_manifest(folder / _MANIFEST)
        path = folder / manifest.file
        found = path.stat().st_size if path.is_file() else None
        if found != manifest.size:
            what = "is gone" if found is None else f"has {found} bytes instead of {manifest.size}"
            msg = f"'{path}' {what}; {_get_again(card, variant)}"
            raise WeightsError(msg)
        return StoredWeights(path, card, manifest)

    def names(self) -> tuple[str, ...]:
        """Return the names of all weights that have a record, sorted."""
        return tuple(sorted(self._names()))

    def _names(self) -> Iterator[str]:
        for manifest in self.folder.glob(f"*/*/{_MANIFEST}"):
            model, variant = manifest.parent.parent.name, manifest.parent.name
            try:
                card, variant = resolve(f"{model}:{variant}")
            except UsageError:
                continue  # a folder that is none of ours
            yield full_name(card.name, variant, card)

    def begin(self, card: CheckpointCard, variant: str) -> Path:
        """Remove the record of weights that are about to be replaced; return their folder."""
        folder = self.place(card, variant)
        (folder / _MANIFEST).unlink(missing_ok=True)
        return folder

    def finish(self, manifest: Manifest) -> StoredWeights:
        """Record weights whose file is in place.

        Raises
        ------
        OutputError
            If the record cannot be written.
        """
        card = checkpoint_card(manifest.model)
        folder = self.place(card, manifest.variant)
        write_json(folder / _MANIFEST, asdict(manifest))
        for other in folder.iterdir():  # the file that this one replaced, or parts of a download
            if other.is_file() and other.name not in (manifest.file, _MANIFEST):
                other.unlink(missing_ok=True)
        return StoredWeights(folder / manifest.file, card, manifest)

    def _how_to_get(self, card: CheckpointCard, variant: str) -> str:
        name = full_name(card.name, variant, card)
        start = f"the weights of '{name}' are not in '{self.folder}'; {_get_again(card, variant)}"
        others = [other for other in self.names() if other.split(":")[0] == card.name]
        return f"{start}; there are {', '.join(others)}" if others else start


def _get_again(card: CheckpointCard, variant: str) -> str:
    name = full_name(card.name, variant, card)
    needed = needed_weights(name)
    if len(needed) > 1:
        return f"it is made of {' and '.join(needed)}: fetch or import these"
    published = card.published(variant)
    by_hand = f"napari-lungfm-bench models import FILE --as {name}"
    if published is None:
        names = ", ".join(full_name(card.name, each, card) for each in card.variants)
        return f"published are {names}; import weights of your own: {by_hand}"
    if not published.addresses:
        return f"download '{published.filename}' from {published.pages[0]}, then: {by_hand}"
    return f"get them: napari-lungfm-bench models fetch {name}, or: {by_hand}"


def _read_manifest(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"the record '{path}' cannot be read; fetch or import the weights again"
        raise WeightsError(msg) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        msg = (
            f"the record '{path}' has schema version {version}, this program reads "
            f"{SCHEMA_VERSION}; fetch or import the weights again"
        )
        raise WeightsError(msg)
    known = {entry.name for entry in fields(Manifest)}
    try:
        values = {key: value for key, value in content.items() if key in known}
        manifest = Manifest(**{**values, "checked": tuple(values.get("checked", ()))})
    except TypeError as error:
        msg = f"the record '{path}' is incomplete; fetch or import the weights again"
        raise WeightsError(msg) from error
    if Path(manifest.file).name != manifest.file:
        msg = f"the record '{path}' names a file outside its folder; import the weights again"
        raise WeightsError(msg)
    return manifest
