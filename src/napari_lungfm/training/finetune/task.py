"""What a recipe gives to the fit: a module that learns from samples and ends as plain weights."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from napari_lungfm.training.finetune.memory import FrozenFeatures
from napari_lungfm.training.finetune.samples import FineTuneClip
from napari_lungfm.training.lightning_import import pl

#: Makes what a batch holds of a clip, in the processes that prepare data: windows, prompts,
#: augmentation. Its draws come from the generator alone, which depends on the clip's number. A
#: dataclass, whose field ``prompts`` is the kind of prompts.
Prepare: TypeAlias = Callable[[FineTuneClip, np.random.Generator], Any]


class FineTuneTask(pl.LightningModule):
    """A fine-tuning of one network.

    Batches are lists of what `prepare` returns, or of `FineTuneClip` where it is ``None``.
    ``training_step`` logs ``train/loss``; ``validation_step`` gets fixed samples of validation
    patients and logs ``validation/dice``.
    """

    #: What is trained.
    network: Any  # a torch.nn.Module
    #: See `Prepare`; has to survive pickling.
    prepare: Prepare | None = None
    #: Of an encoder that is not trained.
    features: FrozenFeatures | None = None

    def result_state(self) -> Mapping[str, Tensor]:
        """Return the weights as the base network has them: names, shapes, float32."""
        raise NotImplementedError
