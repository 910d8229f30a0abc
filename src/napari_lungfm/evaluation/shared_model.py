"""A model that opens a volume once for all work on it, and what that saved.

A benchmark does many units on one case: prompt protocols, seeds, structures. What an encoder
made of a slice depends on none of them, so it is kept between them. A cost must stay one that
can be compared, whatever ran before: `FeatureUse` says what a unit found ready, and the time that
it would have taken alone is its own time plus `FeatureUse.saved_seconds`.
"""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.geometry import Volume
from napari_lungfm.models.protocols import (
    ObjectTracker,
    PromptableModel,
    SlicePredictor,
    VolumePredictor,
    takes_cache,
)

if TYPE_CHECKING:  # torch is loaded only for models that have features
    from napari_lungfm.inference.feature_cache import BoundedFeatureCache
    from napari_lungfm.models.foundation.features import FeatureCache, FeatureKey, Features

Opened: TypeAlias = SlicePredictor | VolumePredictor | ObjectTracker[Any]


@dataclass(frozen=True)
class FeatureUse:
    """What one piece of work had from the encoder.

    Parameters
    ----------
    encoded
        Slices that went through the encoder.
    reused
        Slices that it needed and found encoded by earlier work.
    saved_seconds
        What encoding these had taken, less the time that it took to fetch them.
    """

    encoded: int = 0
    reused: int = 0
    saved_seconds: float = 0.0


class MeteredFeatures:
    """A `FeatureCache` that counts what comes from it, for one piece of work after the other.

    Encoding is what happens between asking for features in vain and putting them; of slices
    encoded together each takes an equal part. For one thread.

    Parameters
    ----------
    cache
        Where the features are kept.
    """

    def __init__(self, cache: "FeatureCache") -> None:
        self._cache = cache
        self._seconds: dict[FeatureKey, float] = {}
        self._missed = 0.0
        self._together: list[FeatureKey] = []
        self.begin()

    def begin(self) -> None:
        """Begin another piece of work: from now on, what is there already counts as reused."""
        self.use = FeatureUse()
        self._own: set[FeatureKey] = set()

    def __contains__(self, key: "FeatureKey") -> bool:
        """Tell whether features are there, which is no use of them."""
        return key in self._cache

    def get(self, key: "FeatureKey") -> "Features | None":
        """Return the features of a key, or ``None``."""
        started = time.perf_counter()
        found = self._cache.get(key)
        now = time.perf_counter()
        if found is None:
            self._missed, self._together = now, []
        elif key not in self._own:
            self._own.add(key)
            saved = self._seconds.get(key, 0.0) - (now - started)
            use = self.use
            self.use = FeatureUse(use.encoded, use.reused + 1, use.saved_seconds + saved)
        return found

    def put(self, key: "FeatureKey", features: "Features") -> "Features":
        """Keep features and return them as they will come back."""
        kept = self._cache.put(key, features)
        self._together.append(key)
        each = (time.perf_counter() - self._missed) / len(self._together)
        self._seconds |= dict.fromkeys(self._together, each)
        self._own.add(key)
        use = self.use
        self.use = FeatureUse(use.encoded + 1, use.reused, use.saved_seconds)
        return kept


class SharedModel:
    """A `PromptableModel` that has opened one volume, and gives out what it opened.

    Predictors hold nothing of an object, so that one serves any number of sessions. Features are
    kept unrounded (float32), in memory up to 1 GiB and then in a temporary folder up to 8 GiB:
    on a CPU masks are the same to the last bit as those of a model opened anew. On a GPU slices
    are encoded in batches, and which ones go together depends on what is there already.

    Parameters
    ----------
    model
        The model.
    volume
        The volume: HU, axial slices along the first axis.
    """

    def __init__(self, model: PromptableModel, volume: Volume) -> None:
        self.model, self.volume = model, volume
        self._kept: BoundedFeatureCache | None = None
        self._meter: MeteredFeatures | None = None
        self._opened: Opened = self._open()

    def _open(self) -> Opened:
        # Models with an encoder take the place for its features; others have none.
        if not takes_cache(self.model):
            return self.model.open(self.volume)
        # torch comes with the models that have features, never with those that have none.
        from napari_lungfm.inference.feature_cache import BoundedFeatureCache  # noqa: PLC0415

        self._kept = BoundedFeatureCache(precision="float32")
        self._meter = MeteredFeatures(self._kept)
        opening: Any = self.model.open
        opened: Opened = opening(self.volume, cache=self._meter)
        return opened

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.model.name

    def __getattr__(self, name: str) -> Any:
        """Return what else is known of the model, such as ``weight_hash`` and ``window``."""
        if name.startswith("_") or name == "model":  # not set yet, as in an unpickled copy
            raise AttributeError(name)
        return getattr(self.model, name)

    def open(self, volume: Volume) -> Any:
        """Return what the model opened its volume with.

        Raises
        ------
        UsageError
            If it is another volume.
        """
        if volume is not self.volume:
            msg = f"model '{self.name}' was opened for another volume"
            raise UsageError(msg)
        return self._opened

    def begin(self) -> None:
        """Begin another piece of work; see `use`."""
        if self._meter is not None:
            self._meter.begin()

    @property
    def use(self) -> FeatureUse | None:
        """What the work since `begin` had from the encoder; ``None`` for models without one."""
        return None if self._meter is None else self._meter.use

    def close(self) -> None:
        """Throw the features away."""
        if self._kept is not None:
            self._kept.close()

    def __enter__(self) -> Self:
        """Return the model."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def saved_seconds(model: PromptableModel) -> float:
    """Return what reuse has saved since the work began; 0 for models that share nothing."""
    use = model.use if isinstance(model, SharedModel) else None
    return 0.0 if use is None else use.saved_seconds
