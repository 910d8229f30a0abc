"""Mean tumour sizes of training parts: measured once for a run, for it reads every case."""

import hashlib
import json
from pathlib import Path

from napari_lungfm._core.files import write_json
from napari_lungfm.datasets.cases import Cohort

_SCHEMA = 1


class Radii:
    """Mean radii (mm) of the tumours of training parts, for the prompt-only baseline of clicks.

    Parameters
    ----------
    file
        Where they are kept between calls; it is read here and written by `save`.
    measure
        Read the training part of a cohort that is not known yet. Otherwise it counts as one that
        has no tumours.
    """

    def __init__(self, file: Path, *, measure: bool = True) -> None:
        self._file = file
        self._measure = measure
        self._known = _read(file)
        self._changed = False

    def of(self, cohort: Cohort) -> float | None:
        """Return the radius of a cohort; ``None`` where its training part gives none."""
        if not cohort.train:
            return None
        marks = sorted((source.name, source.fingerprint()) for source in cohort.train)
        mark = hashlib.blake2b(repr(marks).encode(), digest_size=16).hexdigest()
        if mark not in self._known:
            if not self._measure:
                return None
            self._known[mark] = cohort.measure_radius()
            self._changed = True
        return self._known[mark]

    def save(self) -> None:
        """Write what was measured."""
        if self._changed:
            write_json(self._file, {"schema_version": _SCHEMA, "radii_mm": self._known})


def _read(file: Path) -> dict[str, float | None]:
    """Return what an earlier call measured; a damaged file counts as none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        known = content["radii_mm"] if content["schema_version"] == _SCHEMA else {}
        return {str(mark): None if r is None else float(r) for mark, r in known.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
