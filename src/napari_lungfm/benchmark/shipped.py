"""Configurations that come with the package, and how any is found."""

import itertools
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from napari_lungfm._core.config import read_yaml
from napari_lungfm._core.exceptions import InputFileError
from napari_lungfm.benchmark.config import BenchmarkConfig, parse_config
from napari_lungfm.benchmark.overrides import apply_overrides


@cache
def shipped_benchmarks() -> dict[str, str]:
    """Return the name and YAML text of every benchmark that comes with the package."""
    folder = resources.files("napari_lungfm.benchmark") / "configs"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def shipped_summaries() -> dict[str, str]:
    """Return the name of every shipped benchmark with the first sentence at its top."""
    found = {}
    for name, text in shipped_benchmarks().items():
        comment = itertools.takewhile(lambda line: line.startswith("# "), text.splitlines())
        found[name] = " ".join(line[2:] for line in comment).partition(". ")[0].rstrip(".")
    return found


@dataclass(frozen=True)
class FoundConfig:
    """A configuration and the folder that its relative paths count from."""

    config: BenchmarkConfig
    base: Path


def find_config(
    source: str, *, changes: tuple[str, ...] = (), data: Path | None = None
) -> FoundConfig:
    """Read a configuration by its file or the name of a shipped one.

    Parameters
    ----------
    source
        A YAML file, or a name of `shipped_benchmarks`.
    changes
        What is changed in it; see `apply_overrides`.
    data
        Folder that its relative paths count from; by default the file's own, and the current
        folder for shipped ones.

    Raises
    ------
    InputFileError
        If there is neither, or the file cannot be read.
    ConfigError
        If it is not valid, or a change leads nowhere.
    """
    values, base = _read(source)
    base = base if data is None else Path(data).resolve()
    where = f"'{source}'" + (f" with {' '.join(changes)}" if changes else "")
    config = parse_config(apply_overrides(values, changes), source=where, base=base)
    return FoundConfig(config, base)


def _read(source: str) -> tuple[dict[str, Any], Path]:
    file = Path(source)
    if file.is_file():
        return read_yaml(file), file.resolve().parent
    if source not in shipped_benchmarks():
        listed = ", ".join(shipped_benchmarks())
        msg = f"there is no file '{source}', and no shipped benchmark of this name: {listed}"
        raise InputFileError(msg)
    return yaml.safe_load(shipped_benchmarks()[source]), Path.cwd()
