"""Options as they are shown: from signatures and docstrings, and in the documentation."""

import re
from pathlib import Path

import pytest

from napari_lungfm.models.foundation.factory import FACTORIES, sam2_model, sam_model
from napari_lungfm.models.foundation.options import options_of, parameter_texts

DOCUMENT = Path(__file__).parents[3] / "docs" / "models.md"


def test_what_a_docstring_says_of_parameters() -> None:
    doc = (
        "Do it.\n\nParameters\n----------\na, b\n    Two ``lines``\n    of `text`.\nc\n"
        "    One.\n\nRaises\n------\nUsageError\n    Never."
    )
    assert parameter_texts(doc) == {
        "a": "Two lines of text.",
        "b": "Two lines of text.",
        "c": "One.",
    }
    assert parameter_texts("Do it.") == {}


@pytest.mark.parametrize("family", sorted(FACTORIES))
def test_every_option_is_explained(family: str) -> None:
    options = {option.name: option for option in options_of(FACTORIES[family])}

    assert {"name", "device"}.isdisjoint(options)
    assert all(option.text.endswith(".") for option in options.values())
    assert options["precision"].choices == ("auto", "float32", "bfloat16", "float16")


def test_the_documented_options_are_those_of_the_models() -> None:
    """Each row of the table: option, models, default."""
    rows = re.findall(
        r"^\| `(\w+)` \| (both|SAM|SAM 2) \| ([^|]+) \|", DOCUMENT.read_text("utf-8"), re.M
    )
    documented = {(model, name, default) for name, model, default in rows}
    known = {}
    for model, factory in (("SAM", sam_model), ("SAM 2", sam2_model)):
        for option in options_of(factory):
            known[model, option.name] = "–" if option.default is None else f"{option.default}"
    expected = set()
    for (model, name), default in known.items():
        both = known.get(("SAM", name)) == known.get(("SAM 2", name))
        expected.add(("both" if both else model, name, default))

    assert documented == expected
