"""Colours, dashes and markers: the same method looks the same everywhere in a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Okabe & Ito, "Color Universal Design" (2008), without black and yellow (yellow is the
#: reference in overlays, and orange, which is near to it, comes late), then the muted scheme of
#: Paul Tol, "Colour Schemes" (SRON, 2021): both can be told apart with any common colour vision.
PALETTE = (
    "#56B4E9",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#0072B2",
    "#E69F00",
    "#AA4499",
    "#44AA99",
    "#999933",
    "#CC6677",
    "#88CCEE",
    "#882255",
)
REFERENCE_COLOUR = "#F0E442"
#: Prompt-only baselines are grey, so that they recede behind the models.
BASELINES = {"prompt-ellipse": "#7A7A7A", "prompt-box": "#A8A8A8"}
#: Lengths of strokes and gaps, one pattern per prompt protocol.
DASHES = ("", "6 3", "2 2", "8 2 2 2", "4 1")
MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclass(frozen=True)
class Look:
    """How one method is drawn."""

    colour: str
    dash: str
    marker: str
    baseline: bool = False


def looks(
    rows: Sequence[tuple[str, str]], models: Mapping[str, str] | None = None
) -> dict[tuple[str, str], Look]:
    """Give every (method, protocol) its look: colour by method, dash and marker by protocol.

    ``models`` says which model is behind a method's title, where that is not the title.
    """
    behind = {method: (models or {}).get(method, method) for method, _ in rows}
    baselines = {name: BASELINES[model] for name, model in behind.items() if model in BASELINES}
    methods = [name for name in behind if name not in baselines]
    protocols = list(dict.fromkeys(protocol for _, protocol in rows))
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(methods)} | baselines
    # More methods than colours: the second round gets other dashes.
    rounds = {name: i // len(PALETTE) for i, name in enumerate(methods)}
    result = {}
    for method, protocol in rows:
        i = protocols.index(protocol) + rounds.get(method, 0)
        dash, marker = DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)]
        result[method, protocol] = Look(colours[method], dash, marker, method in baselines)
    return result
