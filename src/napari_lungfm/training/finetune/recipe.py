"""What the recipes of all fine-tunings have in common. Nothing heavy is imported."""

from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from napari_lungfm.training.automatic.settings import StrictModel
from napari_lungfm.training.values import Count, NotNegative, Positive, WholeNumber

#: What comes up once before any comes up twice: every case, or every slice with a structure.
Turn: TypeAlias = Literal["cases", "slices"]
#: What a network is built like, and so which recipes fit it.
NetworkKind: TypeAlias = Literal["sam", "sam2", "lungfm"]
#: How validation patients are prompted when the training has ended.
ValidationPrompts: TypeAlias = Literal["every-slice", "one-slice"]
#: How features of a frozen encoder are kept: as they are, or rounded before their first use.
FeaturePrecision: TypeAlias = Literal["exact", "float16"]


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
    #: What it teaches, and so how its validation patients are prompted by default.
    validated: ClassVar[tuple[ValidationPrompts, ...]] = ("every-slice", "one-slice")

    clip: Count = 1
    batch_size: Count = 1
    epochs: Count = 1
    turn: Turn = "cases"
    least_pixels: Count = 1
    clip_gradients: Positive | None = None

    @property
    def trains_encoder(self) -> bool:
        """An image encoder is trained, whose activations can be computed twice."""
        return True

    def changed(self, *names: str) -> list[str]:
        """Return those of some options that are not what they are by default."""
        fields = type(self).model_fields
        return [name for name in names if getattr(self, name) != fields[name].default]


class FeatureRecipe(Recipe):
    """A recipe that may leave the image encoder as it is and keep its features.

    Parameters
    ----------
    feature_mb
        MiB of memory for features; what has no room there goes to disk.
    feature_disk_gb
        GiB of disk for features, in the folder of the fit until it has ended; at most half of
        what is free. What has no room there either is computed anew whenever it comes up.
    feature_precision
        ``"float16"`` halves features in float32, and rounds them before their first use, so that
        what is learnt does not depend on the room.
    """

    feature_mb: WholeNumber = 2048
    feature_disk_gb: NotNegative = 20.0
    feature_precision: FeaturePrecision = "exact"

    @model_validator(mode="after")
    def _features_are_used(self) -> Self:
        changed = self.changed("feature_mb", "feature_disk_gb", "feature_precision")
        if changed and self.trains_encoder:
            msg = f"{changed[0]}: features of an encoder that is trained cannot be kept; leave out"
            raise ValueError(msg)
        return self


class MedSAMRecipe(FeatureRecipe):
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
    """

    networks: ClassVar[NetworkKind] = "sam"
    validated: ClassVar[tuple[ValidationPrompts, ...]] = ("every-slice",)

    name: Literal["medsam"] = "medsam"
    clip: Literal[1] = 1
    batch_size: Count = 2
    epochs: Count = 1000
    turn: Turn = "slices"
    least_pixels: Count = 100
    learning_rate: Positive = 1e-4
    weight_decay: NotNegative = 0.01
    jitter: Annotated[int, Field(ge=0, lt=1024)] = 20
    train_encoder: bool = True

    @property
    def trains_encoder(self) -> bool:
        """See `Recipe`."""
        return self.train_encoder


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
    weight_decay: NotNegative = 0.02
    warm_up: WholeNumber = 50
    walk: Count = 4

    @property
    def trains_encoder(self) -> bool:
        """All of the network is trained, but its activations are few: none are computed twice."""
        return False

    @model_validator(mode="after")
    def _walks_lie_in_clips(self) -> Self:
        if self.walk >= self.clip:
            msg = (
                f"walk: {self.walk} slices beside a prompted one need clips of {self.walk + 1}, "
                f"clip is {self.clip}; give a shorter walk or longer clips"
            )
            raise ValueError(msg)
        return self
