"""A folder that is replaced whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from napari_lungfm._core.exceptions import OutputError
from napari_lungfm._core.files import make_folder, output_error

#: Files that desktops put into any folder.
_CLUTTER = {".DS_Store", "Thumbs.db", "desktop.ini"}


@contextlib.contextmanager
def atomic_folder(target: Path, known: frozenset[str]) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its place when the block ends well.

    When the block raises, the new folder is removed and the old one stays as it was.

    Parameters
    ----------
    target
        The folder to make or replace.
    known
        Names that an earlier call can have written. A folder that holds anything else is not
        replaced, because that would delete files of somebody else.

    Raises
    ------
    OutputError
        If the folder cannot be written or holds unknown files.
    """
    _refuse_foreign(target, known)
    make_folder(target.parent)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        yield new
        _share(new)
        _swap(new, target)
    except OSError as error:
        if isinstance(error, OutputError) or not _is_below(error.filename, target.parent):
            raise
        raise output_error(target, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _refuse_foreign(target: Path, known: frozenset[str]) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        msg = f"the report folder '{target}' is a file or a link; choose another folder"
        raise OutputError(msg)
    foreign = sorted(p.name for p in target.iterdir() if p.name not in known | _CLUTTER)
    if foreign:
        msg = (
            f"the folder '{target}' holds files that are no report ('{foreign[0]}'), and a new "
            "report replaces the whole folder; move them or choose another folder"
        )
        raise OutputError(msg)


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
    try:
        target.rename(old / "report")
        try:
            new.rename(target)
        except OSError:
            (old / "report").rename(target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _is_below(filename: object, folder: Path) -> bool:
    return isinstance(filename, str | os.PathLike) and folder in Path(filename).parents
