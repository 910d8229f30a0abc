"""Which models can be chosen, and what stands in their way."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from napari_lungfm._core.environment import hardware
from napari_lungfm._core.exceptions import LungFMError
from napari_lungfm._core.imports import is_available
from napari_lungfm.models import registry
from napari_lungfm.models.cards import CheckpointCard
from napari_lungfm.models.catalogue import checkpoint_card, checkpoint_names
from napari_lungfm.models.registry import ModelCard, fine_tuned_names, model_card, model_names
from napari_lungfm.models.weights import WeightsNotFoundError, WeightStore

ModelState: TypeAlias = Literal[
    "ready", "download", "by hand", "too big", "not installed", "broken"
]

#: Tried in this order for a first choice: the shipped network, then what needs no weights.
DEFAULTS = ("lungfm-s", "classical")
#: The weights in the package; named here because their module needs torch.
_SHIPPED = Path(registry.__file__).parent / "lungfm" / "lungfm-s.safetensors"
#: Copies of the weights that are in memory at once while a model is loaded and at work.
_COPIES = 3
#: What a network needs beside its weights, in GiB: torch and the features of a slice.
_BASE_GIB = 1.5


@dataclass(frozen=True)
class ModelChoice:
    """A promptable model as it stands in a list.

    Parameters
    ----------
    name
        See `create_model`.
    state
        Whether it can be used now: ``"download"`` and ``"by hand"`` need their weights first.
    summary
        One line on what it is.
    licence
        Of the weights.
    detail
        What to know of the state: the size of a download, the memory that is missing.
    on_device
        Whether it can run on a GPU.
    takes_window
        Whether one can choose the window that it sees.
    """

    name: str
    state: ModelState
    summary: str
    licence: str
    detail: str
    on_device: bool = False
    takes_window: bool = False

    @property
    def title(self) -> str:
        """The name with what is to be done first."""
        marks = {
            "ready": "",
            "download": " (download)",
            "by hand": " (import weights)",
            "too big": " (too big)",
            "not installed": " (not installed)",
            "broken": " (not usable)",
        }
        return self.name + marks[self.state]


def model_choices(store: WeightStore | None = None) -> tuple[ModelChoice, ...]:
    """Return all promptable models, those first that can be used now; imports no torch."""
    store = store or WeightStore()
    names = dict.fromkeys([*model_names(), *_imported(store), *fine_tuned_names()])
    choices = [_choice(name, store) for name in names]
    ready = [c for c in choices if c.state == "ready"]
    ready.sort(key=lambda c: DEFAULTS.index(c.name) if c.name in DEFAULTS else len(DEFAULTS))
    return (*ready, *(c for c in choices if c.state != "ready"))


def device_choices() -> tuple[str, ...]:
    """Return the devices that this computer seems to have; imports no torch."""
    found = ["auto", "cpu"]
    if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        found.append("cuda")
    if sys.platform == "darwin":
        found.append("mps")
    return tuple(found)


def _imported(store: WeightStore) -> list[str]:
    known = model_names()
    return [name for name in store.names() if name.partition(":")[0] in known]


def _choice(name: str, store: WeightStore) -> ModelChoice:
    card = model_card(name)
    if card.kind != "foundation":
        return ModelChoice(name, "ready", card.summary, card.licence, "needs no weights")
    published = name.partition(":")[0] in checkpoint_names()
    state, detail = _state(name, card, store, published=published)
    return ModelChoice(
        name,
        state,
        card.summary,
        card.licence,
        detail,
        on_device=True,
        takes_window=published,
    )


def _state(
    name: str, card: ModelCard, store: WeightStore, *, published: bool
) -> tuple[ModelState, str]:
    short = _memory_short(card)
    if not is_available("torch"):
        return "not installed", "needs torch: pip install 'napari-lungfm[sam]'"
    if short:
        return "too big", short
    if name in fine_tuned_names():
        return "ready", "fine-tuned here"
    return _stored(name, store) if published else _shipped()


def _shipped() -> tuple[ModelState, str]:
    if _SHIPPED.is_file():
        return "ready", f"comes with the package ({_size(_SHIPPED.stat().st_size)})"
    return "broken", "its weights are missing in this installation: reinstall napari-lungfm"


def _stored(name: str, store: WeightStore) -> tuple[ModelState, str]:
    try:
        stored = store.find(name)
    except WeightsNotFoundError:
        return _how_to_get(checkpoint_card(name.partition(":")[0]))
    except LungFMError as error:
        return "broken", str(error)
    return "ready", f"weights are here ({_size(stored.manifest.size)})"


def _how_to_get(card: CheckpointCard) -> tuple[ModelState, str]:
    file = card.default
    size = _size(file.size or card.parameters * 4)
    if file.addresses:
        return "download", f"{size}, licence {card.licence}"
    page = file.pages[0] if file.pages else "its publisher"
    return "by hand", f"download it from {page}, then: napari-lungfm-bench models import FILE"


def _memory_short(card: ModelCard) -> str:
    try:
        memory = float(hardware()["memory_gib"])
    except ValueError:
        return ""
    needed = card.parameters * 4 * _COPIES / 2**30 + _BASE_GIB
    if needed <= memory:
        return ""
    return f"needs about {needed:.1f} GiB of memory, this computer has {memory:.1f} GiB"


def _size(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
