"""SAM 2 networks from plain configurations, on the modules of the ``sam2`` package.

The published configurations are YAML files of the package, written for Hydra. Here they are
plain dictionaries, so that a card can say "this one at 512 px" and a model of our own can be
described in a file, without Hydra's process-wide state.
"""

import copy
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.overrides import TorchFunctionMode

from napari_lungfm._core.exceptions import ConfigError, MissingDependencyError
from napari_lungfm._core.imports import require

#: Distance of the coarsest feature map, which memory attention works on, in input pixels.
STRIDE = 16
#: The configurations of the package, by the names of their files.
PUBLISHED = tuple(
    f"sam2{version}_hiera_{size}" for version in ("", ".1") for size in ("t", "s", "b+", "l")
)
#: What Meta's own ``build_sam2_video_predictor`` sets by default: where the single mask is
#: unstable the best of three is taken, and memories of prompted slices are made from the mask as
#: the user sees it. Its third default, closing holes up to 8 px, is a CUDA kernel that the
#: package on the registry does not carry; it has no effect there either.
POSTPROCESSING: Mapping[str, Any] = {
    "binarize_mask_from_pts_for_mem_enc": True,
    "sam_mask_decoder_extra_args": {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
}
_PURPOSE = "a SAM 2 model"
_ALLOWED = re.compile(r"sam2\.modeling\.[\w.]+|sam2\.sam2_video_predictor\.\w+")
# YAML 1.1 reads 1e-6 as text; the published files have it.
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def published_config(name: str, *, image_size: int | None = None) -> dict[str, Any]:
    """Return a configuration of the ``sam2`` package.

    Parameters
    ----------
    name
        One of `PUBLISHED`.
    image_size
        Side of the input in pixels, if another than the published 1024.

    Raises
    ------
    ConfigError
        If there is no such configuration, or the size does not fit the network.
    MissingDependencyError
        If ``sam2`` is not installed.
    """
    if name not in PUBLISHED:
        msg = f"there is no SAM 2 configuration '{name}'; known: {', '.join(PUBLISHED)}"
        raise ConfigError(msg)
    folder = "sam2.1" if name.startswith("sam2.1") else "sam2"
    path = _package_folder() / "configs" / folder / f"{name}.yaml"
    config = _with_numbers(yaml.safe_load(path.read_text(encoding="utf-8"))["model"])
    return config if image_size is None else with_image_size(config, image_size)


def with_image_size(config: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """Return a configuration for another input size.

    The rotary position encoding of the memory attention is laid out for the new grid, as
    MedSAM 2's own configuration does; no parameter changes its shape.

    Raises
    ------
    ConfigError
        If the size is no positive multiple of 32.
    """
    if image_size <= 0 or image_size % (2 * STRIDE):
        msg = f"the input size must be a positive multiple of {2 * STRIDE} px, not {image_size}"
        raise ConfigError(msg)
    changed = copy.deepcopy(dict(config))
    changed["image_size"] = image_size
    side = image_size // STRIDE
    for attention in ("self_attention", "cross_attention"):
        changed["memory_attention"]["layer"][attention]["feat_sizes"] = [side, side]
    return changed


def build_sam2(config: Mapping[str, Any], *, postprocessing: bool = True) -> torch.nn.Module:
    """Build a network with random weights, ready for a state dict.

    Parameters
    ----------
    config
        Nested dictionaries, each naming its class by ``_target_``.
    postprocessing
        Add `POSTPROCESSING`, as the publishers' predictor does by default.

    Returns
    -------
    torch.nn.Module
        A ``SAM2Base`` in inference mode.

    Raises
    ------
    ConfigError
        If a part names no class of ``sam2``, or a class refuses its arguments.
    MissingDependencyError
        If ``sam2`` is not installed.
    """
    require("torchvision", purpose=_PURPOSE)
    require("sam2", purpose=_PURPOSE)
    full = dict(config)
    if postprocessing:
        extra = POSTPROCESSING["sam_mask_decoder_extra_args"]
        own = full.get("sam_mask_decoder_extra_args") or {}
        full = {
            **POSTPROCESSING,
            **full,
            "sam_mask_decoder_extra_args": {**extra, **own},
        }
    with _StayOnCpu():
        network = _instantiate(_with_numbers(full), "model")
    if not isinstance(network, torch.nn.Module):
        msg = "the configuration has no '_target_' that names the class of the network"
        raise ConfigError(msg)
    return network.eval()


class _StayOnCpu(TorchFunctionMode):
    """Keeps tensors that are made under it on the CPU, in this thread.

    ``RoPEAttention``'s constructor puts its constants on the first GPU wherever there is one,
    even for a model that is to run on the CPU because that GPU is full. They follow the network
    to its device when it is used.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.to and args[1:] == ("cuda",):
            return args[0]
        return func(*args, **(kwargs or {}))


def _package_folder() -> Path:
    spec = importlib.util.find_spec("sam2")
    if spec is None or not spec.submodule_search_locations:
        require("sam2", purpose=_PURPOSE)
        msg = "the package 'sam2' has no folder of its own; reinstall it"
        raise MissingDependencyError(msg)
    return Path(spec.submodule_search_locations[0])


def _instantiate(value: Any, place: str) -> Any:
    if isinstance(value, list | tuple):
        return [_instantiate(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    arguments = {
        key: _instantiate(item, f"{place}.{key}")
        for key, item in value.items()
        if key != "_target_"
    }
    if str(value.get("_target_")).endswith(".PositionEmbeddingSine"):
        # It would fill a cache on the first GPU; it is filled where it is needed all the same.
        arguments.setdefault("warmup_cache", False)
    if "_target_" not in value:
        return arguments
    target = str(value["_target_"])
    if not _ALLOWED.fullmatch(target):
        msg = f"'{place}' of the configuration names '{target}', which is no class of sam2"
        raise ConfigError(msg)
    module, _, name = target.rpartition(".")
    try:
        return getattr(require(module, purpose=_PURPOSE), name)(**arguments)
    except (AttributeError, TypeError, AssertionError) as error:
        msg = f"'{place}' of the configuration cannot be built as '{target}': {error}"
        raise ConfigError(msg) from error


def _with_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_numbers(item) for item in value]
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return value
