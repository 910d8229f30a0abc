"""lungmask (Hofmanninger et al. 2020) through its own package, labels mapped by name.

The package numbers its labels 1 right lung, 2 left lung, and the lobes 1 left upper, 2 left lower,
3 right upper, 4 right middle, 5 right lower; nothing above this file sees these numbers.
"""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from napari_lungfm._core.exceptions import LungFMWarning, UsageError
from napari_lungfm._core.imports import require
from napari_lungfm._core.types import ProgressCallback
from napari_lungfm.geometry import (
    LUNG_LABELS,
    LabelMap,
    Structure,
    Volume,
    axis_codes,
    reorient,
    to_axial,
)
from napari_lungfm.models.automatic.classical_lungs import ClassicalLungs
from napari_lungfm.models.automatic.protocol import AutomaticModel, CancelCallback, Steps
from napari_lungfm.models.automatic.published import is_published, needed_weights
from napari_lungfm.models.foundation.runtime import pick_device
from napari_lungfm.models.weights import WeightsNotFoundError
from napari_lungfm.models.weights.loading import LoadedWeights, load_weights
from napari_lungfm.preprocessing import check_no_nan

#: What lungmask calls its labels, by its own numbers.
LUNGS_BY_NUMBER: Mapping[int, str] = MappingProxyType({1: "right lung", 2: "left lung"})
LOBES_BY_NUMBER: Mapping[int, str] = MappingProxyType(
    {
        1: "left upper lobe",
        2: "left lower lobe",
        3: "right upper lobe",
        4: "right middle lobe",
        5: "right lower lobe",
    }
)
_BATCH = 20


def lungmask_model(
    name: str,
    *,
    device: str = "auto",
    lobes: bool = False,
    volume_postprocessing: bool = True,
    fallback: bool = True,
) -> AutomaticModel:
    """Make a lungmask model, or the classical fallback where its weights are not here.

    Parameters
    ----------
    name
        ``lungmask`` (R231), ``lungmask:R231CovidWeb``, ``lungmask:LTRCLobes``,
        ``lungmask:LTRCLobes_R231``, or weights of one's own.
    device
        See `pick_device`.
    lobes
        Return the five lobes with labels of their own instead of left and right lung.
    volume_postprocessing
        What the package does by default: largest components, small ones given to neighbours.
    fallback
        Take `ClassicalLungs`, with a warning, where the weights are not in the store.

    Raises
    ------
    UsageError
        If lobes are asked from a model of whole lungs.
    WeightsNotFoundError
        If the weights are not here and there is to be no fallback, or nobody publishes them.
    WeightsError
        If they are here and cannot be used.
    """
    try:
        loaded = [load_weights(each) for each in needed_weights(name)]
    except WeightsNotFoundError as error:
        # A name that nobody publishes is a slip, and no model that another may stand in for.
        if not fallback or lobes or not is_published(name):
            raise
        warnings.warn(
            f"{error}. FALLBACK: the lungs come from thresholds and components "
            "('lungs-classical'), not from lungmask",
            LungFMWarning,
            stacklevel=2,
        )
        return ClassicalLungs()
    return LungmaskModel(
        name,
        loaded[0],
        fill=loaded[1] if len(loaded) > 1 else None,
        device=device,
        lobes=lobes,
        volume_postprocessing=volume_postprocessing,
    )


