"""Values that the controller tells of."""

from dataclasses import dataclass
from pathlib import Path

from napari.layers import Image

from napari_lungfm.geometry import Volume
from napari_lungfm.gui.annotation.layers import AnnotationLayers
from napari_lungfm.gui.annotation.view import SliceView
from napari_lungfm.gui.annotation.work import ModelWish


@dataclass(eq=False)
class Annotation:
    """What is open: an image, its layers, and where the session is kept.

    Parameters
    ----------
    image, volume
        The image, as a layer and as a volume.
    layers, view
        What it is worked on with.
    wish
        The model.
    log
        The event log, if it is kept on disk.
    ready
        Whether the session has been opened.
    """

    image: Image
    volume: Volume
    layers: AnnotationLayers
    view: SliceView
    wish: ModelWish
    log: Path | None
    ready: bool = False


@dataclass(frozen=True)
class Walking:
    """How far a propagation is.

    Parameters
    ----------
    label
        The object.
    z
        The slice that was done last; ``None`` at the beginning.
    done
        Number of slices done.
    """

    label: int
    z: int | None = None
    done: int = 0


@dataclass(frozen=True)
class Repeating:
    """How far a session is that is done again, by another model or after a crash.

    Parameters
    ----------
    done, total
        Number of actions that were done, and of all of them; 0 while it is not known.
    """

    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Interaction:
    """One thing that the user did and that the model answered.

    Parameters
    ----------
    label
        The object.
    kind
        ``"prompt"``, ``"edit"``, ``"propagate"``, ``"remove"``, ``"undo"``, ``"redo"``.
    seconds
        How long the answer took.
    prompts
        Number of the object's prompts afterwards.
    at
        Seconds since the session began.
    """

    label: int
    kind: str
    seconds: float
    prompts: int
    at: float
