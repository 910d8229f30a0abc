import subprocess
import sys

import pytest

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.models import PromptableModel, create_model, model_card, model_names
from napari_lungfm.models.registry import check_options


@pytest.mark.parametrize("name", ["prompt-box", "prompt-ellipse", "classical"])
def test_models_know_their_names(name: str) -> None:
    assert name in model_names()
    model = create_model(name)
    assert isinstance(model, PromptableModel)
    assert model.name == model_card(name).name == name
    assert model_card(name).parameters == 0


def test_options_reach_the_model() -> None:
    assert create_model("prompt-ellipse", point_radius_mm=7.5).point_radius_mm == 7.5  # type: ignore[attr-defined]


@pytest.mark.parametrize("option", ["radius", "shape"])
def test_unknown_options_are_refused(option: str) -> None:
    with pytest.raises(UsageError, match=f"no option '{option}'; its options: 'point_radius_mm'"):
        create_model("prompt-box", **{option: 3.0})


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'prompt-ellipse'"):
        create_model("prompt-elipse")
    with pytest.raises(UsageError, match="there is no model 'zzz'; known: prompt-box"):
        model_card("zzz")
    for alone, full in (
        ("LTRCLobes_R231", "lungmask:LTRCLobes_R231"),
        ("r231covidweb", "lungmask:R231CovidWeb"),
    ):
        with pytest.raises(UsageError, match=f"there is no model '{alone}'; did you mean '{full}'"):
            create_model(alone)


def test_listing_names_loads_nothing_heavy() -> None:
    code = (
        "import sys; from napari_lungfm.models import model_names; model_names(); "
        "print([m for m in ('torch', 'skimage', 'scipy.ndimage', 'SimpleITK') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("model", "option", "value", "wanted"),
    [
        ("prompt-ellipse", "point_radius_mm", "abc", "a number"),
        ("prompt-ellipse", "point_radius_mm", True, "a number"),
        ("prompt-box", "point_radius_mm", [1], "a number"),
        ("classical", "max_click_radius_mm", "x", "a number"),
        ("medsam2-ma", "patience", "long", "a whole number"),
        ("medsam2-ma", "memory_bank", "huge", "one of recent, self-sorting"),
        ("medsam2-ma", "window", 600, "text"),
        ("medsam2-ma", "zoom", "near", "a number or true or false"),
    ],
)
def test_options_of_the_wrong_type_are_refused(model, option, value, wanted):
    message = f"option '{option}' of model '{model}' must be {wanted}, not"
    with pytest.raises(UsageError, match=message):
        check_options(model, {option: value})


@pytest.mark.parametrize("option", ["name", "device", "weigths"])
def test_what_is_no_option_is_refused_by_name(option):
    with pytest.raises(UsageError, match=f"has no option '{option}'"):
        check_options("medsam2-ma", {option: "x"})
    if option != "device":
        with pytest.raises(UsageError, match=f"has no option '{option}'"):
            create_model("classical", **{option: "x"})


def test_numbers_may_come_as_text():
    check_options("prompt-ellipse", {"point_radius_mm": "1e1"})  # YAML 1.1 reads 1e1 as text
