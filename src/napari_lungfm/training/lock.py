"""One training at a time in a run folder.

The lock is the operating system's, on a file that says who holds it. It ends with the process that
took it, however that ends, so nothing stale is ever left; the file itself stays.
"""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.files import make_folder, output_error

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Name of the file in the run folder.
LOCK = "lock"
#: Files that this process has locked.
_HELD: set[Any] = set()
#: On Windows a locked byte cannot be read: one that lies behind what is written.
_FAR = 2**20


class LockedError(UsageError):
    """Another process is training in the folder."""


@contextlib.contextmanager
def hold(run: Path) -> Iterator[None]:
    """Keep others from training in a run folder while the block runs.

    Where the file system knows no locks (some network drives), nothing is kept from anyone.

    Parameters
    ----------
    run
        The folder; it is made if need be.

    Raises
    ------
    LockedError
        If another process, here or on another machine that sees the folder, is at it; the
        message says which.
    OutputError
        If the folder cannot be written.
    """
    make_folder(run)
    path = run / LOCK
    try:
        stream = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise output_error(path, error) from error
    with stream:
        try:
            _lock(stream)
        except (BlockingIOError, PermissionError) as error:
            msg = (
                f"'{run.parent}' is being trained in by {_holder(path)}; wait until it has ended, "
                "or choose another folder"
            )
            raise LockedError(msg) from error
        except OSError:  # no locks here
            pass
        stream.truncate(0)
        stream.write(json.dumps(_ourselves()) + "\n")
        stream.flush()
        _HELD.add(stream)
        try:
            yield
        finally:
            _HELD.discard(stream)


def _let_go() -> None:
    """Close our files in a forked process: it would go on holding what its parent held."""
    for stream in _HELD:
        stream.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _lock(stream: Any) -> None:
    if sys.platform == "win32":
        stream.seek(_FAR)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _ourselves() -> dict[str, Any]:
    began = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": platform.node(), "began": began}


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']} since {who['began']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
