"""Folders of fine-tuned models: what is in them comes back, what was changed is refused."""

import json

import numpy as np
import pytest
import torch

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference import AnnotationSession, segment_object
from napari_lungfm.inference.session import read_recording
from napari_lungfm.models.foundation.finetuned import (
    BaseFacts,
    FineTunedSettings,
    build_network,
)
from napari_lungfm.models.foundation.sam2_build import published_config, with_image_size
from napari_lungfm.models.foundation.sam2_video import Sam2Model
from napari_lungfm.models.prompts import Box
from napari_lungfm.models.registry import (
    check_options,
    check_weights,
    create_automatic_model,
    create_model,
    is_automatic,
    model_card,
    trained_model,
)
from napari_lungfm.models.weights import WeightsError
from napari_lungfm.preprocessing.windowing import Window

pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

BASE = BaseFacts(name="medsam2-ma", sha256="0" * 64, licence="CC-BY-SA-4.0", commercial="no")
BOX = Box(2, 10, 12, 30, 34)


def tiny_sam2():
    """A published configuration made small."""
    config = with_image_size(published_config("sam2.1_hiera_t"), 128)
    config["image_encoder"]["trunk"] |= {
        "embed_dim": 16,
        "num_heads": 1,
        "stages": [1, 1, 2, 1],
        "global_att_blocks": [3],
    }
    config["image_encoder"]["neck"] |= {"backbone_channel_list": [128, 64, 32, 16]}
    return config


def small_settings():
    return FineTunedSettings(network="sam2", build=tiny_sam2(), window=(-200.0, 900.0), base=BASE)


@pytest.fixture
def volume():
    array = np.random.default_rng(0).normal(-600, 400, (5, 48, 52)).astype(np.int16)
    return Volume(array, VolumeGeometry(array.shape, (3.0, 1.0, 1.0)))


@pytest.fixture
def folder(tmp_path):
    from napari_lungfm.training.finetune.finish import write_base

    write_base(tmp_path / "small", "small SAM 2", lively(small_settings()), small_settings())
    return tmp_path / "small"


def lively(settings):
    """Seeded weights with which something is found."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(settings)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.add_(50.0)
    return network


def masks(model, volume):
    return segment_object(model, volume, [BOX], fill=False).array


def test_a_sam2_in_a_folder_is_the_network_that_was_written(folder, volume):
    assert trained_model(str(folder)).family == "finetuned-sam2"
    window = Window(-200, 900)
    own = Sam2Model("x", lively(small_settings()), weight_hash="", window=window, device="cpu")
    expected = masks(own, volume)
    assert 0.02 < expected[BOX.z].mean() < 0.98
    assert np.array_equal(masks(create_model(str(folder), device="cpu"), volume), expected)
    other = create_model(str(folder), device="cpu", window="-600/1500")
    assert not np.array_equal(masks(other, volume), expected)


def test_the_registry_knows_what_it_is(folder):
    name = str(folder)
    assert not is_automatic(name)
    card = model_card(name)
    assert (card.kind, card.licence, card.name) == ("foundation", "CC-BY-SA-4.0", "small SAM 2")
    check_weights(name, {})
    check_options(name, {"zoom": True, "patience": 3})
    with pytest.raises(UsageError, match="no option 'carry'"):
        check_options(name, {"carry": "box"})
    with pytest.raises(UsageError, match="is a promptable model"):
        create_automatic_model(name, device="cpu")


def test_a_session_with_it_is_replayed_by_the_name_in_its_log(folder, volume, tmp_path):
    log = tmp_path / "session.jsonl"
    with AnnotationSession(volume, create_model(str(folder), device="cpu"), log=log) as session:
        session.add_object(1)
        session.add_prompts(1, [BOX])
        drawn = session.label_map().array
    recording = read_recording(log)
    again = create_model(recording.model_name, device="cpu")
    with AnnotationSession.load(recording, volume, again, read_only=True) as session:
        assert np.array_equal(session.label_map().array, drawn)


def test_what_was_changed_is_refused(folder):
    weights, description = folder / "weights.safetensors", folder / "model.json"
    content = json.loads(description.read_text())
    content["settings"]["window"] = "wide"
    description.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"settings of .* cannot be used .window"):
        create_model(str(folder), device="cpu")
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    with pytest.raises(WeightsError, match="was changed since training"):
        create_model(str(folder), device="cpu")


def test_weights_of_another_network_are_refused(folder):
    description = folder / "model.json"
    content = json.loads(description.read_text())
    content["settings"]["build"]["image_encoder"]["trunk"]["stages"] = [1, 1, 1, 1]
    content["settings"]["build"]["image_encoder"]["trunk"]["global_att_blocks"] = [2]
    description.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="does not fit the network"):
        create_model(str(folder), device="cpu")


def test_an_image_of_the_training_is_told_in_one_line(volume, tmp_path):
    from napari_lungfm.models.automatic.trained import SeenPatient, hash_image
    from napari_lungfm.training.finetune.finish import write_base

    settings = small_settings()
    description = write_base(tmp_path, "mine", build_network(settings), settings)
    assert description.told_if_seen(volume) is None
    seen = SeenPatient(cohort="clinic", case="p7", part="train", image=hash_image(volume))
    description = description.model_copy(update={"seen": (seen,)})
    text = description.told_if_seen(volume)
    assert text is not None
    assert "'mine' has seen this very image in its training (case 'p7' of 'clinic')" in text
    other = Volume(volume.array + 1, volume.geometry)
    assert description.told_if_seen(other) is None
