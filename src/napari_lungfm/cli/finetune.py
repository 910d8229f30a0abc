"""The part of ``train`` that fine-tunes promptable models."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from napari_lungfm.cli.console import note, print_json, typed

if TYPE_CHECKING:
    from napari_lungfm.models.automatic.trained import TrainedModel
    from napari_lungfm.training.automatic.run import StageListener
    from napari_lungfm.training.fit.settings import FitListener

#: Shows what is being done, and gives what is to be told of it.
Display: TypeAlias = Callable[[], "AbstractContextManager[tuple[FitListener, StageListener]]"]


def fine_tuning_summaries() -> dict[str, str]:
    """Return the name and one line on each of the shipped fine-tunings."""
    import yaml

    from napari_lungfm.training.finetune.config import shipped_fine_tunings

    return {name: yaml.safe_load(text)["summary"] for name, text in shipped_fine_tunings().items()}


def train_fine_tuning(
    config: str,
    out: Path,
    cohort: Path | None,
    *,
    resume: bool,
    device: str,
    as_json: bool,
    display: Display,
) -> None:
    """Fine-tune a promptable model and say what came of it.

    Parameters
    ----------
    config
        A YAML file or the name of a shipped configuration.
    out
        Folder of the result.
    cohort
        YAML file with the cohort, in place of the configuration's own.
    resume
        Go on with the training in `out`.
    device
        Where to train.
    as_json
        Print the description of the result.
    display
        Shows the progress.

    Raises
    ------
    LungFMError
        See `training.finetune.run.fine_tune`.
    """
    from napari_lungfm.cli.parsing import folder_of_first
    from napari_lungfm.training.finetune.config import load_fine_tuning
    from napari_lungfm.training.finetune.run import fine_tune

    training = load_fine_tuning(config, cohort)
    with display() as (listener, stages):
        description = fine_tune(
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


def _report(description: "TrainedModel", out: Path, as_json: bool) -> None:
    if as_json:
        print_json({"out": str(out), **description.model_dump(mode="json")})
        return
    scores = list((description.validation or {}).values())
    for how in scores[0] if scores else ():
        values = [value for case in scores if (value := case[how]) is not None]
        mean = sum(values) / len(values) if values else float("nan")
        note(f"validation: {how}: mean Dice {mean:.4f} over {len(values)} cases")
    for text in description.notes:
        note(text)
    for module, moved in description.settings["moved"].items():
        note(f"moved: {100 * moved['moved']:.1f} % of the weights of {module}")
    base = description.settings["base"]
    if base["commercial"] != "yes":
        note(f"licence of the base, and so of the result: {base['licence']}")
    note(
        f"fine-tuned '{description.title}'; use it with: napari-lungfm-bench segment --model "
        f"{typed(out)} --image IMAGE --box Z,Y0,X0,Y1,X1 --out MASK"
    )
