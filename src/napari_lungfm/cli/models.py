"""``models``: the catalogue of models and their weights on this computer."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_lungfm.cli.console import (
    complain,
    note,
    print_json,
    stderr_console,
    stdout_console,
    typed,
)

if TYPE_CHECKING:
    from napari_lungfm._core.types import ProgressCallback
    from napari_lungfm.models.automatic.store import TrainedStore
    from napari_lungfm.models.catalogue import CheckpointCard
    from napari_lungfm.models.registry import ModelCard
    from napari_lungfm.models.weights import StoredWeights, WeightStore

app = typer.Typer(no_args_is_help=True, help="List models; fetch, import and verify weights.")

#: Automatic models that run as they are installed, beside the promptable ones of the registry.
_ALSO_BUILT_IN = ("lungs-classical",)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--weights", help="Folder of the weights; else NAPARI_LUNGFM_WEIGHTS or the data folder."
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of `models list`.")]


@app.command(name="list")
def list_models(folder: Folder = None, as_json: Json = False) -> None:
    """List the models, their licences, and which weights are here."""
    from napari_lungfm.models.catalogue import checkpoint_card, checkpoint_names
    from napari_lungfm.models.registry import model_card, model_names, trainable_cards

    store = _store(folder)
    here = store.names()
    rows = [
        _row(checkpoint_card(name), [n for n in here if n.partition(":")[0] == name])
        for name in checkpoint_names()
    ]
    own = [name for name in model_names() if name not in checkpoint_names()]
    cards = [model_card(name) for name in (*own, *_ALSO_BUILT_IN)]
    rows += [
        {
            "name": card.name,
            "licence": card.licence,
            "commercial": "yes",
            "parameters": card.parameters,
            "weights": [],
            "needs_weights": False,
            "runnable": True,
            "summary": card.summary,
        }
        for card in cards
    ]
    rows += [_trained_row(card, _trained(folder).names(card.name)) for card in trainable_cards()]
    if as_json:
        print_json({"folder": str(store.folder), "models": rows})
        return
    _print_list(rows)
    note(f"weights are in {store.folder}")


@app.command()
def show(name: Name, folder: Folder = None, as_json: Json = False) -> None:
    """Show all that is known of a model and of its weights here."""
    from napari_lungfm.models.catalogue import full_name, resolve

    if _is_untrained(name, folder):
        _show_untrained(name, as_json)
        return
    if _is_trained(name):
        _show_trained(_trained_place(name, folder), as_json)
        return
    if _is_built_in(name):
        _show_built_in(name, as_json)
        return
    card, asked = resolve(name)
    store = _store(folder)
    known = {full_name(card.name, variant, card) for variant in (*card.variants, asked)}
    known |= {n for n in store.names() if n.partition(":")[0] == card.name}
    weights = {n: _state(store, n) for n in sorted(known)}
    facts = {**_facts(card), "weights": weights}
    if as_json:
        print_json(facts)
        return
    _print_facts(facts)


@app.command()
def fetch(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the licence.")] = False,
    url: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Download from here instead, such as a mirror."),
    ] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Download published weights, check them and keep them.

    A download that was interrupted goes on where it stopped.
    """
    from napari_lungfm.models.catalogue import resolve
    from napari_lungfm.models.weights.fetch import fetch as fetch_weights
    from napari_lungfm.models.weights.fetch import licence_text

    if _is_trained(name):
        _trained(folder).find(name)  # raises: nobody publishes them; the message says what to do
        note(f"'{name}' is here already; nobody publishes another")
        return
    if _is_built_in(name):
        note(f"'{name}' runs as it is installed; there is nothing to fetch")
        return
    card, variant = resolve(name)
    published = card.published(variant)
    accepted = True
    if published is not None and (published.addresses or url):
        note(licence_text(card))
        accepted = yes or _ask("accept this licence?")
    with _progress(f"fetching {name}") as progress:
        stored = fetch_weights(
            name,
            licence_accepted=accepted,
            store=_store(folder),
            addresses=url or None,
            progress=progress,
        )
    _report(stored, as_json)


