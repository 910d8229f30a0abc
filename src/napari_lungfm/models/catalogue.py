"""The pretrained models by name. Nothing heavy is imported."""

import difflib
import re

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.models.cards import (
    CheckpointCard,
    CheckValue,
    Preprocessing,
    PublishedFile,
    full_name,
)
from napari_lungfm.models.catalogue_sam import LUNGMASK_CARDS, SAM_CARDS
from napari_lungfm.models.catalogue_sam2 import MEDSAM2_CARDS, SAM21_CARDS

__all__ = [
    "CheckValue",
    "CheckpointCard",
    "Preprocessing",
    "PublishedFile",
    "candidates",
    "checkpoint_card",
    "checkpoint_names",
    "full_name",
    "is_ambiguous",
    "resolve",
]

_CARDS = {card.name: card for card in (*SAM_CARDS, *MEDSAM2_CARDS, *SAM21_CARDS, *LUNGMASK_CARDS)}
#: A variant becomes a folder, so it may hold only what every file system takes.
_VARIANT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,58}[A-Za-z0-9_+-])?")
#: Spellings that both models go by in print, without case and punctuation.
_AMBIGUOUS = frozenset({"medsam2", "medicalsam2", "medsam2pretrain"})


def checkpoint_names() -> tuple[str, ...]:
    """Return the names of the pretrained models."""
    return tuple(_CARDS)


def checkpoint_card(name: str) -> CheckpointCard:
    """Return the card of a pretrained model; a variant after a colon is allowed.

    Raises
    ------
    UsageError
        If there is no such model, or the name stands for two.
    """
    return resolve(name)[0]


def resolve(name: str) -> tuple[CheckpointCard, str]:
    """Split a name into its card and the variant of the weights.

    Parameters
    ----------
    name
        ``medsam``, ``medsam2-ma:CTLesion``; the part after the colon names a published file
        (case does not matter) or weights that a user imported under that name.

    Raises
    ------
    UsageError
        If there is no such model, the name stands for two, or the variant cannot be a folder.
    """
    model, colon, variant = name.partition(":")
    card = _card(model)
    if not colon:
        return card, card.default.variant
    if not _VARIANT.fullmatch(variant):
        msg = (
            f"'{variant}' in '{name}' cannot name weights; use up to 60 letters, digits, "
            "'.', '_', '+' and '-', a letter or digit first"
        )
        raise UsageError(msg)
    for known in card.variants:
        if known.lower() == variant.lower():
            return card, known
    return card, variant


def candidates(architecture: str) -> tuple[str, ...]:
    """Return the names that a file of this architecture may go by."""
    return tuple(
        full_name(card.name, file.variant, card)
        for card in _CARDS.values()
        for file in card.files
        if architecture in file.architecture
    )


def is_ambiguous(name: str) -> bool:
    """Tell whether a name stands for two models, as "MedSAM 2" does in print."""
    return re.sub(r"[^a-z0-9]", "", name.lower()) in _AMBIGUOUS


def _card(name: str) -> CheckpointCard:
    if name in _CARDS:
        return _CARDS[name]
    if is_ambiguous(name):
        msg = (
            f"'{name}' stands for two models: 'medsam2-ma' is MedSAM2 of Ma et al. "
            "(arXiv:2504.03600; SAM 2.1 tiny, 512 px), 'medsam2-zhu' is Medical SAM 2 of Zhu et "
            "al. (arXiv:2408.00874; SAM 2.0, 1024 px); name the one you mean"
        )
        raise UsageError(msg)
    close = difflib.get_close_matches(name.lower(), _CARDS, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    msg = f"there is no pretrained model '{name}'; {hint}known: {', '.join(_CARDS)}"
    raise UsageError(msg)
