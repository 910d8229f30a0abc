"""The command on the page that segments one recorded unit again from its prompts."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.benchmark.records import Record
from napari_lungfm.benchmark.report.style import BASELINES
from napari_lungfm.evaluation.prompt_protocols import parse_protocol


def example_command(records: Iterable[Record]) -> str | None:
    """Return the command that segments one recorded unit again from its prompts.

    The unit is the one with the fewest prompts, of a model that sees the image if there is one;
    ``None`` if none can be written as a command. `segment` gives all prompts at once, so that a
    unit whose user looked and corrected is none that it repeats.
    """
    best = Example()
    for record in records:
        best.consider(record)
    return best.command


class Example:
    """Chooses the unit of `example_command`, record by record."""

    def __init__(self) -> None:
        self._rank: tuple[bool, int] | None = None
        self.command: str | None = None

    def consider(self, record: Record) -> None:
        """Take a record if it is better than those before."""
        if record.status != "ok" or not record.mask_file:
            return
        for result in record.structures:
            rank = (record.key.model in BASELINES, len(result.prompts))
            corrected = len(result.interactions) > 1
            if corrected or not result.prompts or (self._rank and rank >= self._rank):
                continue
            words = prompt_words(result.prompts)
            if words is not None:
                self._rank, self.command = rank, _command(record, words)


def prompt_words(prompts: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """Return recorded prompts as options of `segment`; ``None`` where it has none for them."""
    words: list[str] = []
    for prompt in prompts:
        match prompt.get("kind"):
            case "box":
                words += ["--box", ",".join(map(str, (prompt["z"], *prompt["box"])))]
            case "click":
                sign = "+" if prompt.get("positive", True) else "-"
                words += ["--click", ",".join(map(str, (prompt["z"], *prompt["point"], sign)))]
            case "stop":
                words += ["--stop", str(prompt["z"])]
            case _:
                return None
    return words


def _command(record: Record, words: list[str]) -> str:
    key = record.key
    command = ["napari-lungfm-bench", "segment", "--image", f"{key.case}.nii.gz"]
    command += ["--model", key.model, *words]
    for name, value in record.options.items():
        command += ["--option", f"{name}={value}"]
    try:
        fills = parse_protocol(key.protocol).fill
    except UsageError:
        fills = True
    command += [] if fills else ["--no-propagate"]
    return shlex.join([*command, "--out", "again.nii.gz"])
