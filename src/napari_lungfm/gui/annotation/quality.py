"""How good the active object is, kept up to date with every voxel that changes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Labels
from psygnal import Signal

from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.types import MaskArray
from napari_lungfm.evaluation.live import LiveOverlap
from napari_lungfm.geometry import LabelMap, Volume, bounding_region
from napari_lungfm.gui.annotation.controller import Controller
from napari_lungfm.gui.annotation.facts import Annotation, Interaction
from napari_lungfm.gui.annotation.images import reference_of
from napari_lungfm.gui.annotation.jobs import JobQueue
from napari_lungfm.gui.annotation.notices import Notice, explain
from napari_lungfm.inference.session import SessionState
from napari_lungfm.metrics import SurfaceScores, surface_scores

#: Voxels around both masks that distances of surfaces look at.
_MARGIN = 2


@dataclass(frozen=True, eq=False)
class _Counted:
    """A reference with the counters of one label, made in the background."""

    label: int
    live: LiveOverlap
    reference: LabelMap | None
    reference_label: int | None


class Quality:
    """Overlap with the reference, slice by slice, and its history.

    Without a reference there are areas and no scores.

    Parameters
    ----------
    controller
        What is annotated.
    background
        Does what takes time and is not the engine's.
    """

    #: Numbers or plots may have changed.
    changed = Signal()

    def __init__(self, controller: Controller, background: JobQueue) -> None:
        self._controller, self._background = controller, background
        self._layer: Labels | None = None
        self._reference: LabelMap | None = None
        self._live: dict[int, LiveOverlap] = {}
        self._asked: set[int] = set()
        self._surface: tuple[int, SurfaceScores] | None = None
        self._version = 0
        controller.labels_changed.connect(self._on_labels)
        controller.opened.connect(self._start_anew)
        controller.interacted.connect(self._on_interaction)
        controller.changed.connect(self._follow_active)

    # ------------------------------------------------------------------ reading
    @property
    def live(self) -> LiveOverlap | None:
        """The counters of the active object, ``None`` until they are there."""
        return self._live.get(self._controller.active)

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
        if layer is not self._layer:
            self._layer = layer
            self._start_anew()

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
        """Return the label of the reference that an object is compared with.

        The same value; else the same name; else the only one that there is.
        """
        reference = self._reference
        if reference is None:
            return None
        present = self._present
        if label in present:
            return label
        obj = self._controller.objects.get(label)
        named = [v for v, name in reference.labels.items() if obj and name == obj.name]
        if named and named[0] in present:
            return named[0]
        return present[0] if len(present) == 1 else None

    # ------------------------------------------------------------------ following
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
            self._layer = None
            self._controller.noticed.emit(explain(error))
            self._follow_active()

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
        if not label or here is None or label in self._asked or waits:
            return
        self._asked.add(label)
        reference, true = self._reference, self.reference_label(label)
        shape = here.volume.shape

        def work(_: Any) -> _Counted:
            empty = np.broadcast_to(np.uint8(0), shape)
            labels = reference.array if reference is not None and true is not None else None
            return _Counted(label, LiveOverlap(empty, label, labels, true), reference, true)

        def done(counted: _Counted) -> None:
            if controller.annotation is here and self._reference is counted.reference:
                self._live[label] = counted.live
                obj = controller.objects.get(label)
                # What was drawn while the reference was counted: a few slices.
                counted.live.recount(here.layers.data, obj.masks if obj else ())
                self.changed.emit()

        self._background.submit(work, done, lambda e: controller.noticed.emit(explain(e)))

    def _on_labels(self, region: Any, before: Any, after: Any) -> None:
        self._version += 1
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
            self._say("warning", "This needs a reference: choose a label layer as Reference.")
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
