"""What records call the training state of a fine-tuned model, and what that says of it."""

import re

_FINE_TUNED = re.compile(r"fine-tuned (\d+(?:\.\d+)?) %")


def fine_tuned_state(percent: float) -> str:
    """Return `UnitKey.state` of a model that was fine-tuned on a part of the training patients.

    Parameters
    ----------
    percent
        How many of them.
    """
    return f"fine-tuned {percent:g} %"


def training_percent(state: str) -> float | None:
    """Return how many percent of the training patients a state speaks of.

    Parameters
    ----------
    state
        `UnitKey.state`.

    Returns
    -------
    float or None
        0 for zero-shot; ``None`` for states that are no point of a curve over training data.
    """
    if state == "zero-shot":
        return 0.0
    found = _FINE_TUNED.fullmatch(state)
    return None if found is None else float(found[1])