@app.command(name="import")
def import_weights(
    file: Annotated[
        Path, typer.Argument(help="A .pt, .pth or .safetensors file, or a trained model's folder.")
    ],
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="What it is: medsam, or medsam:mine."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Whoever made the folder is trusted: nnU-Net's own are pickles."
        ),
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE=STRUCTURE", help="What a label of nnU-Net's is, as in 1=tumour."
        ),
    ] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Examine a file of weights, or the folder of a trained model, and copy it into the store.

    Without --as a published check value decides, or what the file says of its own training.
    nnU-Net's own folders (plans.json, dataset.json, fold_0/...) need --trust.
    """
    from napari_lungfm.models.weights.fetch import licence_text
    from napari_lungfm.models.weights.importing import import_file

    if file.is_dir():
        store = _trained(folder)
        place = store.add(file, name, trust=trust, labels=_labels(label or []))
        _report_trained(store.name_of(place), place, as_json)
        return
    _refuse_folder_options({"--trust": trust, "--label": bool(label)})
    _refuse_built_in(name)
    with _progress(f"reading {file.name}") as progress:
        stored = import_file(file, name, store=_store(folder), progress=progress)
    note(licence_text(stored.card))
    _report(stored, as_json)


@app.command()
def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A trained nnU-Net, or its folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    folder: Folder = None,
) -> None:
    """Write a trained nnU-Net as nnU-Net itself keeps it, with its checkpoint."""
    from napari_lungfm.models.automatic.nnunet_folders import export_nnunet

    place = typed(export_nnunet(_trained_place(name, folder), out))
    note(f"apply it with: nnUNetv2_predict_from_modelfolder -m {place} -i IMAGES -o MASKS -f 0")


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Which; all without it.")
    ] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> int:
    """Check weights from the ground up: content, check values, tensors."""
    from napari_lungfm._core.exceptions import LungFMError
    from napari_lungfm.models.weights.verify import verify as verify_weights

    store = _store(folder)
    names = (name,) if name is not None else (*store.names(), *_trained(folder).names())
    results: dict[str, dict[str, Any]] = {}
    for each in names:
        try:
            _refuse_built_in(each)
            if _is_trained(each):
                results[each] = {"good": True, **_verify_trained(_trained_place(each, folder))}
                continue
            with _progress(f"verifying {each}") as progress:
                results[each] = {"good": True, **_record(verify_weights(each, store, progress))}
        except LungFMError as error:
            if name is not None:
                raise
            complain(f"{each}: {error}")
            results[each] = {"good": False, "error": str(error)}
    if as_json:
        print_json({"folder": str(store.folder), "weights": results})
    else:
        for each, result in results.items():
            typer.echo(f"{each}: {_verdict(result)}")
        if not results:
            note(f"there are no weights in {store.folder}")
    return 0 if all(result["good"] for result in results.values()) else 1


def _store(folder: Path | None) -> "WeightStore":
    from napari_lungfm.models.weights import WeightStore

    return WeightStore(folder)


def _trained(folder: Path | None) -> "TrainedStore":
    from napari_lungfm.models.automatic.store import TrainedStore

    return TrainedStore(folder)


def _is_trained(name: str) -> bool:
    """Whether a name is that of something one trains, or the folder of a trained model."""
    from napari_lungfm.models.automatic.trained import is_trained_model
    from napari_lungfm.models.registry import trainable_cards

    known = {card.name for card in trainable_cards()}
    return name.partition(":")[0] in known or is_trained_model(name) or Path(name).is_dir()


def _is_untrained(name: str, folder: Path | None) -> bool:
    """Whether a name is the plain one of something one trains, and none of it is here."""
    from napari_lungfm.models.registry import trainable_cards

    known = {card.name for card in trainable_cards()}
    return name in known and not Path(name).is_dir() and not _trained(folder).names(name)


def _is_built_in(name: str) -> bool:
    """Whether a model runs as it is installed, with no weights to get first."""
    from napari_lungfm.models.registry import brings_weights

    return brings_weights(name) or name in _ALSO_BUILT_IN


def _refuse_built_in(name: str | None) -> None:
    """Refuse to take or check weights of a model that keeps none in the store."""
    from napari_lungfm._core.exceptions import UsageError

    if name is not None and _is_built_in(name.partition(":")[0]):
        msg = f"'{name}' has no weights of its own in the store: it runs as it is installed"
        raise UsageError(msg)


def _refuse_folder_options(given: dict[str, bool]) -> None:
    from napari_lungfm._core.exceptions import UsageError

    useless = [option for option, is_given in given.items() if is_given]
    if useless:
        msg = f"{' and '.join(useless)}: for the folder of a trained model only; leave it out"
        raise UsageError(msg)


def _trained_place(name: str, folder: Path | None) -> Path:
    return Path(name) if Path(name).is_dir() else _trained(folder).find(name)


def _labels(pairs: list[str]) -> dict[int, str]:
    """Return label value → structure, as they stand on the command line; each of them once."""
    from napari_lungfm._core.exceptions import UsageError

    labels: dict[int, str] = {}
    values: dict[str, int] = {}
    for pair in pairs:
        value, _, title = pair.partition("=")
        if not value.strip().isdecimal() or not title.strip():
            msg = f"--label '{pair}' is not VALUE=STRUCTURE, as in 1=tumour"
            raise UsageError(msg)
        number, key = int(value), _structure_key(title)
        if number in labels:
            msg = (
                f"--label gives {number} twice, as '{labels[number]}' and '{title.strip()}'; "
                "leave one out"
            )
            raise UsageError(msg)
        if key in values:
            msg = f"--label gives '{key}' twice, to {values[key]} and {number}; leave one out"
            raise UsageError(msg)
        labels[number], values[key] = title.strip(), number
    return labels


def _structure_key(title: str) -> str:
    """Return what a structure is called, whatever the spelling; unknown ones are told later."""
    from napari_lungfm._core.exceptions import UsageError
    from napari_lungfm.geometry import Structure

    try:
        return Structure.from_title(title).title
    except UsageError:
        return title.strip()


def _verify_trained(place: Path) -> dict[str, Any]:
    """Compare the files with the description, and load the model strictly."""
    from napari_lungfm.models.automatic.nnunet_folders import UNKNOWN
    from napari_lungfm.models.automatic.trained import read_description
    from napari_lungfm.models.registry import create_automatic_model, create_model, is_automatic

    create = create_automatic_model if is_automatic(str(place)) else create_model
    create(str(place), device="cpu")
    description = read_description(place)
    checked = ["unknown origin, pickles converted"] if description.cohort_hash == UNKNOWN else []
    return {"path": str(place), "architecture": description.architecture, "checked": checked}


def _show_trained(place: Path, as_json: bool) -> None:
    from napari_lungfm.models.automatic.trained import read_description

    facts = {"path": str(place), **read_description(place).model_dump(mode="json")}
    if as_json:
        print_json(facts)
        return
    seen = [f"{patient['cohort']}/{patient['case']}" for patient in facts.pop("seen")]
    for key, value in {**facts, "seen": seen}.items():
        typer.echo(f"{key.replace('_', ' ')}: {_plain(value)}")


def _show_untrained(name: str, as_json: bool) -> None:
    """Show what one can train, and how to come by it."""
    from dataclasses import asdict

    from napari_lungfm.models.registry import trainable_cards

    card = next(card for card in trainable_cards() if card.name == name)
    if as_json:
        print_json({**asdict(card), "weights": []})
        return
    for key, value in asdict(card).items():
        typer.echo(f"{key.replace('_', ' ')}: {_plain(value)}")
    typer.echo("here: none; train one (napari-lungfm-bench train), or: models import FOLDER")


def _show_built_in(name: str, as_json: bool) -> None:
    """Show a model that needs nothing to be fetched, and how its weights were made."""
    from dataclasses import asdict

    from napari_lungfm.models.registry import model_card

    facts = asdict(model_card(name))
    if name == "lungfm-s":
        from napari_lungfm.models.lungfm.model import SHIPPED, facts_of

        facts["weights"] = {"path": str(SHIPPED), **facts_of(SHIPPED)}
    if as_json:
        print_json(facts)
        return
    for key, value in {**facts, **facts.pop("weights", {})}.items():
        typer.echo(f"{key.replace('_', ' ')}: {_plain(value)}")


def _trained_row(card: "ModelCard", here: tuple[str, ...]) -> dict[str, Any]:
    return {
        "name": card.name,
        "licence": card.licence,
        "commercial": card.licence,
        "parameters": card.parameters,
        "weights": list(here),
        "needs_weights": True,
        "runnable": True,
        "summary": card.summary,
    }


def _ask(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return typer.confirm(question, err=True)


@contextmanager
def _progress(text: str) -> "Iterator[ProgressCallback]":
    """Show bytes done on stderr."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(text), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=stderr_console(), transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _row(card: "CheckpointCard", here: list[str]) -> dict[str, Any]:
    return {
        "name": card.name,
        "licence": card.licence,
        "commercial": card.commercial,
        "parameters": card.parameters,
        "weights": here,
        "needs_weights": True,
        "runnable": card.runnable,
        "summary": card.summary,
    }


