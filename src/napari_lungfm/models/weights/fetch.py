"""Fetch published weights into the store."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from napari_lungfm._core.download import (
    Cancelled,
    DownloadCancelledError,
    DownloadError,
    Transfer,
    discard,
    download,
)
from napari_lungfm._core.exceptions import UsageError
from napari_lungfm._core.files import output_error
from napari_lungfm._core.types import ProgressCallback
from napari_lungfm.models.automatic.published import refuse_several
from napari_lungfm.models.catalogue import (
    CheckpointCard,
    PublishedFile,
    full_name,
    resolve,
)
from napari_lungfm.models.weights.admission import admit
from napari_lungfm.models.weights.errors import WeightsError, WeightsNotFoundError
from napari_lungfm.models.weights.files import computable_algorithms, file_digests
from napari_lungfm.models.weights.reference import reference_shapes
from napari_lungfm.models.weights.store import Manifest, StoredWeights, WeightStore
from napari_lungfm.models.weights.verify import check_digests, examine, verify

#: Files of weights are tens of megabytes at least; what is smaller is an error message.
SMALLEST = 2**20


def licence_text(card: CheckpointCard) -> str:
    """Return what a user should know before the weights are fetched, in one paragraph."""
    allowed = {
        "yes": "commercial use is allowed",
        "no": "commercial use is NOT allowed",
        "unstated": "whether commercial use is allowed is not stated",
    }[card.commercial]
    note = f"; {card.licence_note}" if card.licence_note else ""
    return f"{card.name}: licence of the weights {card.licence}, {allowed}{note}. Cite: " + (
        f"{card.citation}."
    )


def fetch(
    name: str,
    *,
    licence_accepted: bool,
    store: WeightStore | None = None,
    addresses: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
    cancelled: Cancelled | None = None,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> StoredWeights:
    """Download published weights, check them and put them into the store.

    Weights that are here already and unchanged are returned at once. An interrupted download is
    gone on with by the next call. Addresses are tried in order; one that is out of reach or has
    another file than the published one is passed over.

    Parameters
    ----------
    name
        Name in the catalogue.
    licence_accepted
        Whether the user has seen `licence_text` and agreed.
    store
        Where to put them; the default store if ``None``.
    addresses
        Where to get the file instead of the published addresses, a hospital's mirror say.
    progress
        Called with bytes done and bytes in all (0 where the server does not say).
    cancelled
        Asked between two blocks; ``True`` stops.
    timeout
        Seconds without an answer before a connection counts as lost.
    pause
        Seconds before a lost connection is tried again; doubled each time.

    Raises
    ------
    UsageError
        If there is no such published file, the name stands for several, or the licence was not
        accepted.
    DownloadError
        If no address gives the file; the message says why for each.
    WeightsError
        If the file is not what it should be.
    OutputError
        If it cannot be written.
    MissingDependencyError
        If the package that has the network is not installed; nothing is downloaded then.
    """
    store = store or WeightStore()
    card, variant = resolve(name)
    refuse_several(full_name(card.name, variant, card), "fetch")
    published = _published(card, variant)
    with contextlib.suppress(WeightsError, WeightsNotFoundError):
        return verify(name, store, progress)  # here already and unchanged
    sources = tuple(addresses or published.addresses)
    if not sources:
        msg = (
            f"'{name}' cannot be fetched by a program: download '{published.filename}' from "
            f"{published.pages[0]} with a browser, then: napari-lungfm-bench models import FILE "
            f"--as {name}"
        )
        raise DownloadError(msg)
    if not licence_accepted:
        msg = f"the licence of '{name}' has to be accepted first ({card.licence}); add --yes"
        raise UsageError(msg)
    reference_shapes(published.architecture[0])  # what checks the file is missing now, not later
    part = store.place(card, variant) / f".{published.filename}.part"
    transfer = Transfer(
        part=part,
        size=published.size,
        smallest=SMALLEST,
        trust_part=_can_be_checked(published),
        progress=progress,
        cancelled=cancelled,
        timeout=timeout,
        pause=pause,
    )
    source, digests = _first_good(sources, transfer, published, full_name(name, variant, card))
    manifest = _admit_part(part, digests, card, variant, source)
    store.begin(card, variant)
    try:
        part.replace(part.with_name(published.filename))
    except OSError as error:
        raise output_error(part.with_name(published.filename), error) from error
    return store.finish(manifest)


def _published(card: CheckpointCard, variant: str) -> PublishedFile:
    published = card.published(variant)
    if published is None:
        msg = (
            f"'{card.name}' has no published weights '{variant}'; published: "
            f"{', '.join(card.variants)}"
        )
        raise UsageError(msg)
    return published


def _can_be_checked(published: PublishedFile) -> bool:
    return any(check.algorithm in computable_algorithms() for check in published.checks)


def _first_good(
    sources: Sequence[str], transfer: Transfer, published: PublishedFile, name: str
) -> tuple[str, dict[str, str]]:
    """Return the first address that gave the published file, and the file's digests."""
    failures = []
    for address in sources:
        try:
            return address, _get(address, transfer, published, name)
        except DownloadCancelledError:
            raise
        except (DownloadError, WeightsError) as error:
            failures.append(str(error))
    pages = ", ".join(published.pages)
    msg = (
        f"'{published.filename}' could not be fetched: {'; '.join(failures)}; try again later, or "
        f"download it from {pages} and: napari-lungfm-bench models import FILE --as {name}"
    )
    raise DownloadError(msg)


def _get(address: str, transfer: Transfer, published: PublishedFile, name: str) -> dict[str, str]:
    went_on = transfer.part.is_file()
    while True:
        download(address, transfer)
        digests = file_digests(transfer.part)
        try:
            check_digests(digests, published, name, where=f"the file at '{address}'")
        except WeightsError:
            discard(transfer.part)
            if not went_on:
                raise
            went_on = False  # the old part may have been to blame: once more from the start
        else:
            return digests


def _admit_part(
    part: Path, digests: dict[str, str], card: CheckpointCard, variant: str, source: str
) -> Manifest:
    # A function of its own, so that no tensor keeps the file mapped when it is renamed.
    published = _published(card, variant)
    try:
        return admit(
            examine(part, known_whole=_can_be_checked(published)),
            digests,
            card,
            variant,
            file=published.filename,
            size=part.stat().st_size,
            source=source,
            licence_accepted=True,
            where=f"the file at '{source}'",
        )
    except WeightsError:
        discard(part)
        raise
