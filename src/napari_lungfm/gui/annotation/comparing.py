"""Masks of several origins: scored against the reference, or against each other."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels
from psygnal import Signal

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.types import MaskArray, ProgressCallback
from napari_lungfm.evaluation.consensus import (
    Method,
    consensus,
    disagreement,
)
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Volume
from napari_lungfm.gui.annotation.asked import (
    Asked,
    LabelsOf,
    Source,
    listed,
    masks_of,
    needed_mask,
)
from napari_lungfm.gui.annotation.choices import Choices
from napari_lungfm.gui.annotation.controller import Controller
from napari_lungfm.gui.annotation.errors import LayerError
from napari_lungfm.gui.annotation.facts import Annotation
from napari_lungfm.gui.annotation.images import placement_of, reference_of
from napari_lungfm.gui.annotation.jobs import Job, JobContext, JobQueue
from napari_lungfm.gui.annotation.layers import MADE, is_ours
from napari_lungfm.gui.annotation.matching import Claims, derivation_of, structure_named
from napari_lungfm.gui.annotation.models import model_choices
from napari_lungfm.gui.annotation.notices import Notice, explain
from napari_lungfm.gui.annotation.remarks import remark_on
from napari_lungfm.gui.annotation.repeating import repeat_prompts
from napari_lungfm.gui.annotation.scoring import Row, pair_rows, rows_against, several
from napari_lungfm.models.automatic.published import needed_weights
from napari_lungfm.models.automatic.store import TrainedStore
from napari_lungfm.models.registry import create_automatic_model, is_automatic
from napari_lungfm.models.weights import WeightStore
from napari_lungfm.plugin.derived import Derivation
from napari_lungfm.plugin.layer_geometry import info_of_layer

#: What its messages are about; see `Notice`.
COMPARE = "compare"
#: The mask that is being drawn, in the table.
ANNOTATION = "annotation"
#: Automatic models that are made of two stored ones.
_OF_TWO_FILES = ("lungmask:LTRCLobes_R231",)


@dataclass(frozen=True)
class Computable:
    """A model that can compute a mask here.

    Parameters
    ----------
    name
        See `create_automatic_model` or `create_model`.
    prompted
        Whether it is given the prompts of the session.
    """

    name: str
    prompted: bool = False

    @property
    def title(self) -> str:
        """How it stands in a list, and what its layer is called."""
        stem = Path(self.name).name if Path(self.name).is_dir() else self.name
        return f"{stem} (prompted)" if self.prompted else stem


def computable() -> tuple[Computable, ...]:
    """Return what can be computed here: automatic models, then promptable ones."""
    automatic = (Computable(name) for name in automatic_choices())
    ready = (Computable(c.name, prompted=True) for c in model_choices() if c.state == "ready")
    return (*automatic, *ready)


def automatic_choices() -> tuple[str, ...]:
    """Return the automatic models that are installed and trained here, trained ones first."""
    trained = [name for name in TrainedStore().names() if is_automatic(name)]
    stored = {*WeightStore().names()}
    single = sorted(name for name in stored if needed_weights(name) == (name,))
    published = [*single, *(name for name in _OF_TWO_FILES if {*needed_weights(name)} <= stored)]
    here = [name for name in published if is_automatic(name)]
    return (*trained, *here, "lungs-classical")


class Comparing:
    """What the comparison panel does.

    Parameters
    ----------
    controller
        What is annotated.
    background
        Does the computing.
    choices
        Structures that were chosen by hand.
    """

    #: The table: whether it is of pairs, and a list of `Row`.
    compared = Signal(bool, object)
    #: Share of a model's work that is done, ``None`` when it has ended.
    progressed = Signal(object)

    def __init__(self, controller: Controller, background: JobQueue, choices: Choices) -> None:
        self._controller, self._background, self._choices = controller, background, choices
        self._job: Job[Any] | None = None
        self._contour = 0
        self.reference: Labels | None = None

    @property
    def running(self) -> bool:
        """Whether a model is at work."""
        return self._job is not None

    def structures(self) -> dict[int, str]:
        """Return what can be compared: labels and their names."""
        objects = {label: each.name for label, each in self._controller.objects.items()}
        drawn = {structure_named(name) for name in objects.values()}
        names = {i: name for i, name in LUNG_LABELS.items() if structure_named(name) not in drawn}
        names |= objects
        return dict(sorted(names.items(), reverse=True))

    def layers(self) -> list[Labels]:
        """Return the label layers that can be compared, the reference left out."""
        return [
            each
            for each in self._controller.viewer.layers
            if isinstance(each, Labels) and not is_ours(each) and each is not self.reference
        ]

    # ------------------------------------------------------------------ the table
    def compare(self, label: int) -> None:
        """Score all masks of a structure against the reference, or in pairs without one."""
        here = self._begin()
        if here is None:
            return
        sources, truth = self._sources(here, label), self._reference_map(here)
        volume, pairs, asked = here.volume, truth is None, self._asked(label)
        reference = self.reference.name if self.reference is not None else ""

        def work(_: JobContext) -> list[Row]:
            wanted = None if truth is None else needed_mask(truth, asked, reference)
            masks = masks_of(sources, asked)
            return (
                pair_rows(masks, volume) if wanted is None else rows_against(wanted, masks, volume)
            )

        self._run(work, lambda rows: self.compared.emit(pairs, rows))

    def _asked(self, label: int) -> Asked:
        name = self.structures().get(label, f"label {label}")
        return Asked(label, name, self._choices.claims())

    def _labels(self, layer: Labels, found: LabelMap) -> LabelsOf:
        return LabelsOf(found, self._choices.of(layer, found.labels))

    def _sources(self, here: Annotation, label: int, *, voting: bool = False) -> dict[str, Source]:
        """Name → where a mask comes from, or a vote; nothing is searched through yet."""
        found: dict[str, Source] = {}
        obj, shape = self._controller.objects.get(label), here.volume.shape
        if obj is not None and obj.masks:
            found[ANNOTATION] = lambda: obj.mask(shape)
        for layer in self.layers():
            derived = derivation_of(layer)
            if derived == "disagreement" or (voting and derived):
                continue
            with contextlib.suppress(LungFMError):  # a mask of another image is none to compare
                found[layer.name] = self._labels(layer, reference_of(layer, here.volume))
        return found

    def _reference_map(self, here: Annotation) -> LabelsOf | None:
        if self.reference is None:
            return None
        try:
            return self._labels(self.reference, _mask_layer(self.reference, here.volume))
        except LungFMError as error:
            self._say_error(error)
            return None

    # ------------------------------------------------------------------ new layers
    def consensus(self, label: int, method: Method) -> None:
        """Add what the masks agree on as a layer."""
        here = self._begin()
        if here is None:
            return
        sources, asked = self._sources(here, label, voting=True), self._asked(label)
        name = "STAPLE" if method == "staple" else method

        def done(mask: MaskArray) -> None:
            labels = mask.astype(np.uint8) * np.uint8(label)
            self._add(labels, name, here, {label: asked.name}, "consensus")

        self._run(lambda _: consensus(several(masks_of(sources, asked)), method).mask, done)

    def disagreement(self, label: int) -> None:
        """Add a layer of the voxels on which masks, and the reference if any, disagree."""
        here = self._begin()
        if here is None:
            return
        sources, asked = self._sources(here, label, voting=True), self._asked(label)
        reference = self.reference
        truth = self._reference_map(here)
        if truth is not None and reference is not None and derivation_of(reference) is None:
            sources[reference.name] = truth
        self._run(
            lambda _: disagreement(several(masks_of(sources, asked))),
            lambda votes: self._add(votes, "disagreement", here, derived="disagreement"),
        )

    def run_automatic(self, name: str) -> None:
        """Compute the mask of an automatic model, or the folder of a trained one, as a layer."""
        self.run(Computable(name))

    def run(self, wanted: Computable) -> None:
        """Compute the mask of a model and add it as a layer."""
        here = self._begin()
        if here is None or self.running:
            return
        state, volume, device = self._controller.state, here.volume, self._controller.wish.device
        if wanted.prompted and not any(each.prompts for each in state.objects.values()):
            self._say("warning", "There are no prompts to repeat yet: draw a box first (B).")
            return

        def work(context: JobContext) -> tuple[LabelMap, str]:
            tell = _percent(context, self.progressed.emit)
            if wanted.prompted:
                found = repeat_prompts(
                    wanted.name, state, volume, device, tell, lambda: context.cancelled
                )
            else:
                # Some run on the CPU only, and refuse another device that is named.
                on = "cpu" if device == "cpu" else "auto"
                model = create_automatic_model(wanted.name, device=on)
                found = model.segment(volume, progress=tell, cancelled=lambda: context.cancelled)
            return found, remark_on(wanted.name, volume)

        def done(answer: tuple[LabelMap, str]) -> None:
            self._ended()
            found, remark = answer
            self._add(found.array, wanted.title, here, found.labels)
            text = f"'{wanted.title}' found {listed(found)}. {remark}".strip()
            self._say("warning" if remark else "done", text)

        def failed(error: BaseException) -> None:
            self._ended()
            self._say_error(error)

        self.progressed.emit(0.0)
        self._job = self._background.submit(work, done, failed)

    def cancel(self) -> None:
        """Stop the model that is at work."""
        if self._job is not None:
            self._job.cancel.set()

    def start_from(self, layer: Labels, label: int) -> None:
        """Correct a mask by prompts: it becomes an object of the session."""
        here = self._begin()
        if here is None:
            return
        try:
            labels = self._labels(layer, _mask_layer(layer, here.volume))
        except LungFMError as error:
            self._say_error(error)
            return
        # Whose the mask may be: a copy of another object's is a beginning like any other.
        name, asked = layer.name, replace(self._asked(label), claims=Claims())

        def done(mask: MaskArray) -> None:
            if self._controller.annotation is here:
                layer.visible = False
                self._controller.start_from(mask, name)

        self._run(lambda _: needed_mask(labels, asked, name), done)

    def outlines(self, *, only: bool) -> None:
        """Show all masks as outlines, or filled; those that are computed later as well."""
        self._contour = 1 if only else 0
        for layer in self._controller.viewer.layers:
            if isinstance(layer, Labels):
                layer.contour = self._contour

    # ------------------------------------------------------------------ helpers
    def _begin(self) -> Annotation | None:
        return self._controller.begin()

    def _run(self, work: Callable[[JobContext], Any], done: Callable[[Any], None]) -> None:
        self._background.submit(work, done, self._say_error)

    def _ended(self) -> None:
        self._job = None
        self.progressed.emit(None)

    def _add(
        self,
        labels: Any,
        name: str,
        here: Annotation,
        names: Mapping[int, str] | None = None,
        derived: Derivation | None = None,
    ) -> None:
        viewer = self._controller.viewer
        if self._controller.annotation is not here:
            return
        info = replace(info_of_layer(here.image), labels=dict(names or {}), derived=derived)
        active = viewer.layers.selection.active
        layer = viewer.add_labels(
            np.asarray(labels),
            name=name,
            opacity=0.45,
            metadata=info.to_metadata(),
            **placement_of(here.image),
        )
        layer.metadata[MADE] = True
        layer.contour = self._contour
        # Under what is being drawn: prompts and masks stay on top.
        viewer.layers.move(viewer.layers.index(layer), viewer.layers.index(here.layers.masks))
        viewer.layers.selection.active = active

    def _say(self, level: Any, text: str) -> None:
        self._controller.noticed.emit(Notice(level, text, COMPARE))

    def _say_error(self, error: BaseException) -> None:
        self._controller.noticed.emit(replace(explain(error), about=COMPARE))


def _percent(context: JobContext, tell: Callable[[float], None]) -> ProgressCallback:
    """Return what tells the GUI's thread of progress, once per percent."""
    last = -1

    def progress(done: int, total: int) -> None:
        nonlocal last
        percent = min(100 * done // max(total, 1), 100)
        if percent != last:
            last = percent
            context.report(tell, percent / 100)

    return progress


def _mask_layer(layer: Labels, volume: Volume) -> LabelMap:
    """Return the labels of a layer, but not of one that counts where masks disagree."""
    if derivation_of(layer) == "disagreement":
        msg = f"'{layer.name}' shows where masks disagree, it is no mask; choose a mask instead"
        raise LayerError(msg)
    return reference_of(layer, volume)
