import pytest

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.models.cards import CheckpointCard
from napari_lungfm.models.catalogue import checkpoint_card, checkpoint_names
from napari_lungfm.models.catalogue_sam import BOXES_ONLY
from napari_lungfm.models.foundation.factory import (
    parse_window,
    parse_zoom,
    preprocessing_of,
    recommended_window,
)
from napari_lungfm.models.foundation.zoom import Zoom
from napari_lungfm.models.registry import create_model, model_card, model_names
from napari_lungfm.preprocessing.windowing import WINDOWS, Window


def test_windows_by_preset_or_numbers():
    assert parse_window("lung") == WINDOWS["lung"]
    assert parse_window("-160/1500") == Window(-160, 1500)
    for wrong in ("lungs", "40", "a/b", "40/0"):
        with pytest.raises(UsageError):
            parse_window(wrong)


def test_zoom_by_switch_or_factor():
    assert parse_zoom(None) is None
    assert parse_zoom(False) is None
    assert parse_zoom(True) == Zoom()
    assert parse_zoom(3) == Zoom(margin=3.0, min_size_mm=None)  # nobody asked for a smallest side
    assert parse_zoom(3, 40.0) == Zoom(3.0, 40.0)
    assert parse_zoom(True, 40.0) == parse_zoom(None, 40.0) == Zoom(min_size_mm=40.0)
    for wrong in ((0.5, None), ("wide", None), (False, 40.0), (None, -3.0), (2.0, 0.0)):
        with pytest.raises(UsageError):
            parse_zoom(*wrong)


def test_the_window_of_the_card_is_the_default():
    assert recommended_window(checkpoint_card("medsam2-ma")) == Window(-750, 1500)
    card: CheckpointCard = checkpoint_card("sam2.1-tiny")
    assert recommended_window(card) == WINDOWS["lung"]


@pytest.mark.parametrize(
    ("name", "preprocessing"),
    [
        ("medsam", "medsam"),
        ("litemedsam", "litemedsam"),
        ("sam-vit-b", "sam"),
        ("medicosam", "sam"),
    ],
)
def test_the_card_decides_how_slices_are_prepared(name, preprocessing):
    assert preprocessing_of(checkpoint_card(name)) == preprocessing


def test_the_cards_of_models_that_know_boxes_only_say_so():
    for name in checkpoint_names():
        says = "clicks are outside its training" in checkpoint_card(name).prompts
        assert says == (name in BOXES_ONLY), name


def test_every_promptable_card_is_a_model():
    for name in (
        "medsam",
        "litemedsam",
        "sam-vit-b",
        "medicosam",
        "medsam2-ma",
        "medsam2-zhu",
        "sam2.1-large",
    ):
        assert name in model_names()
        assert model_card(name).kind == "foundation"
    assert model_card("medsam2-ma:CTLesion").name == "medsam2-ma:CTLesion"
    assert "lungmask" not in model_names()


def test_options_are_checked_before_weights_are_looked_for():
    with pytest.raises(UsageError, match="no option 'colour'; its options: 'weights', 'window'"):
        create_model("medsam2-ma", colour="red")
    with pytest.raises(UsageError, match="there is no window 'x'"):
        create_model("medsam2-ma", window="x")
