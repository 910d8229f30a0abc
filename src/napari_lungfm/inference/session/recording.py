"""Read what was recorded, and do it again."""

import os
import warnings
import zipfile
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import napari_lungfm
from napari_lungfm._core.exceptions import InputFileError, LungFMWarning, UsageError
from napari_lungfm._core.types import PathInput, ProgressCallback
from napari_lungfm.geometry import Volume
from napari_lungfm.inference.session.caching import FeaturePrecision
from napari_lungfm.inference.session.engine import SessionEngine
from napari_lungfm.inference.session.errors import SessionFileError
from napari_lungfm.inference.session.events import Redo, Undo, event_from_dict
from napari_lungfm.inference.session.identity import (
    check_image,
    check_model,
    describe_image,
    describe_model,
    same_options,
)
from napari_lungfm.inference.session.log import Entry, FileStamp, parse_log
from napari_lungfm.inference.session.saving import read_saved
from napari_lungfm.inference.session.transitions import Findings
from napari_lungfm.models.protocols import PromptableModel


@dataclass(frozen=True, eq=False)
class Recording:
    """A log, and perhaps the masks that belong to it.

    Parameters
    ----------
    entries
        The lines of the log.
    findings
        What the model found in each action, undo and redo left out; ``None`` if not known.
    log_path
        The file of the log, if it is one.
    log_size
        Bytes of its lines, an unfinished last one left out.
    log_stamp
        The file as it was read.
    """

    entries: list[Entry]
    findings: Sequence[Findings] | None
    log_path: Path | None
    log_size: int
    log_stamp: FileStamp | None = None

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return str(self.entries[0]["model"]["name"])

    @property
    def options(self) -> dict[str, Any]:
        """What the model was made with."""
        return dict(self.entries[0]["model"].get("options", {}))

    @property
    def features(self) -> str:
        """What the features of slices were rounded to; logs that do not say had float32."""
        return str(self.entries[0]["model"].get("features") or "float32")

    def is_other(
        self, model: PromptableModel, options: Mapping[str, Any], asked: Container[str]
    ) -> bool:
        """Tell whether it is on purpose that a model of the same name would work otherwise.

        Parameters
        ----------
        model, options
            The model and what it was made with.
        asked
            The options that somebody asked for now. Weights that lie elsewhere are the same
            ones if their hash is; others are refused by `check`, unless they are among these.
        """
        if not same_options(self.options, options):
            return True
        weights = describe_model(model, {})["weights"]
        return "weights" in asked and weights != self.entries[0]["model"].get("weights")

    def check(
        self,
        volume: Volume,
        model: PromptableModel | None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Refuse another image, and another model or other options if they are given.

        Raises
        ------
        SessionMismatchError
            If one differs.

        Warns
        -----
        LungFMWarning
            If the model computes with another precision.
        """
        if model is not None:
            check_model(self.entries[0]["model"], model, options)
        check_image(self.entries[0]["image"], volume)


def opening_facts(
    volume: Volume,
    model: PromptableModel,
    options: Mapping[str, Any],
    features: str | None,
    *,
    with_hash: bool,
) -> dict[str, Any]:
    """Return what the first line of a log says.

    Parameters
    ----------
    volume, model, options
        What the session is opened with.
    features
        What the features of slices are rounded to, if the session keeps them.
    with_hash
        Hash the voxels, which takes a moment; needed before the line is written anywhere.
    """
    return {
        "action": "open",
        "program": napari_lungfm.__version__,
        "image": describe_image(volume) if with_hash else volume.geometry.to_dict(),
        "model": {**describe_model(model, options), "features": features},
    }


def read_recording(path: PathInput) -> Recording:
    """Read a log or a saved session.

    Raises
    ------
    InputFileError, SessionFileError, SessionMismatchError
        If it cannot be read; see `parse_log` and `read_saved`.
    """
    source = Path(path)
    findings, stamp = None, None
    try:
        if zipfile.is_zipfile(source):
            data, findings = read_saved(source)
        else:
            with source.open("rb") as file:
                data = file.read()
                stamp = FileStamp.of(os.fstat(file.fileno()))._replace(size=len(data))
    except OSError as error:
        if isinstance(error, InputFileError):
            raise
        msg = f"cannot read '{source}': {error.strerror or error}"
        raise InputFileError(msg) from error
    entries, size = parse_log(data, str(source))
    model, image = entries[0].get("model"), entries[0].get("image")
    if not isinstance(model, dict) or "name" not in model or not isinstance(image, dict):
        msg = f"line 1 of the log '{source}' names no image and no model"
        raise SessionFileError(msg)
    if not isinstance(model.get("options", {}), dict):
        msg = f"line 1 of the log '{source}' does not name the options of the model"
        raise SessionFileError(msg)
    if model.get("features") not in (None, *get_args(FeaturePrecision)):
        msg = f"line 1 of the log '{source}' names an unknown precision of features"
        raise SessionFileError(msg)
    return Recording(entries, findings, None if findings is not None else source, size, stamp)


def replay(
    engine: SessionEngine,
    recording: Recording,
    *,
    use_masks: bool,
    progress: ProgressCallback | None = None,
) -> tuple[int, ...]:
    """Do all recorded actions again.

    Parameters
    ----------
    engine
        A session in which nothing was done yet.
    recording
        What to do.
    use_masks
        Take the recorded masks where there are any, and compare the others with what the log
        says of them; otherwise ask the model and compare nothing.
    progress
        Called with the actions that were done and their number.

    Returns
    -------
    tuple of int
        The lines whose masks came out otherwise than was recorded.

    Raises
    ------
    SessionFileError
        If an action makes no sense where it stands.
    InterruptedActionError
        If the runner of the engine was told to end.
    """
    findings = iter(recording.findings or ()) if use_masks else iter(())
    known = use_masks and recording.findings is not None
    differing: list[int] = []
    actions = recording.entries[1:]
    for number, entry in enumerate(actions, start=2):
        engine.runner.check_interrupt()
        if progress is not None:
            progress(number - 2, len(actions))
        try:
            _repeat(engine, entry, next(findings, ()) if known and _changes(entry) else None)
        except UsageError as error:
            msg = f"line {number} of the log cannot be replayed: {error}"
            raise SessionFileError(msg) from error
        if use_masks and entry.get("result") != engine.log.entries[-1].get("result"):
            differing.append(number)
    if differing:
        warnings.warn(
            f"the masks differ from the recorded ones from line {differing[0]} of the log on "
            f"({len(differing)} actions): another device, version or option of the model",
            LungFMWarning,
            stacklevel=2,
        )
    return tuple(differing)


def _repeat(engine: SessionEngine, entry: Entry, findings: Findings | None) -> None:
    match event_from_dict(entry):
        case Undo():
            engine.undo()
        case Redo():
            engine.redo()
        case event:
            engine.do(event, findings)


def _changes(entry: Entry) -> bool:
    return entry.get("action") not in ("undo", "redo")
