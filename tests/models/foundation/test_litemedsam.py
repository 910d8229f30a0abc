"""LiteMedSAM: timm's TinyViT against the published network, written out from its description."""

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm._core.exceptions import ConfigError, LungFMError, LungFMWarning
from napari_lungfm._core.imports import require
from napari_lungfm.geometry import Volume
from napari_lungfm.inference.propagation import propagate_object
from napari_lungfm.models.catalogue import checkpoint_card
from napari_lungfm.models.foundation.factory import sam_model
from napari_lungfm.models.foundation.litemedsam_build import TINY_VIT, build_litemedsam
from napari_lungfm.models.foundation.sam_image import SamImageModel, SamMemory
from napari_lungfm.models.foundation.sam_preprocess import area_means, litemedsam_view
from napari_lungfm.models.foundation.zoom import Crop, Zoom
from napari_lungfm.models.prompts import Box, Click
from napari_lungfm.models.protocols import Prior
from napari_lungfm.models.weights.detect import detect, normalise
from napari_lungfm.models.weights.importing import import_file
from napari_lungfm.models.weights.verify import verify
from napari_lungfm.preprocessing.windowing import Window, to_uint8

State = Mapping[str, torch.Tensor]
#: The published build made small; windows that do and that do not divide their grids.
TINY = {
    "image_size": 64,
    "embed_dims": (16, 24, 32, 48),
    "depths": (1, 2, 1, 2),
    "num_heads": (1, 2, 4, 3),
    "window_sizes": (7, 8, 7, 5),
    "prompt_dim": 32,
}
BOX = Box(5, 30, 34, 60, 66)


