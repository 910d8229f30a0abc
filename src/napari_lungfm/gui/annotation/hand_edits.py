"""Brush and eraser: what is painted becomes a prompt, and other objects keep their voxels."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.types import Region, SliceMask
from napari_lungfm.gui.annotation.edits import Stroke, keep_others, stroke_of
from napari_lungfm.gui.annotation.facts import Annotation
from napari_lungfm.gui.annotation.notices import Notice
from napari_lungfm.gui.annotation.stroke_remarks import remark_on_stroke
from napari_lungfm.gui.annotation.work import Patch, Report
from napari_lungfm.gui.annotation.workbench import Workbench
from napari_lungfm.inference.session import AnnotatedObject, AnnotationSession
from napari_lungfm.inference.session.state import changed_region


class HandEdits:
    """Makes prompts of strokes.

    A stroke stands on screen at once. Until the engine has taken it in, nothing that the engine
    says of its slice is drawn.

    Parameters
    ----------
    bench
        What is worked on.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._waiting: dict[int, int] = {}

    @property
    def slices(self) -> frozenset[int]:
        """Slices with strokes that the engine has not taken in yet."""
        return frozenset(self._waiting)

    def forget(self) -> None:
        """Wait for nothing any more."""
        self._waiting.clear()

    def take(self, atoms: Any) -> None:
        """Take in what a paint event says."""
        here = self._bench.annotation
        stroke = stroke_of(atoms, here.layers.data) if here is not None else None
        if here is None or stroke is None:
            return
        label = self._label_of(stroke, here)
        final = keep_others(stroke, label)
        obj = self._bench.objects.get(label)
        if obj is not None and obj.locked is not None:
            final = stroke.before
            self._bench.noticed.emit(Notice("warning", told_locked(obj)))
        elif another := here.view.why_another([_middle(stroke.region)]):
            final = stroke.before
            self._bench.noticed.emit(Notice("warning", another))
        self._bench.defer(here.layers.surface)
        if not np.array_equal(final, stroke.after):
            here.layers.write(stroke.region, final, here.view)
            # A stroke of a program is written by napari after this event: put right again.
            self._bench.defer(lambda: self._put_right(here, stroke.region, final))
        changed = final != stroke.before
        if not changed.any():
            return
        self._bench.labels_changed.emit(stroke.region, stroke.before, final)
        first = stroke.region[0].start
        masks: dict[int, SliceMask] = {}
        for i in (int(n) for n in np.flatnonzero(changed.any(axis=(1, 2)))):
            plane = here.layers.data[first + i].copy()
            plane[stroke.region[1:]] = final[i]
            masks[first + i] = plane == label
        remark = remark_on_stroke(
            changed,
            label,
            self._bench.state,
            filled=str(here.layers.masks.mode) == "fill",
            slice_area=int(np.prod(here.volume.shape[1:])),
        )
        self._edit(label, masks, remark)

    def replace(self, before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> None:
        """Take in labels ``(z, y, x)`` that were put in the place of all of them at once.

        They stand on screen already. Locked objects keep their voxels.
        """
        here = self._bench.annotation
        if here is None:
            return
        held = [i for i, each in self._bench.objects.items() if each.locked is not None]
        touched = (before != after) & (np.isin(before, held) | np.isin(after, held))
        final = np.where(touched, before, after)
        planes = [int(z) for z in np.flatnonzero((before != final).any(axis=(1, 2)))]
        if touched.any():
            text = "Locked objects were left as they are: unlock them in the list to change them."
            self._bench.noticed.emit(Notice("warning", text))
            here.layers.data[...] = final
            here.layers.redraw()
        for z in planes:
            region = (slice(z, z + 1), *(slice(0, n) for n in final.shape[1:]))
            self._bench.labels_changed.emit(region, before[z : z + 1], final[z : z + 1])
        changed = before != final
        for label in (int(v) for v in np.union1d(before[changed], final[changed]) if v):
            mine, old = final == label, before == label
            slices = np.flatnonzero((mine != old).any(axis=(1, 2)))
            self._edit(label, {int(z): mine[z] for z in slices})

    def _label_of(self, stroke: Stroke, here: Annotation) -> int:
        """Return the object that was painted; of the eraser, the active one."""
        painted = stroke.after[(stroke.after != stroke.before) & (stroke.after != 0)]
        if painted.size:
            return int(painted[-1])
        return self._bench.active or int(here.layers.masks.selected_label)

    def _put_right(self, here: Annotation, region: Region, labels: npt.NDArray[Any]) -> None:
        if self._bench.annotation is here and not np.array_equal(here.layers.data[region], labels):
            here.layers.write(region, labels, here.view)

    def _edit(self, label: int, masks: dict[int, SliceMask], remark: str = "") -> None:
        for z in masks:
            self._waiting[z] = self._waiting.get(z, 0) + 1

        def done(report: Report) -> None:
            self._ended(masks)
            self._bench.acted(report, "edit", remark)

        def failed(error: BaseException) -> None:
            self._ended(masks)
            for z in masks:
                self._show_as_it_is(z)
            self._bench.failed(error)

        engine: Callable[..., Report] = self._bench.engine.act
        self._bench.submit(
            lambda _: engine(lambda s: _take_in(s, label, masks), label), done, failed
        )

    def _ended(self, slices: Iterable[int]) -> None:
        for z in slices:
            self._waiting[z] -= 1
            if not self._waiting[z]:
                del self._waiting[z]

    def _show_as_it_is(self, z: int) -> None:
        """Show a slice as the session has it."""
        here = self._bench.annotation
        if here is not None:
            _, height, width = here.volume.shape
            region = (slice(z, z + 1), slice(0, height), slice(0, width))
            self._bench.draw(Patch(region, self._bench.state.labels(region)))


def told_locked(obj: AnnotatedObject) -> str:
    """Return why an object is not changed, and what to do."""
    return f"'{obj.name}' is locked: unlock it in the list to change it."


def _middle(region: Region) -> tuple[float, ...]:
    return tuple((part.start + part.stop - 1) / 2 for part in region)


def _take_in(session: AnnotationSession, label: int, masks: dict[int, SliceMask]) -> Region | None:
    """Make prompts of drawn slices, one step for all of them."""
    before = session.state
    if label not in session.objects:
        session.add_object(label)
    session.edit_slices(label, masks)
    return changed_region(before, session.state)
