"""Where a download came from, kept beside it, where that was not the publisher."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from napari_lungfm._core.files import write_json
from napari_lungfm._core.types import PathInput

_RECORD = ".source.json"
_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Origin:
    """What is recorded of a download.

    Parameters
    ----------
    elsewhere
        Where it came from, other than from the publisher: addresses, or words. Empty where every
        byte is the publisher's.
    md5
        Check value of the archive that it was unpacked from, if it was.
    """

    elsewhere: tuple[str, ...] = ()
    md5: str | None = None

    def sentence(self) -> str:
        """Return what a title says of it; empty where there is nothing to say."""
        return f"From {', '.join(self.elsewhere)}, not the publisher's" if self.elsewhere else ""


def read_origin(folder: PathInput) -> Origin:
    """Return what is recorded of a download, also where ``folder`` is the one that holds it."""
    place = Path(folder)
    records = [place / _RECORD, *sorted(place.glob(f"*/{_RECORD}"))]
    found = [origin for path in records if (origin := _read(path)) is not None]
    elsewhere = dict.fromkeys(each for origin in found for each in origin.elsewhere)
    return Origin(tuple(elsewhere), found[0].md5 if found else None)


def record_origin(folder: Path, elsewhere: Iterable[str], md5: str | None = None) -> None:
    """Record where a download, or a part of it, came from; what was recorded before stays.

    Parameters
    ----------
    folder
        The download.
    elsewhere
        See `Origin`.
    md5
        See `Origin`.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    before = _read(folder / _RECORD) or Origin()
    merged = Origin(tuple(dict.fromkeys((*before.elsewhere, *elsewhere))), md5)
    write_json(folder / _RECORD, {"schema_version": _SCHEMA_VERSION, **asdict(merged)})


def _read(path: Path) -> Origin | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        md5 = values["md5"]
        return Origin(
            tuple(str(each) for each in values["elsewhere"]), None if md5 is None else str(md5)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
