"""What a promptable model is, to everything above it.

A model is a small object that can look at a volume (`PromptableModel.open`). What it returns
can do one of two things, and `inference` drives both alike:

- a `SlicePredictor` segments one slice from the prompts on it, or from the mask of the
  neighbouring slice; `inference` walks from slice to slice (MedSAM, SAM, the classical method);
- a `VolumePredictor` does the walking itself, because it has a memory (SAM 2) or no need to look
  at the image (prompt-only baselines).

Volumes are handed over with axial slices along the first axis, in HU, unscaled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from napari_lungfm._core.types import FloatArray, SliceMask
from napari_lungfm.geometry import Volume
from napari_lungfm.models.prompts import Prompt


@dataclass(frozen=True, eq=False)
class SlicePrediction:
    """What a model says of one slice.

    Parameters
    ----------
    mask
        The object on the slice: boolean ``(y, x)`` on the grid of the volume.
    score
        The model's own estimate that the object is there and the mask right, 0 to 1; ``None``
        where it makes none.
    logits
        The values that were thresholded, where the model has them; float32 ``(y, x)``.
    """

    mask: SliceMask
    score: float | None = None
    logits: FloatArray | None = None


@runtime_checkable
class SlicePredictor(Protocol):
    """A model that looks at one slice at a time."""

    def predict_slice(
        self, z: int, prompts: Sequence[Prompt], prior: SliceMask | None = None
    ) -> SlicePrediction:
        """Segment slice ``z``.

        Parameters
        ----------
        z
            The slice.
        prompts
            The prompts on this slice; empty on slices that are reached by propagation.
        prior
            The object's mask ``(y, x)`` on the neighbouring slice, or on this slice before the
            newest prompt; ``None`` on the first look.

        Returns
        -------
        SlicePrediction
            An empty mask says that the object is not on the slice.
        """
        ...


@runtime_checkable
class VolumePredictor(Protocol):
    """A model that carries an object through the slices by itself."""

    def propagate(
        self, prompts: Sequence[Prompt], slices: range, *, fill: bool
    ) -> Iterator[tuple[int, SlicePrediction]]:
        """Yield slices as they are found, prompted slices first.

        Parameters
        ----------
        prompts
            All prompts of one object.
        slices
            The slices that the object may occupy.
        fill
            Go on through unprompted slices; otherwise yield the prompted slices only.
        """
        ...


@runtime_checkable
class PromptableModel(Protocol):
    """A named model that can look at volumes."""

    @property
    def name(self) -> str:
        """The name on the command line and in records."""
        ...

    def open(self, volume: Volume) -> SlicePredictor | VolumePredictor:
        """Get ready for one volume (HU, axial slices along the first axis)."""
        ...
