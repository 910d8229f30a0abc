"""Runs the worker in a process of its own, and passes on what it tells.

nnU-Net reads its folders and settings from the environment when it is imported, prints, starts
processes that import the caller's main module, and sets torch's threads. In a process of its own
none of that reaches the caller.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from napari_lungfm._core.exceptions import ConfigError, LungFMError, OutputError
from napari_lungfm._core.files import output_error, write_json
from napari_lungfm.training.automatic.cohort_check import CohortError
from napari_lungfm.training.fit.settings import FitError

WORKER = "napari_lungfm.training.automatic.nnunet.worker"
#: What the worker calls an error → what the caller gets.
_KINDS: dict[str, type[LungFMError]] = {
    "config": ConfigError,
    "cohort": CohortError,
    "fit": FitError,
}
#: Exit statuses of what the system ended.
_KILLED = (-9, 137)
#: A disk with less room than this was full a moment ago.
_FULL = 2**20
Listener = Callable[[Mapping[str, Any]], None]


def run_worker(
    request: Mapping[str, Any], folder: Path, device: torch.device, listener: Listener
) -> dict[str, Any]:
    """Run the worker to its end.

    Parameters
    ----------
    request
        See `worker.Request`.
    folder
        The run folder: nnU-Net's folders, the request and the log are in it.
    device
        Where to train.
    listener
        Called with every event. What it raises ends the worker.

    Returns
    -------
    dict
        The worker's last event.

    Raises
    ------
    ConfigError, CohortError, FitError
        What the worker says; `FitError` too if it ends without a word.
    OutputError
        If the folder cannot be written, or the disk is full.
    """
    write_json(folder / "request.json", dict(request))
    log = folder / "nnunet.log"
    with _started(folder, log, device) as process:
        last: dict[str, Any] = {}
        stream = process.stdout
        for line in stream or ():
            event = _event(line)
            if event is None:
                continue
            if event["event"] == "error":
                kind = _KINDS.get(event["kind"], FitError)
                raise _failure(kind, f"{event['message']}; its log: {log}", folder)
            last = event
            listener(event)
        code = process.wait()
    if code != 0 or last.get("event") != "done":
        guess = ", out of memory?" if code in _KILLED else ""
        msg = f"nnU-Net ended before its time (exit status {code}){guess}; its log: {log}"
        raise _failure(FitError, msg, folder)
    return last


def _failure(kind: type[LungFMError], text: str, folder: Path) -> LungFMError:
    """Return the error; on a full disk nnU-Net and its libraries say anything but that."""
    if kind is FitError and shutil.disk_usage(folder).free < _FULL:
        return OutputError(
            f"cannot write '{folder}': the disk is full; free it, then go on with --resume ({text})"
        )
    return kind(text)


def environment(folder: Path, device: torch.device, request: Mapping[str, Any]) -> dict[str, str]:
    """Return the worker's environment: ours, without the caller's settings of nnU-Net.

    Parameters
    ----------
    folder
        The run folder.
    device
        A CUDA device with a number is the only one that the worker sees.
    request
        See `worker.Request`.
    """
    values = {k: v for k, v in os.environ.items() if not k.lower().startswith("nnunet_")}
    place = folder.resolve()
    values |= {name: str(place / name) for name in ("nnUNet_raw", "nnUNet_preprocessed")}
    values["nnUNet_results"] = str(place / "nnUNet_results")
    values["nnUNet_extTrainer"] = str(Path(__file__).resolve().parent / "trainers")
    values["nnUNet_def_n_proc"] = str(request["processes"])
    values["nnUNet_n_proc_DA"] = "1"  # planning fails with 0; the worker sets it for training
    if device.type == "cuda" and device.index is not None:
        seen = [v for v in values.get("CUDA_VISIBLE_DEVICES", "").split(",") if v]
        values["CUDA_VISIBLE_DEVICES"] = seen[device.index] if seen else str(device.index)
    return values


@contextlib.contextmanager
def _started(folder: Path, log: Path, device: torch.device) -> Iterator[subprocess.Popen[str]]:
    """Start the worker; end it with its own processes when the block ends before it does."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", WORKER, str(folder / "request.json")]
    try:
        stream = log.open("a", encoding="utf-8")
    except OSError as error:
        raise output_error(log, error) from error
    with stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # the worker ends when this closes, however we end
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            encoding="utf-8",
            env=environment(folder, device, request),
            start_new_session=os.name == "posix",  # Ctrl-C is ours to handle
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    if process.poll() is None:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.wait()


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
