"""A small SAM 2 of random weights, clips of a ball, and a fit without lightning."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from napari_lungfm._core.seeding import generator
from napari_lungfm.models.foundation.finetuned import BaseFacts, FineTunedSettings
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.sam2.clips import PreparedClip
from napari_lungfm.training.finetune.samples import FineTuneClip
from napari_lungfm.training.promptable.sam2_task import small_config, untrained_sam2

SIZE = 64


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def base() -> BaseNetwork:
    return make_base()


@pytest.fixture
def new_base() -> Callable[[], BaseNetwork]:
    return make_base


@pytest.fixture
def clip_of() -> Callable[..., FineTuneClip]:
    return ball


@pytest.fixture
def prepared() -> Callable[..., PreparedClip]:
    """Make a prepared clip by a task, as a loader would."""

    def prepare(task: Any, length: int = 2, number: int = 0, **changes: Any) -> PreparedClip:
        return task.prepare(ball(length, **changes), generator("test clip", number))

    return prepare


@pytest.fixture
def taught() -> Callable[..., list[float]]:
    return teach


def make_base() -> BaseNetwork:
    build = small_config(SIZE)
    facts = BaseFacts(name="random", sha256="0" * 64, licence="BSD-3-Clause")
    settings = FineTunedSettings(network="sam2", build=build, window=(-600.0, 1500.0), base=facts)
    return BaseNetwork(untrained_sam2(build, 3), settings)


def ball(
    length: int = 2, *, radius: float = 20.0, side: int = SIZE, first: int = 0, case: str = "a"
) -> FineTuneClip:
    """Slices around the middle of a ball, each a bit smaller than the one before."""
    z, y, x = np.ogrid[:length, :side, :side]
    mask = (2 * z) ** 2 + (y - side / 2) ** 2 + (x - side / 2.5) ** 2 < radius**2
    image = np.where(mask, 40, -850).astype(np.int16)
    image += np.random.default_rng(0).normal(0, 20, image.shape).astype(np.int16)
    return FineTuneClip(image, mask, (2.0, 1.0, 1.0), case, range(first, first + length), "tumour")


def teach(task: Any, batch: list[PreparedClip], steps: int) -> list[float]:
    """Take optimiser steps on one batch and return the losses."""
    made = task.configure_optimizers()
    schedule = made["lr_scheduler"]["scheduler"] if isinstance(made, dict) else None
    optimiser = made["optimizer"] if isinstance(made, dict) else made
    task.train()
    losses = []
    for number in range(steps):
        optimiser.zero_grad()
        loss = task.training_step(batch, number)
        loss.backward()
        optimiser.step()
        if schedule is not None:
            schedule.step()
        losses.append(float(loss.detach()))
    return losses
