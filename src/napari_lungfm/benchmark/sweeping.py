"""What processes that were killed while they wrote left in the folder of a run."""

import contextlib
import os
import re
import tempfile
import time

from napari_lungfm.benchmark.store import RunFolder

#: A file that is being written changes all the time: one that has not for so long has no writer.
QUIET_SECONDS = 60.0
#: As `_core.files.atomic_path` names what it writes before it takes its place.
_TEMPORARY = re.compile(r"\.[a-z0-9_]{8}\.tmp(\.[^.]+){0,2}")


def sweep(folder: RunFolder, before: float) -> int:
    """Remove temporary files that nobody writes to any more.

    A process that is killed cannot remove its own. Files of other processes that are at work on
    the same folder stay, for they are younger.

    Parameters
    ----------
    folder
        The folder of the run; what is in ``trainings`` is left alone.
    before
        Files that changed last before this time (seconds since the epoch, by this machine's
        clock) are removed.

    Returns
    -------
    int
        How many were removed.
    """
    ahead = _clock_ahead(folder)
    removed = 0
    for place in (folder.root, folder.records, folder.masks, folder.previews):
        for path in place.glob(".*.tmp*") if place.is_dir() else ():
            # Another process may have renamed or removed it meanwhile.
            with contextlib.suppress(OSError):
                fits = _TEMPORARY.fullmatch(path.name) and path.is_file()
                if fits and path.stat().st_mtime - ahead < before:
                    path.unlink()
                    removed += 1
    return removed


def _clock_ahead(folder: RunFolder) -> float:
    """Return how many seconds the clock of the file system is ahead of this machine's."""
    try:
        with tempfile.TemporaryFile(dir=folder.root) as stream:
            stream.write(b"x")
            stream.flush()
            return os.fstat(stream.fileno()).st_mtime - time.time()
    except OSError:
        return 0.0
