"""Where sessions save themselves, and finding those of an image again."""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import platformdirs

from napari_lungfm._core.files import slug
from napari_lungfm.geometry import Volume
from napari_lungfm.inference.session.identity import hash_voxels

#: Names the folder of all sessions.
ENVIRONMENT_VARIABLE = "NAPARI_LUNGFM_SESSIONS"
#: Name of the folder beside an image file, or beside the folder of a DICOM series.
BESIDE = "lungfm-sessions"
#: Sessions that are kept; older ones go when a new one begins.
_KEPT = 60
_LOG = ".jsonl"
SAVED = ".session"


@dataclass(frozen=True)
class SavedSession:
    """A session of an image that can be gone on with.

    Parameters
    ----------
    log
        Its event log.
    model
        Name of its model.
    options
        What the model was made with.
    actions
        Number of actions in it.
    time
        When it was last changed.
    """

    log: Path
    model: str
    options: dict[str, Any]
    actions: int
    time: datetime

    @property
    def masks(self) -> Path | None:
        """The file with masks, perhaps not the last ones; ``None`` where there is none."""
        saved = self.log.with_suffix(SAVED)
        return saved if saved.is_file() else None

    @property
    def best(self) -> Path:
        """The file to open: the one with masks if it is as long as the log, else the log."""
        saved = self.log.with_suffix(SAVED)
        try:
            return saved if saved.stat().st_mtime_ns >= self.log.stat().st_mtime_ns else self.log
        except OSError:
            return self.log


class SessionFiles:
    """The folders of sessions: one beside each image, and one in the user's data folder.

    The latter takes those of images that are no file, or whose folder cannot be written to.

    Parameters
    ----------
    folder
        Where all of them are; by default `ENVIRONMENT_VARIABLE`, or else as above.
    beside
        Whether sessions may be kept beside their images.
    """

    def __init__(self, folder: Path | None = None, *, beside: bool = True) -> None:
        chosen = folder or os.environ.get(ENVIRONMENT_VARIABLE)
        self._beside = beside and not chosen
        self._unusable: set[Path] = set()
        self.folder = (
            Path(chosen).expanduser()
            if chosen
            else platformdirs.user_data_path("napari-lungfm", appauthor=False) / "sessions"
        )

    def new_log(self, name: str, source: str | None = None) -> Path | None:
        """Return the path of a new log; in the common folder, the oldest ones are removed.

        ``None`` where the session is not to be kept, which none of this class is.

        Parameters
        ----------
        name
            What the image is called.
        source
            Its file or DICOM folder.
        """
        folder = self._folder_beside(source)
        if folder is None or folder in self._unusable or not _may_be_made(folder):
            folder = self.folder
            self._prune()
        now = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        title = slug(re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40] or "image")
        # Two windows may begin in one second, and a name is taken before its file is there.
        return folder / f"{title}-{now}-{uuid.uuid4().hex[:6]}{_LOG}"

    def give_up(self, log: Path) -> bool:
        """Use the folder of a log that could not be written no more; return if there is another."""
        self._unusable.add(log.parent)
        return log.parent != self.folder

    def of_volume(self, volume: Volume) -> list[SavedSession]:
        """Return the sessions of an image; its voxels are looked at only if some may be its."""
        source = volume.metadata.get("source")
        shape = list(volume.shape)
        if not any(_shape(path) == shape for path in self._newest_first(source)):
            return []
        return self.of_image(hash_voxels(volume), source)

    def of_image(
        self, voxel_hash: str, source: str | None = None, *, other_than: Path | None = None
    ) -> list[SavedSession]:
        """Return the sessions of an image, the newest first; those without actions left out."""
        return [
            found
            for path in self._newest_first(source)
            if path != other_than and (found := _read(path, voxel_hash)) is not None
        ]

    def discard(self, log: Path) -> None:
        """Remove a session, and the folder beside an image if nothing else is in it."""
        for path in (log, log.with_suffix(SAVED)):
            path.unlink(missing_ok=True)
        if log.parent.name == BESIDE:
            with contextlib.suppress(OSError):  # there are others
                log.parent.rmdir()

    def discard_if_empty(self, log: Path | None) -> None:
        """Remove a session in which nothing was done."""
        if log is not None and log.is_file() and len(_lines(log)) <= 1:
            self.discard(log)

    def _folder_beside(self, source: str | None) -> Path | None:
        if not self._beside or source is None:
            return None
        image = Path(source).absolute()
        return image.parent / BESIDE if image.exists() else None

    def _newest_first(self, source: str | None = None) -> list[Path]:
        folders = {self.folder, self._folder_beside(source) or self.folder}
        logs = (path for folder in folders for path in folder.glob(f"*{_LOG}"))
        return [path for _, path in sorted(((_changed(log), log) for log in logs), reverse=True)]

    def _prune(self) -> None:
        for path in self._newest_first()[_KEPT:]:
            self.discard(path)


def _may_be_made(folder: Path) -> bool:
    """Tell whether a folder can be written to, or made; nothing is tried out."""
    return os.access(folder if folder.is_dir() else folder.parent, os.W_OK | os.X_OK)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # removed just now
        return 0


def _shape(path: Path) -> list[int] | None:
    """Return the shape of a log's image; ``None`` where it cannot be read."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.readline())["image"]["shape"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, list) else None


def _read(path: Path, voxel_hash: str) -> SavedSession | None:
    lines = _lines(path)
    try:
        first = json.loads(lines[0])
        if first["image"]["hash"] != voxel_hash or not any(_counts(line) for line in lines[1:]):
            return None
        model = first["model"]
        time = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
        return SavedSession(
            path, str(model["name"]), dict(model.get("options", {})), len(lines) - 1, time
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None  # damaged, or no log of ours


def _counts(line: bytes) -> bool:
    return b'"action":"add-object"' not in line


def _lines(path: Path) -> list[bytes]:
    try:
        return list(_split(path.read_bytes()))
    except OSError:
        return []


def _split(data: bytes) -> Iterator[bytes]:
    yield from (line for line in data.split(b"\n") if line)
