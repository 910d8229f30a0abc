"""Run a training of LungFM-S."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.nn import functional
from torch.utils.data import DataLoader

from napari_lungfm._core.exceptions import ConfigError, DataError
from napari_lungfm.models.lungfm.model import read_network
from napari_lungfm.models.lungfm.network import PromptNetwork
from napari_lungfm.training.fit.devices import count_devices
from napari_lungfm.training.fit.run import FitResult, run_fit
from napari_lungfm.training.fit.sampler import StepSampler
from napari_lungfm.training.fit.settings import FitListener
from napari_lungfm.training.lightning_import import EMAWeightAveraging
from napari_lungfm.training.promptable.config import PromptTrainingConfig
from napari_lungfm.training.promptable.episodes import Episode, EpisodeSource
from napari_lungfm.training.promptable.task import PromptTask
from napari_lungfm.training.synthetic import ClipBank


def fit_promptable(
    config: PromptTrainingConfig,
    out: Path,
    *,
    bank: Path,
    validation_bank: Path,
    device: str = "auto",
    workers: int = 1,
    begin_with: Path | None = None,
    resume: bool = False,
    listener: FitListener | None = None,
) -> FitResult:
    """Train on clips that lie ready.

    Several devices share the episodes of every step. Each of them measures all validation
    episodes, in batches of the same size whatever their number, so that curves compare.

    Parameters
    ----------
    config
        The training.
    out
        Folder of checkpoints and logs; see `training.fit`. The checkpoints hold the averaged
        weights.
    bank, validation_bank
        Folders of clips; see `training.synthetic.fill_bank`.
    device
        Where to train.
    workers
        Processes that prepare episodes, for each device.
    begin_with
        File of weights to begin with; random ones if ``None``.
    resume
        Go on from the last checkpoint, if there is one.
    listener
        Called after every step.

    Raises
    ------
    DataError
        If clips are missing.
    LungFMError
        See `training.fit.run_fit`.
    """
    train = _checked(bank, config.clips, config.clip_seed)
    validation = _checked(validation_bank, config.validation_clips, config.validation_seed)
    count = config.steps * config.batch
    task = PromptTask(
        config.network.config(),
        seed=config.seed,
        steps=config.schedule_steps,
        lone_clicks=config.lone_clicks,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warm_up=config.warm_up,
    )
    if begin_with is not None:
        begin_from(task.network, begin_with)
    settings = config.fit_settings()
    return run_fit(
        task,
        _loader(
            EpisodeSource(train, range(config.clips), config.seed, config.walk, count),
            StepSampler(count),
            config.batch // count_devices(device, settings),
            workers,
        ),
        _loader(
            measured_episodes(config, validation),
            [(0, number) for number in range(config.validation_clips)],
            config.batch,
            workers,
        ),
        out=out,
        settings=settings,
        decided_by={"training": config.model_dump(mode="json")},
        device=device,
        resume=resume,
        callbacks=[EMAWeightAveraging(decay=config.average)],
        listener=listener,
    )


def measured_episodes(config: PromptTrainingConfig, bank: ClipBank) -> EpisodeSource:
    """Return the episodes that are measured after every epoch, one of each clip.

    They hang on ``validation_seed`` and not on ``seed``, which differs among the parts of a
    training: the curves of parts that measure on the same clips can be compared.

    Parameters
    ----------
    config
        The training.
    bank
        Its validation clips.
    """
    count = config.validation_clips
    return EpisodeSource(bank, range(count), config.validation_seed, config.walk, count)


def begin_from(network: PromptNetwork, weights: Path) -> None:
    """Take over the weights of another network of the same sizes.

    If it does not read its answers from the mask and this one does, those inputs begin at zero:
    at first the answers are the same.

    Parameters
    ----------
    network
        Takes the weights.
    weights
        File of the other network.

    Raises
    ------
    ConfigError
        If the sizes differ otherwise.
    InputFileError
        If the file cannot be read.
    """
    other = read_network(weights)
    if replace(other.config, answers_see_mask=network.config.answers_see_mask) != network.config:
        msg = (
            f"{weights}: a network of other sizes ({other.config}) than the one to be trained "
            f"({network.config}); give both trainings the same `network`"
        )
        raise ConfigError(msg)
    state = other.state_dict()
    answers = state["answers.0.weight"]
    more = network.answers[0].in_features - answers.shape[1]
    if more < 0:
        msg = f"{weights}: its answers see the mask; set `network: {{answers_see_mask: true}}`"
        raise ConfigError(msg)
    state["answers.0.weight"] = functional.pad(answers, (0, more))
    network.load_state_dict(state)


def _checked(folder: Path, count: int, seed: int) -> ClipBank:
    bank = ClipBank(folder)
    missing = sorted(set(range(count)) - set(bank.indices()))
    if missing:
        msg = (
            f"{folder}: {len(missing)} of {count} training clips are missing, the first of them "
            f"number {missing[0]}; make them with fill_bank({str(folder)!r}, {seed}, ...)"
        )
        raise DataError(msg)
    return bank


def _loader(
    source: EpisodeSource, order: StepSampler | Sequence[tuple[int, int]], batch: int, workers: int
) -> DataLoader[Any]:
    return DataLoader(
        source,
        batch_size=batch,
        sampler=order,
        collate_fn=as_list,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def as_list(episodes: list[Episode]) -> list[Episode]:
    """Return a batch as it is: windows of episodes differ."""
    return episodes