def _print_list(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "weights", "parameters", "licence", "commercial", "summary"):
        table.add_column(title, no_wrap=title == "name", justify="left")
    for row in rows:
        here = ", ".join(row["weights"]) or ("not here" if row["needs_weights"] else "none needed")
        size = f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "0"
        table.add_row(row["name"], here, size, row["licence"], row["commercial"], row["summary"])
    stdout_console().print(table)


def _facts(card: "CheckpointCard") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **asdict(card),
        "overrides": dict(card.overrides),
        "runnable": card.runnable,
        "window": _window(card),
        "options": _options(card),
    }


def _window(card: "CheckpointCard") -> dict[str, Any] | None:
    """Return what the model sees by default; ``None`` for models that window by themselves."""
    from napari_lungfm.models.foundation.factory import recommended_window

    if card.preprocessing is None:
        return None
    window, own = recommended_window(card), card.preprocessing.window
    source = card.preprocessing.window_source
    return {
        "level": window.level,
        "width": window.width,
        "source": source if own is not None else f"the lung preset; {source}",
    }


def _options(card: "CheckpointCard") -> list[dict[str, Any]]:
    """Return the options of a promptable model, as what makes it says them."""
    from dataclasses import asdict

    from napari_lungfm.models.foundation.factory import FACTORIES
    from napari_lungfm.models.foundation.options import options_of

    factory = FACTORIES.get(card.family)
    return [] if factory is None else [asdict(option) for option in options_of(factory)]


