"""What decides a fit, as ``run.json`` keeps it, and whether another one is the same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from napari_lungfm._core.environment import package_versions, source_hash
from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.models.foundation.runtime import pick_device
from napari_lungfm.training.fit.settings import FitError, FitSettings

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class FitStart:
    """What decides a fit, and where it runs.

    Parameters
    ----------
    decided_by
        Plain values; a fit is only resumed with the same.
    environment
        Machine and versions, by what they are called in notes.
    deterministic
        The same steps give the same result here.
    """

    decided_by: dict[str, Any]
    environment: dict[str, str]
    deterministic: bool

    @classmethod
    def now(cls, settings: FitSettings, decided_by: Mapping[str, Any], device: str) -> "FitStart":
        """Return that of a fit which begins now; see `run_fit`."""
        picked = pick_device(device)
        environment = {
            **{f"version of {name}": version for name, version in package_versions().items()},
            "code": source_hash(),
            "kind of device": picked.type,
            "number of threads": str(torch.get_num_threads()),
        }
        if picked.type == "cuda":
            environment["GPU"] = torch.cuda.get_device_name(picked)
        values = {"fit": settings.model_dump(mode="json"), **decided_by}
        plain = json.loads(json.dumps(values))
        return cls(plain, environment, settings.deterministic or picked.type == "cpu")

    def to_dict(self) -> dict[str, Any]:
        """Return it as ``run.json`` keeps it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "decided_by": self.decided_by,
            "environment": self.environment,
        }

    def compare(self, path: Path) -> tuple[str, ...]:
        """Compare with a ``run.json``; return why the result will not be the same bit for bit.

        Raises
        ------
        ConfigError
            If something else is to be resumed.
        FitError
            If the file cannot be read.
        """
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            decided, environment = before["decided_by"], before["environment"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"'{path}' cannot be read, so the training cannot be resumed; start anew"
            raise FitError(msg) from error
        changed = _differences(decided, self.decided_by)
        if changed:
            msg = (
                f"the training in '{path.parent}' was begun with other settings: "
                f"{'; '.join(changed[:4])}; resume it with the same, or choose another folder"
            )
            raise ConfigError(msg)
        other = _differences(environment, self.environment)
        notes = [f"resumed, not bit for bit: {text}" for text in other]
        if not self.deterministic:
            notes.append(
                "resumed, not bit for bit: kernels of this device are not deterministic "
                "(fit: deterministic: true makes them so)"
            )
        return tuple(notes)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], place: str = "") -> list[str]:
    found: list[str] = []
    for key in dict.fromkeys((*before, *now)):
        old, new = before.get(key), now.get(key)
        name = f"{place}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{name}.")
        elif old != new:
            found.append(f"{name} was {_short(old)}, is {_short(new)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
