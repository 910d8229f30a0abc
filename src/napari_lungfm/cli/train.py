"""``train``: from a configuration and a cohort to a trained model."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from napari_lungfm._core.config import read_yaml
from napari_lungfm._core.exceptions import ConfigError, InputFileError, UsageError
from napari_lungfm.cli.console import note, print_json, stderr_console, typed
from napari_lungfm.cli.finetune import fine_tuning_summaries, train_fine_tuning

if TYPE_CHECKING:
    from napari_lungfm.models.automatic.trained import TrainedModel
    from napari_lungfm.training.automatic.run import StageListener
    from napari_lungfm.training.fit.settings import FitListener, FitProgress

#: What trains a configuration.
Kind: TypeAlias = Literal["automatic", "finetune", "lungfm-s"]
_LUNGFM: Kind = "lungfm-s"


def train(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG", help="A YAML file or a shipped configuration; 'list' shows these."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the trained model; made if need be.")
    ] = None,
    cohort: Annotated[
        Path | None,
        typer.Option(help="YAML file with the cohort, in place of the configuration's own."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in --out.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train an automatic model or fine-tune a promptable one on the training part of a cohort.

    Or train LungFM-S on synthetic images.

    The folder holds the weights, their configuration, the log, the validation scores and the
    patients that the model has seen; `segment --model FOLDER` applies it. After an interruption
    the same call with --resume goes on, and the result is the same.
    """
    from napari_lungfm.models.devices import check_device_name

    if config == "list":
        _list(as_json)
        return
    if out is None:
        msg = "--out is missing: the folder of the trained model"
        raise UsageError(msg)
    check_device_name(device)
    kind = _kind_of(config)
    if resume:
        _refuse_nothing_to_resume(out)
    if kind == _LUNGFM:
        if cohort is not None:
            msg = "LungFM-S is trained on synthetic images only: leave --cohort out"
            raise UsageError(msg)
        _train_lungfm(config, out, resume=resume, device=device, as_json=as_json)
        return
    if kind == "finetune":
        train_fine_tuning(
            config,
            out,
            cohort,
            resume=resume,
            device=device,
            as_json=as_json,
            display=_display,
        )
        return
    from napari_lungfm.cli.parsing import folder_of_first
    from napari_lungfm.training.automatic.config import load_training
    from napari_lungfm.training.automatic.run import train_automatic

    training = load_training(config, cohort)
    with _display() as (listener, stages):
        description = train_automatic(
            training,
            out,
            base=folder_of_first(cohort, config),
            device=device,
            resume=resume,
            listener=listener,
            stages=stages,
        )
    if description is not None:
        _report(description, out, as_json)


