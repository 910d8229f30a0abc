"""What every fit of a network from a configuration and a cohort has around it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm._core.files import write_text
from napari_lungfm._core.seeding import stable_hash
from napari_lungfm.datasets.cases import Cohort
from napari_lungfm.datasets.file_cohort import FileCohort
from napari_lungfm.datasets.phantom_cohort import PhantomCohort

#: Name of the log of a fit.
LOG = "log.csv"


def build_cohort(name: str, spec: FileCohort | PhantomCohort | None, base: Path) -> Cohort:
    """Return the cohort of a training.

    Parameters
    ----------
    name
        Name of the training's configuration.
    spec
        What it says of the cohort.
    base
        Folder that relative paths in it count from.

    Raises
    ------
    ConfigError
        If it says nothing.
    InputFileError
        If files of cases are missing.
    """
    if spec is None:
        msg = f"the configuration '{name}' has no cohort; give one with --cohort FILE"
        raise ConfigError(msg)
    return spec.build(base)


@contextmanager
def weights_drawn_by(seed: int) -> Iterator[None]:
    """Draw new weights from a stream of their own; the caller's generator stays where it was.

    Parameters
    ----------
    seed
        Of the training.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_hash("weights", seed) % 2**63)
        yield


def keep_log(out: Path) -> None:
    """Copy the log of a fit beside its model: its own folder may be removed.

    Parameters
    ----------
    out
        Folder of the model, with ``run/`` in it.

    Raises
    ------
    OutputError
        If the copy cannot be written.
    """
    log = out / "run" / LOG
    if log.is_file():
        write_text(out / LOG, log.read_text(encoding="utf-8"))
