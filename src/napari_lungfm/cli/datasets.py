"""``datasets``: fetch public data, make cohorts of them or of one's own images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lungfm.cli.console import note, print_json, stderr_console, stdout_console

if TYPE_CHECKING:
    from napari_lungfm._core.types import ProgressCallback
    from napari_lungfm.benchmark.cohorts.prepare import CohortPlan, PreparedCohort
    from napari_lungfm.benchmark.cohorts.raw import RawCase
    from napari_lungfm.datasets.sources import SourceCard

app = typer.Typer(no_args_is_help=True, help="Fetch public data sets; make cohorts and splits.")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="lung1 or task06.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps, for the model of the lungs.")]
Seed = Annotated[int, typer.Option(help="Seed of the split; 0 is this project's.")]


@app.command(name="list")
def list_sources(as_json: Json = False) -> None:
    """List the public data sets, their licences and what is known of them."""
    from napari_lungfm.datasets.sources import SOURCES

    if as_json:
        print_json([card.to_dict() for card in SOURCES.values()])
        return
    for card in SOURCES.values():
        lines = [
            card.licence_text(),
            f"Size {card.size_gb:g} GB; the paper trained on {card.n_train}, tested {card.n_test}.",
            *card.notes,
            *(f"{name}: {problem.reason}" for name, problem in card.bad.items()),
            *card.pages,
        ]
        stdout_console().print(f"{card.name}\n  " + "\n  ".join(lines), soft_wrap=True)


@app.command()
def fetch(
    name: Name,
    out: Annotated[Path, typer.Option(help="Folder that gets the data.")] = Path(),
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A folder (or the tar) that was downloaded already."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="lung1: CSV with the columns of idc-index instead of that package."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="lung1: mirror with URL/BUCKET/KEY.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="task06: where to get the tar instead.")
    ] = None,
    md5: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="task06: check value of the tar, if it is another one."),
    ] = None,
    patient: Annotated[
        list[str] | None, typer.Option(help="lung1: only this patient; may be repeated.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="lung1: only the first so many patients.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="lung1: downloads at one time.")] = 8,
    keep_archive: Annotated[
        bool, typer.Option(help="task06: keep the tar once it is unpacked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Download a public data set, or look through one that is here; calling again goes on.

    lung1 comes from the Imaging Data Commons, task06 as one tar file. With
    --from nothing is downloaded: a tar is checked and unpacked, a folder is
    looked through and can then be given to `prepare`.
    """
    from napari_lungfm.datasets.sources import source_card

    card = source_card(name)
    _refuse(
        card,
        task06={"--url": url, "--md5": md5, "--keep-archive": keep_archive},
        lung1={"--manifest": manifest, "--endpoint": endpoint, "--patient": patient,
               "--limit": limit},
    )  # fmt: skip
    note(card.licence_text())
    if card.name == "task06":
        result = _fetch_task06(out, source, url, md5, keep_archive)
    elif source is not None:
        result = _look_through(source)
    else:
        result = _fetch_lung1(card, out, manifest, endpoint, patient or [], limit, jobs)
    if as_json:
        print_json({"name": card.name, "licence": card.licence, **result})
    note(f"now: napari-lungfm-bench datasets prepare {card.name} {result['folder']} --out COHORT")


