import hashlib

import pytest

from napari_lungfm._core.exceptions import InputFileError, UsageError
from napari_lungfm.models.lungfm.model import SHIPPED, LungFMModel, facts_of
from napari_lungfm.models.protocols import PromptableModel
from napari_lungfm.models.registry import check_weights, create_model, model_card, model_names


def test_the_shipped_weights_are_small_ours_and_say_how_they_were_made() -> None:
    facts = facts_of(SHIPPED)
    assert SHIPPED.stat().st_size <= 12e6
    assert facts["licence"] == "BSD-3-Clause"
    assert "synthetic only" in facts["training_data"]
    assert '"kind": "lungfm-s"' in facts["training"]


def test_the_model_is_known_by_name_and_needs_no_download() -> None:
    assert "lungfm-s" in model_names()
    check_weights("lungfm-s", {})
    model = create_model("lungfm-s", device="cpu")
    assert isinstance(model, PromptableModel)
    assert model.name == "lungfm-s"
    assert model.weight_hash == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    card = model_card("lungfm-s")
    assert card.parameters == sum(p.numel() for p in model.network.parameters())
    assert 3e6 <= card.parameters <= 6e6


def test_other_weights_can_be_taken(tmp_path) -> None:
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(SHIPPED.read_bytes())
    assert LungFMModel(weights=copy, device="cpu").name == "lungfm-s"
    with pytest.raises(InputFileError, match="not the weights of LungFM-S"):
        LungFMModel(weights=tmp_path / "none.safetensors")


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="no option 'windw'"):
        create_model("lungfm-s", windw="lung")
    with pytest.raises(UsageError):
        create_model("lungfm-s", device="tpu")
