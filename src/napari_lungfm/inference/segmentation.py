"""Whole masks from prompts."""

from collections.abc import Callable, Mapping, Sequence

from napari_lungfm._core.types import ProgressCallback
from napari_lungfm.geometry import LabelMap, Structure, Volume
from napari_lungfm.inference.session import AnnotationSession, SliceUpdate
from napari_lungfm.models.prompts import Prompt, prompted_slices
from napari_lungfm.models.protocols import PromptableModel


def segment_object(
    model: PromptableModel,
    volume: Volume,
    prompts: Sequence[Prompt],
    *,
    fill: bool = True,
    max_extent_mm: float | None = None,
    label: int = int(Structure.TUMOUR),
    progress: ProgressCallback | None = None,
) -> LabelMap:
    """Segment one object of a volume.

    Parameters
    ----------
    model
        A promptable model.
    volume
        The image in HU, axial slices along the first array axis; rows and columns may be swapped
        and any axis flipped.
    prompts
        All prompts of the object, in voxels of ``volume``.
    fill, max_extent_mm
        See `propagate_object`.
    label
        Label value in the result, 1 to 255.
    progress
        Called after every slice with the slices done and the most that can come.

    Returns
    -------
    LabelMap
        uint8 on the grid of ``volume``.

    Raises
    ------
    PromptError, GeometryError, UsageError
        See `propagate_object`.
    """
    return segment_objects(
        model,
        volume,
        {label: prompts},
        fill=fill,
        max_extent_mm=max_extent_mm,
        progress=progress,
    )


def segment_objects(
    model: PromptableModel,
    volume: Volume,
    objects: Mapping[int, Sequence[Prompt]],
    *,
    fill: bool = True,
    max_extent_mm: float | None = None,
    progress: ProgressCallback | None = None,
) -> LabelMap:
    """Segment several objects one after the other; a finished one is never overwritten.

    Parameters
    ----------
    model, volume, fill, max_extent_mm, progress
        See `segment_object`.
    objects
        Label value → prompts of the object. Where two objects claim a voxel, the one that stands
        first keeps it.

    Returns
    -------
    LabelMap
        uint8 on the grid of ``volume``.

    Raises
    ------
    PromptError, GeometryError, UsageError
        See `propagate_object`; also if a label is not 1 to 255.
    """
    report = _Progress(progress, [_most_slices(p, volume, fill=fill) for p in objects.values()])
    with AnnotationSession(volume, model) as session:
        for label, prompts in objects.items():
            annotate(
                session,
                label,
                prompts,
                fill=fill,
                max_extent_mm=max_extent_mm,
                listener=lambda update: report.step(),
            )
            report.finish_object()
        return session.label_map()


def annotate(
    session: AnnotationSession,
    label: int,
    prompts: Sequence[Prompt],
    *,
    fill: bool = True,
    max_extent_mm: float | None = None,
    listener: Callable[[SliceUpdate], None] | None = None,
) -> None:
    """Add an object to a session, with all its prompts, and carry it through the volume.

    Parameters
    ----------
    session
        A session.
    label
        Label value of the object, 1 to 255.
    prompts
        All prompts of the object.
    fill, max_extent_mm
        See `propagate_object`.
    listener
        Called with each slice as it is found.

    Raises
    ------
    PromptError, UsageError
        See `propagate_object`; also if the label is taken or out of range.
    """
    tell = listener or (lambda update: None)
    session.add_object(label)
    for update in session.add_prompts(label, prompts).slices:
        tell(update)
    if fill:
        for update in session.propagate(label, max_extent_mm=max_extent_mm):
            tell(update)


class _Progress:
    def __init__(self, callback: ProgressCallback | None, sizes: Sequence[int]) -> None:
        self._callback, self._sizes = callback, sizes
        self._object, self._slice = 0, 0

    def step(self) -> None:
        self._slice += 1
        self._tell()

    def finish_object(self) -> None:
        self._object, self._slice = self._object + 1, 0
        self._tell()

    def _tell(self) -> None:
        if self._callback is not None:
            self._callback(sum(self._sizes[: self._object]) + self._slice, sum(self._sizes))


def _most_slices(prompts: Sequence[Prompt], volume: Volume, *, fill: bool) -> int:
    return volume.shape[0] if fill else len(prompted_slices(prompts))
