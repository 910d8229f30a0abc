"""Models behind two small protocols, one file per family, and the prompts they take."""

from napari_lungfm.models.prompts import (
    Box,
    Click,
    MaskPrompt,
    Prompt,
    Stop,
    check_prompts,
    from_dict,
    to_dict,
)
from napari_lungfm.models.protocols import (
    Prior,
    PromptableModel,
    SlicePrediction,
    SlicePredictor,
    VolumePredictor,
)
from napari_lungfm.models.registry import ModelCard, create_model, model_card, model_names

__all__ = [
    "Box",
    "Click",
    "MaskPrompt",
    "ModelCard",
    "Prior",
    "Prompt",
    "PromptableModel",
    "SlicePrediction",
    "SlicePredictor",
    "Stop",
    "VolumePredictor",
    "check_prompts",
    "create_model",
    "from_dict",
    "model_card",
    "model_names",
    "to_dict",
]
