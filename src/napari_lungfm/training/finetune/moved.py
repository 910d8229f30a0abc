"""How many weights a fine-tuning has moved: a frozen part must not, a trained part must."""

from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor


class MovedWeights(BaseModel):
    """How far the weights of one module are from where they began.

    Parameters
    ----------
    entries
        Number of weights.
    moved
        Fraction that differs.
    moved_in_bfloat16
        Fraction that still differs when both are rounded to bfloat16: what would be left of the
        training had the weights been kept in that precision.
    largest, mean
        Largest and mean absolute change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    entries: int
    moved: float
    moved_in_bfloat16: float
    largest: float
    mean: float


def moved_weights(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> dict[str, MovedWeights]:
    """Compare two state dicts of one network.

    Parameters
    ----------
    before, after
        Name → tensor, of the same names and shapes.

    Returns
    -------
    dict
        First part of the names (``image_encoder``, ``mask_decoder``, ...) → what moved in it.

    Raises
    ------
    ValueError
        If they are of different networks.
    """
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())[:3]
        msg = f"the weights are of different networks: {', '.join(odd)}"
        raise ValueError(msg)
    modules: dict[str, list[str]] = {}
    for name in before:
        modules.setdefault(name.partition(".")[0], []).append(name)
    return {
        module: _compare([(before[name], after[name]) for name in names])
        for module, names in modules.items()
    }


def _compare(pairs: list[tuple[Tensor, Tensor]]) -> MovedWeights:
    entries = moved = rounded = 0
    largest = total = 0.0
    for old, new in pairs:
        one, other = old.detach().cpu().float(), new.detach().cpu().float()
        change = (other - one).abs()
        entries += change.numel()
        moved += int((one != other).sum())
        rounded += int((one.to(torch.bfloat16) != other.to(torch.bfloat16)).sum())
        largest = max(largest, float(change.max()) if change.numel() else 0.0)
        total += float(change.double().sum())
    count = max(1, entries)
    return MovedWeights(
        entries=entries,
        moved=moved / count,
        moved_in_bfloat16=rounded / count,
        largest=largest,
        mean=total / count,
    )
