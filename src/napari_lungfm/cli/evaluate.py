"""``evaluate``: a mask against a reference."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.cli.console import note, print_json, stdout_console

if TYPE_CHECKING:
    from napari_lungfm.geometry import LabelMap


def evaluate(
    pred: Annotated[Path, typer.Option(help="Predicted mask.")],
    truth: Annotated[Path, typer.Option(help="Reference mask.")],
    label: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Score this value only.",
        ),
    ] = None,
    pred_label: Annotated[
        int | None,
        typer.Option(min=1, help="Its value in the predicted mask, if that is another."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Print IoU, Dice, HD95, NSD and volumes of a mask against a reference.

    Masks are matched by their place in the patient. Without --label, two masks with one value
    each are compared whatever the values are; otherwise every value is scored by itself. Slices
    beyond the lower end are those towards the feet.
    """
    from napari_lungfm import io
    from napari_lungfm.evaluation.scoring import score_values

    reference, prediction = io.read_label_map(truth), io.read_label_map(pred)
    pairs = _pairs(prediction, reference, label, pred_label)
    scored = score_values(prediction, reference, pairs)
    scores = {name: values.to_dict() for name, values in scored.items()}
    if as_json:
        print_json({"pred": str(pred), "truth": str(truth), "scores": scores})
        return
    _print_table(scores)


def _pairs(
    prediction: "LabelMap", reference: "LabelMap", label: int | None, pred_label: int | None
) -> dict[str, tuple[int, int]]:
    """Name of each pair to score → its value in the prediction and in the reference."""
    here, there = prediction.present(), reference.present()
    if label is not None:
        value = pred_label or label
        if value not in here and label not in there:
            msg = f"neither mask has the label: prediction {list(here)}, reference {list(there)}"
            raise UsageError(msg)
        if here and value not in here:
            note(f"the predicted mask has no {value}, only {list(here)}; see --pred-label")
        return {f"label {label}": (value, label)}
    if pred_label is not None:
        msg = "--pred-label says how the predicted mask calls --label; give that too"
        raise UsageError(msg)
    if len(here) <= 1 and len(there) <= 1:
        return {"mask": (here[0] if here else 1, there[0] if there else 1)}
    return {f"label {v}": (v, v) for v in sorted({*here, *there})}


def _print_table(scores: dict[str, dict[str, object]]) -> None:
    from rich.table import Table

    rows = (
        ("IoU", "iou", "{:.4f}"),
        ("Dice", "dice", "{:.4f}"),
        ("mean per-slice Dice", "slice_dice_mean", "{:.4f}"),
        ("HD95 (mm)", "hd95_mm", "{:.2f}"),
        ("NSD at 1 mm", "nsd_1mm", "{:.4f}"),
        ("NSD at 2 mm", "nsd_2mm", "{:.4f}"),
        ("volume (mL)", "volume_ml", "{:.3f}"),
        ("reference volume (mL)", "reference_volume_ml", "{:.3f}"),
        ("volume difference (mL)", "volume_difference_ml", "{:+.3f}"),
        ("slices beyond the lower end", "slices_beyond_low", "{}"),
        ("slices beyond the upper end", "slices_beyond_high", "{}"),
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in scores:
        table.add_column(name, justify="right")
    for title, key, form in rows:
        cells = [values[key] for values in scores.values()]
        table.add_row(title, *("undefined" if c is None else form.format(c) for c in cells))
    stdout_console().print(table)
