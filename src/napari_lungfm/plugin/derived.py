"""Masks that were made of other masks, and how a file says so.

A consensus must not vote in the next one, also when it was saved and opened again. Image files
have a line for notes in their header; in DICOM it stands behind the name of the structure.
"""

from typing import Literal, TypeAlias, get_args

#: How a mask was made of others.
Derivation: TypeAlias = Literal["consensus", "disagreement"]
_NOTE = "napari-lungfm: "
#: Letters that a name may have in DICOM (LO).
_LONGEST = 64


def note_of(derived: Derivation | None) -> str:
    """Return the note for the header of an image file; empty for a mask of its own."""
    return f"{_NOTE}{derived}" if derived else ""


def derivation_in(note: str) -> Derivation | None:
    """Return what a note says; ``None`` for notes of others."""
    for each in get_args(Derivation):
        if note == note_of(each):
            found: Derivation = each
            return found
    return None


def marked_name(name: str, derived: Derivation | None) -> str:
    """Return the name of a structure in a DICOM file: ``"tumour (consensus)"``."""
    if not derived:
        return name
    mark = f" ({derived})"
    return name[: _LONGEST - len(mark)] + mark


def unmarked_name(name: str) -> tuple[str, Derivation | None]:
    """Inverse of `marked_name`."""
    for each in get_args(Derivation):
        if name.endswith(f" ({each})"):
            return name.removesuffix(f" ({each})"), each
    return name, None
