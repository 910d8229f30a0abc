"""A simulated user at a session: prompts, looks, corrects."""

import time
from dataclasses import dataclass

import numpy as np

from napari_lungfm._core.types import MaskArray
from napari_lungfm.evaluation.prompt_protocols import PromptProtocol
from napari_lungfm.evaluation.shared_model import saved_seconds
from napari_lungfm.geometry import Volume
from napari_lungfm.inference.session import AnnotationSession, CacheBudget
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.prompts import Prompt
from napari_lungfm.models.protocols import PromptableModel


@dataclass(frozen=True)
class Interaction:
    """What one look of the user found.

    Parameters
    ----------
    n_prompts
        Prompts given so far.
    dice
        Volume Dice against the reference.
    seconds
        Time that the model took since the look before; where earlier work had encoded slices
        (`shared_model`), the time that it would have taken alone.
    """

    n_prompts: int
    dice: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Simulation:
    """What came of a simulated user's work.

    Parameters
    ----------
    mask
        The structure as the user left it: boolean ``(z, y, x)``.
    prompts
        All prompts in the order in which they were given.
    interactions
        After the first prompts and after each correction; none where there was nothing to prompt.
    """

    mask: MaskArray
    prompts: tuple[Prompt, ...]
    interactions: tuple[Interaction, ...]


def simulate(
    model: PromptableModel,
    volume: Volume,
    reference: MaskArray,
    protocol: PromptProtocol,
    rng: np.random.Generator,
    *,
    max_extent_mm: float | None = None,
    drawn_from: MaskArray | None = None,
) -> Simulation:
    """Let a simulated user delineate a structure.

    Nothing of the reference reaches the model but the prompts.

    Parameters
    ----------
    model
        A promptable model.
    volume
        The image in HU, axial slices along the first axis.
    reference
        The structure: boolean ``(z, y, x)``.
    protocol
        How the user prompts.
    rng
        Source of chance; see `PromptProtocol.prompts`.
    max_extent_mm
        How far from the prompted slices the object may reach; see `AnnotationSession.propagate`.
    drawn_from
        Where the first prompts come from in place of the reference: the mask of an automatic
        method, boolean ``(z, y, x)``. If it is empty, nothing is prompted and the mask is empty,
        corrections or not: there is no prompt to begin with, and the reference must not give one.

    Raises
    ------
    DataError
        If the reference is empty and `drawn_from` is not given.
    LungFMError
        Whatever the model raises.
    """
    source = reference if drawn_from is None else drawn_from
    if drawn_from is not None and not drawn_from.any():
        return Simulation(np.zeros(volume.shape, dtype=np.bool_), (), ())
    # Unrounded features, as units that share a model have them (`shared_model`).
    with AnnotationSession(volume, model, cache=CacheBudget(precision="float32")) as session:
        label = session.add_object().label
        prompts = list(protocol.prompts(source, rng))
        user = _User(session, label, reference, protocol, max_extent_mm)
        looks = [user.work(prompts, given=0)]
        pixel_mm = (volume.spacing[1], volume.spacing[2])
        for _ in range(protocol.corrections):
            seen = session.mask(label)
            click = protocol.correction(seen, reference, pixel_mm, prompts, rng)
            if click is None:
                break
            prompts.append(click)
            looks.append(user.work(prompts, given=len(prompts) - 1))
        return Simulation(session.mask(label), tuple(prompts), tuple(looks))


@dataclass(frozen=True, eq=False)
class _User:
    session: AnnotationSession
    label: int
    reference: MaskArray
    protocol: PromptProtocol
    max_extent_mm: float | None

    def work(self, prompts: list[Prompt], *, given: int) -> Interaction:
        """Give the prompts after the first ``given`` ones, carry the object on, and look."""
        saved = saved_seconds(self.session.model)
        started = time.perf_counter()
        self.session.add_prompts(self.label, prompts[given:])
        if self.protocol.fill:
            for _ in self.session.propagate(self.label, max_extent_mm=self.max_extent_mm):
                pass
        seconds = time.perf_counter() - started + saved_seconds(self.session.model) - saved
        dice = count_overlap(self.session.mask(self.label), self.reference).dice
        return Interaction(len(prompts), dice, seconds)
