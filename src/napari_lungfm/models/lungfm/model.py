"""LungFM-S as a promptable model, and its weights."""

import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from napari_lungfm._core.exceptions import InputFileError
from napari_lungfm._core.files import file_sha256
from napari_lungfm._core.types import PathInput
from napari_lungfm.geometry import Volume
from napari_lungfm.models.foundation.runtime import Precision, Runtime
from napari_lungfm.models.lungfm.look import CHANNELS
from napari_lungfm.models.lungfm.network import NetworkConfig, PromptNetwork
from napari_lungfm.models.lungfm.predictor import LungFMPredictor
from napari_lungfm.models.weights.files import write_tensors

#: The weights that ship with the package.
SHIPPED = Path(__file__).with_name("lungfm-s.safetensors")
#: Version of the layout of weight files; readers refuse others.
_LAYOUT = "1"


class LungFMModel:
    """A `PromptableModel` whose weights come with the package.

    Parameters
    ----------
    weights
        A file of weights to take instead, as the training writes it.
    device
        See `models.foundation.runtime.pick_device`.
    precision
        See `models.foundation.runtime.Runtime`.

    Raises
    ------
    InputFileError
        If the weights cannot be read or are not those of this model.
    UsageError
        If there is no such device here.
    """

    def __init__(
        self,
        *,
        weights: PathInput | None = None,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        path = SHIPPED if weights is None else Path(weights)
        self._network = read_network(path)
        self._path = path
        self._runtime = Runtime(self._network, device, precision)

    @property
    def name(self) -> str:
        """``"lungfm-s"``."""
        return "lungfm-s"

    @cached_property
    def weight_hash(self) -> str:
        """SHA-256 of the file of weights."""
        return file_sha256(self._path)

    @property
    def network(self) -> PromptNetwork:
        """The network with its weights."""
        return self._network

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._runtime.device

    def open(self, volume: Volume) -> LungFMPredictor:
        """Get ready for one volume; slices are read as they are needed."""
        return LungFMPredictor(self._network, self._runtime, volume.array, volume.spacing)


def write_network(network: PromptNetwork, path: PathInput, facts: dict[str, str]) -> None:
    """Write weights in half precision, with the network's sizes and facts about them.

    Parameters
    ----------
    network
        The network.
    path
        The file, ``.safetensors``.
    facts
        What the file should say of itself, such as how it was trained.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    tensors = {name: tensor.to(torch.float16) for name, tensor in network.state_dict().items()}
    sizes = json.dumps(asdict(network.config))
    write_tensors(path, tensors, {**facts, "layout": _LAYOUT, "network": sizes})


def read_network(path: PathInput) -> PromptNetwork:
    """Read weights that `write_network` wrote.

    Raises
    ------
    InputFileError
        If the file is not there, is broken, or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        return _filled(facts, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        what = " ".join(str(error).split())[:200]
        msg = f"{path}: not the weights of LungFM-S ({what}); take another file, or reinstall"
        raise InputFileError(msg) from error


def facts_of(path: PathInput) -> dict[str, str]:
    """Return what a file of weights says of itself.

    Raises
    ------
    InputFileError
        If it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, str] = file.metadata() or {}
            return facts
    except (OSError, SafetensorError) as error:
        msg = f"{path}: cannot be read as weights ({error})"
        raise InputFileError(" ".join(msg.split())) from error


def _filled(facts: dict[str, str], tensors: dict[str, torch.Tensor]) -> PromptNetwork:
    if facts.get("layout") != _LAYOUT:
        msg = f"layout {facts.get('layout')}, not {_LAYOUT}"
        raise ValueError(msg)
    sizes: dict[str, Any] = json.loads(facts["network"])
    config = NetworkConfig(
        inputs=int(sizes["inputs"]),
        widths=tuple(int(n) for n in sizes["widths"]),
        blocks=tuple(int(n) for n in sizes["blocks"]),
        detail=int(sizes["detail"]),
        answers_see_mask=bool(sizes.get("answers_see_mask", False)),
    )
    if config.inputs != CHANNELS:
        msg = f"{config.inputs} input channels, not {CHANNELS}"
        raise ValueError(msg)
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        msg = f"values that are not finite in {broken[0]}"
        raise ValueError(msg)
    network = PromptNetwork(config)
    network.load_state_dict(tensors)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
