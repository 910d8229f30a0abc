"""Windowing, resampling and cropping, with exact inverses."""

from napari_lungfm.preprocessing.cropping import crop_or_pad, place_on
from napari_lungfm.preprocessing.pipeline import (
    PAPER_SPACING,
    Preprocessed,
    paper_preprocessing,
)
from napari_lungfm.preprocessing.resampling import (
    AIR_HU,
    Interpolation,
    resample_labels,
    resample_volume,
    resampled_grid,
)
from napari_lungfm.preprocessing.windowing import (
    HU_RANGE,
    WINDOWS,
    Window,
    check_no_nan,
    clip_and_scale,
    to_uint8,
    told_if_no_hu,
)

__all__ = [
    "AIR_HU",
    "HU_RANGE",
    "PAPER_SPACING",
    "WINDOWS",
    "Interpolation",
    "Preprocessed",
    "Window",
    "check_no_nan",
    "clip_and_scale",
    "crop_or_pad",
    "paper_preprocessing",
    "place_on",
    "resample_labels",
    "resample_volume",
    "resampled_grid",
    "to_uint8",
    "told_if_no_hu",
]
