import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import napari_lungfm
from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.models.catalogue import (
    candidates,
    checkpoint_card,
    checkpoint_names,
    full_name,
    resolve,
)

CARDS = [checkpoint_card(name) for name in checkpoint_names()]
DIGITS = {"md5": 32, "sha256": 64, "xxh128": 32}


def test_all_models_of_the_design_are_there():
    assert set(checkpoint_names()) == {
        "medsam",
        "litemedsam",
        "medsam2-ma",
        "medsam2-zhu",
        "sam-vit-b",
        "sam2.1-tiny",
        "sam2.1-small",
        "sam2.1-base-plus",
        "sam2.1-large",
        "medicosam",
        "lungmask",
    }


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_cards_are_complete_and_consistent(card):
    for text in (card.summary, card.prompts, card.training_data, card.leakage, card.citation):
        assert text
    assert card.parameters > 0
    assert card.licence
    assert len(set(card.variants)) == len(card.variants)
    assert len({file.filename for file in card.files}) == len(card.files)
    for file in card.files:
        assert file.pages
        assert file.architecture
        for address in (*file.addresses, *file.pages):
            assert urlsplit(address).scheme == "https"
        for check in file.checks:
            assert re.fullmatch(r"[0-9a-f]+", check.digest)
            assert len(check.digest) in (8, DIGITS[check.algorithm])
        assert not file.confirmed  # none was ever downloaded where this was written
        for architecture in file.architecture:
            assert full_name(card.name, file.variant, card) in candidates(architecture)


def test_the_documented_table_says_what_the_cards_say():
    page = Path(napari_lungfm.__file__).parents[2] / "docs" / "models.md"
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    # The page has a table of options too, with other columns.
    table = {row[0].strip("`"): tuple(row[2:]) for row in rows if len(row) == 6}
    assert table == {
        card.name: (
            f"{card.input_size} px",
            f"{card.parameters / 1e6:.1f} M",
            card.licence,
            card.commercial,
        )
        for card in CARDS
    }


def test_no_two_files_share_a_check_value():
    values = [check for card in CARDS for file in card.files for check in file.checks]
    assert len(values) == len(set(values))


@pytest.mark.parametrize("name", ["medsam2", "MedSAM2", "MedSAM-2", "medical sam 2", "medsam2:x"])
def test_medsam2_alone_is_refused_with_both_meanings(name):
    with pytest.raises(UsageError, match=r"'medsam2-ma' is .*Ma et al.*'medsam2-zhu' is .*Zhu"):
        resolve(name)


def test_the_two_medsam2_share_nothing_that_loads():
    ma, zhu = checkpoint_card("medsam2-ma"), checkpoint_card("medsam2-zhu")
    assert not ma.architectures & zhu.architectures
    assert not set(ma.configuration) & set(zhu.configuration)
    assert ma.input_size != zhu.input_size


def test_unknown_names_get_a_hint():
    with pytest.raises(UsageError, match="did you mean 'medicosam'"):
        resolve("medicsam")


def test_variants():
    assert resolve("medsam2-ma")[1] == "latest"
    assert resolve("medsam2-ma:ctlesion")[1] == "CTLesion"
    assert resolve("medsam2-ma:mine.v2")[1] == "mine.v2"
    card = checkpoint_card("lungmask")
    assert full_name("lungmask", "R231", card) == "lungmask"
    assert full_name("lungmask", "LTRCLobes", card) == "lungmask:LTRCLobes"


@pytest.mark.parametrize("variant", ["", "..", "a/b", "a\\b", "a:b", ".x", "x.", "é", "a" * 61])
def test_variants_that_are_no_folder_are_refused(variant):
    with pytest.raises(UsageError, match="cannot name weights"):
        resolve(f"medsam:{variant}")


def test_parameters_are_those_of_the_stock_networks():
    torch = pytest.importorskip("torch")
    from napari_lungfm.models.foundation.sam2_build import build_sam2, published_config

    torch.set_num_threads(1)
    for card in CARDS:
        if card.family == "sam2" and card.input_size and card.parameters < 50e6:
            network = build_sam2(published_config(card.configuration[0]))
            assert sum(p.numel() for p in network.parameters()) == card.parameters, card.name


def test_parameters_of_sam_and_lungmask_are_those_of_the_stock_networks():
    torch = pytest.importorskip("torch")
    from napari_lungfm._core.imports import require

    require("torchvision", purpose="this test")
    with torch.device("meta"):
        sam = require("segment_anything", purpose="x").sam_model_registry["vit_b"]()
        unet = require("lungmask.resunet", purpose="x").UNet(
            n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True
        )
    for name, network in (("medsam", sam), ("sam-vit-b", sam), ("lungmask", unet)):
        assert sum(p.numel() for p in network.parameters()) == checkpoint_card(name).parameters
