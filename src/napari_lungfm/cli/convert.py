"""``convert``: DICOM to NIfTI, contours to masks."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lungfm._core.exceptions import DicomError, LungFMError, UsageError
from napari_lungfm.cli.console import note, print_json, stderr_console
from napari_lungfm.cli.outputs import refuse_overwriting

if TYPE_CHECKING:
    from napari_lungfm.geometry import LabelMap, Volume
    from napari_lungfm.io.regions import Region

_IMAGE = "image"
_HOW_TO_NAME = "--roi takes a name, or '#NUMBER' in quotes"


@dataclass(frozen=True)
class _Source:
    """The file with the regions: what it calls them, how it is read, all that it holds."""

    path: Path
    kind: str
    read: "Callable[..., LabelMap]"
    regions: "Sequence[Region]"


@dataclass(frozen=True)
class _Drawn:
    """A region as a mask, and the file for it."""

    region: "Region"
    mask: "LabelMap"
    file: Path

    @property
    def voxels(self) -> int:
        return int((self.mask.array != 0).sum())


def convert(
    image: Annotated[Path, typer.Option(help="DICOM folder, or an image file.")],
    out: Annotated[Path, typer.Option(help="Folder for image.nii.gz and one mask per ROI.")],
    rtstruct: Annotated[Path | None, typer.Option(help="RTSTRUCT with contours.")] = None,
    seg: Annotated[Path | None, typer.Option(help="DICOM SEG with segments.")] = None,
    roi: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|'#NUMBER'",
            help="ROI or segment to convert, by name or by number ('#2', in quotes); by default "
            "all that can be converted.",
        ),
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID, where a folder has several.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a DICOM series as NIfTI, and the contours of an RTSTRUCT or SEG as masks.

    The image is int16 in HU; each mask is 1 inside and on the image's grid.
    Without --roi, regions that cannot be masks of this image (points,
    contours beyond it) are left out, with a note for each.
    """
    from napari_lungfm import io
    from napari_lungfm._core.files import make_folder
    from napari_lungfm.geometry import axis_codes, to_axial

    source = _source(rtstruct, seg, roi)
    chosen = _chosen(source, roi)
    files = _files(source, out)
    outputs = [out / f"{_IMAGE}.nii.gz", *(files[region.number] for region in chosen)]
    refuse_overwriting(image, outputs, others=[source.path] if source else [])
    with stderr_console().status("reading") as status:
        volume = io.read_volume(image, series=series)
        if axis_codes(volume.geometry)[0] not in "SI":
            note("note: its slices are not axial; the image is written with axial slices")
            volume = to_axial(volume)
        status.update("drawing contours")
        drawn, skipped = _draw(source, chosen, volume, files, strict=bool(roi))
    for region, reason in skipped:
        note(f"note: left out '{region.name}' (number {region.number}): {reason}")
    if source is not None and not drawn:
        kind, path = source.kind, source.path
        msg = f"there is no {kind} in '{path}'"
        if skipped:
            msg = f"none of the {len(skipped)} {kind}s of '{path}' can be converted (see above)"
        raise DicomError(msg)
    with stderr_console().status("writing"):
        target = make_folder(out) / f"{_IMAGE}.nii.gz"
        io.write_image(volume, target)
        for item in drawn:
            io.write_label_map(item.mask, item.file)
    _report(volume, target, drawn)
    if as_json:
        print_json(_result(volume, target, drawn, skipped))


def _source(rtstruct: Path | None, seg: Path | None, roi: list[str] | None) -> _Source | None:
    from napari_lungfm import io

    if rtstruct is not None and seg is not None:
        msg = "give --rtstruct or --seg, not both"
        raise UsageError(msg)
    if rtstruct is not None:
        return _Source(rtstruct, "ROI", io.read_rtstruct, io.list_rois(rtstruct))
    if seg is not None:
        return _Source(seg, "segment", io.read_seg, io.list_segments(seg))
    if roi:
        msg = "--roi names a contour of --rtstruct or --seg; give one of these too"
        raise UsageError(msg)
    return None


