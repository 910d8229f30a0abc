"""Lungs for a reference: from a model, or those that came with the data."""

import hashlib
from typing import Protocol

import numpy as np

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm._core.types import LabelArray
from napari_lungfm.benchmark.cohorts.raw import LUNGS, Reading
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.registry import create_automatic_model, trained_model
from napari_lungfm.models.weights import WeightsNotFoundError, WeightStore

#: Lungs that came with the data, and no lungs at all.
OWN, NONE = "own", "none"


class LungSource(Protocol):
    """Where the lungs of the reference come from."""

    @property
    def name(self) -> str:
        """What was asked for."""
        ...

    @property
    def identity(self) -> str:
        """Text that changes when the lungs would."""
        ...

    def find(self, reading: Reading) -> LabelArray | None:
        """Return the lungs ``(z, y, x)``, values 1 and 2, or ``None`` for none."""
        ...


def lung_source(name: str, device: str = "auto") -> LungSource:
    """Return what finds the lungs.

    Parameters
    ----------
    name
        ``lungmask`` or another automatic model, ``lungs-classical``, ``own`` or ``none``.
    device
        Where a model runs.

    Raises
    ------
    UsageError
        If it is no automatic model that finds both lungs.
    WeightsNotFoundError
        If its weights are not here: a reference is never made by a fallback in silence.
    """
    if name in (OWN, NONE):
        return _Given(name)
    strict = {"fallback": False} if name.partition(":")[0] == "lungmask" else {}
    try:
        model = create_automatic_model(name, device=device, **strict)
    except WeightsNotFoundError as error:
        msg = f"{error}; or find the lungs without a trained model: --lungs lungs-classical"
        raise WeightsNotFoundError(msg) from error
    missing = [s.title for s in LUNGS if model.labels.get(int(s)) != s.title]
    if missing:
        msg = f"'{name}' does not find: {', '.join(missing)}; take lungmask or lungs-classical"
        raise UsageError(msg)
    return _Found(name, model)


class _Given:
    """Lungs of the data themselves, or none."""

    def __init__(self, name: str) -> None:
        self.name = self.identity = name

    def find(self, reading: Reading) -> LabelArray | None:
        if self.name == NONE:
            return None
        if reading.lungs is None:
            msg = "there are no lungs with the data, and --lungs own takes no others"
            raise DataError(msg)
        return reading.lungs


class _Found:
    """Lungs by an automatic model."""

    def __init__(self, name: str, model: AutomaticModel) -> None:
        self.name, self._model = name, model
        self.identity = f"{name} {_weights(name)}"

    def find(self, reading: Reading) -> LabelArray | None:
        found = self._model.segment(reading.volume).array
        lungs = np.zeros(reading.volume.shape, dtype=np.uint8)
        for structure in LUNGS:
            lungs[found == int(structure)] = int(structure)
        if not lungs.any():
            msg = f"'{self.name}' found no lungs"
            raise DataError(msg)
        return lungs


def _weights(name: str) -> str:
    """Hash of the weights behind a name; empty where there are none."""
    trained = trained_model(name)
    if trained is not None:
        return hashlib.blake2b(trained.model_dump_json().encode(), digest_size=16).hexdigest()
    try:
        return WeightStore().find(name).manifest.sha256
    except (UsageError, WeightsNotFoundError):
        return ""
