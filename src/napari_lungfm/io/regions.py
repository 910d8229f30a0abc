"""Choose a region of an RTSTRUCT or DICOM SEG by name or number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from napari_lungfm._core.exceptions import UsageError


class Region(Protocol):
    """A region of interest or a segment: something with a name and a number."""

    @property
    def name(self) -> str:
        """Name as in the file; several regions may share one."""

    @property
    def number(self) -> int:
        """Number as in the file."""


_Region = TypeVar("_Region", bound=Region)


def choose_region(
    regions: Sequence[_Region], wanted: str | int, *, kind: str, path: Path
) -> _Region:
    """Return the one region meant.

    Parameters
    ----------
    regions
        All regions of the file.
    wanted
        A name (exact, or regardless of case if only one fits) or a number.
    kind, path
        What the regions are called and the file they are of, for the message.

    Raises
    ------
    UsageError
        If none or several fit; the message lists all.
    """
    if isinstance(wanted, str):
        name = wanted.strip()
        fitting = [r for r in regions if r.name == name]
        fitting = fitting or [r for r in regions if r.name.casefold() == name.casefold()]
        shown = f"'{wanted}'"
    else:
        fitting = [r for r in regions if r.number == wanted]
        shown = f"number {wanted}"
    if len(fitting) == 1:
        return fitting[0]
    present = ", ".join(f"'{r.name}' (number {r.number})" for r in regions) or "none"
    problem = f"{len(fitting)} {kind}s fit {shown}" if fitting else f"there is no {kind} {shown}"
    msg = f"{problem} in '{path}'; present are: {present}"
    raise UsageError(msg)
