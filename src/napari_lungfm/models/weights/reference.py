"""The tensors that a stock network has, and how a file may differ from them."""

import functools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from napari_lungfm._core.imports import require
from napari_lungfm.models.weights.detect import Shaped
from napari_lungfm.models.weights.errors import WeightsError

_SHOWN = 3


@functools.lru_cache(maxsize=4)
def reference_shapes(architecture: str) -> Mapping[str, tuple[int, ...]]:
    """Return name → shape of all tensors of a stock network.

    Parameters
    ----------
    architecture
        As in `detect.Layout`, not unknown.

    Raises
    ------
    MissingDependencyError
        If the package that has it is not installed.
    """
    torch = require("torch", purpose="checking weights")
    if architecture.startswith("sam2"):
        # Built on the CPU: its constructor computes with values, which meta tensors have not.
        from napari_lungfm.models.foundation.sam2_build import (  # noqa: PLC0415
            build_sam2,
            published_config,
        )

        network = build_sam2(published_config(architecture))
    elif architecture.startswith("vit_"):
        require("torchvision", purpose="checking weights of a SAM")
        package = require("segment_anything", purpose="checking weights of a SAM")
        with torch.device("meta"):
            network = package.sam_model_registry[architecture]()
    elif architecture == "litemedsam":
        from napari_lungfm.models.foundation.litemedsam_build import (  # noqa: PLC0415
            build_litemedsam,
        )

        with torch.device("meta"):
            network = build_litemedsam()
    else:
        package = require("lungmask.resunet", purpose="checking weights of lungmask")
        with torch.device("meta"):
            # As lungmask.mask.get_model builds it.
            network = package.UNet(
                n_classes=int(architecture.removeprefix("lungmask-")),
                padding=True,
                depth=5,
                up_mode="upsample",
                batch_norm=True,
                residual=False,
            )
    return MappingProxyType({k: tuple(v.shape) for k, v in network.state_dict().items()})


def check_tensors(
    tensors: Mapping[str, Shaped], architecture: str, *, where: str = "the state dict"
) -> None:
    """Make sure that a state dict has just the tensors of a stock network.

    Parameters
    ----------
    tensors
        Name → tensor, as `detect.normalise` returns them.
    architecture
        What they have to fit.
    where
        What to call the file in the message.

    Raises
    ------
    WeightsError
        If tensors are missing, unexpected or of another shape.
    """
    reference = reference_shapes(architecture)
    missing = [name for name in reference if name not in tensors]
    unexpected = [name for name in tensors if name not in reference]
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in reference.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(reference)} tensors are missing ({_few(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} are unexpected ({_few(unexpected)})")
    if wrong:
        problems.append(f"{len(wrong)} have another shape ({_few(wrong)})")
    if problems:
        msg = f"{where} does not fit {architecture}: {'; '.join(problems)}; get the right file"
        raise WeightsError(msg)


def check_floating(tensors: "Mapping[str, Any]", *, where: str = "the state dict") -> None:
    """Make sure that all weights are floating-point numbers.

    Single whole numbers, such as the counters of batch norms, may stay what they are.

    Raises
    ------
    WeightsError
        If a tensor has whole or complex numbers: quantised weights would pass for others.
    """
    other = {
        name: str(tensor.dtype).removeprefix("torch.")
        for name, tensor in tensors.items()
        if tensor.ndim > 0 and not tensor.is_floating_point()
    }
    if other:
        msg = (
            f"{where} has {'/'.join(sorted(set(other.values())))} instead of floating-point "
            f"numbers in {len(other)} of {len(tensors)} tensors ({_few(other)}); "
            "get weights that were not quantised or converted"
        )
        raise WeightsError(msg)


def check_finite(tensors: "Mapping[str, Any]", *, where: str = "the state dict") -> None:
    """Make sure that no weight is NaN or infinite.

    Raises
    ------
    WeightsError
        If one is.
    """
    torch = require("torch", purpose="checking weights")
    broken = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if broken:
        msg = (
            f"{where} has NaN or infinite values in {len(broken)} of {len(tensors)} tensors "
            f"({_few(broken)}); training failed or the file is damaged"
        )
        raise WeightsError(msg)


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")
