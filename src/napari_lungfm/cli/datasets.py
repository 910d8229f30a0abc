"""``datasets``: fetch public data, make cohorts of them or of one's own images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lungfm.cli.console import note, print_json, stderr_console, stdout_console

if TYPE_CHECKING:
    from napari_lungfm.benchmark.cohorts.prepare import CohortPlan, PreparedCohort
    from napari_lungfm.benchmark.cohorts.raw import RawCase
    from napari_lungfm.datasets.sources import SourceCard

app = typer.Typer(no_args_is_help=True, help="Fetch public data sets; make cohorts and splits.")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="lung1 or task06.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps, for the model of the lungs.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Seed of the split; 0 is this project's.")
]


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
    out: Annotated[
        Path | None,
        typer.Option(help="Folder that gets the data; by default the current one."),
    ] = None,
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
    jobs: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="lung1: downloads at one time; 8 by default."),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="lung1: read files that are there too; fetch damaged ones again."
        ),
    ] = False,
    keep_archive: Annotated[
        bool,
        typer.Option("--keep-archive", help="task06: keep the downloaded tar once it is unpacked."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Download a public data set, or look through one that is here; calling again goes on.

    lung1 comes from the Imaging Data Commons, task06 as one tar file. With
    --from nothing is downloaded: a tar is checked and unpacked, a folder is
    looked through and can then be given to `prepare`.
    """
    from napari_lungfm.cli import datasets_fetch as work
    from napari_lungfm.datasets.sources import source_card

    card = source_card(name)
    work.refuse_idle(
        card,
        source,
        {"--out": out},
        task06={"--url": url, "--md5": md5, "--keep-archive": keep_archive},
        lung1={"--manifest": manifest, "--endpoint": endpoint, "--patient": patient,
               "--limit": limit, "--jobs": jobs, "--verify": verify},
    )  # fmt: skip
    note(card.licence_text())
    place = out or Path()
    if card.name == "task06":
        result = work.fetch_task06(place, source, url, md5, keep_archive)
    elif source is not None:
        result = work.look_through(source)
    else:
        series = work.list_lung1(card, manifest, patient or [], limit)
        result = work.fetch_lung1(card, series, place, endpoint, jobs or 8, verify)
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
    plan = CohortPlan(card.name, _title(card, raw), card.n_test, card.n_train, seed, card.usable)
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
        typer.Argument(
            metavar="FOLDER|lung1|task06", help="A prepared cohort, or one as published."
        ),
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
    for part in ("test", "train", "spare", "unusable"):
        names = values.get(part, ())
        if names or part != "unusable":
            typer.echo(f"{part} ({len(names)}): {', '.join(names) or '-'}")
    for percent, names in values["train_subsets_percent"].items():
        typer.echo(f"{percent} % of train ({len(names)}): {', '.join(names)}")


def _raw_cases(card: "SourceCard", raw: Path) -> "tuple[RawCase, ...]":
    from napari_lungfm.benchmark.cohorts.lung1 import lung1_cases
    from napari_lungfm.benchmark.cohorts.task06 import task06_cases
    from napari_lungfm.cli.datasets_fetch import counting, say_missing, say_unfinished

    if card.name == "task06":
        return task06_cases(raw)
    say_unfinished(raw)
    with counting() as progress:
        cases = lung1_cases(raw, progress=progress)
    say_missing({case.name: case.missing for case in cases if case.missing})
    return cases


def _title(card: "SourceCard", raw: Path) -> str:
    """Return the title of a cohort; where the data are not the publisher's, it begins with that."""
    from napari_lungfm.datasets.sources.origin import read_origin

    parts = (read_origin(raw).sentence(), card.title, f"Licence {card.licence}", card.citation)
    return " ".join(f"{part}." for part in parts if part)


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
    for each in flagged:
        for flag in (flag for flag in each.flags if flag.startswith("the same CT")):
            note(f"to look at, {each.name}: {flag}")
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
    """Return the split of all published patients that can be used by what is known of them."""
    from napari_lungfm._core.exceptions import UsageError
    from napari_lungfm.benchmark.cohorts.split import split_patients
    from napari_lungfm.datasets.sources import SOURCES

    card = SOURCES.get(name)
    if card is None:
        msg = f"'{name}' is neither the folder of a cohort nor one of: {', '.join(SOURCES)}"
        raise UsageError(msg)
    split = split_patients(
        name, card.usable, n_test=card.n_test, n_train=card.n_train, seed=seed
    )  # fmt: skip
    return split.to_dict()


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
