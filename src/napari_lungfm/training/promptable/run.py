"""From a configuration to a file of weights: make the clips, train, write."""

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path

from napari_lungfm import __version__
from napari_lungfm._core.environment import available_cores, hardware
from napari_lungfm._core.files import write_text
from napari_lungfm.models.lungfm.model import write_network
from napari_lungfm.training.fit import FitListener, is_helper_process, load_weights
from napari_lungfm.training.promptable.config import PromptTrainingConfig
from napari_lungfm.training.promptable.fit import fit_promptable
from napari_lungfm.training.promptable.task import PromptTask
from napari_lungfm.training.synthetic import ClipBank, fill_bank

#: The file of weights in the folder of a training.
WEIGHTS = "lungfm-s.safetensors"
#: Clips that a process makes before it tells.
_PORTION = 20
#: Called with the clips that are there and all that are wanted.
ClipListener = Callable[[int, int], None]


def train_promptable(
    config: PromptTrainingConfig,
    out: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    resume: bool = False,
    listener: FitListener | None = None,
    clips: ClipListener | None = None,
    banks: Path | None = None,
) -> Path:
    """Train LungFM-S and return the file of its weights.

    Parameters
    ----------
    config
        The training.
    out
        Folder: ``clips-SEED/`` (kept, and made once for several parts), ``run/`` (checkpoints and
        logs), ``config.yaml`` and the weights; ``first/`` has the same of the part before.
    device
        Where to train.
    workers
        Processes that make clips and prepare episodes; as many as there are cores if ``None``.
    resume
        Go on with the training in `out`.
    listener
        Called after every step of the fit.
    clips
        Called while clips are made.
    banks
        Folder of the clips, if it is another than `out`.

    Raises
    ------
    LungFMError
        See `fit_promptable`.
    OutputError
        If the folder cannot be written. What was finished before stays.
    """
    begin_with = None
    if config.first is not None:
        begin_with = train_promptable(
            config.first,
            out / "first",
            device=device,
            workers=workers,
            resume=resume,
            listener=listener,
            clips=clips,
            banks=banks or out,
        )
    processes = max(1, available_cores() if workers is None else workers)
    bank, validation = (
        (banks or out) / f"clips-{seed}" for seed in (config.clip_seed, config.validation_seed)
    )
    if not is_helper_process():
        tell = clips or (lambda done, total: None)
        make_clips(validation, config.validation_seed, config.validation_clips, processes, tell)
        make_clips(bank, config.clip_seed, config.clips, processes, tell)
        write_text(out / "config.yaml", config.to_yaml())
    result = fit_promptable(
        config,
        out / "run",
        bank=bank,
        validation_bank=validation,
        device=device,
        workers=min(processes, 8),
        begin_with=begin_with,
        resume=resume,
        listener=listener,
    )
    export_weights(config, result.last, out / WEIGHTS, seconds=result.seconds)
    return out / WEIGHTS


def make_clips(folder: Path, seed: int, count: int, processes: int, tell: ClipListener) -> None:
    """Make the clips that are missing in a folder, in several processes."""
    have = set(ClipBank(folder).indices())
    missing = [index for index in range(count) if index not in have]
    portions = [missing[i : i + _PORTION] for i in range(0, len(missing), _PORTION)]
    done = count - len(missing)
    if not portions:
        return
    # Threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(portions)), mp_context=context) as pool:
        jobs = {pool.submit(_make_portion, folder, seed, p): len(p) for p in portions}
        for job in as_completed(jobs):
            job.result()
            done += jobs[job]
            tell(done, count)


def export_weights(
    config: PromptTrainingConfig, checkpoint: Path, path: Path, *, seconds: float
) -> None:
    """Write the averaged weights of a checkpoint, with what made them.

    Raises
    ------
    FitError
        If the checkpoint cannot be read.
    OutputError
        If the file cannot be written.
    """
    task = PromptTask(config.network.config(), seed=config.seed, steps=config.schedule_steps)
    load_weights(task, checkpoint)
    facts = {
        "model": "lungfm-s",
        "licence": "BSD-3-Clause",
        "training": json.dumps(config.model_dump(mode="json")),
        "training_data": "synthetic only: napari_lungfm.training.synthetic",
        "training_seconds": f"{seconds:.0f}",
        "hardware": json.dumps(hardware()),
        "version": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_network(task.network, path, facts)


def _make_portion(folder: Path, seed: int, indices: list[int]) -> None:
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)  # the processes are the parallelism
    fill_bank(folder, seed, indices)