class LungmaskModel:
    """Left and right lung, or lobes, by a U-Net on axial slices.

    Parameters
    ----------
    name
        Name in the catalogue.
    weights
        Its checked weights.
    fill
        Weights of whole lungs, to complete lobes with.
    device
        See `pick_device`.
    lobes, volume_postprocessing
        See `lungmask_model`.

    Raises
    ------
    UsageError
        If lobes are asked from a model of whole lungs, or there is no such device.
    """

    def __init__(
        self,
        name: str,
        weights: LoadedWeights,
        *,
        fill: LoadedWeights | None = None,
        device: str = "auto",
        lobes: bool = False,
        volume_postprocessing: bool = True,
    ) -> None:
        self.name = name
        self._has_lobes = weights.layout.architecture == "lungmask-6"
        if lobes and not self._has_lobes:
            msg = f"'{name}' has no lobes; take lungmask:LTRCLobes, or leave the option lobes out"
            raise UsageError(msg)
        self._lobes = lobes
        self._inferer = _inferer(weights, fill, pick_device(device), volume_postprocessing)
        networks = (self._inferer.model, self._inferer.fillmodelm)
        self.parameters = sum(p.numel() for n in networks if n is not None for p in n.parameters())

    @property
    def labels(self) -> Mapping[int, str]:
        """Label value → name: `Structure` for lungs, 1 to 5 for lobes."""
        if self._lobes:
            return LOBES_BY_NUMBER
        return {value: LUNG_LABELS[value] for value in (Structure.LEFT_LUNG, Structure.RIGHT_LUNG)}

    def segment(
        self,
        volume: Volume,
        *,
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
    ) -> LabelMap:
        """See `AutomaticModel.segment`."""
        check_no_nan(volume.array)
        # An array is taken by the package as axial slices with rows towards the back and columns
        # towards the left, which is what to_axial makes; oblique volumes included.
        axial = to_axial(volume)
        passes = 2 if self._inferer.fillmodelm is not None else 1
        steps = Steps(passes * axial.shape[0], progress, cancelled)
        steps.check()
        with _watched(self._inferer, steps):
            numbers = self._inferer.apply(np.ascontiguousarray(axial.array))
        found = LabelMap(self._named(numbers), axial.geometry, self.labels)
        turned = reorient(found, axis_codes(volume.geometry))
        return LabelMap(np.ascontiguousarray(turned.array), volume.geometry, self.labels)

    def _named(self, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Turn the package's numbers into label values, by name."""
        if self._lobes:
            return numbers.astype(np.uint8)
        names = LOBES_BY_NUMBER if self._has_lobes else LUNGS_BY_NUMBER
        table = np.zeros(256, dtype=np.uint8)
        for number, title in names.items():
            side = f"{title.split()[0]} lung"
            table[number] = int(Structure.from_title(side))
        named: np.ndarray[Any, np.dtype[np.uint8]] = table[numbers]
        return named


def _inferer(
    weights: LoadedWeights,
    fill: LoadedWeights | None,
    device: torch.device,
    volume_postprocessing: bool,
) -> Any:
    require("torchvision", purpose="lungmask")
    package = require("lungmask.mask", purpose="lungmask")
    logging.getLogger("lungmask").setLevel(logging.ERROR)
    with contextlib.ExitStack() as files:
        inferer = package.LMInferer(
            modelpath=str(files.enter_context(_plain_file(weights))),
            fillmodel=None if fill is None else "R231",
            fillmodel_path=None if fill is None else str(files.enter_context(_plain_file(fill))),
            force_cpu=True,
            batch_size=_BATCH,
            volume_postprocessing=volume_postprocessing,
            tqdm_disable=True,
        )
    inferer.device = device  # it chooses by itself between two only: the CPU and any GPU
    inferer.model.to(device)
    if inferer.fillmodelm is not None:
        inferer.fillmodelm.to(device)
    return inferer


@contextlib.contextmanager
def _plain_file(weights: LoadedWeights) -> Iterator[Path]:
    """Yield a file that the package can read: it knows plain PyTorch state dicts only."""
    layout = weights.layout
    if weights.path.suffix == ".pth" and layout.wrapper is None and layout.prefix is None:
        yield weights.path
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save({key: tensor.clone() for key, tensor in weights.tensors.items()}, path)
        yield path


class _Watched(torch.nn.Module):
    """A network that counts the slices it has seen, and stops when asked to."""

    def __init__(self, network: torch.nn.Module, steps: Steps) -> None:
        super().__init__()
        self.network, self.steps = network, steps

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.network(batch)
        self.steps.advance(len(batch))
        return result


@contextlib.contextmanager
def _watched(inferer: Any, steps: Steps) -> Iterator[None]:
    """Let the networks tell what they have done, since the package has no callbacks."""
    networks = inferer.model, inferer.fillmodelm
    inferer.model = _Watched(networks[0], steps)
    if networks[1] is not None:
        inferer.fillmodelm = _Watched(networks[1], steps)
    try:
        yield
    finally:
        inferer.model, inferer.fillmodelm = networks