def _state(store: "WeightStore", name: str) -> dict[str, Any]:
    from napari_lungfm._core.exceptions import LungFMError
    from napari_lungfm.models.weights import WeightsNotFoundError

    try:
        return {"here": True, **_record(store.find(name))}
    except WeightsNotFoundError:
        return {"here": False}
    except LungFMError as error:
        return {"here": False, "error": str(error)}


def _record(stored: "StoredWeights") -> dict[str, Any]:
    from dataclasses import asdict

    return {"path": str(stored.path), **asdict(stored.manifest)}


def _print_facts(facts: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for key, value in facts.items():
        if key not in ("files", "weights", "options", "window", "preprocessing"):
            table.add_row(key.replace("_", " "), _plain(value))
    if facts["window"] is not None:
        window = facts["window"]
        text = f"{window['level']:g}/{window['width']:g} HU, level/width ({window['source']})"
        table.add_row("window", text)
    if facts["preprocessing"] is not None:
        rest = {k: v for k, v in facts["preprocessing"].items() if not k.startswith("window")}
        table.add_row("preprocessing", _plain(rest))
    for file in facts["files"]:
        checks = ", ".join(f"{c['algorithm']} {c['digest']}" for c in file["checks"])
        size = f"{file['size']:,} bytes" if file["size"] else "size unknown"
        sure = "confirmed" if file["confirmed"] else "not confirmed with the publisher yet"
        places = "\n".join([*file["addresses"], *file["pages"]])
        table.add_row(
            f"file {file['variant']}",
            f"{file['filename']}, {size}, {checks or 'no check value'} ({sure})\n"
            f"{file['note']}\n{places}",
        )
    for option in facts["options"]:
        default = "-" if option["default"] is None else _plain(option["default"])
        choices = f"one of {', '.join(option['choices'])}. " if option["choices"] else ""
        table.add_row(f"option {option['name']}", f"(default {default}) {choices}{option['text']}")
    for name, state in facts["weights"].items():
        table.add_row(f"here: {name}", state.get("path") or state.get("error") or "no")
    stdout_console().print(table)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{k.replace('_', ' ')}: {_plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or "none"
    return "–" if value in (None, "") else str(value)


def _report(stored: "StoredWeights", as_json: bool) -> None:
    if as_json:
        print_json({"name": stored.name, **_record(stored)})
        return
    checked = ", ".join(stored.manifest.checked) or "no published check value to compare with"
    note(f"ready: '{stored.name}' ({stored.manifest.architecture}; {checked}): {stored.path}")


def _report_trained(name: str, place: Path, as_json: bool) -> None:
    """Say what was imported, the name that it is used by, and what is doubtful about it."""
    from napari_lungfm.models.automatic.trained import read_description

    description = read_description(place)
    if as_json:
        print_json({"name": name, "path": str(place), **description.model_dump(mode="json")})
        return
    titled = f"'{description.title}', {description.architecture}, trained on "
    note(f"ready: '{name}' ({titled}'{description.cohort}'): {place}")
    note(f"use it by this name, as in: segment --model {name}; all about it: models show {name}")
    small = description.told_if_small()
    for text in (*([] if small is None else [small]), *description.notes):
        note(f"note: {text}")


def _verdict(result: dict[str, Any]) -> str:
    if not result["good"]:
        return f"NOT good: {result['error']}"
    checked = ", ".join(result["checked"]) or "unchanged since stored; no published check value"
    return f"good ({result['architecture']}; {checked})"
