"""Training cases that were made ready before: what they are called, and whether they are whole."""

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.files import atomic_path
from napari_lungfm.datasets.cases import CaseSource
from napari_lungfm.geometry import Structure
from napari_lungfm.models.automatic.protocol import AutomaticModel


def case_mark(
    schema: int,
    source: CaseSource,
    structures: Sequence[Structure],
    lungs: AutomaticModel | None,
    *more: str,
) -> str:
    """Return a short hash of everything that decides what is made of a case.

    Parameters
    ----------
    schema
        Version of the form that it is kept in.
    source
        The case.
    structures
        What it must have.
    lungs
        Completes references without lungs.
    more
        What else decides it.
    """
    names = [str(schema), source.fingerprint(), *(s.title for s in structures), *more]
    names.append(lungs.name if lungs is not None else "")
    return hashlib.blake2b("\x1f".join(names).encode(), digest_size=8).hexdigest()


def remove_others(stems: Sequence[Path], folder: Path, parts: Sequence[str]) -> None:
    """Remove what is kept of cases that are none of these: an earlier cohort's, or older files'.

    Parameters
    ----------
    stems
        Those of the cases that stay; see `read_kept`.
    folder
        Where cases are kept. Files with names of another form are left there.
    parts
        The arrays that belong to a case.
    """
    own = {stem.name for stem in stems}
    endings = "|".join(re.escape(part) for part in parts)
    form = re.compile(rf"(?P<stem>.+-[0-9a-f]{{16}})(\.json|-({endings})\.npy)")
    # A description first: it says that the arrays are whole.
    for path in sorted(folder.iterdir(), key=lambda path: path.suffix != ".json"):
        found = form.fullmatch(path.name)
        if found and found["stem"] not in own and path.is_file():
            with contextlib.suppress(OSError):  # they are in nobody's way
                path.unlink()


def write_kept(stem: Path, part: str, array: npt.NDArray[Any]) -> None:
    """Write an array of a case that is kept.

    Parameters
    ----------
    stem
        See `read_kept`.
    part
        Which of its arrays.
    array
        The array.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with atomic_path(f"{stem}-{part}.npy") as temporary, temporary.open("wb") as stream:
        # Into a file itself numpy writes in a way that does not say why it failed.
        out = cast("Any", SimpleNamespace(write=stream.write))
        np.lib.format.write_array(out, array, allow_pickle=False)


def read_kept(stem: Path, parts: Sequence[str]) -> dict[str, Any] | None:
    """Return what is known of a case that is kept; ``None`` unless all of it is there.

    Parameters
    ----------
    stem
        Path of its files without their endings: ``STEM.json`` and ``STEM-PART.npy``.
    parts
        The arrays that belong to it.
    """
    try:
        values: dict[str, Any] = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if all(Path(f"{stem}-{part}.npy").is_file() for part in parts) else None
