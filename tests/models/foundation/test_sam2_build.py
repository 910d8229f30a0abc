import copy
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from napari_lungfm._core.exceptions import ConfigError
from napari_lungfm.models.foundation.sam2_build import (
    PUBLISHED,
    build_sam2,
    published_config,
    with_image_size,
)


@pytest.mark.parametrize(
    ("name", "keys", "millions"),
    [("sam2.1_hiera_t", 471, 38.96), ("sam2_hiera_s", 516, 46.04)],
)
def test_published_networks(name: str, keys: int, millions: float) -> None:
    network = build_sam2(published_config(name))

    assert len(network.state_dict()) == keys
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    assert not network.training


def test_medsam2_is_sam2_1_tiny_at_512() -> None:
    config = published_config("sam2.1_hiera_t", image_size=512)
    network: Any = build_sam2(config)

    assert network.image_size == 512
    for layer in network.memory_attention.layers:
        assert layer.self_attn.freqs_cis.shape[0] == 32 * 32
        assert layer.cross_attn_image.freqs_cis.shape[0] == 32 * 32
    assert set(network.state_dict()) == set(
        build_sam2(published_config("sam2.1_hiera_t")).state_dict()
    )


def test_postprocessing_is_that_of_the_publishers(tiny: dict[str, Any]) -> None:
    network: Any = build_sam2(tiny)
    plain: Any = build_sam2(tiny, postprocessing=False)

    assert network.binarize_mask_from_pts_for_mem_enc
    assert network.sam_mask_decoder.dynamic_multimask_via_stability
    assert network.sam_mask_decoder.dynamic_multimask_stability_delta == 0.05
    assert network.sam_mask_decoder.dynamic_multimask_stability_thresh == 0.98
    assert not plain.binarize_mask_from_pts_for_mem_enc
    assert not plain.sam_mask_decoder.dynamic_multimask_via_stability


def test_configurations_can_say_otherwise(tiny: dict[str, Any]) -> None:
    own = {**tiny, "sam_mask_decoder_extra_args": {"dynamic_multimask_stability_thresh": 0.5}}
    network: Any = build_sam2(own)

    assert network.sam_mask_decoder.dynamic_multimask_stability_thresh == 0.5
    assert network.sam_mask_decoder.dynamic_multimask_via_stability


def test_a_configuration_is_not_changed(tiny: dict[str, Any]) -> None:
    before = copy.deepcopy(tiny)
    with_image_size(tiny, 256)
    build_sam2(tiny)

    assert tiny == before


def _with(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**config, **changes}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: published_config("sam3"), "no SAM 2 configuration 'sam3'; known: sam2_hiera_t"),
        (lambda c: with_image_size(c, 500), "multiple of 32 px, not 500"),
        (lambda c: build_sam2(_with(c, _target_="os.system")), "'model' .* names 'os.system'"),
        (
            lambda c: build_sam2(_with(c, memory_encoder={"_target_": "sam2.modeling.x.Nothing"})),
            "model.memory_encoder|sam2.modeling.x",
        ),
        (lambda c: build_sam2(_with(c, colour="blue")), "'model' of .* argument 'colour'"),
        (lambda c: build_sam2({}), "no '_target_'"),
    ],
)
def test_what_cannot_be_built(
    make: Callable[[dict[str, Any]], Any], message: str, tiny: dict[str, Any]
) -> None:
    with pytest.raises((ConfigError, ImportError), match=message):
        make(tiny)


def test_all_published_configurations_read() -> None:
    for name in PUBLISHED:
        config = published_config(name)
        assert config["image_size"] == 1024
        scale = config["memory_encoder"]["fuser"]["layer"]["layer_scale_init_value"]
        assert scale == 1e-6  # which YAML 1.1 takes for text


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, napari_lungfm.models, napari_lungfm.models.foundation;"
        "heavy = {'torch', 'sam2', 'segment_anything', 'torchvision', 'hydra'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "import napari_lungfm.models.foundation.sam2_video;"
        "import napari_lungfm.models.foundation.sam_image;"
        "heavy = {'sam2', 'segment_anything', 'torchvision', 'hydra'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_building_leaves_the_gpu_alone(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody asks for the CPU because the GPU is full; sam2's constructors would not know.

    Without a GPU, their moving anything to one is an error; with one, it is seen below.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    seen: list[bool] = []
    layer_norm = torch.nn.LayerNorm.__init__

    def noting(self: Any, *args: Any, **named: Any) -> None:
        other = threading.Thread(target=lambda: seen.append(torch.cuda.is_available()))
        other.start()
        other.join()
        layer_norm(self, *args, **named)

    monkeypatch.setattr(torch.nn.LayerNorm, "__init__", noting)

    network: Any = build_sam2(tiny)

    assert seen
    assert all(seen)  # other threads see the GPU meanwhile
    for layer in network.memory_attention.layers:
        assert layer.cross_attn_image.freqs_cis.device.type == "cpu"
    assert not network.image_encoder.neck.position_encoding.cache
    assert not network.memory_encoder.position_encoding.cache


def test_weights_go_through_a_file(checkpoint: Any, network: torch.nn.Module) -> None:
    stored = torch.load(checkpoint, weights_only=True)["model"]

    assert all(torch.equal(stored[k], v) for k, v in network.state_dict().items())