# ---------------------------------------------------------------------- the published layout
def published_shapes(values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in an encoder's file, as its authors' code makes them."""
    dims, out = values["embed_dims"], values["prompt_dim"]
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, n: int) -> None:
        shapes.update({f"{name}.weight": (n,), f"{name}.bias": (n,)})

    def conv(name: str, *shape: int) -> None:
        shapes[f"{name}.c.weight"] = shape
        norm(f"{name}.bn", shape[0])
        for part in ("running_mean", "running_var"):
            shapes[f"{name}.bn.{part}"] = (shape[0],)
        shapes[f"{name}.bn.num_batches_tracked"] = ()

    def linear(name: str, n: int, m: int) -> None:
        shapes.update({f"{name}.weight": (n, m), f"{name}.bias": (n,)})

    conv("patch_embed.seq.0", dims[0] // 2, 3, 1, 1)
    conv("patch_embed.seq.2", dims[0], dims[0] // 2, 1, 1)
    for i, dim in enumerate(dims):
        for j in range(values["depths"][i]):
            block = f"layers.{i}.blocks.{j}"
            if i == 0:
                conv(f"{block}.conv1", 4 * dim, dim, 1, 1)
                conv(f"{block}.conv2", 4 * dim, 1, 3, 3)
                conv(f"{block}.conv3", dim, 4 * dim, 1, 1)
                continue
            window, heads = values["window_sizes"][i], values["num_heads"][i]
            shapes[f"{block}.attn.attention_biases"] = (heads, window**2)
            norm(f"{block}.attn.norm", dim)
            linear(f"{block}.attn.qkv", 3 * dim, dim)
            linear(f"{block}.attn.proj", dim, dim)
            norm(f"{block}.mlp.norm", dim)
            linear(f"{block}.mlp.fc1", 4 * dim, dim)
            linear(f"{block}.mlp.fc2", dim, 4 * dim)
            conv(f"{block}.local_conv", dim, 1, 3, 3)
        if i < 3:
            conv(f"layers.{i}.downsample.conv1", dims[i + 1], dim, 1, 1)
            conv(f"layers.{i}.downsample.conv2", dims[i + 1], 1, 3, 3)
            conv(f"layers.{i}.downsample.conv3", dims[i + 1], dims[i + 1], 1, 1)
    shapes["neck.0.weight"] = (out, dims[-1], 1, 1)
    norm("neck.1", out)
    shapes["neck.2.weight"] = (out, out, 3, 3)
    norm("neck.3", out)
    return shapes


def random_tensor(name: str, shape: tuple[int, ...], random: torch.Generator) -> torch.Tensor:
    """Values in which nothing is neutral."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    noise = torch.randn(shape, generator=random)
    if name.endswith("running_var"):
        return 0.5 + noise.abs()
    if name.endswith("attention_biases"):
        return 2.0 * noise
    if len(shape) < 2:
        return 0.1 * noise + (0.0 if name.endswith(("bias", "running_mean")) else 1.0)
    return noise / float(np.prod(shape[1:])) ** 0.5


def heads_of(values: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the prompt encoder and mask decoder that the authors' code puts behind the encoder."""
    require("torchvision", purpose="a test")
    parts = require("segment_anything.modeling", purpose="a test")
    size, dim = values["image_size"], values["prompt_dim"]
    prompts = parts.PromptEncoder(
        embed_dim=dim,
        image_embedding_size=(size // 4, size // 4),
        input_image_size=(size, size),
        mask_in_chans=16,
    )
    transformer = parts.TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=2048, num_heads=8)
    decoder = parts.MaskDecoder(
        num_multimask_outputs=3,
        transformer=transformer,
        transformer_dim=dim,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )
    return prompts.eval(), decoder.eval()


def published_state(values: Mapping[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Seeded random weights under the published names."""
    random = torch.Generator().manual_seed(seed)
    shapes = {f"image_encoder.{k}": v for k, v in published_shapes(values).items()}
    for part, module in zip(("prompt_encoder", "mask_decoder"), heads_of(values), strict=True):
        shapes |= {f"{part}.{k}": tuple(v.shape) for k, v in module.state_dict().items()}
    state = {name: random_tensor(name, shape, random) for name, shape in shapes.items()}
    state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] *= 2**0.5
    return state


# ---------------------------------------------------------------------- the network, written out
class Published:
    """LiteMedSAM's computation from its published tensors, window by window and head by head."""

    def __init__(self, state: State, values: Mapping[str, Any]) -> None:
        start = "image_encoder."
        self._s = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        self._values = values
        self.prompts, self.decoder = heads_of(values)
        for part, module in (("prompt_encoder.", self.prompts), ("mask_decoder.", self.decoder)):
            module.load_state_dict(
                {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)}
            )

    def _conv(self, name: str, x: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = self._s[f"{name}.c.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        bn = [self._s[f"{name}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *bn, eps=1e-5)

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._s[f"{name}.weight"], self._s[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, eps=1e-5)

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self._s[f"{name}.weight"].T + self._s[f"{name}.bias"]

    def _three(self, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        """Widen, look at neighbours channel by channel, mix."""
        x = F.gelu(self._conv(f"{name}.conv1", x))
        x = F.gelu(self._conv(f"{name}.conv2", x, stride, groups=x.shape[1]))
        return self._conv(f"{name}.conv3", x)

    def _window(self, name: str, tokens: torch.Tensor, side: int, heads: int) -> torch.Tensor:
        """Attention among the positions ``(side², c)`` of one window."""
        d = tokens.shape[1] // heads
        qkv = self._linear(f"{name}.qkv", self._norm(f"{name}.norm", tokens))
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        y, x = y.flatten(), x.flatten()
        # Biases depend on how far two positions are from each other, not on which side.
        offset = (y[:, None] - y).abs() * side + (x[:, None] - x).abs()
        out = []
        for head in range(heads):
            q, k, v = qkv[:, 3 * d * head : 3 * d * (head + 1)].split(d, dim=1)
            bias = self._s[f"{name}.attention_biases"][head][offset]
            out.append(torch.softmax(q @ k.T / d**0.5 + bias, dim=1) @ v)
        return self._linear(f"{name}.proj", torch.cat(out, dim=1))

    def _block(self, name: str, x: torch.Tensor, side: int, heads: int) -> torch.Tensor:
        channels, rows, columns = x.shape[1:]
        padded = F.pad(x, (0, -columns % side, 0, -rows % side))
        attended = torch.zeros_like(padded)
        for i in range(0, padded.shape[2], side):
            for j in range(0, padded.shape[3], side):
                part = padded[0, :, i : i + side, j : j + side].reshape(channels, -1).T
                seen = self._window(f"{name}.attn", part, side, heads)
                attended[0, :, i : i + side, j : j + side] = seen.T.reshape(channels, side, side)
        x = x + attended[:, :, :rows, :columns]
        x = self._conv(f"{name}.local_conv", x, groups=channels)
        tokens = self._norm(f"{name}.mlp.norm", x[0].reshape(channels, -1).T)
        mixed = self._linear(f"{name}.mlp.fc2", F.gelu(self._linear(f"{name}.mlp.fc1", tokens)))
        return x + mixed.T.reshape(x.shape)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self._conv("patch_embed.seq.0", x))
        x = self._conv("patch_embed.seq.2", x)
        for j in range(self._values["depths"][0]):
            x = F.gelu(x + self._three(f"layers.0.blocks.{j}", x))
        for i in (1, 2, 3):
            x = self._three(f"layers.{i - 1}.downsample", x, stride=1 if i == 3 else 2)
            for j in range(self._values["depths"][i]):
                sides, heads = self._values["window_sizes"], self._values["num_heads"]
                x = self._block(f"layers.{i}.blocks.{j}", x, sides[i], heads[i])
        for conv, norm in (("neck.0", "neck.1"), ("neck.2", "neck.3")):
            weight = self._s[f"{conv}.weight"]
            x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
            mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
            x = (x - mean) / (variance + 1e-6).sqrt()
            x = (
                x * self._s[f"{norm}.weight"][:, None, None]
                + self._s[f"{norm}.bias"][:, None, None]
            )
        return x

    @torch.no_grad()
    def infer(self, grey: npt.NDArray[np.uint8], box: Box) -> npt.NDArray[np.float32]:
        """Logits of one image and one box, as the authors' inference goes."""
        size = self._values["image_size"]
        longest = max(grey.shape)
        shape = tuple(int(n * size / longest + 0.5) for n in grey.shape)
        small = np.floor(exact_means(grey, shape) + 0.5)  # halves only: see the tests below
        unit = (small - small.min()) / max(small.max() - small.min(), 1e-8)
        image = np.zeros((3, size, size), np.float32)
        image[:, : shape[0], : shape[1]] = unit
        corners = [int(i * (size / longest)) for i in (box.x0, box.y0, box.x1 - 1, box.y1 - 1)]
        sparse, dense = self.prompts(
            points=None, boxes=torch.tensor([[corners]]).float(), masks=None
        )
        low, _ = self.decoder(
            image_embeddings=self.encode(torch.from_numpy(image)[None]),
            image_pe=self.prompts.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        assert low.shape == (1, 1, size, size)
        part = low[..., : shape[0], : shape[1]]
        full = F.interpolate(part, size=grey.shape, mode="bilinear", align_corners=False)
        logits: npt.NDArray[np.float32] = full[0, 0].numpy()
        return logits


def exact_means(grey: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Means over areas without fractions: repeat every pixel, then mean over whole blocks."""
    common = [math.gcd(n, m) for n, m in zip(grey.shape, shape, strict=True)]
    times = [m // g for m, g in zip(shape, common, strict=True)]
    rows, columns = (n // g for n, g in zip(grey.shape, common, strict=True))
    many = grey.astype(np.float64).repeat(times[0], axis=0).repeat(times[1], axis=1)
    means: npt.NDArray[np.float64]
    means = many.reshape(shape[0], rows, shape[1], columns).mean(axis=(1, 3))
    return means


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return published_state(TINY)


@pytest.fixture
def network(state: State) -> torch.nn.Module:
    network = build_litemedsam(TINY)
    network.load_state_dict(state)
    return network


@pytest.fixture
def make(network: torch.nn.Module, window: Window) -> Callable[..., SamImageModel]:
    def make(**options: Any) -> SamImageModel:
        known = {"weight_hash": "w", "window": window, "device": "cpu"}
        return SamImageModel("m", network, preprocessing="litemedsam", **{**known, **options})

    return make


@pytest.fixture(scope="module")
def scene(make_volume: Callable[..., Volume]) -> Volume:
    """Slices of 128 × 128: twice the model's input."""
    return make_volume(12, 128)


# ---------------------------------------------------------------------- parity
def test_the_encoder_computes_what_is_published(network: Any, state: State) -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    theirs = Published(state, TINY)

    with torch.no_grad():
        ours = network.image_encoder(images)
        expected = torch.cat([theirs.encode(image[None]) for image in images])

    assert ours.shape == (2, 32, 16, 16)
    assert expected.std() > 0.5
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-5)


def test_a_box_as_litemedsam_does_it(
    make: Callable[..., SamImageModel], state: State, scene: Volume, window: Window
) -> None:
    oblong = scene.crop((slice(None), slice(10, 110), slice(None)))
    theirs = Published(state, TINY)
    for volume in (scene, oblong):
        ours = make().open(volume).predict_slice(5, [BOX])

        expected = theirs.infer(to_uint8(volume.array[5], window), BOX)

        assert 0.02 < (expected > 0).mean() < 0.98
        np.testing.assert_allclose(ours.logits, expected, atol=1e-4)
        assert np.array_equal(ours.mask, expected > 0)


@pytest.mark.slow
def test_the_published_size_through_the_normal_path(
    tmp_path: Path, make_volume: Callable[..., Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Import, verify and run a file of the published layout, 512 px slices."""
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    published = published_state(TINY_VIT)
    torch.save(published, tmp_path / "lite_medsam.pth")
    assert import_file(tmp_path / "lite_medsam.pth").name == "litemedsam"  # nothing else has it
    assert verify("litemedsam").manifest.architecture == "litemedsam"
    volume, box = make_volume(2, 512), Box(1, 150, 180, 260, 330)

    model = sam_model("litemedsam", device="cpu")
    ours = model.open(volume).predict_slice(1, [box])

    assert model.preprocessing == "litemedsam"
    assert model.window == Window(-600, 1500)
    expected = Published(published, TINY_VIT).infer(
        to_uint8(volume.array[1], Window(-600, 1500)), box
    )
    assert 0.02 < (expected > 0).mean() < 0.98
    np.testing.assert_allclose(ours.logits, expected, atol=1e-3)
    assert np.mean(ours.mask != (expected > 0)) < 1e-4


# ---------------------------------------------------------------------- names of tensors
def test_every_tensor_has_its_published_name() -> None:
    with torch.device("meta"):
        network = build_litemedsam()
    found = {k: tuple(v.shape) for k, v in network.image_encoder.state_dict().items()}
    assert found == published_shapes(TINY_VIT)
    assert len(network.state_dict()) == 435
    count = sum(p.numel() for p in network.parameters())
    assert count == checkpoint_card("litemedsam").parameters == 9_791_300


def test_what_leaves_comes_in_again(network: torch.nn.Module, state: State) -> None:
    assert network.state_dict().keys() == state.keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    twin = copy.deepcopy(network)
    other = published_state(TINY, seed=5)
    twin.load_state_dict(other)
    name = "image_encoder.layers.2.downsample.conv2.c.weight"
    assert torch.equal(twin.state_dict()[name], other[name])
    assert torch.equal(network.state_dict()[name], state[name])


def test_new_weights_leave_nothing_of_the_old(network: Any) -> None:
    """timm keeps the attention biases of the last pass."""
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    other = published_state(TINY, seed=5)
    with torch.no_grad():
        network.image_encoder(image)
        network.load_state_dict(other)
        torch.testing.assert_close(
            network.image_encoder(image), Published(other, TINY).encode(image), atol=2e-5, rtol=1e-5
        )


def test_other_names_are_refused(network: Any, state: State) -> None:
    inner = next(iter(network.image_encoder.published_of))
    for unknown in ("layers.4.blocks.0.conv1.c.weight", inner, "head.weight"):
        with pytest.raises(RuntimeError, match="Unexpected key"):
            network.load_state_dict({**state, f"image_encoder.{unknown}": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing key"):
        network.load_state_dict({k: v for k, v in state.items() if "neck.2" not in k})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda s: s.pop("image_encoder.layers.1.blocks.0.attn.qkv.bias"),
            r"1 of 435 tensors are missing \(image_encoder\.layers\.1\.blocks\.0\.attn\.qkv\.bias",
        ),
        (
            lambda s: s.update({"image_encoder.norm_head.weight": torch.zeros(320)}),
            r"1 are unexpected \(image_encoder\.norm_head\.weight",
        ),
        (
            lambda s: s.update({"image_encoder.layers.2.blocks.5.attn.attention_biases": _zeros()}),
            r"attention_biases \(5, 49\) instead of \(5, 196\)",
        ),
        (
            lambda s: s["mask_decoder.iou_token.weight"].fill_(float("nan")),
            r"NaN or infinite values in 1 of 435 tensors \(mask_decoder\.iou_token\.weight",
        ),
        (
            # MobileSAM's stem: 3 × 3 kernels, stride 2
            lambda s: s.update(
                {"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(32, 3, 3, 3)}
            ),
            "as MobileSAM has; it is not LiteMedSAM",
        ),
    ],
)
def test_wrong_layouts_are_refused_with_one_line(
    tmp_path: Path, spoil: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    wrong = thin(published_state(TINY_VIT))
    spoil(wrong)
    torch.save(wrong, tmp_path / "x.pth")
    with pytest.raises(LungFMError, match=message) as error:
        sam_model("litemedsam", weights=tmp_path / "x.pth", device="cpu")
    assert "\n" not in str(error.value)


def test_weights_of_another_build_are_refused(tmp_path: Path) -> None:
    torch.save(thin(published_state(TINY_VIT)), tmp_path / "x.pth")
    with pytest.raises(LungFMError, match="is litemedsam, but 'medsam' is vit_b"):
        sam_model("medsam", weights=tmp_path / "x.pth", device="cpu")


def test_training_checkpoints_are_unwrapped() -> None:
    state = {f"module.{k}": v for k, v in thin(published_state(TINY_VIT)).items()}
    layout = detect(normalise({"model": state, "epoch": 3}))
    assert (layout.architecture, layout.prefix) == ("litemedsam", "module.")


def thin(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same names and shapes with little to store."""
    return {
        k: torch.zeros(1, dtype=v.dtype).expand(v.shape) if v.numel() > 1000 else v
        for k, v in state.items()
    }


def _zeros() -> torch.Tensor:
    return torch.zeros(5, 49)


@pytest.mark.parametrize(
    ("config", "message"), [({"depth": 3}, "no value 'depth'"), ({"image_size": 30}, "of 4 px")]
)
def test_configurations_that_make_no_sense(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_litemedsam(config)


# ---------------------------------------------------------------------- slices and prompts
@given(
    side=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    target=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    seed=st.integers(0, 9),
)
def test_area_means(side: tuple[int, int], target: tuple[int, int], seed: int) -> None:
    grey = np.random.default_rng(seed).integers(0, 256, side, dtype=np.uint8)

    found = area_means(grey, target)

    exact = exact_means(grey, target)
    assert found.shape == target
    assert np.abs(found - exact).max() <= 0.5 + 1e-9
    assert side != target or np.array_equal(found, grey)


def test_area_means_round_as_opencv_does() -> None:
    """Halves up where the side is halved, to the even number by other whole factors."""
    half = np.array([[0, 1], [1, 0]], np.uint8)
    assert area_means(half, (1, 1)).item() == 1
    quarter = np.zeros((4, 4), np.uint8)
    quarter[:2] = 1
    assert area_means(quarter, (1, 1)).item() == 0
    quarter[2:] = 2
    assert area_means(quarter, (1, 1)).item() == 2


def test_the_view_of_an_oblong_slice() -> None:
    view = litemedsam_view(64)
    grey = np.full((50, 100), 100, np.uint8)
    grey[:, :50] = 20

    image = view.prepare(grey)

    assert image.shape == (3, 64, 64)
    assert torch.equal(image[:, :32, 32:], torch.ones(3, 32, 32))
    assert not image[:, :, :32].any()
    assert not image[:, 32:].any()  # padded after the range was found
    assert view.low_shape((50, 100)) == (32, 64)
    # Cut, not rounded: 63 · 0.64 = 40.32, 49 · 0.64 = 31.36, 33 · 0.64 = 21.12.
    assert view.corners(Box(0, 0, 33, 50, 64), Crop.whole((50, 100))) == (21.0, 0.0, 40.0, 31.0)


def test_a_flat_slice_is_no_division_by_zero() -> None:
    assert not litemedsam_view(64).prepare(np.full((80, 80), 9, np.uint8)).any()


def test_zoomed_boxes_keep_their_fractions() -> None:
    crop = Crop(0, 0, 32, 32, zoomed=True)
    box = Box(0, 3, 5, 10, 12)
    assert litemedsam_view(80).corners(box, crop) == crop.pixel_box(box, (80, 80))


# Masks of random weights may fill the slice.
@pytest.mark.filterwarnings("ignore:zoom does not apply:napari_lungfm.LungFMWarning")
@pytest.mark.parametrize("carry", ["box", "mask", "box+mask"])
@pytest.mark.parametrize("zoom", [None, Zoom(2.0, 40.0)])
def test_objects_are_carried_on(
    make: Callable[..., SamImageModel], scene: Volume, carry: str, zoom: Zoom | None
) -> None:
    oblong = scene.crop((slice(None), slice(10, 110), slice(None)))
    predictor = make(carry=carry, zoom=zoom).open(oblong)

    first = predictor.predict_slice(5, [BOX])
    assert isinstance(first.memory, SamMemory)
    assert first.memory.low.shape == (1, 1, 64, 64)
    again = predictor.predict_slice(5, [BOX], Prior(5, first.mask, first.memory))
    assert not np.array_equal(again.logits, first.logits)
    edited = np.zeros_like(first.mask)
    edited[30:60, 34:66] = True
    nearby = predictor.predict_slice(6, [], Prior(5, edited, between=True))
    assert nearby.mask.shape == (100, 128)

    masks = dict(propagate_object(predictor, [BOX], oblong.geometry))
    assert 5 in masks


# ---------------------------------------------------------------------- clicks
def test_clicks_get_one_warning(make: Callable[..., SamImageModel], scene: Volume) -> None:
    model = make(boxes_only=True)
    predictor = model.open(scene)
    predictor.predict_slice(5, [BOX])

    with pytest.warns(LungFMWarning, match="'m' was trained with boxes only"):
        predictor.predict_slice(5, [BOX, Click(5, 44, 50)])

    predictor.predict_slice(5, [Click(5, 44, 50)])  # warnings are errors in these tests
    model.open(scene).predict_slice(4, [Click(4, 44, 50)])


def test_models_that_know_clicks_say_nothing(
    make: Callable[..., SamImageModel], scene: Volume
) -> None:
    make().open(scene).predict_slice(5, [Click(5, 44, 50)])
