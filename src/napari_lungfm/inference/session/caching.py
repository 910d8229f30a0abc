"""How much of what encoders make of slices a session keeps, and where."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.types import PathInput
from napari_lungfm.geometry import Volume
from napari_lungfm.models.protocols import PromptableModel, takes_cache

if TYPE_CHECKING:  # torch comes with the models that have features, never with those without
    from napari_lungfm.inference.feature_cache import BoundedFeatureCache

#: What features are rounded to when they are kept.
FeaturePrecision: TypeAlias = Literal["float16", "bfloat16", "float32"]


@dataclass(frozen=True)
class CacheBudget:
    """Room for the encoder features of a session.

    Parameters
    ----------
    memory_bytes
        The most that is held in memory; beyond it, what was not used for longest goes to disk.
    disk_bytes
        The most that is held on disk; 0 for none.
    folder
        Where files go, and stay for later sessions; ``None`` takes a temporary folder that goes
        with the session.
    precision
        What features are rounded to. It decides masks, if only in single voxels, so the log has
        it, and a log is opened with its own.

    Raises
    ------
    UsageError
        If a budget is negative.
    """

    memory_bytes: int = 2**30
    disk_bytes: int = 8 * 2**30
    folder: PathInput | None = None
    precision: FeaturePrecision = "float16"

    def __post_init__(self) -> None:
        if self.memory_bytes < 0 or self.disk_bytes < 0:
            msg = f"cache budgets cannot be negative: {self.memory_bytes}, {self.disk_bytes} bytes"
            raise UsageError(msg)


def open_volume(
    model: PromptableModel, volume: Volume, budget: CacheBudget | None
) -> tuple[Any, "BoundedFeatureCache | None"]:
    """Open a volume with a model, and with a cache if the model has a use for one.

    Parameters
    ----------
    model, volume
        The model and the volume.
    budget
        Room for the cache; ``None`` leaves the matter to the model.

    Returns
    -------
    tuple of (predictor, BoundedFeatureCache or None)
        What the model opened the volume with, and the cache, to be closed by the caller.
    """
    if budget is None or not takes_cache(model):
        return model.open(volume), None
    from napari_lungfm.inference.feature_cache import BoundedFeatureCache  # noqa: PLC0415

    cache = BoundedFeatureCache(
        budget.memory_bytes, budget.disk_bytes, folder=budget.folder, precision=budget.precision
    )
    opening: Any = model.open
    return opening(volume, cache=cache), cache
