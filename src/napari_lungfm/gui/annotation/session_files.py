"""Where sessions save themselves, and finding those of an image again."""

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

#: Names another folder than the user's data folder.
ENVIRONMENT_VARIABLE = "NAPARI_LUNGFM_SESSIONS"
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
    def best(self) -> Path:
        """The file to open: the one with masks if it is as long as the log, else the log."""
        saved = self.log.with_suffix(SAVED)
        try:
            return saved if saved.stat().st_mtime_ns >= self.log.stat().st_mtime_ns else self.log
        except OSError:
            return self.log


class SessionFiles:
    """The folder of sessions.

    Parameters
    ----------
    folder
        Where they are; ``None`` for `ENVIRONMENT_VARIABLE` or the user's data folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        chosen = folder or os.environ.get(ENVIRONMENT_VARIABLE)
        self.folder = (
            Path(chosen).expanduser()
            if chosen
            else platformdirs.user_data_path("napari-lungfm", appauthor=False) / "sessions"
        )

    def new_log(self, name: str) -> Path:
        """Return the path of a new log, and remove the oldest ones."""
        self._prune()
        now = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        title = slug(re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40] or "image")
        # Two windows may begin in one second, and a name is taken before its file is there.
        return self.folder / f"{title}-{now}-{uuid.uuid4().hex[:6]}{_LOG}"

    def of_image(self, voxel_hash: str, *, other_than: Path | None = None) -> list[SavedSession]:
        """Return the sessions of an image, the newest first; those without actions left out."""
        return [
            found
            for path in self._newest_first()
            if path != other_than and (found := _read(path, voxel_hash)) is not None
        ]

    def discard(self, log: Path) -> None:
        """Remove a session."""
        for path in (log, log.with_suffix(SAVED)):
            path.unlink(missing_ok=True)

    def discard_if_empty(self, log: Path | None) -> None:
        """Remove a session in which nothing was done."""
        if log is not None and log.is_file() and len(_lines(log)) <= 1:
            self.discard(log)

    def _newest_first(self) -> list[Path]:
        dated = [(path.stat().st_mtime_ns, path) for path in self.folder.glob(f"*{_LOG}")]
        return [path for _, path in sorted(dated, reverse=True)]

    def _prune(self) -> None:
        for path in self._newest_first()[_KEPT:]:
            self.discard(path)


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
