"""`segment` with a model that needs no prompts."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.cli.console import note, print_json, stderr_console
from napari_lungfm.cli.outputs import describe_mask, refuse_overwriting

if TYPE_CHECKING:
    from napari_lungfm._core.types import ProgressCallback
    from napari_lungfm.geometry import Volume
    from napari_lungfm.models.automatic.trained import TrainedModel


def refuse_prompt_options(model: str, given: Mapping[str, object]) -> None:
    """Refuse options of prompts for a model that takes none.

    Parameters
    ----------
    model
        Name of the model.
    given
        Option → whether it was given.

    Raises
    ------
    UsageError
        If one was.
    """
    wrong = [option for option, there in given.items() if there]
    if wrong:
        verb = "is" if len(wrong) == 1 else "are"
        msg = (
            f"{', '.join(wrong)} {verb} for promptable models; '{model}' is an automatic model "
            "and segments the whole image: leave it out"
        )
        raise UsageError(msg)


def tell_of_image(volume: "Volume") -> None:
    """Say on stderr what was noted when an image was read, and whether it is no CT in HU.

    Parameters
    ----------
    volume
        The image that a model is to segment.
    """
    from napari_lungfm.preprocessing import told_if_no_hu

    no_hu = told_if_no_hu(volume)
    for text in (*volume.metadata.get("notes", ()), *([] if no_hu is None else [no_hu])):
        note(f"note: {text}")


def segment_automatically(
    image: Path,
    model: str,
    out: Path,
    *,
    series: str | None,
    options: Mapping[str, Any],
    device: str,
    as_json: bool,
) -> None:
    """Segment an image with an automatic model and write all its labels.

    Parameters
    ----------
    image, model, out, series, device, as_json
        As in `segment`.
    options
        Options of the model.

    Raises
    ------
    UsageError
        If an output would overwrite an input, or an option makes no sense.
    LungFMError
        If a file or the model cannot be used.
    """
    from napari_lungfm import io
    from napari_lungfm.models.automatic.plausibility import told_if_doubtful
    from napari_lungfm.models.registry import create_automatic_model, trained_model

    refuse_overwriting(image, [out])
    io.check_output(out)
    automatic = create_automatic_model(model, device=device, **options)
    volume = io.read_volume(image, series=series)
    tell_of_image(volume)
    description = trained_model(model)
    about = _tell_of_training(description, volume)
    started = time.perf_counter()
    with _progress(f"segmenting with {automatic.name}") as progress:
        result = automatic.segment(volume, progress=progress)
    io.write_label_map(result, out)
    seconds = time.perf_counter() - started
    found = {
        name: {"label": value, **describe_mask(result.mask(value), result.geometry)}
        for value, name in automatic.labels.items()
    }
    doubts = told_if_doubtful(result)
    for text in doubts:
        note(f"note: {text}")
    if as_json:
        record = {"out": str(out), "model": model, "ran": automatic.name, "notes": doubts}
        print_json({**record, **about, "structures": found, "seconds": seconds})
    sizes = ", ".join(f"{name} {facts['volume_ml']:.1f} mL" for name, facts in found.items())
    note(f"{sizes} in {seconds:.1f} s; the label map is in {out}")


def _tell_of_training(description: "TrainedModel | None", volume: "Volume") -> dict[str, Any]:
    """Say what must be known of how a model was trained, and return it for ``--json``.

    ``small``: with a preset for demonstrations. ``seen``: the patient of the training whose image
    this is, ``False`` where it is none, ``None`` where it is not known.
    """
    if description is None:
        return {"small": False, "seen": None}
    if (small := description.told_if_small()) is not None:
        note(f"note: {small}")
    patient = description.find_seen(volume)
    if patient is None:
        return {"small": description.small, "seen": False if description.seen else None}
    note(f"note: {description.told_of(patient)}")
    seen = patient.model_dump(mode="json", include={"cohort", "case", "part"})
    return {"small": description.small, "seen": seen}


@contextmanager
def _progress(text: str) -> "Iterator[ProgressCallback]":
    """Show slices done and the time left on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=stderr_console(), transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
