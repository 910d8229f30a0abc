"""Overlap with a reference that is kept up to date while a mask is edited.

The counts of true and false voxels are changed by what changed in the mask and by nothing else, so
that an update costs the same in a volume of any size. They are integers: after any number of
updates they are what counting anew would give.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import GeometryError, UsageError
from napari_lungfm._core.types import LabelArray, MaskArray, Region, SliceMask
from napari_lungfm.evaluation.simulation import Interaction
from napari_lungfm.metrics import Counts, SliceCounts

IntArray = npt.NDArray[np.int64]

#: Voxels as numpy indexes them: one array of indices per axis.
VoxelIndices: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]


class PaintedBox(Protocol):
    """A part of a brush stroke as napari 0.9 records it (a masked atom of its paint event)."""

    @property
    def slice_key(self) -> Region:
        """Bounding box in the labels."""

    @property
    def mask(self) -> MaskArray | None:
        """Voxels of the box that changed; ``None`` if all did."""

    @property
    def old_values(self) -> LabelArray:
        """Labels before: of the changed voxels in a row, or of the whole box."""

    @property
    def new_value(self) -> int:
        """Label after."""


#: A part of an edit of single voxels (`Labels.data_setitem`): indices, old and new values.
PaintedVoxels: TypeAlias = tuple[VoxelIndices, npt.ArrayLike, npt.ArrayLike]
#: What napari's ``paint`` event carries, in a list.
PaintAtom: TypeAlias = PaintedBox | PaintedVoxels


class LiveOverlap:
    """Overlap of one label with its reference, slice by slice and in the whole volume.

    Parameters
    ----------
    labels
        The label map ``(z, y, x)`` that is being edited, as it is now. It is counted once and
        not kept.
    label
        The label in it that is compared.
    reference
        The reference label map on the same grid; it is kept and must not change. ``None`` where
        there is none: there are areas then, but no scores.
    reference_label
        The label in the reference; by default ``label``.

    Raises
    ------
    GeometryError
        If a label map is not 3D or the two differ in shape.
    """

    def __init__(
        self,
        labels: LabelArray,
        label: int,
        reference: LabelArray | None = None,
        reference_label: int | None = None,
    ) -> None:
        if labels.ndim != 3:
            msg = f"labels must have the axes (z, y, x), not the shape {labels.shape}"
            raise GeometryError(msg)
        if reference is not None and reference.shape != labels.shape:
            msg = (
                f"the labels have the shape {labels.shape}, the reference {reference.shape} "
                "(z, y, x); bring both onto one grid first"
            )
            raise GeometryError(msg)
        self._shape = labels.shape
        self._label = label
        self._reference = reference
        self._reference_label = label if reference_label is None else reference_label
        depth = labels.shape[0]
        self._shared: IntArray = np.zeros(depth, np.int64)
        self._size: IntArray = np.zeros(depth, np.int64)
        self._true: IntArray = np.zeros(depth, np.int64)
        if reference is not None:
            self._true[:] = [np.count_nonzero(self._is_true(plane)) for plane in reference]
        self._n_true = int(self._true.sum())
        self._sums = (0, 0)
        self.recount(labels)
        #: Dice, prompts and seconds after each interaction; see `note_interaction`.
        self.history: list[Interaction] = []

    # ------------------------------------------------------------------ reading
    @property
    def has_reference(self) -> bool:
        """Whether there is something to compare with."""
        return self._reference is not None

    @property
    def counts(self) -> Counts:
        """True and false voxels in the whole volume; all false without a reference."""
        shared, size = self._sums
        return Counts(shared, size - shared, self._n_true - shared)

    @property
    def per_slice(self) -> SliceCounts:
        """True and false voxels of every slice."""
        shared = self._shared.copy()
        return SliceCounts(shared, self._size - shared, self._true - shared)

    @property
    def areas(self) -> IntArray:
        """Voxels of the label on every slice ``(z,)``: what can be plotted without a reference."""
        return self._size.copy()

    def slice_counts(self, z: int) -> Counts:
        """Return true and false voxels of a slice."""
        shared = int(self._shared[z])
        return Counts(shared, int(self._size[z]) - shared, int(self._true[z]) - shared)

    def worst_slice(self) -> int | None:
        """Return the slice with the most wrong voxels (of several the lowest), ``None`` if none.

        It is the slice that a simulated user corrects; see `evaluation.corrections`.
        """
        wrong = self._wrong()
        return int(wrong.argmax()) if wrong.any() else None

    def next_disagreement(self, z: int, step: int = 1, *, at_least: int = 1) -> int | None:
        """Return the next slice with wrong voxels, going on from the other end of the volume.

        Parameters
        ----------
        z
            The slice to start from; it comes last.
        step
            1 for higher slice numbers, −1 for lower ones.
        at_least
            Wrong voxels that a slice must have.

        Raises
        ------
        UsageError
            If ``step`` is neither.
        """
        if step not in (1, -1):
            msg = f"the next slice lies one step up (1) or down (-1), not {step}"
            raise UsageError(msg)
        found = np.flatnonzero(self._wrong() >= max(at_least, 1))
        if found.size == 0:
            return None
        distance = (step * (found - z) - 1) % self._shape[0]
        return int(found[distance.argmin()])

    # ------------------------------------------------------------------ updating
    def update_box(
        self,
        region: Region,
        before: LabelArray,
        after: LabelArray | int,
        where: MaskArray | None = None,
    ) -> None:
        """Take note of a changed box.

        Parameters
        ----------
        region
            The box, as an index into the label map, with steps of 1.
        before, after
            The labels in it, of its shape; ``after`` may be one label for all.
        where
            The voxels that changed, of the shape of the box; by default all.

        Raises
        ------
        GeometryError
            If the shapes do not fit.
        """
        planes, rows, columns = (
            range(*bounds.indices(n)) for bounds, n in zip(region, self._shape, strict=True)
        )
        shape = (len(planes), len(rows), len(columns))
        for part in (before, after, where):
            if part is not None and np.ndim(part) != 0 and np.shape(part) != shape:
                msg = f"the box has the shape {shape} (z, y, x), but what changed {np.shape(part)}"
                raise GeometryError(msg)
        was = np.asarray(before) == self._label
        now = np.broadcast_to(np.asarray(after) == self._label, shape)
        gained, lost = now & ~was, was & ~now
        if where is not None:
            gained, lost = gained & where, lost & where
        true = None if self._reference is None else self._is_true(self._reference[region])
        self._change(planes, _per_plane(gained) - _per_plane(lost), self._size)
        if true is not None:
            shared = _per_plane(gained & true) - _per_plane(lost & true)
            self._change(planes, shared, self._shared)

    def update_voxels(
        self, indices: VoxelIndices, before: npt.ArrayLike, after: npt.ArrayLike
    ) -> None:
        """Take note of changed voxels.

        Parameters
        ----------
        indices
            One array of indices per axis ``(z, y, x)``. Of a voxel that occurs several times,
            the last one counts, as in an assignment.
        before, after
            The labels of these voxels; ``after`` may be one label for all.
        """
        z, y, x = (np.asarray(axis).ravel() for axis in np.broadcast_arrays(*indices))
        was = np.broadcast_to(np.asarray(before).ravel() == self._label, z.shape)
        now = np.broadcast_to(np.asarray(after).ravel() == self._label, z.shape)
        flat = np.ravel_multi_index((z, y, x), self._shape)
        last = len(flat) - 1 - np.unique(flat[::-1], return_index=True)[1]
        last = last[was[last] != now[last]]
        if last.size == 0:
            return
        z, y, x = z[last], y[last], x[last]
        step = np.where(now[last], 1, -1)
        first = int(z.min())
        planes = range(first, int(z.max()) + 1)
        self._change(planes, _sums_of(z - first, step, len(planes)), self._size)
        if self._reference is not None:
            true = self._is_true(self._reference[z, y, x])
            shared = _sums_of((z - first)[true], step[true], len(planes))
            self._change(planes, shared, self._shared)

    def update_paint(self, atoms: Iterable[PaintAtom], *, undone: bool = False) -> None:
        """Take note of what napari's ``paint`` event carries.

        Parameters
        ----------
        atoms
            The parts of a stroke, in the order in which they were painted.
        undone
            The stroke was taken back.
        """
        order: Sequence[PaintAtom] = list(atoms)
        for atom in reversed(order) if undone else order:
            if hasattr(atom, "slice_key"):  # which is a tuple, too
                self._update_painted_box(cast(PaintedBox, atom), undone=undone)
            else:
                indices, old, new = atom
                self.update_voxels(indices, *((new, old) if undone else (old, new)))

    def recount(self, labels: LabelArray, slices: Iterable[int] | None = None) -> None:
        """Count slices anew, all by default: after changes that nobody has told of.

        Parameters
        ----------
        labels
            The label map as it is now.
        slices
            The slices that may have changed.
        """
        for z in range(self._shape[0]) if slices is None else slices:
            inside = labels[z] == self._label
            self._size[z] = np.count_nonzero(inside)
            if self._reference is not None:
                self._shared[z] = np.count_nonzero(inside & self._is_true(self._reference[z]))
        self._sums = (int(self._shared.sum()), int(self._size.sum()))

    def note_interaction(self, n_prompts: int, seconds: float) -> Interaction:
        """Keep the Dice after an interaction.

        Parameters
        ----------
        n_prompts
            Prompts given so far.
        seconds
            What the interaction took.

        Returns
        -------
        Interaction
            The entry; its Dice is NaN without a reference.
        """
        dice = self.counts.dice if self.has_reference else float("nan")
        self.history.append(Interaction(n_prompts, dice, seconds))
        return self.history[-1]

    # ------------------------------------------------------------------ helpers
    def _is_true(self, labels: LabelArray) -> MaskArray | SliceMask:
        inside: MaskArray = labels == self._reference_label
        return inside

    def _wrong(self) -> IntArray:
        if self._reference is None:
            return np.zeros_like(self._size)
        wrong: IntArray = self._size + self._true - 2 * self._shared
        return wrong

    def _update_painted_box(self, atom: PaintedBox, *, undone: bool) -> None:
        region, where = atom.slice_key, atom.mask
        old: LabelArray = np.asarray(atom.old_values)
        if where is not None:  # old values in a row: put them back into their box
            box = np.full(where.shape, atom.new_value, dtype=old.dtype)
            box[where] = old
            old = box
        if undone:
            self.update_box(region, np.full(old.shape, atom.new_value), old, where)
        else:
            self.update_box(region, old, atom.new_value, where)

    def _change(self, planes: range, by: IntArray, counts: IntArray) -> None:
        counts[planes.start : planes.stop] += by
        shared, size = self._sums
        total = int(by.sum())
        self._sums = (shared, size + total) if counts is self._size else (shared + total, size)


def _per_plane(mask: MaskArray) -> IntArray:
    counts: IntArray = np.count_nonzero(mask, axis=(1, 2)).astype(np.int64)
    return counts


def _sums_of(planes: IntArray, values: IntArray, number: int) -> IntArray:
    sums: IntArray = np.zeros(number, np.int64)
    np.add.at(sums, planes, values)
    return sums
