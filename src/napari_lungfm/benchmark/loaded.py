"""What is kept between the units of a case: the model used last, and automatic masks."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from napari_lungfm._core.exceptions import DataError, UsageError
from napari_lungfm._core.types import MaskArray
from napari_lungfm.benchmark.plan import Unit
from napari_lungfm.benchmark.weights import weight_hashes
from napari_lungfm.evaluation.shared_model import SharedModel
from napari_lungfm.geometry import Structure, Volume
from napari_lungfm.models.automatic.protocol import AutomaticModel
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.models.registry import check_device, create_automatic_model, create_model

ModelT = TypeVar("ModelT", PromptableModel, AutomaticModel)


@dataclass(frozen=True, eq=False)
class AutomaticMask:
    """What an automatic unit left, for those that draw prompts from it.

    Parameters
    ----------
    method
        Title of its method.
    array
        Label values of `Structure`, ``(z, y, x)`` on the grid of the case; ``None`` if it failed.
    seconds
        What making it took.
    problem
        Why there is none.
    macs
        Multiply-accumulates of making it, where they were counted.
    """

    method: str
    array: npt.NDArray[np.integer[Any]] | None
    seconds: float
    problem: str | None = None
    macs: int | None = None

    def mask(self, structure: Structure, shape: tuple[int, ...]) -> MaskArray:
        """Return one structure.

        Raises
        ------
        DataError
            If there is no mask, or it is on another grid.
        """
        if self.array is None:
            msg = f"no prompts: '{self.method}' gave no mask of this case ({self.problem})"
            raise DataError(msg)
        if self.array.shape != shape:
            msg = (
                f"no prompts: the mask of '{self.method}' has shape {self.array.shape}, not {shape}"
            )
            raise DataError(msg)
        return np.asarray(self.array == int(structure))


def _refuse_other_weights(unit: Unit) -> None:
    """Refuse weights that the unit was not planned with: on another machine, or imported since.

    Raises
    ------
    DataError
        If they are others, or missing.
    """
    here = weight_hashes(unit.runs, unit.options)
    for name in dict.fromkeys([*unit.weights, *here]):
        planned, found = unit.weights.get(name, "none"), here.get(name, "none")
        if planned != found:
            msg = (
                f"the weights '{name}' of '{unit.key.method}' on '{socket.gethostname()}' "
                f"(sha256 {found[:12]}) are not those that the run began with ({planned[:12]}); "
                "put the same ones there, or run again"
            )
            raise DataError(msg)


class Models:
    """The models of a run; the one used last stays loaded, since weights take time to read.

    A promptable one also stays open on the case, so that the next unit finds the slices encoded.

    Parameters
    ----------
    device
        Where models run that can run elsewhere than on the CPU.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._held: tuple[str, PromptableModel | AutomaticModel] | None = None
        self._opened: SharedModel | None = None

    def open(self, unit: Unit, volume: Volume) -> SharedModel:
        """Return the model of a unit, opened on the case; what it does now counts for the unit."""
        model = self._load(unit, create_model)
        if self._opened is None or self._opened.volume is not volume:
            self.close_case()
            self._opened = SharedModel(model, volume)
        self._opened.begin()
        return self._opened

    def automatic(self, unit: Unit) -> AutomaticModel:
        """Return the model of an automatic unit."""
        return self._load(unit, create_automatic_model)

    def _load(self, unit: Unit, create: Callable[..., ModelT]) -> ModelT:
        if self._held is None or self._held[0] != unit.model_id:
            self.close_case()
            self._held = None  # two large models need not fit into memory together
            _refuse_other_weights(unit)
            model = create(unit.runs, device=self._device_of(unit.runs), **unit.options)
            self._held = (unit.model_id, model)
        # What is held under this name was made by the same function.
        return cast("ModelT", self._held[1])

    def _device_of(self, name: str) -> str:
        try:
            check_device(name, self._device)
        except UsageError:  # it runs on the CPU only
            return "auto"
        return self._device

    def close_case(self) -> None:
        """Forget what was made of the case; the model stays."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
