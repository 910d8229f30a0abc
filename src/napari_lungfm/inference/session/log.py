"""The event log: one line of JSON per action, safe on disk before the action counts."""

import contextlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from napari_lungfm._core.exceptions import LungFMWarning, OutputError, UsageError
from napari_lungfm._core.files import make_folder, output_error
from napari_lungfm._core.types import PathInput
from napari_lungfm.inference.session.errors import (
    SessionError,
    SessionFileError,
    SessionMismatchError,
)

#: Version of the log's format. A program reads the versions up to its own.
SCHEMA_VERSION = 1
#: One line of the log.
Entry: TypeAlias = dict[str, Any]


class FileStamp(NamedTuple):
    """Which file it is, and how long: enough to see that somebody else wrote to it."""

    device: int
    number: int
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileStamp":
        """Return the stamp of a file."""
        return cls(status.st_dev, status.st_ino, status.st_size)


class EventLog:
    """The lines of a session, in memory and, if it has a path, on disk.

    A file has one writer. Before each line it is looked at; a file that is not as this log has
    left it is not written to.

    Parameters
    ----------
    entries
        The lines so far.
    path
        Where further lines go; they are appended to what is there.
    stamp
        The file as it is now.
    """

    def __init__(
        self,
        entries: Sequence[Entry] = (),
        path: Path | None = None,
        stamp: FileStamp | None = None,
    ) -> None:
        self.entries: list[Entry] = list(entries)
        self.path, self._stamp = path, stamp

    @classmethod
    def create(cls, path: PathInput | None, entries: Sequence[Entry]) -> "EventLog":
        """Begin a log with these lines, in a new file or in memory.

        Raises
        ------
        SessionError
            If the file exists and is not empty.
        OutputError
            If it cannot be written.
        """
        if path is None:
            return cls(entries)
        target = Path(path)
        make_folder(target.parent)
        if target.is_file() and target.stat().st_size:
            msg = f"'{target}' exists; load it to go on with it, or choose another name"
            raise SessionError(msg)
        stamp = _append(target, "".join(to_line(entry) for entry in entries), None)
        _sync_folder(target.parent)
        return cls(entries, target, stamp)

    @classmethod
    def resume(
        cls, path: Path, entries: Sequence[Entry], size: int, stamp: FileStamp | None
    ) -> "EventLog":
        """Go on with a log after its first ``size`` bytes; an unfinished last line is cut off.

        Parameters
        ----------
        path
            The file.
        entries
            Its lines.
        size
            Bytes that they take.
        stamp
            The file as it was read.

        Raises
        ------
        OutputError
            If the file cannot be written, or is no longer as it was read.
        """
        try:
            status = path.stat()
            if stamp is not None and FileStamp.of(status) != stamp:
                raise _changed(path, "it was opened; open it again, or with a log of its own")
            if status.st_size > size:
                os.truncate(path, size)
            return cls(entries, path, FileStamp.of(path.stat()))
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise output_error(path, error) from error

    def renew(self) -> Path | None:
        """Write all lines anew if the file is not as this log has left it; return where then.

        A file that is gone is written again. One that somebody else has changed is theirs: it
        stays as it is, and the log goes on in a new one beside it.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self.path is None:
            return None
        target = self.path
        try:
            if FileStamp.of(target.stat()) == self._stamp:
                return None
            target = _free_beside(target)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise _unreachable(target, error) from error
        fresh = self.create(target, self.entries)
        self.path, self._stamp = fresh.path, fresh._stamp
        return target

    def rehearse(self, facts: Mapping[str, Any]) -> None:
        """Make sure that a line could be added now.

        Raises
        ------
        UsageError
            If a value cannot be written.
        OutputError
            If the file of the log is gone or was changed by somebody else.
        """
        try:
            to_line(stamped(len(self.entries), facts)).encode()
        except (TypeError, ValueError) as error:
            msg = f"this action has a value that cannot be written to the log ({error})"
            raise UsageError(msg) from error
        if self.path is not None:
            try:
                _check_unchanged(self.path, self.path.stat(), self._stamp)
            except OSError as error:
                raise _unreachable(self.path, error) from error

    def append(self, facts: Mapping[str, Any]) -> None:
        """Add a line; it is on disk when this returns.

        Raises
        ------
        OutputError
            If it cannot be written, or somebody else has changed the file; the log is as it was
            before.
        """
        entry = stamped(len(self.entries), facts)
        if self.path is not None:
            self._stamp = _append(self.path, to_line(entry), self._stamp)
        self.entries.append(entry)

    def is_at(self, path: PathInput) -> bool:
        """Tell whether the file of the log is the one at a path."""
        if self.path is None:
            return False
        try:
            return self.path.samefile(path)
        except OSError:
            return self.path.resolve() == Path(path).resolve()


def stamped(number: int, facts: Mapping[str, Any]) -> Entry:
    """Return a line: version, running number, time (UTC), facts."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"schema_version": SCHEMA_VERSION, "seq": number, "time": time, **facts}


