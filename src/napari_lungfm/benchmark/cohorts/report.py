"""What became of each patient, as it is kept beside the case."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_lungfm._core.files import write_json

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class CaseReport:
    """What became of a patient.

    Parameters
    ----------
    name
        The patient.
    status
        ``"prepared"`` or ``"excluded"``.
    fingerprint
        Hash of the files and options that it came from.
    reason
        Why the patient was excluded; empty otherwise.
    source
        What the tumour was read from.
    facts
        See `checks.measure`.
    flags
        What is worth a look.
    notes
        What was assumed or put right.
    attributes
        What is known of the patient, for tables of subgroups.
    """

    name: str
    status: Literal["prepared", "excluded"]
    fingerprint: str
    reason: str = ""
    source: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        values = asdict(self)
        # JSON has no NaN; what is not defined is not there.
        values["facts"] = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in self.facts.items()
        }
        write_json(path, {"schema_version": SCHEMA_VERSION, **values})


def load_report(path: Path) -> CaseReport | None:
    """Read a report; ``None`` where there is none that can be used."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("schema_version") != SCHEMA_VERSION:
            return None
        return CaseReport(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
