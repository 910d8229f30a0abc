"""Take a file that the user has into the store."""

import shutil
from pathlib import Path

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.files import atomic_path
from napari_lungfm._core.types import PathInput, ProgressCallback
from napari_lungfm.models.automatic.published import refuse_several
from napari_lungfm.models.catalogue import CheckpointCard, checkpoint_card, full_name, resolve
from napari_lungfm.models.weights.admission import admit, stored_filename
from napari_lungfm.models.weights.errors import WeightsError
from napari_lungfm.models.weights.files import file_digests
from napari_lungfm.models.weights.store import StoredWeights, WeightStore
from napari_lungfm.models.weights.verify import Examined, examine, identify

#: What is said to whom asks for several files at once.
_COMMAND = "import FILE --as"


def import_file(
    path: PathInput,
    name: str | None = None,
    *,
    store: WeightStore | None = None,
    progress: ProgressCallback | None = None,
) -> StoredWeights:
    """Examine a file and copy it into the store.

    Parameters
    ----------
    path
        A ``.pt``, ``.pth`` or ``.safetensors`` file.
    name
        What it is: ``medsam``, or ``medsam:mine`` for weights of one's own of that build.
        ``None`` lets a published check value or the file's own entry decide; keys alone cannot
        tell MedSAM from SAM.
    store
        Where to put it; the default store if ``None``.
    progress
        Called with bytes read and bytes in all.

    Raises
    ------
    InputFileError
        If the file cannot be read.
    UsageError
        If the name is unknown, is needed and missing, or stands for several files.
    WeightsError
        If the file is damaged, unsafe, unknown, or another model's.
    OutputError
        If it cannot be written; what the store had stays as it was.
    """
    source = Path(path)
    store = store or WeightStore()
    wanted = resolve(name) if name is not None else None
    if wanted is not None:
        refuse_several(full_name(wanted[0].name, wanted[1], wanted[0]), _COMMAND)
    digests = file_digests(source, progress)
    examined = examine(source, known_whole=identify(digests) is not None)
    card, variant = wanted or _recognise(source, examined, digests)
    refuse_several(full_name(card.name, variant, card), _COMMAND)
    manifest = admit(
        examined,
        digests,
        card,
        variant,
        file=stored_filename(card, variant, source),
        size=source.stat().st_size,
        source=str(source.resolve()),
        licence_accepted=False,
        where=f"'{source}'",
    )
    target = store.place(card, variant) / manifest.file
    if not (target.exists() and target.samefile(source)):
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
            if file_digests(temporary)["sha256"] != manifest.sha256:
                msg = f"'{source}' changed while it was copied; import it again"
                raise WeightsError(msg)
            store.begin(card, variant)
    return store.finish(manifest)


def _recognise(
    path: Path, examined: Examined, digests: dict[str, str]
) -> tuple[CheckpointCard, str]:
    if examined.ours is not None:
        label = examined.ours.get("label") or path.stem
        return resolve(f"{examined.ours['model']}:{label}")
    found = identify(digests)
    if found is not None:
        return found[0], found[1].variant
    names = examined.layout.candidates
    if not names:
        msg = (
            f"'{path}' is {examined.layout.architecture}, which no model of the catalogue is; "
            "see: napari-lungfm-bench models list"
        )
        raise WeightsError(msg)
    unchecked = [name for name in names if _has_no_check(name)]
    if len(names) == 1 and unchecked:
        return resolve(names[0])
    models = dict.fromkeys(name.split(":")[0] for name in names)
    msg = (
        f"'{path}' is {examined.layout.architecture}, and no published check value says which "
        f"model; name it: --as {_suggestion(path, names)} ({', '.join(names)}), or "
        f"--as {next(iter(models))}:NAME for weights of your own"
    )
    raise UsageError(msg)


def _has_no_check(name: str) -> bool:
    card, variant = resolve(name)
    published = card.published(variant)
    return published is not None and not published.checks


def _suggestion(path: Path, names: tuple[str, ...]) -> str:
    """Return the candidate whose published file has this very name, as a hint only."""
    for name in names:
        card, variant = resolve(name)
        published = card.published(variant)
        if published is not None and published.filename == path.name:
            return full_name(card.name, variant, checkpoint_card(card.name))
    return "NAME"
