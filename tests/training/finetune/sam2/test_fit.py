"""A fit that was interrupted ends as one that was not, with every recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from napari_lungfm._core.seeding import generator
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.config import parse_fine_tuning
from napari_lungfm.training.finetune.moved import moved_weights
from napari_lungfm.training.finetune.sam2 import make_task
from napari_lungfm.training.finetune.samples import FineTuneClip, as_list
from napari_lungfm.training.fit.run import run_fit
from napari_lungfm.training.fit.sampler import StepSampler
from napari_lungfm.training.fit.settings import FitProgress, FitSettings

SHORT = {"clip": 3, "batch_size": 1}
RECIPES = {
    "zhu": {"name": "zhu", **SHORT},
    "ma": {"name": "ma", **SHORT, "corrections": 1},
    "ours": {"name": "ours", **SHORT, "corrections": 1},
}


class Clips(Dataset[Any]):
    def __init__(self, clip: FineTuneClip, prepare: Any) -> None:
        self._clip, self._prepare = clip, prepare

    def __len__(self) -> int:
        return 2

    def __getitem__(self, item: tuple[int, int]) -> Any:
        return self._prepare(self._clip, generator("clip", *item))


class StopError(Exception):
    """Ends a fit where it is."""


def fitted(
    name: str,
    base: BaseNetwork,
    clip: FineTuneClip,
    out: Path,
    *,
    stop: int | None = None,
    resume: bool = False,
    **settings: Any,
) -> dict[str, torch.Tensor]:
    config = parse_fine_tuning({"name": "x", "base": "b", "recipe": RECIPES[name]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        task = make_task(config, base, 4)

    def listen(progress: FitProgress) -> None:
        if stop is not None and progress.step >= stop:
            raise StopError

    def loader() -> Any:
        return DataLoader(
            Clips(clip, task.prepare), batch_size=1, sampler=StepSampler(2), collate_fn=as_list
        )

    run_fit(
        task,
        loader(),
        loader(),
        out=out,
        settings=FitSettings(
            **{"epochs": 2, "clip_gradients": config.recipe.clip_gradients, **settings}
        ),
        decided_by={"recipe": name},
        device="cpu",
        monitor="validation/dice",
        listener=listen,
        resume=resume,
    )
    return {key: tensor.clone() for key, tensor in task.result_state().items()}


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["zhu", pytest.param("ma", marks=slow), pytest.param("ours", marks=slow)]
)
def test_an_interrupted_fit_ends_as_one_that_was_not(
    name: str,
    tmp_path: Path,
    new_base: Callable[[], BaseNetwork],
    clip_of: Callable[..., FineTuneClip],
) -> None:
    clip = clip_of(3)
    whole = fitted(name, new_base(), clip, tmp_path / "whole")
    with pytest.raises(StopError):
        fitted(name, new_base(), clip, tmp_path / "broken", stop=3)
    again = fitted(name, new_base(), clip, tmp_path / "broken", resume=True)
    assert whole.keys() == again.keys() == new_base().network.state_dict().keys()
    assert all(torch.equal(tensor, again[key]) for key, tensor in whole.items())
    changed = [
        k for k, v in new_base().network.state_dict().items() if not torch.equal(v, whole[k])
    ]
    assert changed
    log = (tmp_path / "whole" / "log.csv").read_text(encoding="utf-8")
    assert "validation/dice" in log.splitlines()[0]


@pytest.mark.parametrize("name", ["zhu", "ma", "ours"])
def test_mixed_precision_freezes_nothing(
    name: str,
    tmp_path: Path,
    base: BaseNetwork,
    clip_of: Callable[..., FineTuneClip],
) -> None:
    before = {key: tensor.clone() for key, tensor in base.network.state_dict().items()}
    after = fitted(name, base, clip_of(3), tmp_path / "run", epochs=1, precision="bfloat16")
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    moved = moved_weights(before, after)
    for part in ("sam_mask_decoder", "memory_attention", "memory_encoder"):
        assert moved[part].moved > 0.3
        # The weights are kept in float32: had they been rounded, every change would survive it.
        assert moved[part].moved_in_bfloat16 < moved[part].moved
    if name == "zhu":
        assert moved["memory_attention"].moved_in_bfloat16 < 0.01
