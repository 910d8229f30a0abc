"""What ``datasets fetch`` does, and what it and ``datasets prepare`` say of a download."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lungfm.cli.console import note, stderr_console

if TYPE_CHECKING:
    from napari_lungfm._core.types import ProgressCallback
    from napari_lungfm.datasets.sources import SourceCard
    from napari_lungfm.datasets.sources.idc import RemoteSeries

#: So many names stand in a line.
_SHOWN = 10


def refuse_idle(
    card: "SourceCard", source: Path | None, shared: dict[str, Any], **own: dict[str, Any]
) -> None:
    """Refuse options of the other data set, and those that do nothing with ``--from``.

    Parameters
    ----------
    card
        The data set.
    source
        What ``--from`` names.
    shared
        Options of all data sets and their values.
    **own
        Those of each data set.

    Raises
    ------
    UsageError
        If one is given that would do nothing.
    """
    from napari_lungfm._core.exceptions import UsageError

    for name, given in own.items():
        wrong = [option for option, value in given.items() if value]
        if name != card.name and wrong:
            msg = f"{', '.join(wrong)} is for {name}; leave it out for {card.name}"
            raise UsageError(msg)
    if source is None:
        return
    tar = card.name == "task06" and not source.is_dir()
    used = ("--out", "--md5") if tar else ()
    given = shared | own[card.name]
    idle = [option for option, value in given.items() if value and option not in used]
    if idle:
        kind = "a tar, which is unpacked and kept" if tar else "a folder, which is looked through"
        msg = f"{', '.join(idle)} does nothing with --from and {kind}; leave it out"
        raise UsageError(msg)


def fetch_task06(
    out: Path, source: Path | None, url: str | None, md5: str | None, keep_archive: bool
) -> dict[str, Any]:
    """Fetch Task06, unpack a tar of it, or look through its folder; return what there is."""
    from napari_lungfm.datasets.sources import task06

    if source is not None and source.is_dir():
        inner = source / "Task06_Lung"
        folder = inner if inner.is_dir() else source
    else:
        there = (out / "Task06_Lung").is_dir()
        with _bytes("task06") as progress:
            folder = task06.fetch_task06(
                out,
                archive=source,
                address=url,
                keep_archive=keep_archive,
                card=None if md5 is None else task06.other_archive(md5),
                progress=progress,
            )
        if there:
            _say_unpacked(folder, source, url, md5, keep_archive)
    cases = task06.labelled_images(folder)
    note(f"{len(cases)} labelled cases in {folder}")
    return {"folder": str(folder), "cases": len(cases)}


def list_lung1(
    card: "SourceCard", manifest: Path | None, patients: list[str], limit: int | None
) -> "tuple[RemoteSeries, ...]":
    """List the series of Lung1 that are asked for."""
    from napari_lungfm.datasets.sources.idc import (
        choose_patients,
        series_from_index,
        series_from_manifest,
    )

    listed = series_from_manifest(manifest, card) if manifest else series_from_index(card)
    return choose_patients(listed, patients=patients, limit=limit)


def fetch_lung1(
    card: "SourceCard",
    series: "tuple[RemoteSeries, ...]",
    out: Path,
    endpoint: str | None,
    jobs: int,
    verify: bool,
) -> dict[str, Any]:
    """Download series of Lung1; return what came."""
    from dataclasses import asdict

    from napari_lungfm.datasets.sources.idc import fetch_series

    licences = sorted({each.licence for each in series if each.licence})
    if licences and licences != [card.licence]:
        note(f"note: the list says another licence: {', '.join(licences)}")
    collection = card.collection or card.name
    with _bytes(card.name) as progress:
        fetched = fetch_series(
            series, out, collection=collection, endpoint=endpoint, jobs=jobs, verify=verify,
            progress=progress,
        )  # fmt: skip
    replaced = f", {fetched.replaced} of them in place of damaged ones" if fetched.replaced else ""
    note(
        f"{fetched.series} series of {fetched.patients} patients: {fetched.downloaded} files "
        f"downloaded{replaced}, {fetched.present} were there"
    )
    say_unfinished(out / collection)
    return {"folder": str(out / collection), **asdict(fetched)}


def look_through(folder: Path) -> dict[str, Any]:
    """Count what a download of DICOM holds."""
    from collections import Counter

    from napari_lungfm.datasets.sources.dicom_tree import find_patients
    from napari_lungfm.datasets.sources.series_record import listed_series, missing_files

    with counting() as progress:
        found = find_patients(folder, progress=progress)
    kinds = Counter(series.modality for each in found.values() for series in each.series)
    without = [name for name, each in found.items() if not (each.of("CT") and each.of("RTSTRUCT"))]
    damaged = sorted({str(path) for each in found.values() for path in each.damaged})
    missing = missing_files(listed_series(folder), found)
    note(f"{len(found)} patients: " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
    if without:
        note(f"without CT or RTSTRUCT: {', '.join(without)}")
    for path in damaged:
        note(f"damaged: {path}")
    say_unfinished(folder)
    say_missing(missing)
    return {
        "folder": str(folder), "patients": len(found), "series": dict(kinds),
        "incomplete": without, "damaged": damaged, "missing": missing,
    }  # fmt: skip


def say_unfinished(folder: Path) -> None:
    """Name the patients whose download has not ended."""
    from napari_lungfm.datasets.sources.series_record import unfinished_patients

    names = unfinished_patients(folder)
    if names:
        note(
            f"note: the download of {len(names)} patients has not ended ({_some(names)}); fetch "
            "them again, then prepare again"
        )


def say_missing(missing: Mapping[str, Sequence[str]]) -> None:
    """Name the patients of whom files are missing; see `series_record.missing_files`."""
    if missing:
        texts = [f"{name} ({', '.join(what)})" for name, what in missing.items()]
        note(
            f"note: files of {len(missing)} patients are missing: {_some(texts, '; ')}; fetch "
            "them again, then prepare again"
        )


@contextmanager
def counting() -> Iterator[Callable[[int], None]]:
    """Show on stderr how many DICOM files were found."""
    with stderr_console().status("reading headers") as status:
        yield lambda count: status.update(f"reading headers: {count} DICOM files")


def _say_unpacked(
    folder: Path, source: Path | None, url: str | None, md5: str | None, keep_archive: bool
) -> None:
    """Say that what was unpacked before was left as it is, and what could not be compared."""
    from napari_lungfm.datasets.sources.origin import read_origin

    text = f"note: '{folder}' was there already and is left as it is"
    idle = [o for o, v in (("--url", url), ("--keep-archive", keep_archive)) if v]
    if idle:
        text += f"; {' and '.join(idle)} did nothing"
    if read_origin(folder).md5 is None and (md5 is not None or source is not None):
        text += "; nothing tells which tar it came from, so that its md5 could not be compared"
    note(text)


def _some(names: Sequence[str], between: str = ", ") -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _SHOWN
    return between.join(names[:_SHOWN]) + (f"{between}and {more} more" if more > 0 else "")


@contextmanager
def _bytes(text: str) -> "Iterator[ProgressCallback]":
    """Show bytes done on stderr."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeLeft())
    with Progress(*columns, console=stderr_console(), transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
