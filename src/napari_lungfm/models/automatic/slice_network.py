"""A network on axial slices as an automatic model: prepare, slide, put together, bring back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from napari_lungfm._core.imports import require
from napari_lungfm._core.types import FloatArray, ProgressCallback, Vector3
from napari_lungfm.geometry import LUNG_LABELS, LabelMap, Volume
from napari_lungfm.models.automatic.networks import count_parameters
from napari_lungfm.models.automatic.postprocessing import parse_steps, postprocess
from napari_lungfm.models.automatic.protocol import CancelCallback, Steps
from napari_lungfm.models.foundation.runtime import Precision, Runtime
from napari_lungfm.preprocessing import PAPER_SPACING, paper_preprocessing

Length = Annotated[float, Field(gt=0)]
#: Multiples of 16, for the four halvings of the U-Net.
Side = Annotated[int, Field(ge=32, multiple_of=16)]
#: Part of a window that the next one repeats.
Overlap = Annotated[float, Field(ge=0, lt=1)]
#: Slices that go through a network together.
BatchSize = Annotated[int, Field(ge=1)]


class InputSpec(BaseModel):
    """What a slice network sees.

    Parameters
    ----------
    spacing
        Voxel spacing ``(z, y, x)`` in mm that volumes are resampled to; the paper's by default.
    size
        Pixels ``(y, x)`` of what the network sees at once. Smaller slices are filled up with air,
        larger ones covered by overlapping windows.
    neighbours
        Slices on either side that it sees beside the one to segment; 0 in the paper.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spacing: tuple[Length, Length, Length] = PAPER_SPACING
    size: tuple[Side, Side] = (512, 512)
    neighbours: Annotated[int, Field(ge=0, le=4)] = 0

    @property
    def channels(self) -> int:
        """Number of slices that the network sees at once."""
        return 2 * self.neighbours + 1


def slice_stack(array: npt.NDArray[np.generic], z: int, neighbours: int) -> npt.NDArray[np.generic]:
    """Return slices ``z - neighbours`` to ``z + neighbours`` as channels ``(c, y, x)``.

    Beyond the ends of the volume the first or last slice stands in.
    """
    index = np.clip(np.arange(z - neighbours, z + neighbours + 1), 0, len(array) - 1)
    return array[index]


class SliceNetworkModel:
    """A U-Net or DeepLabV3 that knows how to look at a CT.

    Parameters
    ----------
    name
        The name in records.
    network
        Slices ``(n, c, y, x)`` → logits ``(n, classes, y, x)``, classes in the order background,
        then `structures`.
    inputs
        What the network sees.
    structures
        Label values in the order of the classes.
    device, precision
        See `Runtime`.
    postprocessing
        Names of `POSTPROCESSING`; none by default.
    overlap
        Part of a window that the next one repeats, where slices are larger than a window.
    batch_size
        Slices that go through the network together.

    Raises
    ------
    UsageError
        If there is no such device, precision or post-processing.
    """

    def __init__(
        self,
        name: str,
        network: torch.nn.Module,
        inputs: InputSpec,
        structures: Sequence[int],
        *,
        device: str = "auto",
        precision: Precision = "auto",
        postprocessing: str | Sequence[str] = (),
        overlap: Overlap = 0.25,
        batch_size: BatchSize = 4,
    ) -> None:
        self.name = name
        self.postprocessing = parse_steps(postprocessing)
        self.parameters = count_parameters(network)
        self._network, self._inputs = network, inputs
        self._structures = tuple(int(value) for value in structures)
        self._runtime = Runtime(network, device, precision)
        self._overlap, self._batch_size = overlap, batch_size

    @property
    def labels(self) -> Mapping[int, str]:
        """Label value → name."""
        return {v: LUNG_LABELS.get(v, f"label {v}") for v in self._structures}

    def segment(
        self,
        volume: Volume,
        *,
        progress: ProgressCallback | None = None,
        cancelled: CancelCallback | None = None,
    ) -> LabelMap:
        """See `AutomaticModel.segment`."""
        prepared = paper_preprocessing(volume, _as_vector(self._inputs.spacing))
        image = prepared.volume
        steps = Steps(image.shape[0], progress, cancelled)
        steps.check()
        classes = classify(
            self._network,
            image.array,
            self._inputs,
            device=lambda: self._runtime.device,
            run=self._runtime.run,
            overlap=self._overlap,
            batch_size=self._batch_size,
            steps=steps,
        )
        values = np.array([0, *self._structures], dtype=np.uint8)
        found = LabelMap(values[classes], image.geometry, self.labels)
        result = prepared.to_source(postprocess(found, self.postprocessing))
        return LabelMap(np.ascontiguousarray(result.array), volume.geometry, self.labels)


def classify(
    network: Callable[[torch.Tensor], torch.Tensor],
    image: FloatArray,
    inputs: InputSpec,
    *,
    device: Callable[[], torch.device],
    run: Callable[[Callable[[], npt.NDArray[np.uint8]]], npt.NDArray[np.uint8]] = lambda work: (
        work()
    ),
    overlap: float = 0.25,
    batch_size: int = 4,
    steps: Steps | None = None,
) -> npt.NDArray[np.uint8]:
    """Return the most likely class of each voxel of a prepared image.

    Parameters
    ----------
    network
        Slices ``(n, c, y, x)`` → logits ``(n, classes, y, x)``.
    image
        ``(z, y, x)``, prepared as training does: resampled to ``inputs.spacing``, scaled to 0 to
        1.
    inputs
        What the network sees.
    device
        Tells where the network is now.
    run
        Calls the work on one batch, such as `Runtime.run`.
    overlap, batch_size
        See `SliceNetworkModel`.
    steps
        Told of every slice.

    Returns
    -------
    ndarray
        Classes ``(z, y, x)``, 0 is background.
    """
    inferers = require("monai.inferers.utils", purpose="sliding windows")

    def slide(batch: torch.Tensor) -> npt.NDArray[np.uint8]:
        logits = inferers.sliding_window_inference(
            batch.to(device()),
            roi_size=inputs.size,
            sw_batch_size=batch_size,
            predictor=network,
            overlap=overlap,
            mode="gaussian",
            padding_mode="constant",
            cval=0.0,  # air, as prepared
        )
        found: npt.NDArray[np.uint8] = logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
        return found

    classes = np.zeros(image.shape, dtype=np.uint8)
    for start in range(0, len(image), batch_size):
        chosen = range(start, min(start + batch_size, len(image)))
        stacks = [slice_stack(image, z, inputs.neighbours) for z in chosen]
        batch = torch.from_numpy(np.ascontiguousarray(np.stack(stacks), dtype=np.float32))
        classes[chosen.start : chosen.stop] = run(lambda batch=batch: slide(batch))  # type: ignore[misc]
        if steps is not None:
            steps.advance(len(chosen))
    return classes


def _as_vector(spacing: Sequence[float]) -> Vector3:
    z, y, x = spacing
    return (float(z), float(y), float(x))
