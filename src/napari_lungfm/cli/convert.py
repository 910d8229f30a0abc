"""``convert``: DICOM to NIfTI, contours to masks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_lungfm.cli.console import note, print_json, stderr_console

if TYPE_CHECKING:
    from napari_lungfm.geometry import LabelMap, Volume


def convert(
    image: Annotated[Path, typer.Option(help="DICOM folder, or an image file.")],
    out: Annotated[Path, typer.Option(help="Folder for image.nii.gz and one mask per ROI.")],
    rtstruct: Annotated[Path | None, typer.Option(help="RTSTRUCT with contours.")] = None,
    seg: Annotated[Path | None, typer.Option(help="DICOM SEG with segments.")] = None,
    roi: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="ROI or segment to convert; all by default."),
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID, where a folder has several.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a DICOM series as NIfTI, and the contours of an RTSTRUCT or SEG as masks.

    The image is int16 in HU. Each mask is 1 inside and lies on the grid of the image.
    """
    from napari_lungfm import io
    from napari_lungfm._core.exceptions import UsageError
    from napari_lungfm._core.files import make_folder

    if rtstruct is not None and seg is not None:
        msg = "give --rtstruct or --seg, not both"
        raise UsageError(msg)
    if roi and rtstruct is None and seg is None:
        msg = "--roi names a contour of --rtstruct or --seg; give one of these too"
        raise UsageError(msg)
    with stderr_console().status("reading") as status:
        volume = io.read_volume(image, series=series)
        status.update("drawing contours")
        masks = _read_masks(volume, rtstruct, seg, roi)
        status.update("writing")
        folder = make_folder(out)
        files = {name: folder / f"{_stem(name)}.nii.gz" for name in masks}
        io.write_image(volume, folder / "image.nii.gz")
        for name, mask in masks.items():
            io.write_label_map(mask, files[name])
    for text in volume.metadata.get("notes", ()):
        note(f"note: {text}")
    voxels = {name: int((mask.array != 0).sum()) for name, mask in masks.items()}
    if as_json:
        print_json(
            {
                "image": str(folder / "image.nii.gz"),
                "shape": volume.shape,
                "spacing_mm": volume.spacing,
                "masks": {n: {"file": str(files[n]), "voxels": voxels[n]} for n in masks},
            }
        )
    shape = " x ".join(str(n) for n in volume.shape)
    spacing = " x ".join(f"{s:.4g}" for s in volume.spacing)
    note(f"{folder / 'image.nii.gz'}: {shape} voxels of {spacing} mm (z, y, x)")
    for name in masks:
        note(f"{files[name]}: {voxels[name]} voxels of '{name}'")


def _read_masks(
    volume: "Volume", rtstruct: Path | None, seg: Path | None, names: list[str] | None
) -> "dict[str, LabelMap]":
    from napari_lungfm import io

    frame = volume.metadata.get("frame_of_reference_uid")
    masks: dict[str, LabelMap] = {}
    if rtstruct is not None:
        for name in names or [roi.name for roi in io.list_rois(rtstruct) if roi.n_contours]:
            masks[name] = io.read_rtstruct(
                rtstruct, volume.geometry, name, label=1, frame_of_reference_uid=frame
            )
    if seg is not None:
        for name in names or [segment.name for segment in io.list_segments(seg)]:
            masks[name] = io.read_seg(
                seg, volume.geometry, name, label=1, frame_of_reference_uid=frame
            )
    return masks


def _stem(name: str) -> str:
    """File name of a ROI; 'image' is taken."""
    from napari_lungfm._core.files import slug

    stem = slug(name)
    return f"roi-{stem}" if stem == "image" else stem
