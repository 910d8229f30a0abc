"""What the recipes of all fine-tunings have in common. Nothing heavy is imported."""

from typing import ClassVar, Literal, TypeAlias

from napari_lungfm.training.automatic.settings import Count, Positive, StrictModel

#: What comes up once before any comes up twice: every case, or every slice with a structure.
Turn: TypeAlias = Literal["cases", "slices"]
#: What a network is built like, and so which recipes fit it.
NetworkKind: TypeAlias = Literal["sam", "sam2", "lungfm"]


class Recipe(StrictModel):
    """How a model is fine-tuned; the defaults of each recipe are its publisher's.

    Parameters
    ----------
    clip
        Consecutive slices of a sample.
    batch_size
        Samples of a step, of all devices together, before accumulation.
    epochs
        How often the training data are gone through, unless the configuration says otherwise.
    turn
        What an epoch goes through: ``"cases"``, one sample each, or ``"slices"`` that have a
        structure.
    least_pixels
        Slices where a structure has fewer pixels count as being without it.
    clip_gradients
        Largest norm of the gradients; ``None``: not clipped.
    """

    #: The networks that it is for.
    networks: ClassVar[NetworkKind]

    clip: Count = 1
    batch_size: Count = 1
    epochs: Count = 1
    turn: Turn = "cases"
    least_pixels: Count = 1
    clip_gradients: Positive | None = None


class MedSAMRecipe(Recipe):
    """MedSAM's own: image encoder and mask decoder trained, prompt encoder frozen.

    Dice with squared terms + cross-entropy, AdamW without a schedule, boxes moved outward.

    Parameters
    ----------
    learning_rate, weight_decay
        Of AdamW.
    jitter
        Most pixels, of 1024, by which each side of a box is moved outward.
    train_encoder
        Train the image encoder. Without, its features are computed once and used again.
    feature_mb
        MiB of memory for features of an encoder that is not trained.
    """

    networks: ClassVar[NetworkKind] = "sam"

    name: Literal["medsam"] = "medsam"
    batch_size: Count = 2
    epochs: Count = 1000
    turn: Turn = "slices"
    least_pixels: Count = 100
    learning_rate: Positive = 1e-4
    weight_decay: float = 0.01
    jitter: int = 20
    train_encoder: bool = True
    feature_mb: Count = 2048


class LungFMRecipe(Recipe):
    """LungFM-S on episodes of prompts, walks and corrections, as it was trained.

    Parameters
    ----------
    learning_rate, weight_decay, warm_up
        Of AdamW; half a cosine after the warm-up.
    walk
        Slices of every walk.
    """

    networks: ClassVar[NetworkKind] = "lungfm"

    name: Literal["lungfm"] = "lungfm"
    clip: Count = 24
    batch_size: Count = 8
    epochs: Count = 200
    clip_gradients: Positive | None = 1.0
    learning_rate: Positive = 1e-4
    weight_decay: float = 0.02
    warm_up: int = 50
    walk: Count = 4
