"""Whether the disk has room for what comes."""

import shutil
from pathlib import Path

from napari_lungfm._core.exceptions import OutputError
from napari_lungfm._core.files import make_folder


def check_room(folder: Path, needed: float, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Parameters
    ----------
    folder
        Where it is to go; made if need be.
    needed
        Bytes that are still to come.
    what
        What needs them, for the message.

    Raises
    ------
    OutputError
        If fewer are free, or the folder cannot be written to.
    """
    free = shutil.disk_usage(make_folder(folder)).free
    if needed > free:
        msg = (
            f"{what} needs {needed / 1e9:.1f} GB in '{folder}' and {free / 1e9:.1f} GB are free; "
            "choose another folder or free it"
        )
        raise OutputError(msg)
