"""Tiny networks with seeded random weights, and the publishers' own predictors as oracles."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.models.foundation.sam2_build import build_sam2, published_config, with_image_size
from napari_lungfm.models.foundation.sam2_engine import prepare_images
from napari_lungfm.models.foundation.sam2_video import Sam2Model
from napari_lungfm.models.foundation.sam_build import build_sam
from napari_lungfm.models.foundation.slices import SliceSource
from napari_lungfm.models.foundation.zoom import Crop
from napari_lungfm.preprocessing.windowing import Window

WINDOW = Window(-600, 1500)
STOCK_PREDICTOR = "sam2.sam2_video_predictor.SAM2VideoPredictor"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_config(image_size: int = 128, base: str = "sam2.1_hiera_t") -> dict[str, Any]:
    """A published configuration made small: the same code paths, 100 times faster."""
    config = with_image_size(published_config(base), image_size)
    config["image_encoder"]["trunk"] |= {
        "embed_dim": 16,
        "num_heads": 1,
        "stages": [1, 1, 2, 1],
        "global_att_blocks": [3],
    }
    config["image_encoder"]["neck"] |= {"d_model": 64, "backbone_channel_list": [128, 64, 32, 16]}
    config["image_encoder"]["neck"]["position_encoding"]["num_pos_feats"] = 64
    attention = config["memory_attention"]
    attention |= {"d_model": 64, "num_layers": 2}
    attention["layer"] |= {"d_model": 64, "dim_feedforward": 128}
    attention["layer"]["self_attention"]["embedding_dim"] = 64
    attention["layer"]["cross_attention"] |= {"embedding_dim": 64, "kv_in_dim": 16}
    memory = config["memory_encoder"]
    memory |= {"out_dim": 16, "in_dim": 64}
    memory["position_encoding"]["num_pos_feats"] = 16
    memory["mask_downsampler"]["embed_dim"] = 64
    memory["fuser"]["layer"]["dim"] = 64
    return config


def randomise(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Seeded weights in which nothing is neutral: no zeros, no ones, no layer scale of 1e-6."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if parameter.ndim < 2:  # biases, and the weights of norms and layer scales
                parameter.copy_(0.1 * noise + (0.0 if name.endswith("bias") else 1.0))
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(noise / fan_in**0.5)
        for name, buffer in network.named_buffers():
            if "gaussian" in name:  # frequencies of the prompt encoding
                buffer.copy_(torch.randn(buffer.shape, generator=random))
    return network


def present(network: Any, bias: float = 4.0) -> Any:
    """Make a network sure that objects are there, and heed its memories.

    With merely random weights most objects are absent, and attention is nearly even, so that a
    comparison would not notice a wrong memory.
    """
    with torch.no_grad():
        for layer in network.memory_attention.layers:
            attention = layer.cross_attn_image
            for part in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
                part.weight.mul_(2.0)
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(bias)
    return network


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    return tiny_config()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any]) -> Path:
    """Random weights in a file of the layout that SAM 2 is published in."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save({"model": present(randomise(build_sam2(tiny))).state_dict()}, path)
    return path


def load(network: torch.nn.Module, path: Path) -> torch.nn.Module:
    network.load_state_dict(torch.load(path, weights_only=True)["model"])
    return network


@pytest.fixture
def network(tiny: dict[str, Any], checkpoint: Path) -> torch.nn.Module:
    return load(build_sam2(tiny), checkpoint)


def phantom(depth: int = 12, side: int = 96) -> Volume:
    """A bright ball that drifts, with texture, in dark surroundings; int16 HU."""
    random = np.random.default_rng(1)
    z, y, x = np.mgrid[:depth, :side, :side]
    middle, radius = (depth - 1) / 2, side / 5
    distance = np.hypot(y - side * 0.45 - z, x - side * 0.5 + z) + 2 * np.abs(z - middle)
    hu = np.where(distance < radius, 40.0, -800.0) + random.normal(0, 60, (depth, side, side))
    geometry = VolumeGeometry((depth, side, side), (3.0, 1.0, 1.0))
    return Volume(np.clip(hu, -1000, 1000).astype(np.int16), geometry)


@pytest.fixture(scope="session")
def volume() -> Volume:
    return phantom()


@pytest.fixture
def model(network: torch.nn.Module) -> Sam2Model:
    return Sam2Model("tiny", network, weight_hash="w0", window=WINDOW, device="cpu")


