"""Check that a file of weights is whole, safe and what it is said to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from napari_lungfm._core.types import PathInput, ProgressCallback
from napari_lungfm.models.catalogue import (
    CheckpointCard,
    PublishedFile,
    checkpoint_card,
    checkpoint_names,
    full_name,
)
from napari_lungfm.models.weights.detect import Layout, Normalised, detect, normalise
from napari_lungfm.models.weights.errors import WeightsError
from napari_lungfm.models.weights.files import file_digests, read_file
from napari_lungfm.models.weights.reference import check_finite, check_floating, check_tensors
from napari_lungfm.models.weights.store import StoredWeights, WeightStore


@dataclass(frozen=True, eq=False)
class Examined:
    """What was found in a file.

    Parameters
    ----------
    state
        Its tensors under the names of the stock network.
    layout
        What it is.
    ours
        What it says of its training with this package; ``None`` for others' files.
    """

    state: Normalised
    layout: Layout
    ours: Mapping[str, Any] | None


def examine(path: PathInput, *, known_whole: bool = False) -> Examined:
    """Read a file, tell what it is, and make sure that its tensors are complete and finite.

    Parameters
    ----------
    path
        The file.
    known_whole
        See `files.read_file`.

    Raises
    ------
    InputFileError
        If it cannot be read.
    WeightsError
        If it is damaged, unsafe, unknown, incomplete, or has NaN in it.
    MissingDependencyError
        If the package that has the network is not installed.
    """
    raw = read_file(path, known_whole=known_whole)
    state = normalise(raw.content)
    layout = detect(state)
    if layout.family is None:
        msg = f"'{path}' is no file of weights known here: {layout.hint}; see models list"
        raise WeightsError(msg)
    check_tensors(state.tensors, layout.architecture, where=f"'{path}'")
    check_floating(state.tensors, where=f"'{path}'")
    check_finite(state.tensors, where=f"'{path}'")
    return Examined(state, layout, raw.ours)


def check_architecture(
    layout: Layout, card: CheckpointCard, variant: str, *, where: str = "the file"
) -> None:
    """Make sure that a file can be the weights that it is to be.

    Raises
    ------
    WeightsError
        If it is of another architecture.
    """
    published = card.published(variant)
    allowed = published.architecture if published else tuple(sorted(card.architectures))
    if layout.architecture in allowed:
        return
    may_be = f"; it may be: {', '.join(layout.candidates)}" if layout.candidates else ""
    msg = (
        f"{where} is {layout.architecture}, but '{full_name(card.name, variant, card)}' is "
        f"{' or '.join(allowed)}{may_be}"
    )
    raise WeightsError(msg)


def check_digests(
    digests: Mapping[str, str],
    published: PublishedFile,
    name: str,
    *,
    where: str = "the file",
) -> tuple[str, ...]:
    """Compare a file's digests with the published check values.

    Returns
    -------
    tuple of str
        The check values that agreed; empty where none is published, or none can be computed
        (xxh128 without ``xxhash``).

    Raises
    ------
    WeightsError
        If one differs.
    """
    agreed = []
    for check in published.checks:
        found = digests.get(check.algorithm)
        if found is None:
            continue
        if not check.agrees(found):
            msg = (
                f"{where} is not the published file of '{name}': its {check.algorithm} is "
                f"{found}, not {check.digest}{_known_as(digests, name)}; get it again, or import "
                f"it under a name of your own: --as {name.split(':', maxsplit=1)[0]}:NAME"
            )
            raise WeightsError(msg)
        agreed.append(str(check))
    return tuple(agreed)


def identify(digests: Mapping[str, str]) -> tuple[CheckpointCard, PublishedFile] | None:
    """Return the published file that has these digests, if one has."""
    for name in checkpoint_names():
        card = checkpoint_card(name)
        for file in card.files:
            if any(check.agrees(digests.get(check.algorithm, "")) for check in file.checks):
                return card, file
    return None


def check_not_another(
    digests: Mapping[str, str], card: CheckpointCard, *, where: str = "the file"
) -> None:
    """Make sure that a file is not the published file of another model of the same build.

    Raises
    ------
    WeightsError
        If it is: the tensors of SAM ViT-B would pass for those of MedSAM.
    """
    found = identify(digests)
    if found is not None and found[0].name != card.name:
        other = full_name(found[0].name, found[1].variant, found[0])
        msg = f"{where} is the published file of '{other}', not weights of '{card.name}'"
        raise WeightsError(msg)


def _known_as(digests: Mapping[str, str], name: str) -> str:
    found = identify(digests)
    if found is None:
        return ""
    known = full_name(found[0].name, found[1].variant, found[0])
    return f" (it is that of '{known}')" if known != name else ""


def verify(
    name: str, store: WeightStore | None = None, progress: ProgressCallback | None = None
) -> StoredWeights:
    """Check stored weights from the ground up: content, check values, tensors.

    Parameters
    ----------
    name
        Name in the catalogue.
    store
        Where they are; the default store if ``None``.
    progress
        Called with bytes read and bytes in all.

    Raises
    ------
    WeightsNotFoundError
        If they are not in the store.
    WeightsError
        If anything differs from their record or card.
    """
    stored = (store or WeightStore()).find(name)
    where = f"'{stored.path}'"
    digests = file_digests(stored.path, progress)
    if digests["sha256"] != stored.manifest.sha256:
        msg = (
            f"{where} has changed since it was stored: its sha256 is {digests['sha256']}, not "
            f"{stored.manifest.sha256}; fetch or import it again"
        )
        raise WeightsError(msg)
    variant = stored.manifest.variant
    published = stored.card.published(variant)
    if published is not None:
        check_digests(digests, published, stored.name, where=where)
    examined = examine(stored.path, known_whole=True)
    check_architecture(examined.layout, stored.card, variant, where=where)
    return stored
