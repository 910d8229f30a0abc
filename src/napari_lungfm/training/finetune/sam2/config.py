"""The recipes of SAM 2, with their publishers' values as defaults. Nothing heavy is imported."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from napari_lungfm.training.finetune.recipe import FeatureRecipe, NetworkKind, Recipe
from napari_lungfm.training.values import Count, Fraction, NotNegative, Positive, WholeNumber


class ZhuRecipe(FeatureRecipe):
    """Medical SAM 2's, as ``train_3d.py`` of its authors has it; the encoders are not trained.

    Clips begin with a prompted slice. The loss on prompted slices trains the mask decoder, the
    loss on the others the memory attention, the memory encoder and the pointers' projection.

    Parameters
    ----------
    prompt_every
        Every which slice of a clip is prompted, the first one included.
    positive_weight
        Weight of the object's pixels in the cross-entropy.
    learning_rate
        Of Adam on the mask decoder.
    memory_learning_rate
        Of Adam on the memory. Weights that are kept in bfloat16 do not move by so little.
    """

    networks: ClassVar[NetworkKind] = "sam2"

    name: Literal["zhu"] = "zhu"
    clip: Annotated[int, Field(ge=2)] = 2
    batch_size: Count = 1
    epochs: Count = 1000
    prompt_every: Annotated[int, Field(ge=2)] = 2
    positive_weight: Positive = 2.0
    learning_rate: Positive = 1e-4
    memory_learning_rate: NotNegative = 1e-8

    @property
    def trains_encoder(self) -> bool:
        """See `Recipe`."""
        return False

    @model_validator(mode="after")
    def _does_what_it_says(self) -> Self:
        if self.prompt_every > self.clip:
            msg = (
                f"prompt_every: {self.prompt_every} is beyond the {self.clip} slices of a clip, of "
                f"which only the first one would be prompted; give {self.clip} for that"
            )
            raise ValueError(msg)
        if self.clip_gradients is not None:
            msg = "clip_gradients: the recipe 'zhu' does not clip; leave it out"
            raise ValueError(msg)
        return self


class StockRecipe(Recipe):
    """What recipes have in common that train on the ``sam2`` package's own training network.

    Focal, Dice, IoU and object losses at every look; prompts on the first slice and perhaps a
    second one, then correction clicks into the errors. Slices with corrections count as prompted.

    Parameters
    ----------
    weight_decay
        Of AdamW; biases and norms are not decayed.
    mask_prompts
        Part of the steps that are prompted with the reference mask instead of boxes or points.
    prompted_slices, corrected_slices
        The most slices of a clip that are prompted, and corrected; how many is drawn.
    corrections
        Clicks on every corrected slice.
    flip
        Chance of a mirrored clip.
    degrees, shear
        Most that a clip is turned and sheared, in degrees.
    brightness, contrast
        Most that grey values of a clip are changed, as a part of 1; slices of their own by as
        much again.
    """

    networks: ClassVar[NetworkKind] = "sam2"

    weight_decay: NotNegative = 0.1
    mask_prompts: Fraction = 0.5
    prompted_slices: Count = 2
    corrected_slices: Count = 2
    corrections: Count = 7
    flip: Fraction = 0.5
    degrees: Annotated[float, Field(ge=0, le=180)] = 25.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 20.0
    brightness: Fraction = 0.1
    contrast: Fraction = 0.05

    @model_validator(mode="after")
    def _slices_are_there(self) -> Self:
        if self.prompted_slices >= self.clip or self.corrected_slices > self.clip:
            msg = (
                f"clip: of {self.clip} slices {self.prompted_slices} may be prompted and "
                f"{self.corrected_slices} corrected; one at least has to be left to track"
            )
            raise ValueError(msg)
        if self.corrected_slices < self.prompted_slices:
            msg = "corrected_slices: at least as many as prompted_slices, which are the first ones"
            raise ValueError(msg)
        return self


class MaRecipe(StockRecipe):
    """MedSAM2's of Ma et al.: clips of eight slices, all of the network is trained.

    Parameters
    ----------
    learning_rate
        Of AdamW; at the end a tenth of it, along half a cosine.
    encoder_learning_rate
        The same for the image encoder.
    layer_decay
        Factor of the learning rate from each block of the encoder to the one before.
    """

    name: Literal["ma"] = "ma"
    clip: Count = 8
    batch_size: Count = 8
    epochs: Count = 75
    clip_gradients: Positive | None = 0.1
    learning_rate: Positive = 5e-5
    encoder_learning_rate: Positive = 3e-5
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.9


class OursRecipe(StockRecipe):
    """Encoder, mask decoder and memory trained: what trained best at equal cost.

    `docs/finetuning.md` has the comparison.

    Parameters
    ----------
    encoder
        What is trained of the image encoder: ``"whole"``, or ``"adapters"`` (LoRA) in its
        attention, which leave its own weights as they are.
    learning_rate, warm_up
        Of AdamW; half a cosine after so many steps of warm-up.
    encoder_learning_rate
        The same for what is trained of the encoder. By default ``learning_rate`` for all of it,
        and `ADAPTER_RATE` times that for adapters, which begin as nothing.
    rank, alpha
        Rank of the adapters, and their scale times the rank.
    """

    #: Learning rate of adapters, by default, as a multiple of that of the other weights.
    ADAPTER_RATE: ClassVar[float] = 4.0

    name: Literal["ours"] = "ours"
    clip: Count = 6
    batch_size: Count = 2
    epochs: Count = 100
    clip_gradients: Positive | None = 1.0
    weight_decay: NotNegative = 0.01
    mask_prompts: Fraction = 0.2
    prompted_slices: Count = 1
    corrected_slices: Count = 1
    corrections: Count = 2
    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    encoder: Literal["adapters", "whole"] = "whole"
    learning_rate: Positive = 1e-4
    encoder_learning_rate: Positive | None = None
    warm_up: WholeNumber = 20
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Positive = 16.0

    @property
    def rate_of_encoder(self) -> float:
        """Learning rate of what is trained of the encoder."""
        if self.encoder_learning_rate is not None:
            return self.encoder_learning_rate
        return self.learning_rate * (self.ADAPTER_RATE if self.encoder == "adapters" else 1.0)

    @model_validator(mode="after")
    def _adapters_are_there(self) -> Self:
        changed = self.changed("rank", "alpha")
        if changed and self.encoder == "whole":
            msg = f"{changed[0]}: there are no adapters; leave it out or set encoder: adapters"
            raise ValueError(msg)
        return self
