"""What a promptable model is, to everything above it.

A model is a small object that can look at a volume (`PromptableModel.open`). What it returns
can do one of two things, and `inference` drives both alike:

- a `SlicePredictor` segments one slice from the prompts on it, or from what is known of the
  slices beside it; `inference` walks from slice to slice (MedSAM, SAM, the classical method).
  It keeps nothing of an object between two calls: what it wants to remember (an intensity
  model, say) it returns as `SlicePrediction.memory` and gets back in a `Prior`, so that several
  objects, undo and replay need no care;
- a `VolumePredictor` does the walking itself, because it has a memory (SAM 2) or no need to look
  at the image (prompt-only baselines).

Volumes are handed over with axial slices along the first axis, in HU, unscaled.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from napari_lungfm._core.types import FloatArray, SliceMask
from napari_lungfm.geometry import Volume
from napari_lungfm.models.prompts import Prompt

#: What a tracker knows of one object: an immutable value that nobody else looks inside.
StateT = TypeVar("StateT")


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
    memory
        What the model wants to be handed back with the next slice of the same object; nobody
        else looks inside.
    """

    mask: SliceMask
    score: float | None = None
    logits: FloatArray | None = None
    memory: object = None


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known of an object before a model looks at a slice.

    Parameters
    ----------
    z
        The slice where `memory` and, but for ``between``, `mask` come from: the one before on
        the way, or the very slice asked for, whose mask is to be corrected.
    mask
        The object's mask there: boolean ``(y, x)``; with ``between`` the mask expected on the
        slice asked for, interpolated from the finished slices below and above.
    memory
        `SlicePrediction.memory` of slice `z`.
    between
        The slice lies between two finished slices, so the object most likely is on it.
    prompted_areas
        Pixels of the object on each of its prompted slices.
    """

    z: int
    mask: SliceMask
    memory: object = None
    between: bool = False
    prompted_areas: Mapping[int, int] = field(default_factory=dict)


@runtime_checkable
class SlicePredictor(Protocol):
    """A model that looks at one slice at a time."""

    def predict_slice(
        self, z: int, prompts: Sequence[Prompt], prior: Prior | None = None
    ) -> SlicePrediction:
        """Segment slice ``z``.

        Parameters
        ----------
        z
            The slice.
        prompts
            The prompts on this slice; empty on slices that are reached by propagation.
        prior
            What is known already; ``None`` on the first look, and only where a prompt on this
            slice says where the object is.

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
        """Yield slices as they are found, each once, prompted slices first.

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
class ObjectTracker(Protocol[StateT]):
    """A model with a memory, step by step, as a session needs it.

    Every step takes a state and returns a new one; old states stay good, so that undo is keeping
    them, and the same steps from the same state give the same masks.
    """

    def start(self, prompts: Sequence[Prompt] = ()) -> StateT:
        """Return the state of a new object; the prompts say where to look, nothing more."""
        ...

    def prompt(
        self, state: StateT, z: int, prompts: Sequence[Prompt]
    ) -> tuple[StateT, SlicePrediction]:
        """Segment, or correct, slice ``z`` from all prompts on it."""
        ...

    def forget(self, state: StateT, z: int) -> StateT:
        """Take back all prompts of a slice."""
        ...

    def walk(
        self, state: StateT, slices: range, part: range | None = None
    ) -> Iterator[tuple[StateT, int, SlicePrediction]]:
        """Carry the object through the slices that it may occupy.

        Parameters
        ----------
        state
            What is known of the object.
        slices
            The slices that it may occupy; what was known of others is forgotten.
        part
            Those of them to walk through now, all prompted ones inside; the rest stays as it is.
            ``None`` means all.

        Yields
        ------
        tuple of (StateT, int, SlicePrediction)
            State after the slice, good to go on from; the slice; and what is on it.
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


def takes_cache(model: PromptableModel) -> bool:
    """Tell whether a model can be given a cache for what its encoder makes of slices.

    Such a model has ``open(volume, *, cache=None)``; one without an encoder has no use for it.
    """
    return "cache" in inspect.signature(model.open).parameters
