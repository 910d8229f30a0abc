"""From a configuration to a file of weights: make the clips, train, write."""

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from napari_lungfm import __version__
from napari_lungfm._core.environment import available_cores, hardware
from napari_lungfm._core.files import write_text
from napari_lungfm.models.lungfm.model import write_network
from napari_lungfm.training.automatic.finish import refuse_used
from napari_lungfm.training.fit.checkpoints import load_weights
from napari_lungfm.training.fit.devices import is_helper_process, wait_for_all
from napari_lungfm.training.fit.run import FitResult
from napari_lungfm.training.fit.settings import FitListener
from napari_lungfm.training.lock import hold
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
) -> Path | None:
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
        Processes that make clips, and that prepare episodes for each device; as many as there
        are cores if ``None``.
    resume
        Go on with the training in `out`.
    listener
        Called after every step of the fit.
    clips
        Called while clips are made.

    Returns
    -------
    Path or None
        ``None`` in the helper processes of a training on several devices.

    Raises
    ------
    UsageError
        If the folder holds a training and `resume` is false, or another process is training in
        it.
    LungFMError
        See `fit_promptable`.
    OutputError
        If the folder cannot be written. What was finished before stays.
    """
    processes = max(1, available_cores() if workers is None else workers)
    parts = config.parts()
    folders = [out.joinpath(*["first"] * (len(parts) - 1 - i)) for i in range(len(parts))]
    if not is_helper_process():
        for folder in folders:
            refuse_used(folder, resume)
    with nullcontext() if is_helper_process() else hold(out / "run"):
        if not is_helper_process():
            # Those of all parts at once: later on, helper processes run beside this one.
            _make_all_clips(parts, out, processes, clips or (lambda done, total: None))
        weights = None
        for part, folder in zip(parts, folders, strict=True):
            weights = _train_part(
                part,
                folder,
                out,
                begin_with=weights,
                device=device,
                workers=min(processes, 8),
                resume=resume,
                listener=listener,
            )
    return None if is_helper_process() else weights


def _train_part(
    part: PromptTrainingConfig,
    folder: Path,
    out: Path,
    *,
    begin_with: Path | None,
    device: str,
    workers: int,
    resume: bool,
    listener: FitListener | None,
) -> Path:
    """Train a part in its own folder, with the clips of `out`, and return its weights."""
    if not is_helper_process():
        write_text(folder / "config.yaml", part.to_yaml())
    result = fit_promptable(
        part,
        folder / "run",
        bank=_bank(out, part.clip_seed),
        validation_bank=_bank(out, part.validation_seed),
        device=device,
        workers=workers,
        begin_with=begin_with,
        resume=resume,
        listener=listener,
    )
    weights = folder / WEIGHTS
    if not is_helper_process():
        export_weights(part, result, weights)
    wait_for_all()
    return weights


def _bank(out: Path, seed: int) -> Path:
    return out / f"clips-{seed}"


def _make_all_clips(
    parts: Sequence[PromptTrainingConfig], out: Path, processes: int, tell: ClipListener
) -> None:
    wanted: dict[int, int] = {}
    for part in parts:
        pairs = (part.validation_seed, part.validation_clips), (part.clip_seed, part.clips)
        for seed, count in pairs:
            wanted[seed] = max(count, wanted.get(seed, 0))
    for seed, count in wanted.items():
        make_clips(_bank(out, seed), seed, count, processes, tell)


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


def export_weights(config: PromptTrainingConfig, result: FitResult, path: Path) -> None:
    """Write the averaged weights that a fit ends with, with what made them.

    Raises
    ------
    FitError
        If the checkpoint cannot be read.
    OutputError
        If the file cannot be written.
    """
    task = PromptTask(config.network.config(), seed=config.seed, steps=config.schedule_steps)
    load_weights(task, result.last)
    facts = {
        "model": "lungfm-s",
        "licence": "BSD-3-Clause",
        "training": json.dumps(config.model_dump(mode="json")),
        "training_data": "synthetic only: napari_lungfm.training.synthetic",
        "training_seconds": f"{result.seconds:.0f}",
        "notes": json.dumps(result.notes),
        "hardware": json.dumps(hardware()),
        "version": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_network(task.network, path, facts)


def _make_portion(folder: Path, seed: int, indices: list[int]) -> None:
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)  # the processes are the parallelism
    fill_bank(folder, seed, indices)
