"""``replay``: the masks of a session from its log."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lungfm.cli.console import note, print_json, stderr_console
from napari_lungfm.cli.outputs import describe_mask, refuse_overwriting
from napari_lungfm.cli.segment import CACHE_HELP, cache_budget

if TYPE_CHECKING:
    from napari_lungfm.inference import AnnotationSession


def replay(
    log: Annotated[Path, typer.Argument(help="Event log, or saved session.")],
    image: Annotated[Path, typer.Option(help="The CT of the session: a file or DICOM folder.")],
    out: Annotated[Path, typer.Option(help="Label map to write: .nii.gz, .nrrd, .mha, ...")],
    model: Annotated[
        str | None, typer.Option(help="Another model than that of the log: gives other masks.")
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID, where a folder has several.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Option of the model, before those of the log."),
    ] = None,
    cache_mb: Annotated[int | None, typer.Option(min=0, metavar="MIB", help=CACHE_HELP)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Do everything in the log of a session again, and write the masks of all its objects.

    The same image, model and weights give the same masks, to the voxel. Another image is
    refused; another model, or another option of the same one, is taken only if it is named, and
    gives other masks.
    """
    from napari_lungfm import io
    from napari_lungfm.cli.parsing import parse_options
    from napari_lungfm.inference import AnnotationSession
    from napari_lungfm.inference.session import read_recording
    from napari_lungfm.models.registry import check_options, create_model

    refuse_overwriting(image, [out], others=[log])
    io.check_output(out)
    recording = read_recording(log)
    name = recording.model_name if model is None else model
    given = parse_options(option or ())
    options = {**(recording.options if name == recording.model_name else {}), **given}
    check_options(name, options)
    volume = io.read_volume(image, series=series)  # before large weights are read
    promptable = create_model(name, device=device, **options)
    other = name != recording.model_name or recording.is_other(promptable, options, given)
    started = time.perf_counter()
    with (
        stderr_console().status("replaying"),
        AnnotationSession.load(
            recording,
            volume,
            promptable,
            read_only=True,
            other_model=other,
            options=options,
            cache=cache_budget(cache_mb),
        ) as session,
    ):
        io.write_label_map(session.label_map(), out)
    seconds = time.perf_counter() - started
    objects = _objects(session)
    if as_json:
        identical = None if other else not session.differing_lines
        print_json(
            {
                "out": str(out),
                "model": name,
                "actions": len(recording.entries) - 1,
                "identical": identical,
                "objects": objects,
                "seconds": seconds,
            }
        )
    volume_ml = sum(each["volume_ml"] for each in objects)
    note(
        f"{len(recording.entries) - 1} actions gave {len(objects)} objects of {volume_ml:.2f} mL "
        f"in {seconds:.1f} s; the masks are in {out}"
    )


def _objects(session: "AnnotationSession") -> list[dict[str, Any]]:
    """Return the objects as the label map shows them."""
    array = session.label_map().array
    rows = []
    for each in session.objects.values():
        found = describe_mask(array == each.label, session.geometry)
        named = {"label": each.label, "name": each.name}
        rows.append({**named, **found, "stale_slices": sorted(each.stale)})
    return rows
