"""How good the active object is, kept up to date with every voxel that changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Labels
from psygnal import Signal

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.types import MaskArray
from napari_lungfm.evaluation.live import LiveOverlap
from napari_lungfm.geometry import LabelMap, Volume, bounding_region
from napari_lungfm.gui.annotation.choices import Choices, title_of, what_to_do
from napari_lungfm.gui.annotation.controller import Controller
from napari_lungfm.gui.annotation.facts import Annotation, Interaction
from napari_lungfm.gui.annotation.images import reference_of
from napari_lungfm.gui.annotation.jobs import JobQueue
from napari_lungfm.gui.annotation.notices import Notice, explain
from napari_lungfm.inference.session import SessionState
from napari_lungfm.metrics import SurfaceScores, surface_scores

#: Voxels around both masks that distances of surfaces look at.
_MARGIN = 2
#: Most slices that are counted on the GUI's thread, a millisecond or less each.
_FEW_SLICES = 8


@dataclass(frozen=True, eq=False)
class _Counting:
    """The voxels of a label are being counted in the background; see `Quality._count`."""

    label: int
    here: Annotation
    drawn: set[int]


class Quality:
    """Overlap with the reference, slice by slice, and its history.

    Without a reference there are areas and no scores.

    Parameters
    ----------
    controller
        What is annotated.
    background
        Does what takes time and is not the engine's.
    choices
        Structures that were chosen by hand.
    """

    #: Numbers or plots may have changed.
    changed = Signal()
    #: The reference cannot be used, and was let go: its layer.
    refused = Signal(object)

    def __init__(self, controller: Controller, background: JobQueue, choices: Choices) -> None:
        self._controller, self._background, self.choices = controller, background, choices
        self._layer: Labels | None = None
        self._reference: LabelMap | None = None
        self._live: dict[int, LiveOverlap] = {}
        #: Label → slices that were drawn on since its counting began, for those that are counted.
        self._asked: dict[int, set[int]] = {}
        #: Label → label of the reference that it is compared with.
        self._matched: dict[int, int | None] = {}
        self._edited = False
        #: All slices that were ever drawn on in this session: only they need counting.
        self._drawn: set[int] = set()
        self._surface: tuple[int, SurfaceScores] | None = None
        self._version = 0
        controller.labels_changed.connect(self._on_labels)
        controller.opened.connect(self._on_opened)
        controller.interacted.connect(self._on_interaction)
        controller.changed.connect(self._follow_active)
        choices.changed.connect(self._on_chosen)

    # ------------------------------------------------------------------ reading
    @property
    def live(self) -> LiveOverlap | None:
        """The counters of the active object, ``None`` until they are there."""
        return self._live.get(self._controller.active)

    @property
    def reference_chosen(self) -> bool:
        """Whether there is a reference, be it without the active object."""
        return self._layer is not None

    @property
    def has_reference(self) -> bool:
        """Whether the active object is compared with something."""
        return self.live is not None and self.live.has_reference

    @property
    def surface(self) -> SurfaceScores | None:
        """Distances of the surfaces, where they are up to date."""
        if self._surface is None or self._surface[0] != self._version:
            return None
        return self._surface[1]

    # ------------------------------------------------------------------ doing
    def set_reference(self, layer: Labels | None) -> None:
        """Choose the reference; ``None`` for none."""
        if layer is self._layer:
            return
        for old in () if self._layer is None else self._events_of(self._layer):
            old.disconnect(self._on_reference_edited)
        self._layer = layer
        for new in () if layer is None else self._events_of(layer):
            new.connect(self._on_reference_edited)
        self._start_anew()

    @staticmethod
    def _events_of(layer: Labels) -> tuple[Any, ...]:
        return layer.events.paint, layer.events.data

    def _on_reference_edited(self, _: Any = None) -> None:
        """Count anew, once for all that was edited before the next turn."""
        if self._edited:
            return
        self._edited = True

        def count() -> None:  # a script's voxels are in the layer only now
            self._edited = False
            self._start_anew()

        self._controller.defer(count)

    def go_to_worst(self) -> None:
        """Show the slice with the most wrong voxels."""
        live = self._needs_reference()
        if live is None:
            return
        worst = live.worst_slice()
        if worst is None:
            self._say("done", "There is no wrong voxel.")
        else:
            self._controller.go_to(worst)

    def go_to_next(self, step: int = 1) -> None:
        """Show the next slice that differs from the reference."""
        live, here = self._needs_reference(), self._controller.annotation
        if live is None or here is None:
            return
        found = live.next_disagreement(here.view.z, step)
        if found is None:
            self._say("done", "There is no wrong voxel.")
        else:
            self._controller.go_to(found)

    def measure_surfaces(self) -> None:
        """Compute the distances of the surfaces in the background."""
        live, here, obj = self.live, self._controller.annotation, self._controller.active_object
        reference = self._reference
        if here is None or obj is None or reference is None or not self.has_reference:
            return
        if self.surface is not None or self._controller.busy or live is None:
            return
        version, volume, state = self._version, here.volume, self._controller.state
        label, true = obj.label, self.reference_label(obj.label)
        if true is None:
            return

        def done(scores: SurfaceScores) -> None:
            self._surface = (version, scores)
            self.changed.emit()

        self._background.submit(
            lambda _: _surfaces(state, label, reference, true, volume),
            done,
            lambda error: self._controller.noticed.emit(explain(error)),
        )

    def reference_label(self, label: int) -> int | None:
        """Return the label of the reference that an object is compared with; see `Claims`."""
        reference, obj = self._reference, self._controller.objects.get(label)
        if reference is None:
            return None
        chosen = self.choices.of(self._layer, reference.labels)
        name = obj.name if obj is not None else None
        return self.choices.claims().label_in(reference.labels, self._present, label, name, chosen)

    @property
    def structures(self) -> dict[int, str]:
        """The structures of the reference: labels that occur in it, and what they are called."""
        found = self._reference
        return {} if found is None else {v: title_of(found, v) for v in self._present}

    def chosen_structure(self, label: int) -> int | None:
        """Return what was chosen by hand for an object, ``None`` where it goes by its name."""
        titles = self._reference.labels if self._reference is not None else {}
        return self.choices.of(self._layer, titles).get(label)

    def choose_structure(self, label: int, value: int | None) -> None:
        """Compare an object with a structure of the reference; ``None``: by its name."""
        if self._layer is not None:
            self.choices.choose(self._layer, label, value)

    @property
    def way_out(self) -> str:
        """What to do for an object that the reference does not have, else nothing."""
        if self._reference is None or self.has_reference:
            return ""
        return what_to_do(self._reference, self._present)

    # ------------------------------------------------------------------ following
    def _on_chosen(self) -> None:
        self._follow_active()
        self.changed.emit()

    def _on_opened(self) -> None:
        self._drawn.clear()
        self._start_anew()

    def _start_anew(self) -> None:
        self._live.clear()
        self._asked.clear()
        self._reference, self._present, self._surface = None, (), None
        self._version += 1
        here = self._controller.annotation
        if here is not None and self._layer is not None:
            self._read_reference(here, self._layer)
        else:
            self._follow_active()
        self.changed.emit()

    def _read_reference(self, here: Annotation, layer: Labels) -> None:
        def done(found: tuple[LabelMap, tuple[int, ...]]) -> None:
            if self._controller.annotation is here and self._layer is layer:
                self._reference, self._present = found
                self._live.clear()
                self._asked.clear()
                self._follow_active()
                self.changed.emit()

        def failed(error: BaseException) -> None:
            if self._layer is layer:
                self.set_reference(None)
            self._controller.noticed.emit(explain(error))
            self.refused.emit(layer)

        try:
            reference = reference_of(layer, here.volume)
        except LungFMError as error:
            failed(error)
            return
        self._background.submit(lambda _: (reference, reference.present()), done, failed)

    def _follow_active(self) -> None:
        """Have the voxels of the active object counted, once."""
        controller = self._controller
        label, here = controller.active, controller.annotation
        waits = self._layer is not None and self._reference is None
        if not label or here is None or waits:
            return
        reference, true = self._reference, self.reference_label(label)
        if label in self._asked:
            if self._matched[label] == true:
                return
            self._live.pop(label, None)  # it was renamed: another structure of the reference
            self._version += 1
        self._asked[label], self._matched[label] = set(), true
        shape = here.volume.shape

        def work(_: Any) -> LiveOverlap:
            empty = np.broadcast_to(np.uint8(0), shape)
            labels = reference.array if reference is not None and true is not None else None
            return LiveOverlap(empty, label, labels, true)

        self._count(_Counting(label, here, self._asked[label]), work, set(self._drawn))

    def _count(
        self, counting: "_Counting", make: Callable[[Any], LiveOverlap], slices: set[int]
    ) -> None:
        """Count slices in the background; what is drawn meanwhile is counted afterwards."""
        controller, here, label = self._controller, counting.here, counting.label
        data = here.layers.data

        def work(context: Any) -> LiveOverlap:
            live = make(context)
            live.recount(data, sorted(slices))
            return live

        def done(live: LiveOverlap) -> None:
            if controller.annotation is not here or self._asked.get(label) is not counting.drawn:
                return
            missed = set(counting.drawn)
            counting.drawn.clear()
            if len(missed) > _FEW_SLICES:  # a propagation is under way: not on this thread
                self._count(counting, lambda _: live, missed)
                return
            live.recount(data, missed)
            self._live[label] = live
            self.changed.emit()

        self._background.submit(work, done, lambda e: controller.noticed.emit(explain(e)))

    def _on_labels(self, region: Any, before: Any, after: Any) -> None:
        self._version += 1
        planes = range(region[0].start, region[0].stop)
        self._drawn.update(planes)
        for label, drawn in self._asked.items():
            if label not in self._live:
                drawn.update(planes)
        for live in self._live.values():
            live.update_box(region, before, after)
        self.changed.emit()

    def _on_interaction(self, interaction: Interaction) -> None:
        live = self._live.get(interaction.label)
        if live is not None:
            live.note_interaction(interaction.prompts, interaction.seconds)
            self.changed.emit()

    def _needs_reference(self) -> LiveOverlap | None:
        if not self.has_reference:
            obj, text = self._controller.active_object, "choose a label layer as Reference."
            if self._reference is not None and obj is not None:
                text = f"the one that is chosen has no '{obj.name}'; {self.way_out}."
            self._say("warning", f"This needs a reference: {text}")
            return None
        return self.live

    def _say(self, level: Any, text: str) -> None:
        self._controller.noticed.emit(Notice(level, text))

    _present: tuple[int, ...] = ()


def _surfaces(
    state: SessionState, label: int, reference: LabelMap, true: int, volume: Volume
) -> SurfaceScores:
    obj = state.objects[label]
    mask, wanted = obj.mask(volume.shape), reference.mask(true)
    region = _around(mask, wanted)
    return surface_scores(mask[region], wanted[region], volume.spacing)


def _around(mask: MaskArray, other: MaskArray) -> tuple[slice, slice, slice]:
    boxes = [b for b in (bounding_region(m, _MARGIN) for m in (mask, other)) if b is not None]
    if not boxes:
        return (slice(0, 1), slice(0, 1), slice(0, 1))
    a, b = boxes[0], boxes[-1]
    sides = [slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True)]
    return (sides[0], sides[1], sides[2])