def to_line(entry: Entry) -> str:
    """Return a line of the log as text, its end included."""
    return json.dumps(entry, separators=(",", ":"), allow_nan=False, ensure_ascii=False) + "\n"


def parse_log(data: bytes, name: str) -> tuple[list[Entry], int]:
    """Parse the lines of a log.

    A last line that a crash has left unfinished is passed over with a warning: the action that
    it would have recorded never counted.

    Parameters
    ----------
    data
        The content of the file.
    name
        What to call it in messages.

    Returns
    -------
    tuple of (list of dict, int)
        The lines, and the number of bytes that they take.

    Raises
    ------
    SessionFileError
        If it is no log, or damaged before its last line.
    SessionMismatchError
        If a newer version of the program wrote it.
    """
    lines = data.split(b"\n")
    entries: list[Entry] = []
    good = 0
    for number, line in enumerate(lines[:-1]):
        entry = _parsed(line)
        if entry is None and number == len(lines) - 2 and not lines[-1]:
            break
        if entry is None and number == 0:
            msg = (
                f"'{name}' is neither the log of a session nor a saved session, or line 1 of the "
                "log is damaged; choose the .jsonl or .session file"
            )
            raise SessionFileError(msg)
        if entry is None:
            msg = f"line {number + 1} of the log '{name}' is damaged; it cannot be replayed"
            raise SessionFileError(msg)
        _check_entry(entry, number, name)
        entries.append(entry)
        good += len(line) + 1
    if not entries or entries[0].get("action") != "open":
        msg = f"'{name}' is not the log of a session: its first line does not open one"
        raise SessionFileError(msg)
    if good < len(data):
        warnings.warn(
            f"the last line of the log '{name}' is unfinished and is left out: the action that "
            "was going on when the program ended is lost",
            LungFMWarning,
            stacklevel=2,
        )
    return entries, good


def _parsed(line: bytes) -> Entry | None:
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # bad JSON, bad UTF-8
        return None
    return value if isinstance(value, dict) else None


def _refuse_constant(name: str) -> None:
    """NaN and infinities are no JSON, and no log of ours has them."""
    raise ValueError(name)


def _check_entry(entry: Entry, number: int, name: str) -> None:
    version = entry.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        msg = f"line {number + 1} of '{name}' has no schema_version: it is not the log of a session"
        raise SessionFileError(msg)
    if version > SCHEMA_VERSION:
        msg = (
            f"the log '{name}' has schema version {version}, but this program knows versions up "
            f"to {SCHEMA_VERSION}; update napari-lungfm"
        )
        raise SessionMismatchError(msg)
    if entry.get("seq") != number:
        msg = f"line {number + 1} of the log '{name}' is numbered {entry.get('seq')}, not {number}"
        raise SessionFileError(msg)


def _append(path: Path, text: str, stamp: FileStamp | None) -> FileStamp:
    """Append text and wait until it is on disk; on failure leave the file as it was.

    Parameters
    ----------
    path, text
        The file and what to append.
    stamp
        The file as it has to be; ``None`` makes a new one.

    Returns
    -------
    FileStamp
        The file as it is then.
    """
    # Not a buffered stream: what it could not write it would try again to write when closed.
    size: int | None = None
    create = os.O_CREAT if stamp is None else 0
    try:
        handle = os.open(path, os.O_RDWR | create | getattr(os, "O_BINARY", 0), 0o666)
        try:
            _check_unchanged(path, os.fstat(handle), stamp)
            size = os.lseek(handle, 0, os.SEEK_END)
            data = memoryview(text.encode())
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
            return FileStamp.of(os.fstat(handle))
        except OSError:
            if size is not None:
                os.ftruncate(handle, size)
            raise
        finally:
            os.close(handle)
    except OSError as error:
        raise _unreachable(path, error) from error


def _check_unchanged(path: Path, status: os.stat_result, stamp: FileStamp | None) -> None:
    if stamp is not None and FileStamp.of(status) != stamp:
        raise _changed(path, f"this session wrote to it; {_RESCUE}")


_RESCUE = (
    "this action was not done; the work up to it is in memory: save the session under another "
    "name, and open that to go on"
)


def _changed(path: Path, since: str) -> OutputError:
    return OutputError(f"the log '{path}' was changed by another program since {since}")


def _unreachable(path: Path, error: OSError) -> OutputError:
    if isinstance(error, OutputError):
        return error
    if isinstance(error, FileNotFoundError):
        return OutputError(f"the log '{path}' is gone; {_RESCUE}")
    return output_error(path, error)


def _free_beside(path: Path) -> Path:
    """Return the first free name beside a file: ``case-2.jsonl``, or the next."""
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(name for name in names if not name.exists())


def _sync_folder(folder: Path) -> None:
    """Wait until the name of a new file is on disk, where the system can.

    Network drives often cannot, and say so in several ways; the lines themselves are on disk.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
