"""Foundation models by their catalogue names: weights from the store, settings from the card."""

from typing import Any

import torch

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import PathInput
from napari_lungfm.models.cards import CheckpointCard
from napari_lungfm.models.catalogue_sam import BOXES_ONLY
from napari_lungfm.models.foundation.litemedsam_build import build_litemedsam
from napari_lungfm.models.foundation.runtime import Precision
from napari_lungfm.models.foundation.sam2_attention import Attention
from napari_lungfm.models.foundation.sam2_build import build_sam2, published_config
from napari_lungfm.models.foundation.sam2_memory import BankName
from napari_lungfm.models.foundation.sam2_video import Sam2Model
from napari_lungfm.models.foundation.sam_build import build_sam
from napari_lungfm.models.foundation.sam_carry import Carry
from napari_lungfm.models.foundation.sam_image import SamImageModel
from napari_lungfm.models.foundation.sam_preprocess import Preprocessing
from napari_lungfm.models.foundation.zoom import Zoom
from napari_lungfm.models.weights.loading import load_weights
from napari_lungfm.preprocessing.windowing import WINDOWS, Window


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
    patience: int = 2,
) -> Sam2Model:
    """Make a model of SAM 2's build from the catalogue.

    Parameters
    ----------
    name
        Name in the catalogue, with a variant after a colon.
    weights
        A checkpoint file to take instead of the stored one.
    window
        What the model sees: a preset such as ``"lung"``, or ``"level/width"`` in HU. By default
        the publisher's recommendation, or the lung window.
    device, precision, memory_bank, attention, patience
        See `Sam2Model`.
    zoom
        Show the model a square around the prompts: ``True``, or how many times as large as what
        they span; by default whole slices.

    Raises
    ------
    UsageError
        If an option makes no sense.
    LungFMError
        If the weights are missing or unusable; see `load_weights`.
    """
    seen, crop = None if window is None else parse_window(window), parse_zoom(zoom)
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
) -> SamImageModel:
    """Make a model of SAM's build, LiteMedSAM included, from the catalogue.

    Parameters
    ----------
    name, weights, window, zoom
        See `sam2_model`.
    device, precision, carry
        See `SamImageModel`.

    Raises
    ------
    UsageError
        If an option makes no sense.
    LungFMError
        If the weights are missing or unusable; see `load_weights`.
    """
    seen, crop = None if window is None else parse_window(window), parse_zoom(zoom)
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
        zoom=crop,
        boxes_only=loaded.card.name in BOXES_ONLY,
    )


def preprocessing_of(card: CheckpointCard) -> Preprocessing:
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


def parse_zoom(zoom: float | bool | None) -> Zoom | None:
    """Return how to zoom: not at all, by the defaults, or by a factor.

    Raises
    ------
    UsageError
        If the factor is no number of at least 1.
    """
    if zoom is None or zoom is False:
        return None
    if zoom is True:
        return Zoom()
    try:
        return Zoom(margin=float(zoom))
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        msg = f"zoom must be true, false or a factor of at least 1, not '{zoom}'"
        raise UsageError(msg) from error


def _fill(network: torch.nn.Module, tensors: Any) -> None:
    # The tensors may be mapped from the file: load_state_dict copies them into the network.
    network.load_state_dict(dict(tensors), strict=True)
