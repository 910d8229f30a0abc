"""Foundation models by their catalogue names: weights from the store, settings from the card.

Importing this needs no torch, so that options can be shown without it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import PathInput
from napari_lungfm.models.cards import CheckpointCard
from napari_lungfm.models.catalogue_sam import BOXES_ONLY
from napari_lungfm.models.foundation.options import Attention, BankName, Carry, Precision
from napari_lungfm.models.foundation.zoom import Zoom
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.models.weights.loading import load_weights
from napari_lungfm.preprocessing.windowing import WINDOWS, Window

if TYPE_CHECKING:
    import torch

    from napari_lungfm.models.foundation.sam_preprocess import Preprocessing


def sam2_model(
    name: str,
    *,
    weights: PathInput | None = None,
    window: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    memory_bank: BankName = "recent",
    attention: Attention = "stock",
    zoom: float | bool | None = None,
    zoom_mm: float | None = None,
    patience: int = 2,
    min_area_mm2: float = 0.0,
) -> PromptableModel:
    """Make a model of SAM 2's build from the catalogue, a `Sam2Model`.

    Parameters
    ----------
    name
        Name in the catalogue, with a variant after a colon.
    weights
        A checkpoint file to take instead of the stored one.
    window
        What the model sees: a preset such as ``lung``, or ``level/width`` in HU. By default
        the publisher's recommendation, or the lung preset.
    device
        Where it runs; see `runtime.pick_device`.
    precision
        ``auto`` takes bfloat16 on CUDA devices that have it in hardware and float32 elsewhere;
        bfloat16 is for CUDA, float16 for CUDA and MPS, untried with published weights.
    memory_bank
        Which tracked slices it remembers: ``recent`` as in the stock predictor; ``self-sorting``
        is Medical SAM 2's rule for single images carried over to slices (its own 3D code has
        no such bank).
    attention
        ``stock`` is the publishers' code to the bit; ``fast`` saves a CPU a fifth of a tracked
        slice and may move a voxel at the edge.
    zoom
        Show a square around the prompts at full input size: ``true``, or how many times as
        large as what they span, 1 or more. By default whole slices.
    zoom_mm
        Smallest side of that square in mm; zooms also where zoom is not given. By default 80
        with zoom=true; a factor decides alone, but for clicks without a box, which open 80 mm.
    patience
        Slices in a row without the object that end it, 1 or more.
    min_area_mm2
        Beyond the prompted slices, a smaller mask counts as no object. 0, as in the stock
        predictor, lets a single voxel count.

    Raises
    ------
    UsageError
        If an option makes no sense.
    LungFMError
        If the weights are missing or unusable; see `load_weights`.
    """
    # Torch comes with the models, not with the list of their options.
    from napari_lungfm.models.foundation.sam2_build import (  # noqa: PLC0415
        build_sam2,
        published_config,
    )
    from napari_lungfm.models.foundation.sam2_video import NO_MINIMUM, Sam2Model  # noqa: PLC0415

    seen, crop = None if window is None else parse_window(window), parse_zoom(zoom, zoom_mm)
    end = replace(NO_MINIMUM, min_area_mm2=min_area_mm2)
    loaded = load_weights(name, path=weights)
    size = loaded.card.overrides.get("image_size")
    network = build_sam2(published_config(loaded.layout.architecture, image_size=size))
    _fill(network, loaded.tensors)
    return Sam2Model(
        name,
        network,
        weight_hash=loaded.sha256,
        window=seen or recommended_window(loaded.card),
        device=device,
        precision=precision,
        memory_bank=memory_bank,
        attention=attention,
        zoom=crop,
        patience=patience,
        end=end,
    )


def sam_model(
    name: str,
    *,
    weights: PathInput | None = None,
    window: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    carry: Carry = "box",
    zoom: float | bool | None = None,
    zoom_mm: float | None = None,
    min_area_mm2: float = 4.0,
) -> PromptableModel:
    """Make a model of SAM's build, LiteMedSAM included, from the catalogue: a `SamImageModel`.

    Parameters
    ----------
    name
        Name in the catalogue, with a variant after a colon.
    weights
        A checkpoint file to take instead of the stored one.
    window
        What the model sees: a preset such as ``lung``, or ``level/width`` in HU. By default
        the publisher's recommendation, or the lung preset.
    device
        Where it runs; see `runtime.pick_device`.
    precision
        ``auto`` takes bfloat16 on CUDA devices that have it in hardware and float32 elsewhere;
        bfloat16 is for CUDA, float16 for CUDA and MPS, untried with published weights.
    carry
        What goes from slice to slice: the box around the mask, moved outward a little, the mask
        as low-resolution logits, or both.
    zoom
        Show a square around the prompts, or the mask of the slice before, at full input size:
        ``true``, or how many times as large as what they span, 1 or more. By default whole
        slices.
    zoom_mm
        Smallest side of that square in mm; zooms also where zoom is not given. By default 80
        with zoom=true; a factor decides alone, but for clicks without a box, which open 80 mm.
    min_area_mm2
        Beyond the prompted slices, a smaller mask ends the object.

    Raises
    ------
    UsageError
        If an option makes no sense.
    LungFMError
        If the weights are missing or unusable; see `load_weights`.
    """
    # Torch comes with the models, not with the list of their options.
    from napari_lungfm.models.foundation.litemedsam_build import build_litemedsam  # noqa: PLC0415
    from napari_lungfm.models.foundation.sam_build import build_sam  # noqa: PLC0415
    from napari_lungfm.models.foundation.sam_carry import EndRule  # noqa: PLC0415
    from napari_lungfm.models.foundation.sam_image import SamImageModel  # noqa: PLC0415

    seen, crop = None if window is None else parse_window(window), parse_zoom(zoom, zoom_mm)
    end = EndRule(min_area_mm2=min_area_mm2)
    loaded = load_weights(name, path=weights)
    network = build_litemedsam() if loaded.layout.architecture == "litemedsam" else build_sam()
    _fill(network, loaded.tensors)
    return SamImageModel(
        name,
        network,
        weight_hash=loaded.sha256,
        window=seen or recommended_window(loaded.card),
        preprocessing=preprocessing_of(loaded.card),
        device=device,
        precision=precision,
        carry=carry,
        end=end,
        zoom=crop,
        boxes_only=loaded.card.name in BOXES_ONLY,
    )


#: Family of the catalogue → what makes its models.
FACTORIES: Mapping[str, Callable[..., PromptableModel]] = MappingProxyType(
    {"sam": sam_model, "sam2": sam2_model}
)


def preprocessing_of(card: CheckpointCard) -> "Preprocessing":
    """Return how a model of SAM's build wants a slice, from what its card says of it."""
    wanted = card.preprocessing
    if wanted is None or wanted.normalisation == "mean-std":
        return "sam"
    return "medsam" if wanted.fit == "stretch" else "litemedsam"