def _chosen(source: _Source | None, names: list[str] | None) -> "list[Region]":
    """Regions to convert, each once."""
    from napari_lungfm.io.regions import choose_region

    if source is None:
        return []
    if not names:
        return list(source.regions)
    chosen: list[Region] = []
    for name in names:
        number = re.fullmatch(r"#(\d+)", name.strip())
        wanted = int(number[1]) if number else name
        try:
            region = choose_region(source.regions, wanted, kind=source.kind, path=source.path)
        except UsageError as error:
            msg = f"{error}; {_HOW_TO_NAME}"
            raise UsageError(msg) from error
        if region not in chosen:
            chosen.append(region)
    return chosen


def _files(source: _Source | None, out: Path) -> dict[int, Path]:
    """Region number → file of its mask.

    The names depend on the whole RTSTRUCT or SEG and not on what is converted of it, so that
    several calls do not overwrite each other's masks. Names that differ in case only are one on
    the disks of Windows and macOS: all but the first by number get a number appended.
    """
    from napari_lungfm._core.files import slug

    regions = sorted(source.regions, key=lambda r: r.number) if source is not None else []
    plain = {region.number: slug(region.name) for region in regions}
    plain = {n: f"roi-{stem}" if stem.lower() == _IMAGE else stem for n, stem in plain.items()}
    # No region may get the name that another one has by itself.
    reserved = {stem.lower() for stem in plain.values()}
    used: set[str] = set()
    files = {}
    for number, stem in plain.items():
        unique, count = stem, 1
        while unique.lower() in used or (count > 1 and unique.lower() in reserved):
            count += 1
            unique = f"{stem}-{count}"
        used.add(unique.lower())
        files[number] = out / f"{unique}.nii.gz"
    return files


def _draw(
    source: _Source | None,
    chosen: "Sequence[Region]",
    volume: "Volume",
    files: dict[int, Path],
    *,
    strict: bool,
) -> "tuple[list[_Drawn], list[tuple[Region, str]]]":
    """Masks of the regions, and those without one with the reason, unless ``strict``."""
    drawn: list[_Drawn] = []
    skipped: list[tuple[Region, str]] = []
    if source is None:
        return drawn, skipped
    frame = volume.metadata.get("frame_of_reference_uid")
    for region in chosen:
        try:
            mask = source.read(
                source.path, volume.geometry, region.number, label=1, frame_of_reference_uid=frame
            )
        except LungFMError as error:
            if strict:
                raise
            skipped.append((region, str(error)))
        else:
            drawn.append(_Drawn(region, mask, files[region.number]))
    return drawn, skipped


def _report(volume: "Volume", image: Path, drawn: Sequence[_Drawn]) -> None:
    for text in volume.metadata.get("notes", ()):
        note(f"note: {text}")
    shape = " x ".join(str(n) for n in volume.shape)
    spacing = " x ".join(f"{s:.4g}" for s in volume.spacing)
    note(f"{image}: {shape} voxels of {spacing} mm (z, y, x)")
    for item in drawn:
        note(f"{item.file}: {item.voxels} voxels of '{item.region.name}'")


def _result(
    volume: "Volume",
    image: Path,
    drawn: Sequence[_Drawn],
    skipped: "Sequence[tuple[Region, str]]",
) -> dict[str, Any]:
    """Everything written and left out; a name that several masks share gets its number."""
    names = [item.region.name for item in drawn]
    masks = {}
    for item in drawn:
        name, number = item.region.name, item.region.number
        key = name if names.count(name) == 1 else f"{name} #{number}"
        masks[key] = {"file": str(item.file), "voxels": item.voxels, "number": number}
    return {
        "image": str(image),
        "shape": volume.shape,
        "spacing_mm": volume.spacing,
        "masks": masks,
        "skipped": [
            {"name": region.name, "number": region.number, "reason": reason}
            for region, reason in skipped
        ],
    }
