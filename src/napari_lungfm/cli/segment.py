"""``segment``: one object from prompts, or all that an automatic model finds."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.cli.automatic import (
    refuse_prompt_options,
    segment_automatically,
    tell_of_image,
)
from napari_lungfm.cli.console import note, print_json, stderr_console
from napari_lungfm.cli.outputs import describe_mask, refuse_overwriting

if TYPE_CHECKING:
    from napari_lungfm.geometry import Volume
    from napari_lungfm.inference import AnnotationSession, CacheBudget
    from napari_lungfm.models.protocols import PromptableModel

#: What ``--cache-mb`` says of itself, here and in ``replay``.
CACHE_HELP = "Memory for encoded slices in MiB, 1024 by default; more of them wait on disk."


def segment(
    image: Annotated[Path, typer.Option(help="CT: an image file or a DICOM folder.")],
    model: Annotated[
        str,
        typer.Option(
            help="Name of the model or folder of a trained one; an unknown one lists all."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Mask to write: .nii.gz, .nrrd, .mha, ...")],
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="Z,Y0,X0,Y1,X1", help="Box on slice Z; Y1 and X1 exclusive."),
    ] = None,
    click: Annotated[
        list[str] | None,
        typer.Option(metavar="Z,Y,X,+|-", help="Click on the object (+) or beside it (-)."),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="Z", help="The object has ended on slice Z.")
    ] = None,
    propagate: Annotated[
        bool, typer.Option(help="Carry the object through the slices, or fill prompted ones only.")
    ] = True,
    max_extent_mm: Annotated[
        float | None,
        typer.Option(help="How far beyond the prompted slices the object may reach, in mm."),
    ] = None,
    mm: Annotated[bool, typer.Option("--mm", help="Numbers are LPS millimetres.")] = False,
    label: Annotated[
        int | None, typer.Option(min=1, max=255, help="Value of the object; 1 by default.")
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID, where a folder has several.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the model.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Event log to write; `replay` makes the mask from it.")
    ] = None,
    cache_mb: Annotated[int | None, typer.Option(min=0, metavar="MIB", help=CACHE_HELP)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Segment one object from boxes and clicks, and carry it through the slices.

    Coordinates are zero-based voxel indices in the image's own grid. Several boxes on different
    slices are prompts of one object. Automatic models (lungmask, a trained model's folder) take
    no prompts and write all their labels.
    """
    from napari_lungfm import io
    from napari_lungfm.cli.parsing import parse_options, parse_prompts
    from napari_lungfm.inference import annotate
    from napari_lungfm.inference.propagation import require_axial
    from napari_lungfm.models.prompts import check_prompts
    from napari_lungfm.models.registry import (
        check_device,
        check_options,
        check_weights,
        create_model,
        is_automatic,
        trained_model,
    )

    options = parse_options(option or ())
    if is_automatic(model):
        prompting = {"--box": box, "--click": click, "--stop": stop, "--mm": mm, "--log": log}
        others = {
            "--no-propagate": not propagate,
            "--label": label is not None,
            "--max-extent-mm": max_extent_mm is not None,
            "--cache-mb": cache_mb is not None,
        }
        refuse_prompt_options(model, {**prompting, **others})
        segment_automatically(
            image, model, out, series=series, options=options, device=device, as_json=as_json
        )
        return
    value = 1 if label is None else label
    if stop and not propagate:
        msg = "--stop ends a propagation, and --no-propagate asks for none; leave one of them out"
        raise UsageError(msg)
    if max_extent_mm is not None and not (propagate and 0 < max_extent_mm < float("inf")):
        msg = "--max-extent-mm limits a propagation to a positive number of mm"
        raise UsageError(msg)
    refuse_overwriting(image, [out] if log is None else [out, log])
    io.check_output(out)
    check_options(model, options)
    check_device(model, device)
    check_weights(model, options)
    volume = io.read_volume(image, series=series)
    tell_of_image(volume)
    require_axial(volume.geometry)
    prompts = parse_prompts(box or (), click or (), stop or (), volume.geometry, millimetres=mm)
    check_prompts(prompts, volume.geometry.shape)  # before large weights are read
    promptable = create_model(model, device=device, **options)
    description = trained_model(model)
    seen = None if description is None else description.told_if_seen(volume)
    if seen is not None:
        note(f"note: {seen}")
    started = time.perf_counter()
    with (
        stderr_console().status("segmenting"),
        logged_session(volume, promptable, options, log, cache_budget(cache_mb)) as session,
    ):
        annotate(session, value, prompts, fill=propagate, max_extent_mm=max_extent_mm)
        result = session.label_map()
        io.write_label_map(result, out)
    seconds = time.perf_counter() - started
    found = describe_mask(result.array == value, result.geometry)
    if as_json:
        where = {"out": str(out), "log": None if log is None else str(log)}
        print_json({**where, "model": model, **found, "seconds": seconds})
    if found["voxels"] == 0:
        note(f"nothing was found; the empty mask is in {out}")
        return
    note(
        f"{found['volume_ml']:.2f} mL on slices {found['first_slice']} to "
        f"{found['last_slice']} in {seconds:.1f} s; the mask is in {out}"
    )


@contextmanager
def logged_session(
    volume: "Volume",
    model: "PromptableModel",
    options: Mapping[str, Any],
    log: Path | None,
    cache: "CacheBudget",
) -> Iterator["AnnotationSession"]:
    """Yield a session; its log gets its name when all went well, like any other output."""
    from napari_lungfm._core.files import atomic_path
    from napari_lungfm.inference import AnnotationSession

    if log is None:
        with AnnotationSession(volume, model, options=options, cache=cache) as session:
            yield session
        return
    with (
        atomic_path(log) as temporary,
        AnnotationSession(volume, model, log=temporary, options=options, cache=cache) as session,
    ):
        yield session


def cache_budget(cache_mb: int | None) -> "CacheBudget":
    """Return the room for encoder features that ``--cache-mb`` asks for."""
    from napari_lungfm.inference import CacheBudget

    return CacheBudget() if cache_mb is None else CacheBudget(cache_mb * 2**20)
