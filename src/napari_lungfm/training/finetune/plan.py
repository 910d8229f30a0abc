"""How many samples and steps a fine-tuning has, and the loaders that give the samples."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from napari_lungfm._core.environment import available_cores
from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.seeding import stable_hash
from napari_lungfm.models.foundation.runtime import pick_device
from napari_lungfm.training.automatic.split import Split, hash_cases
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.cases import StoredCase
from napari_lungfm.training.finetune.config import PROMPT_KINDS, FineTuning
from napari_lungfm.training.finetune.memory import FeatureFiles, FrozenFeatures
from napari_lungfm.training.finetune.recipe import FeatureRecipe
from napari_lungfm.training.finetune.samples import ClipSource, FixedClips, as_list
from napari_lungfm.training.finetune.task import FineTuneTask
from napari_lungfm.training.fit.devices import is_helper_process
from napari_lungfm.training.fit.sampler import StepSampler


@dataclass(frozen=True)
class Plan:
    """How many samples and steps there are, and the loaders that give them.

    Parameters
    ----------
    config
        The fine-tuning.
    split
        Who is trained on.
    devices
        How many devices share a step.
    batch, batches
        Samples of a batch on each of them, and batches of a step.
    samples, steps
        Samples of an epoch, optimiser steps of the whole fit.
    notes
        What the result has to say of the data.
    """

    config: FineTuning
    split: Split[StoredCase]
    devices: int
    batch: int
    batches: int
    samples: int
    steps: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, config: FineTuning, split: Split[StoredCase], devices: int) -> "Plan":
        """Return that of a fine-tuning.

        Raises
        ------
        CohortError
            If there is nothing to learn from, or a case is shorter than a clip.
        """
        source = _source(config, split)
        batch, batches = config.shares(devices)
        # Whole steps only; what one epoch has beyond its share, the next one has less of.
        step = devices * batch * batches
        per_epoch = max(1, round((config.samples_per_epoch or len(source)) / step))
        steps = per_epoch * config.fit_settings().epochs
        notes = _notes(source, config)
        return cls(config, split, devices, batch, batches, per_epoch * step, steps, notes)

    def training(self, task: FineTuneTask) -> DataLoader[Any]:
        """Return the loader of the training."""
        config = self.config
        workers = _workers(config)
        return DataLoader(
            _source(config, self.split, self.samples, task),
            batch_size=self.batch,
            sampler=StepSampler(self.samples),
            collate_fn=as_list,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # workers' seeds; the fit's own generator is not touched
        )

    def validation(self, task: FineTuneTask) -> DataLoader[Any] | None:
        """Return the loader of the validation; ``None`` where no patient was set aside.

        Raises
        ------
        ConfigError
            If their structures are too small to be measured.
        """
        if not self.split.validation:
            return None
        clips = self._fixed_clips(task)
        if not len(clips):
            names = ", ".join(case.name for case in self.split.validation)
            msg = f"the validation patients ({names}) have no slice with enough of any structure; "
            raise ConfigError(msg + "take another seed or a smaller least_pixels")
        return DataLoader(
            clips,
            batch_size=1,
            # Every device measures all of them: the values are those of one device, and no device
            # waits for a value that another one does not have.
            sampler=[(0, number) for number in range(len(clips))],
            collate_fn=as_list,
            generator=torch.Generator(),
        )

    def _fixed_clips(self, task: FineTuneTask | None = None) -> FixedClips:
        """Return the samples of the validation: with mixed prompts, each with either of them."""
        config = self.config
        prepare: Any = None if task is None else task.prepare
        kinds = PROMPT_KINDS[config.prompts]
        return FixedClips(
            self.split.validation,
            config.structures,
            config.recipe.clip,
            config.seed,
            config.validation_clips,
            least_pixels=config.recipe.least_pixels,
            prepare=() if prepare is None else [replace(prepare, prompts=kind) for kind in kinds],
        )

    def keep_features(
        self,
        features: FrozenFeatures,
        folder: Path,
        base: BaseNetwork,
        cases: Sequence[StoredCase],
        device: str,
    ) -> None:
        """Give features of a frozen encoder a place on disk.

        Parameters
        ----------
        features
            Those of the task.
        folder
            Where features of this fit are; those of other encoders or cases are removed.
        base, cases, device
            What decides the features.

        Raises
        ------
        OutputError
            If the folder cannot be made.
        """
        config, recipe = self.config, self.config.recipe
        if not isinstance(recipe, FeatureRecipe):
            return
        mark = stable_hash(
            base.sha256,
            base.settings.model_dump_json(),
            hash_cases(cases),
            recipe.feature_precision,
            pick_device(device).type,
            config.fit.precision,
        )
        own = folder / f"{mark:x}"
        if not is_helper_process() and folder.is_dir():
            for other in folder.iterdir():
                if other != own:
                    shutil.rmtree(other, ignore_errors=True)
        slices = _source(config, self.split).reach() | self._fixed_clips().reach()
        most = int(recipe.feature_disk_gb * 2**30)
        features.keep_in(FeatureFiles(own, most, self.devices), len(slices))


def _source(
    config: FineTuning,
    split: Split[StoredCase],
    samples: int | None = None,
    task: FineTuneTask | None = None,
) -> ClipSource:
    recipe = config.recipe
    return ClipSource(
        split.train,
        config.structures,
        recipe.clip,
        config.seed,
        samples,
        turn=recipe.turn,
        least_pixels=recipe.least_pixels,
        prepare=None if task is None else task.prepare,
    )


def _notes(source: ClipSource, config: FineTuning) -> tuple[str, ...]:
    if not source.left_out:
        return ()
    names = ", ".join(f"'{name}'" for name in source.left_out)
    least = config.recipe.least_pixels
    return (
        f"nothing was learnt from {names}: no slice with {least} pixels of "
        f"{' or '.join(config.structures)} (recipe: least_pixels)",
    )


def _workers(config: FineTuning) -> int:
    if config.workers is not None:
        return config.workers
    if not torch.cuda.is_available():  # the network itself needs the cores
        return 0
    return max(1, min(12, available_cores() - 2))
