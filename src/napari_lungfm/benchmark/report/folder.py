"""A folder that is replaced whole or not at all, and only if a report wrote all of it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from napari_lungfm._core.exceptions import LungFMError, OutputError
from napari_lungfm._core.files import make_folder, output_error

#: Marks a folder as a report; lists the files of the report, one per line.
MARKER = ".napari-lungfm-report"
_TITLE = "Files of a napari-lungfm report. A new report replaces this folder."
#: Files that desktops put into any folder.
_CLUTTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
#: What reports without a marker can hold, if `_PAGE` is there and has `_SIGN` in it.
_PATTERNS = ("*.csv", "*.parquet", "tables/*.md", "tables/*.tex", "figures/*.svg", "figures/*.png")
_PAGE, _SIGN = "report.html", b"napari-lungfm benchmark report"


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its place when the block ends well.

    When the block raises, the new folder is removed and the old one stays as it was. A folder is
    replaced only if it is empty or every file in it was written by an earlier call: anything else
    would be lost.

    Parameters
    ----------
    target
        The folder to make or replace.

    Raises
    ------
    OutputError
        If the folder cannot be written or holds anything that is no report.
    """
    new: Path | None = None
    try:
        _refuse_foreign(target)
        make_folder(target.parent)
        new = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        yield new
        _mark(new)
        _share(new)
        _refuse_foreign(target)  # writing took a while, and others may have used the folder
        _swap(new, target)
    except OSError as error:
        if isinstance(error, LungFMError) or not _is_ours(error, target):
            raise
        raise output_error(target, error) from error
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def _refuse_foreign(target: Path) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        msg = f"the report folder '{target}' is a file or a link; choose another folder"
        raise OutputError(msg)
    found = [name for name in _entries(target) if Path(name).name not in _CLUTTER]
    foreign = sorted(set(found) - _own(target, found))
    if foreign:
        msg = (
            f"the folder '{target}' holds files that no report wrote ('{foreign[0]}'), and a new "
            "report replaces the whole folder; move them or choose another folder"
        )
        raise OutputError(msg)


def _entries(folder: Path) -> list[str]:
    """Files, links and empty folders below a folder, relative, with forward slashes."""

    def refuse(error: OSError) -> None:
        raise error  # what cannot be listed cannot be said to be ours

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        found += [here / name for name in (*files, *links)]
        if not folders and not files and here != folder:
            found.append(here)
    return [path.relative_to(folder).as_posix() for path in found]


def _own(target: Path, found: list[str]) -> set[str]:
    """Say which entries of a folder an earlier report wrote."""
    if MARKER in found:
        title, *names = _read(target / MARKER).decode("utf-8", "replace").splitlines() or [""]
        return {MARKER, *names} if title == _TITLE else set()
    if _PAGE in found and _SIGN in _read(target / _PAGE):
        # A pattern's star does not end at a slash: both must be equally deep.
        own = {
            name
            for name in found
            for pattern in _PATTERNS
            if fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")
        }
        return {_PAGE, *own}
    return set()


def _read(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() and not file.is_symlink() else b""


def _mark(folder: Path) -> None:
    lines = [_TITLE, *sorted(_entries(folder))]
    (folder / MARKER).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _share(folder: Path) -> None:
    # mkdtemp makes folders private (0700); a report should be as readable as any other.
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)


def _swap(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    kept = old / "report"
    try:
        target.rename(kept)
        new.rename(target)
    except BaseException:
        # An interruption too must not leave the old report in a hidden place, or lose it.
        if kept.exists() and not target.exists():
            kept.rename(target)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _is_ours(error: OSError, target: Path) -> bool:
    if error.filename is None:
        # A write to an open file: full disks and quotas show there, and name no file.
        return error.errno is not None
    name = error.filename
    return isinstance(name, str | os.PathLike) and target.parent in Path(name).parents