class LazyImages:
    """What the stock predictor needs of a video: a length, and normalised frames."""

    def __init__(self, volume: Volume, size: int, crop: Crop | None = None) -> None:
        self._source = SliceSource(volume.array, WINDOW)
        self._crop = crop or Crop.whole(volume.shape)
        self._size = size

    def __len__(self) -> int:
        return self._source.depth

    def __getitem__(self, z: int) -> torch.Tensor:
        return prepare_images([self._source.grey(z, self._crop)], self._size)[0]


def _remembering(forward: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    known: dict[bytes, Any] = {}

    def remembered(images: torch.Tensor) -> Any:
        key = images.numpy().tobytes()
        if key not in known:
            known[key] = forward(images)
        return dict(known[key])

    return remembered


class Stock:
    """``SAM2VideoPredictor`` on a volume instead of a video."""

    def __init__(
        self,
        config: dict[str, Any],
        weights: Any,
        volume: Volume,
        *,
        encode_once: bool = False,
        **options: Any,
    ) -> None:
        full = {**config, "_target_": STOCK_PREDICTOR, **options}
        self.predictor: Any = build_sam2(full)
        self.predictor.load_state_dict(weights)
        if encode_once:  # it keeps the features of one frame only, which takes time, no more
            self.predictor.forward_image = _remembering(self.predictor.forward_image)
        module = __import__("sam2.sam2_video_predictor", fromlist=["x"])
        images, shape = LazyImages(volume, config["image_size"]), volume.shape[1:]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "load_video_frames", lambda **_: (images, *shape))
            patch.setattr(module, "tqdm", lambda items, **_: items)
            self.state = self.predictor.init_state(video_path="unused")
        self._module = module

    def box(self, z: int, box: tuple[float, float, float, float], obj: int = 1) -> npt.NDArray[Any]:
        return self._logits(
            self.predictor.add_new_points_or_box(self.state, z, obj, box=list(box)), obj
        )

    def clicks(self, z: int, points: Any, labels: Any, obj: int = 1, **kw: Any) -> npt.NDArray[Any]:
        return self._logits(
            self.predictor.add_new_points_or_box(
                self.state, z, obj, points=points, labels=labels, **kw
            ),
            obj,
        )

    def mask(self, z: int, mask: npt.NDArray[np.bool_], obj: int = 1) -> npt.NDArray[Any]:
        return self._logits(self.predictor.add_new_mask(self.state, z, obj, mask), obj)

    def walk(self, obj: int = 1, **kw: Any) -> dict[int, npt.NDArray[Any]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._module, "tqdm", lambda items, **_: items)
            return {
                result[0]: self._logits(result, obj)
                for result in self.predictor.propagate_in_video(self.state, **kw)
            }

    def walk_both(self, **kw: Any) -> tuple[dict[int, npt.NDArray[Any]], ...]:
        """One walk, in which all objects are tracked, for the objects 1 and 2."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self._module, "tqdm", lambda items, **_: items)
            results = list(self.predictor.propagate_in_video(self.state, **kw))
        return tuple({r[0]: self._logits(r, obj) for r in results} for obj in (1, 2))

    def forget_tracked(self) -> None:
        """Drop what earlier passes left behind, prompted slices kept."""
        for outputs in self.state["output_dict_per_obj"].values():
            outputs["non_cond_frame_outputs"].clear()

    def _logits(self, result: Any, obj: int) -> npt.NDArray[Any]:
        _, ids, logits = result
        array: npt.NDArray[Any] = logits[list(ids).index(obj), 0].cpu().numpy()
        return array


@pytest.fixture(scope="session")
def stock() -> type[Stock]:
    return Stock


@pytest.fixture(scope="session")
def make_config() -> Callable[..., dict[str, Any]]:
    return tiny_config


@pytest.fixture(scope="session")
def make_random() -> Callable[..., Any]:
    return lambda network, seed=0, bias=4.0: present(randomise(network, seed), bias)


@pytest.fixture(scope="session")
def make_volume() -> Callable[..., Volume]:
    return phantom


@pytest.fixture(scope="session")
def window() -> Window:
    return WINDOW


@pytest.fixture(scope="session")
def tiny_sam() -> torch.nn.Module:
    config = {
        "image_size": 128,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 2,
        "global_attn_indexes": (1,),
        "window_size": 4,
        "prompt_dim": 64,
    }
    return randomise(build_sam(config), 3)