@app.command()
def prepare(
    name: Name,
    raw: Annotated[Path, typer.Argument(help="Folder of the download, of any layout.")],
    out: Annotated[Path, typer.Option(help="Folder of the cohort; an old one is gone on with.")],
    lungs: Annotated[
        str,
        typer.Option(
            metavar="MODEL|own|none",
            help="Lungs of the reference: an automatic model (lungs-classical needs no weights), "
            "those of the data, or none.",
        ),
    ] = "lungmask",
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Make a cohort of a download: CT, tumour and lungs of each patient, split, quality report.

    Cases that are done are not repeated, unless their files or options changed.
    """
    from napari_lungfm.benchmark.cohorts.prepare import CohortPlan
    from napari_lungfm.datasets.sources import source_card

    card = source_card(name)
    title = f"{card.title}. Licence {card.licence}. {card.citation}."
    plan = CohortPlan(card.name, title, card.n_test, card.n_train, seed)
    _run(lambda: _raw_cases(card, raw), plan, raw, out, lungs, device, as_json)


@app.command(name="import")
def import_folder(
    folder: Annotated[Path, typer.Argument(help="Folder with images and masks.")],
    config: Annotated[Path, typer.Option(help="YAML file that says how it is read.")],
    out: Annotated[Path, typer.Option(help="Folder of the cohort; an old one is gone on with.")],
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make a cohort of any folder of images and masks, by a small YAML file."""
    from napari_lungfm.benchmark.cohorts.importing import import_cases, load_import_config

    loaded = load_import_config(config)
    cases, plan = import_cases(folder, loaded, config.resolve().parent)
    _run(lambda: cases, plan, folder, out, loaded.lung_source, device, as_json)


@app.command()
def splits(
    what: Annotated[
        str,
        typer.Argument(metavar="FOLDER|lung1", help="A prepared cohort, or lung1 as published."),
    ],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show who is tested on and who is trained on, and the nested parts of the training."""
    from napari_lungfm.benchmark.cohorts.cohort_file import read_split

    values = read_split(what) if Path(what).is_dir() else _published_split(what, seed)
    if as_json:
        print_json(values)
        return
    typer.echo(f"cohort: {values['cohort']}\nseed: {values['seed']}\nsha256: {values['sha256']}")
    for part in ("test", "train", "spare"):
        typer.echo(f"{part} ({len(values[part])}): {', '.join(values[part]) or '-'}")
    for percent, names in values["train_subsets_percent"].items():
        typer.echo(f"{percent} % of train ({len(names)}): {', '.join(names)}")


def _refuse(card: "SourceCard", **options: dict[str, Any]) -> None:
    """Refuse options of the other data set."""
    from napari_lungfm._core.exceptions import UsageError

    for name, given in options.items():
        wrong = [option for option, value in given.items() if value]
        if name != card.name and wrong:
            msg = f"{', '.join(wrong)} is for {name}; leave it out for {card.name}"
            raise UsageError(msg)


def _fetch_task06(
    out: Path, source: Path | None, url: str | None, md5: str | None, keep_archive: bool
) -> dict[str, Any]:
    from napari_lungfm.datasets.sources.task06 import (
        fetch_task06,
        labelled_images,
        other_archive,
    )

    if source is not None and source.is_dir():
        inner = source / "Task06_Lung"
        folder = inner if inner.is_dir() else source
    else:
        with _bytes("task06") as progress:
            folder = fetch_task06(
                out,
                archive=source,
                address=url,
                keep_archive=keep_archive,
                card=None if md5 is None else other_archive(md5),
                progress=progress,
            )
    cases = labelled_images(folder)
    note(f"{len(cases)} labelled cases in {folder}")
    return {"folder": str(folder), "cases": len(cases)}


def _fetch_lung1(
    card: "SourceCard",
    out: Path,
    manifest: Path | None,
    endpoint: str | None,
    patients: list[str],
    limit: int | None,
    jobs: int,
) -> dict[str, Any]:
    from dataclasses import asdict

    from napari_lungfm.datasets.sources.idc import (
        choose_patients,
        fetch_series,
        series_from_index,
        series_from_manifest,
    )

    listed = series_from_manifest(manifest, card) if manifest else series_from_index(card)
    series = choose_patients(listed, patients=patients, limit=limit)
    licences = sorted({each.licence for each in series if each.licence})
    if licences and licences != [card.licence]:
        note(f"note: the list says another licence: {', '.join(licences)}")
    collection = card.collection or card.name
    with _bytes(card.name) as progress:
        fetched = fetch_series(
            series, out, collection=collection, endpoint=endpoint, jobs=jobs, progress=progress
        )
    note(
        f"{fetched.series} series of {fetched.patients} patients: {fetched.downloaded} files "
        f"downloaded, {fetched.present} were there"
    )
    return {"folder": str(out / collection), **asdict(fetched)}


def _look_through(folder: Path) -> dict[str, Any]:
    """Count what a download holds."""
    from collections import Counter

    from napari_lungfm.datasets.sources.dicom_tree import find_patients

    with _counting() as progress:
        found = find_patients(folder, progress=progress)
    kinds = Counter(series.modality for each in found.values() for series in each.series)
    without = [name for name, each in found.items() if not (each.of("CT") and each.of("RTSTRUCT"))]
    damaged = sorted({str(path) for each in found.values() for path in each.damaged})
    note(f"{len(found)} patients: " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
    if without:
        note(f"without CT or RTSTRUCT: {', '.join(without)}")
    for path in damaged:
        note(f"damaged: {path}")
    return {
        "folder": str(folder), "patients": len(found), "series": dict(kinds),
        "incomplete": without, "damaged": damaged,
    }  # fmt: skip


def _raw_cases(card: "SourceCard", raw: Path) -> "tuple[RawCase, ...]":
    from napari_lungfm.benchmark.cohorts.lung1 import lung1_cases
    from napari_lungfm.benchmark.cohorts.task06 import task06_cases
    from napari_lungfm.datasets.sources.idc import is_unfinished

    if card.name == "task06":
        return task06_cases(raw)
    if is_unfinished(raw):
        note(
            f"note: the download to '{raw}' has not ended; series may lack slices: fetch again, "
            "then prepare again"
        )
    with _counting() as progress:
        return lung1_cases(raw, progress=progress)


def _run(
    find: "Callable[[], tuple[RawCase, ...]]",
    plan: "CohortPlan",
    raw: Path,
    out: Path,
    lungs: str,
    device: str,
    as_json: bool,
) -> None:
    from napari_lungfm._core.exceptions import UsageError
    from napari_lungfm.benchmark.cohorts.lungs import lung_source
    from napari_lungfm.benchmark.cohorts.prepare import prepare_cohort
    from napari_lungfm.models.devices import check_device_name

    check_device_name(device)
    if raw.resolve() in (out.resolve(), *out.resolve().parents):
        msg = f"'{out}' lies in '{raw}', which is only read; choose a folder outside it"
        raise UsageError(msg)
    source = lung_source(lungs, device)  # what is missing now, before the files are looked at
    cases = find()
    with _cases() as listener:
        result = prepare_cohort(cases, out, plan, source, listener=listener)
    _report(result, as_json)


def _report(result: "PreparedCohort", as_json: bool) -> None:
    prepared, excluded = result.of("prepared"), result.of("excluded")
    flagged = [each for each in prepared if each.flags]
    for each in excluded:
        note(f"excluded {each.name}: {each.reason}")
    if result.moved:
        note(
            f"note: {len(result.moved)} patients are in another part than before, since the "
            f"patients changed: {', '.join(result.moved[:10])}; train models anew"
        )
    if as_json:
        print_json(
            {
                "folder": str(result.root),
                "cohort": str(result.cohort_file),
                "prepared": len(prepared),
                "done_now": result.done,
                "flagged": {each.name: each.flags for each in flagged},
                "excluded": {each.name: each.reason for each in excluded},
                "split": result.split.to_dict(),
            }
        )
    split = result.split
    note(
        f"{len(prepared)} cases ({len(split.train)} train, {len(split.test)} test, "
        f"{len(split.spare)} spare), {len(excluded)} patients excluded, {len(flagged)} cases to "
        f"look at; cohort: {result.cohort_file}, quality: {result.root / 'quality.html'}"
    )


def _published_split(name: str, seed: int) -> dict[str, Any]:
    """Return the split of all patients of Lung1 that can be used by what is known of them."""
    from napari_lungfm._core.exceptions import UsageError
    from napari_lungfm.benchmark.cohorts.split import split_patients
    from napari_lungfm.datasets.sources import LUNG1

    if name != LUNG1.name:
        msg = f"'{name}' is no folder of a cohort, and only the patients of lung1 are known by name"
        raise UsageError(msg)
    known = [f"LUNG1-{number:03d}" for number in range(1, 423)]
    usable = [n for n in known if n not in LUNG1.bad or not LUNG1.bad[n].excludes]
    split = split_patients(
        name, usable, n_test=LUNG1.n_test, n_train=LUNG1.n_train, seed=seed
    )  # fmt: skip
    return split.to_dict()


@contextmanager
def _bytes(text: str) -> "Iterator[ProgressCallback]":
    """Show bytes done on stderr."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeLeft())
    with Progress(*columns, console=stderr_console(), transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


@contextmanager
def _counting() -> "Iterator[Callable[[int], None]]":
    with stderr_console().status("reading headers") as status:
        yield lambda count: status.update(f"reading headers: {count} DICOM files")


@contextmanager
def _cases() -> "Iterator[Callable[[int, int, str], None]]":
    """Show patients done on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Progress(*columns, console=stderr_console(), transient=True) as bar:
        task = bar.add_task("preparing", total=None)
        yield lambda done, total, name: bar.update(
            task, description=name, completed=done, total=total
        )
