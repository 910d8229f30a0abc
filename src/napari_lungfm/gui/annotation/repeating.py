"""What another promptable model makes of the same prompts; the session itself stays as it is."""

from dataclasses import replace

from napari_lungfm._core.types import ProgressCallback
from napari_lungfm.geometry import LabelMap, Volume
from napari_lungfm.inference.session import AnnotatedObject, AnnotationSession, SessionState
from napari_lungfm.models.automatic.protocol import CancelCallback, SegmentationCancelledError
from napari_lungfm.models.registry import create_model


def repeat_prompts(
    name: str,
    state: SessionState,
    volume: Volume,
    device: str,
    progress: ProgressCallback,
    cancelled: CancelCallback,
) -> LabelMap:
    """Give a model the prompts of all objects as they are now.

    Objects that go beyond their prompted slices are propagated, both ways.

    Parameters
    ----------
    name, device
        See `create_model`.
    state
        The objects.
    volume
        The image.
    progress
        Called with the slices that were found and the number that is expected.
    cancelled
        Asked after each slice.

    Returns
    -------
    LabelMap
        The objects under their own labels and names, uint8 ``(z, y, x)``.

    Raises
    ------
    SegmentationCancelledError
        If ``cancelled`` said yes.
    LungFMError
        If the model cannot be had, or cannot use the prompts.
    """
    prompted = [each for each in state.objects.values() if each.prompts]
    expected, found = sum(len(each.masks) for each in prompted), 0
    with AnnotationSession(volume, create_model(name, device=device)) as session:
        for each in prompted:
            session.add_object(each.label)
            session.add_prompts(each.label, list(each.prompts.values()))
            found += len(each.prompted)
            progress(min(found, expected), expected)
            for _ in session.propagate(each.label) if _was_propagated(each) else ():
                found += 1
                progress(min(found, expected), expected)
                _check(cancelled)
            _check(cancelled)
        names = {each.label: each.name for each in prompted}
        return replace(session.label_map(), labels=names)


def _was_propagated(obj: AnnotatedObject) -> bool:
    return bool(obj.masks.keys() - set(obj.prompted))


def _check(cancelled: CancelCallback) -> None:
    if cancelled():
        msg = "the computation was cancelled; nothing was kept"
        raise SegmentationCancelledError(msg)