def _kind_of(config: str) -> Kind:
    """Return what trains a configuration, by the ``kind`` in its file or its shipped name."""
    from napari_lungfm.training.automatic.config import shipped_configs, shipped_name
    from napari_lungfm.training.finetune.config import shipped_fine_tunings

    kinds: dict[str, Kind] = {"automatic": "automatic", "nnunet": "automatic"}
    kinds |= {"finetune": "finetune", _LUNGFM: _LUNGFM}
    if Path(config).is_file():
        asked = read_yaml(Path(config)).get("kind", "automatic")
        if asked not in kinds:
            msg = f"'{config}': kind: there is no training '{asked}'; choose from "
            raise ConfigError(msg + ", ".join(kinds))
        return kinds[asked]
    shipped: dict[str, Kind] = dict.fromkeys(shipped_configs(), "automatic")
    shipped |= dict.fromkeys(shipped_fine_tunings(), "finetune")
    shipped[_LUNGFM] = _LUNGFM
    found = shipped.get(config) or shipped.get(shipped_name(config))
    if found is None:
        close = difflib.get_close_matches(config.lower(), shipped, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        msg = f"there is no configuration '{config}': {hint}it is neither a file nor one of "
        raise InputFileError(msg + ", ".join(shipped))
    return found


def _refuse_nothing_to_resume(out: Path) -> None:
    """Refuse to go on with a training where none was begun: a folder is easily misspelt."""
    begun = ("run", "first", "clips-*", "model.json")
    if not any(any(out.glob(pattern)) for pattern in begun):
        msg = f"there is no training in '{out}' to resume; leave --resume out to begin one"
        raise UsageError(msg)


def _train_lungfm(config: str, out: Path, *, resume: bool, device: str, as_json: bool) -> None:
    from napari_lungfm.training.promptable.config import PromptTrainingConfig, shipped_config
    from napari_lungfm.training.promptable.run import train_promptable

    path = shipped_config() if config == "lungfm-s" else Path(config)
    with _display() as (listener, stages):
        weights = train_promptable(
            PromptTrainingConfig.from_yaml(path),
            out,
            device=device,
            resume=resume,
            listener=listener,
            clips=lambda done, total: stages("preparing", done, total),
        )
    if weights is None:  # a further process of a training on several devices
        return
    if as_json:
        print_json({"out": str(out), "weights": str(weights)})
    note(
        f"the weights are in {weights}; use them with: napari-lungfm-bench segment --model "
        f"lungfm-s --option {typed(f'weights={weights}')} --image IMAGE --box Z,Y0,X0,Y1,X1 "
        "--out MASK"
    )


def _list(as_json: bool) -> None:
    import yaml

    from napari_lungfm.training.automatic.config import shipped_configs

    shipped = {name: yaml.safe_load(text)["summary"] for name, text in shipped_configs().items()}
    shipped |= fine_tuning_summaries()
    shipped["lungfm-s"] = "the promptable model that ships with the package; synthetic images only"
    if as_json:
        print_json(shipped)
        return
    for name, summary in shipped.items():
        typer.echo(f"{name:<24} {summary}")


@contextmanager
def _display() -> "Iterator[tuple[FitListener, StageListener]]":
    """Show what is being done on stderr, with the time left; one line per epoch where it stays.

    After Ctrl-C it says how to go on.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=stderr_console(), transient=True) as bar:
        task = bar.add_task("preparing cases", total=None, left="")

        def stages(stage: str, done: int, total: int) -> None:
            bar.update(task, description=f"{stage} cases", completed=done, total=total, left="")

        def listener(progress: "FitProgress") -> None:
            left = "" if progress.seconds_left is None else f"{_time(progress.seconds_left)} left"
            bar.update(
                task,
                description=f"epoch {progress.epoch} of {progress.epochs}",
                completed=progress.step,
                total=progress.steps,
                left=left,
            )
            if progress.epoch_ended:
                values = ", ".join(f"{name} {v:.4f}" for name, v in progress.metrics.items())
                bar.console.print(f"epoch {progress.epoch} of {progress.epochs}: {values}; {left}")

        try:
            yield listener, stages
        except KeyboardInterrupt:
            note("the same call with --resume goes on with this training")
            raise


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _report(description: "TrainedModel", out: Path, as_json: bool) -> None:
    from napari_lungfm.training.around import LOG
    from napari_lungfm.training.automatic.finish import doubts

    scores = description.validation
    for text in doubts(out / LOG, scores):
        note(f"note: {text}")
    if as_json:
        record: dict[str, Any] = description.model_dump(mode="json")
        print_json({"out": str(out), **record})
        return
    if scores:
        for title in next(iter(scores.values())):
            known = [case[title] for case in scores.values() if case[title] is not None]
            values = [value for value in known if value is not None]
            mean = sum(values) / len(values) if values else float("nan")
            note(f"validation: {title} mean Dice {mean:.4f} over {len(values)} cases")
    note(
        f"trained '{description.title}' in {_time(description.seconds)}; apply it with: "
        f"napari-lungfm-bench segment --model {typed(out)} --image IMAGE --out MASK"
    )
