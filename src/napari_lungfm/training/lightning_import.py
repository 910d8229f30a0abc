"""lightning, importable beside a CPU build of torch too: take it from here.

lightning imports torchmetrics, which imports torchvision, whose binary from the package registry
does not load there; see `_core.torchvision_ops`.
"""

from napari_lungfm._core.imports import require
from napari_lungfm._core.torchvision_ops import ensure_torchvision_ops

ensure_torchvision_ops()
require("lightning", purpose="training")

import lightning.pytorch as pl  # noqa: E402
from lightning.pytorch.callbacks import (  # noqa: E402
    Callback,
    Checkpoint,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import Logger, TensorBoardLogger  # noqa: E402
from lightning.pytorch.plugins.io import TorchCheckpointIO  # noqa: E402

__all__ = [
    "Callback",
    "Checkpoint",
    "EMAWeightAveraging",
    "EarlyStopping",
    "Logger",
    "ModelCheckpoint",
    "TensorBoardLogger",
    "TorchCheckpointIO",
    "pl",
]