def recommended_window(card: CheckpointCard) -> Window:
    """Return the window that a model's publisher recommends for lungs, or the lung preset."""
    preprocessing = card.preprocessing
    if preprocessing is None or preprocessing.window is None:
        return WINDOWS["lung"]
    return Window(*preprocessing.window)


def parse_window(text: str) -> Window:
    """Return the window that a text stands for: ``"lung"`` or ``"-600/1500"``.

    Raises
    ------
    UsageError
        If it is neither a preset nor level and width.
    """
    if text in WINDOWS:
        return WINDOWS[text]
    level, slash, width = str(text).partition("/")
    try:
        if slash:
            return Window(float(level), float(width))
    except ValueError:
        pass
    msg = f"there is no window '{text}'; give level/width in HU or one of {', '.join(WINDOWS)}"
    raise UsageError(msg)


def parse_zoom(zoom: float | bool | None, zoom_mm: float | None = None) -> Zoom | None:
    """Return how to zoom: not at all, by the defaults, by a factor, by a smallest side.

    A factor that is asked for wins over the smallest side that nobody asked for. On a nodule of
    6 mm every factor up to 13 would otherwise show the same 80 mm, and two runs that differ in
    the factor would be one. What is small stays as the model needs it where both are left to us.

    Parameters
    ----------
    zoom
        Whether, or by which factor.
    zoom_mm
        Smallest side in mm.

    Raises
    ------
    UsageError
        If the factor is no number of at least 1, the side is no length, or a side is given for
        what is not to zoom.
    """
    if zoom is False and zoom_mm is not None:
        msg = f"zoom_mm={zoom_mm:g} needs zoom; leave zoom=false out, or zoom_mm"
        raise UsageError(msg)
    if zoom_mm is None and (zoom is None or zoom is False):
        return None
    if zoom is None or zoom is True:
        return Zoom() if zoom_mm is None else Zoom(min_size_mm=zoom_mm)
    try:
        return Zoom(float(zoom), zoom_mm)
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        msg = f"zoom must be true, false or a factor of at least 1, not '{zoom}'"
        raise UsageError(msg) from error


def _fill(network: "torch.nn.Module", tensors: Any) -> None:
    # The tensors may be mapped from the file: load_state_dict copies them into the network.
    network.load_state_dict(dict(tensors), strict=True)
