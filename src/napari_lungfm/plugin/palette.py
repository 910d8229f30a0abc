"""Colours of objects that were given none."""

#: Colours that can be told apart on grey, also by most colour-blind people
#: (Okabe and Ito 2008, "Color Universal Design"; its black left out).
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
#: The colour of labels that belong to no object.
OTHER_COLOUR = "#b0b0b0"
#: The first object of a session has the label of tumours.
_FIRST = 3


def default_colour(label: int) -> str:
    """Return the colour of a new object."""
    return PALETTE[(label - _FIRST) % len(PALETTE)]
