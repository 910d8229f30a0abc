"""Temporary folders that go with their process, even one that was killed."""

import contextlib
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

from napari_lungfm._core.files import output_error


def scratch_folder(prefix: str) -> Path:
    """Make a temporary folder for this process, and remove those of processes that are gone.

    A process that ends removes its folders itself; one that was killed could not. Folders of
    processes that are alive, of other machines and of other containers are left alone.

    Parameters
    ----------
    prefix
        What the name begins with; folders with other prefixes are not looked at.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    stem = f"{prefix}{_machine()}-"
    _remove_left_behind(stem)
    try:
        return Path(tempfile.mkdtemp(prefix=f"{stem}{os.getpid()}-"))
    except OSError as error:
        raise output_error(tempfile.gettempdir(), error) from error


def is_running(pid: int) -> bool:
    """Tell whether there is a process of this number; where it cannot be told, there is."""
    if sys.platform == "win32":
        return _is_running_on_windows(pid)
    try:
        os.kill(pid, 0)  # no signal: only asks
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def _is_running_on_windows(pid: int) -> bool:
    import ctypes  # noqa: PLC0415

    library = getattr(ctypes, "WinDLL")("kernel32", use_last_error=True)  # noqa: B009
    library.OpenProcess.restype = ctypes.c_void_p
    handle = library.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
    if not handle:
        # ERROR_INVALID_PARAMETER: there is none. Anything else says that we may not look.
        return bool(getattr(ctypes, "get_last_error")() != 87)  # noqa: B009
    try:
        waited = library.WaitForSingleObject(ctypes.c_void_p(handle), 0)
        return bool(waited == 0x102)  # WAIT_TIMEOUT: it has not ended
    finally:
        library.CloseHandle(ctypes.c_void_p(handle))


@cache
def _machine() -> str:
    """Return what stands for the set of processes whose numbers mean the same here.

    A temporary folder can be shared by machines of a cluster, or by containers.
    """
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115, a name and no path
    name = f"{platform.node()} {namespace}"
    return hashlib.blake2b(name.encode(), digest_size=4).hexdigest()


def _remove_left_behind(stem: str) -> None:
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{stem}*"):
            pid = folder.name.removeprefix(stem).partition("-")[0]
            if pid.isascii() and pid.isdecimal() and not is_running(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)
