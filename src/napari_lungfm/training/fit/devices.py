"""The devices and processes of a fit."""

import os
from typing import Any

import torch

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.models.foundation.runtime import pick_device
from napari_lungfm.training.fit.settings import FitSettings


def count_devices(device: str, settings: FitSettings) -> int:
    """Return how many devices a fit really runs on: several only of CUDA, and if none is named.

    Raises
    ------
    ConfigError
        If the machine has fewer.
    """
    picked = pick_device(device)
    if picked.type != "cuda" or picked.index is not None:
        return 1
    there = torch.cuda.device_count()
    if settings.devices > there:
        msg = f"devices: {settings.devices}, but this machine has {there}; give {there} or fewer"
        raise ConfigError(msg)
    return settings.devices


def is_helper_process() -> bool:
    """Tell whether this is one of the further processes of a fit on several devices.

    Lightning starts the whole command once more for each; only the first one writes results.
    """
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def wait_for_all() -> None:
    """Let the processes of a fit on several devices catch up with each other."""
    if world()[1] > 1:
        torch.distributed.barrier()


def world() -> tuple[int, int]:
    """Rank of this process, and number of processes that train together."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def accelerator(device: str) -> str:
    """Return lightning's name of a kind of device."""
    return {"cuda": "gpu", "cpu": "cpu", "mps": "mps"}[pick_device(device).type]


def devices_of(device: str, settings: FitSettings) -> int | list[int]:
    """Return lightning's ``devices`` of a fit: their number, or the index of a named one."""
    picked = pick_device(device)
    if picked.type == "cuda" and picked.index is not None:
        return [picked.index]
    return count_devices(device, settings)


def precision_of(wanted: str, device: str) -> Any:
    """Return lightning's ``precision`` of a fit; see `FitSettings`.

    Raises
    ------
    ConfigError
        If the device does not have it.
    """
    picked = pick_device(device)
    mixed = picked.type == "cuda" and torch.cuda.is_bf16_supported()
    if wanted == "bfloat16" and picked.type == "mps":
        msg = "bfloat16 is not for the device 'mps'; take float32 or auto"
        raise ConfigError(msg)
    return "bf16-mixed" if wanted == "bfloat16" or (wanted == "auto" and mixed) else "32-true"
