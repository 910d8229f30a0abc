"""MedSAM, SAM and MedicoSAM against the publishers' code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage import transform

from napari_lungfm._core.exceptions import ConfigError, PromptError, UsageError
from napari_lungfm._core.imports import require
from napari_lungfm.geometry import Volume
from napari_lungfm.inference.propagation import propagate_object
from napari_lungfm.models.foundation.sam_build import build_sam
from napari_lungfm.models.foundation.sam_carry import EndRule, SamMemory, box_around, mask_logits
from napari_lungfm.models.foundation.sam_image import SamImageModel
from napari_lungfm.models.foundation.zoom import Crop, Zoom
from napari_lungfm.models.prompts import Box, Click, MaskPrompt
from napari_lungfm.models.protocols import Prior, SlicePredictor
from napari_lungfm.models.registry import create_model
from napari_lungfm.models.weights import WeightStore
from napari_lungfm.models.weights.importing import import_file
from napari_lungfm.preprocessing.windowing import Window, to_uint8

BOX = Box(5, 30, 34, 60, 66)
WINDOW_TEXT = "-600/1500"  # what the fixture is, as an option
XYXY = np.array([34.0, 30.0, 65.0, 59.0])  # first and last pixel inside


@pytest.fixture
def make(tiny_sam: torch.nn.Module, window: Window) -> Callable[..., SamImageModel]:
    def make(preprocessing: str = "sam", **options: Any) -> SamImageModel:
        known = {"weight_hash": "w", "window": window, "device": "cpu"}
        return SamImageModel("m", tiny_sam, preprocessing=preprocessing, **{**known, **options})

    return make


def oblong(volume: Volume) -> Volume:
    """Slices of 80 × 96: the two preprocessings treat the aspect differently."""
    return volume.crop((slice(None), slice(8, 88), slice(None)))


def medsam_inference(
    network: Any, grey: npt.NDArray[np.uint8], xyxy: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    """MedSAM's mask of one image and one box; see `medsam_probability`."""
    mask: npt.NDArray[np.bool_] = medsam_probability(network, grey, xyxy) > 0.5
    return mask


def medsam_probability(
    network: Any, grey: npt.NDArray[np.uint8], xyxy: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """MedSAM's inference on one image and one box, written out from the publisher's description.

    None of MedSAM's own code is run here, for no package carries it: the steps are those that
    its repository documents for inference (``MedSAM_Inference.py``), on the stock
    ``segment_anything`` modules. An error in that reading would be in both.

    Three channels, cubic resize to a square and back to 8 bit, smallest value to 0 and largest
    to 1, box scaled along; one mask, its sigmoid interpolated to the image and cut at a half.
    """
    size = network.image_encoder.img_size
    height, width = grey.shape
    rgb = np.dstack([grey] * 3)
    square = transform.resize(rgb, (size, size), order=3, preserve_range=True, anti_aliasing=True)
    square = square.astype(np.uint8)
    unit = (square - square.min()) / np.clip(square.max() - square.min(), 1e-8, None)
    image = torch.tensor(unit).float().permute(2, 0, 1)[None]
    box = torch.tensor(xyxy / np.array([width, height, width, height]) * size).float()
    with torch.no_grad():
        sparse, dense = network.prompt_encoder(points=None, boxes=box[None, None], masks=None)
        low, _ = network.mask_decoder(
            image_embeddings=network.image_encoder(image),
            image_pe=network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        probability = torch.nn.functional.interpolate(
            torch.sigmoid(low), size=(height, width), mode="bilinear", align_corners=False
        )
    plane: npt.NDArray[np.float32] = probability[0, 0].numpy()
    return plane


def sam_predictor(network: Any, grey: npt.NDArray[np.uint8]) -> Any:
    predictor = require("segment_anything", purpose="a test").SamPredictor(network)
    predictor.set_image(np.dstack([grey] * 3))
    return predictor


# ---------------------------------------------------------------------- parity
def test_a_box_as_medsam_does_it(
    make: Callable[..., SamImageModel], tiny_sam: Any, volume: Volume, window: Window
) -> None:
    for scene in (volume, oblong(volume)):
        ours = make("medsam").open(scene).predict_slice(5, [BOX])

        theirs = medsam_inference(tiny_sam, to_uint8(scene.array[5], window), XYXY)

        assert 0.02 < theirs.mean() < 0.98
        assert np.array_equal(ours.mask, theirs)
        assert ours.logits is not None
        assert np.array_equal(ours.logits > 0, theirs)


def test_a_box_and_clicks_as_sam_predictor_does_them(
    make: Callable[..., SamImageModel], tiny_sam: Any, volume: Volume, window: Window
) -> None:
    for scene in (volume, oblong(volume)):
        predictor = make().open(scene)
        theirs = sam_predictor(tiny_sam, to_uint8(scene.array[5], window))

        expected, score, _ = theirs.predict(box=XYXY, multimask_output=False, return_logits=True)
        ours = predictor.predict_slice(5, [BOX])
        np.testing.assert_allclose(ours.logits, expected[0], atol=1e-5)
        assert ours.score == pytest.approx(np.clip(score[0], 0, 1), abs=1e-6)

        points, labels = np.array([[50, 44], [10, 12]]), np.array([1, 0])
        expected, _, _ = theirs.predict(points, labels, XYXY, None, False, return_logits=True)
        clicks = [BOX, Click(5, 44, 50), Click(5, 12, 10, positive=False)]
        np.testing.assert_allclose(
            predictor.predict_slice(5, clicks).logits, expected[0], atol=1e-5
        )

        expected, ious, _ = theirs.predict(points[:1], labels[:1], return_logits=True)
        one = predictor.predict_slice(5, [Click(5, 44, 50)])  # may mean a part or the whole
        np.testing.assert_allclose(one.logits, expected[np.argmax(ious)], atol=1e-5)


def test_a_correction_feeds_the_previous_logits_back(
    make: Callable[..., SamImageModel], tiny_sam: Any, volume: Volume, window: Window
) -> None:
    predictor = make().open(volume)
    first = predictor.predict_slice(5, [BOX])
    prior = Prior(5, first.mask, first.memory)
    ours = predictor.predict_slice(5, [BOX, Click(5, 44, 50, positive=False)], prior)

    theirs = sam_predictor(tiny_sam, to_uint8(volume.array[5], window))
    _, _, low = theirs.predict(box=XYXY, multimask_output=False)
    expected, _, _ = theirs.predict(
        np.array([[50, 44]]), np.array([0]), XYXY, low, False, return_logits=True
    )
    np.testing.assert_allclose(ours.logits, expected[0], atol=1e-5)
    assert predictor.encoded == 1


@pytest.fixture(scope="module")
def vit_b(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The published network with seeded random weights, and a file of them."""
    torch.manual_seed(0)
    network, path = build_sam(), tmp_path_factory.mktemp("vit-b") / "vit_b.pth"
    assert len(network.state_dict()) == 314
    torch.save(network.state_dict(), path)
    return network, path


@pytest.mark.slow
def test_the_real_medsam(
    vit_b: tuple[Any, Path],
    volume: Volume,
    window: Window,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From a checkpoint file through the store to logits, at 1024 px."""
    torch.set_num_threads(2)
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path))
    import_file(vit_b[1], "medsam:mine", store=WeightStore())
    model: Any = create_model("medsam:mine", device="cpu", window=WINDOW_TEXT)

    ours = model.open(volume).predict_slice(5, [BOX])

    theirs = medsam_probability(vit_b[0], to_uint8(volume.array[5], window), XYXY)
    np.testing.assert_allclose(1 / (1 + np.exp(-ours.logits)), theirs, atol=1e-5)
    assert np.array_equal(ours.mask, theirs > 0.5)


@pytest.mark.slow
def test_the_real_sam_and_medicosam(
    vit_b: tuple[Any, Path], volume: Volume, window: Window
) -> None:
    """The same build and the same preprocessing, each by its name, at 1024 px."""
    torch.set_num_threads(2)
    theirs = sam_predictor(vit_b[0], to_uint8(volume.array[5], window))
    expected, _, _ = theirs.predict(box=XYXY, multimask_output=False, return_logits=True)
    for name in ("sam-vit-b:mine", "medicosam:mine"):
        model: Any = create_model(name, weights=vit_b[1], device="cpu", window=WINDOW_TEXT)

        ours = model.open(volume).predict_slice(5, [BOX])

        np.testing.assert_allclose(ours.logits, expected[0], atol=1e-4)


# ---------------------------------------------------------------------- the protocol
def test_features_are_computed_once_per_slice(
    make: Callable[..., SamImageModel], volume: Volume
) -> None:
    predictor = make().open(volume)
    assert isinstance(predictor, SlicePredictor)
    predictor.predict_slice(5, [BOX])
    predictor.predict_slice(5, [Click(5, 40, 40)])
    predictor.predict_slice(4, [Click(4, 40, 40)])

    assert predictor.encoded == 2


def spied(tiny_sam: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that go through the encoder from now on."""
    sizes: list[int] = []
    forward = tiny_sam.image_encoder.forward
    monkeypatch.setattr(
        tiny_sam.image_encoder, "forward", lambda x: sizes.append(len(x)) or forward(x)
    )
    return sizes


@pytest.mark.parametrize("zoom", [None, Zoom(2.0, 32.0)])
def test_announced_slices_are_encoded_in_batches(
    make: Callable[..., SamImageModel],
    tiny_sam: Any,
    volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
    zoom: Zoom | None,
) -> None:
    sizes = spied(tiny_sam, monkeypatch)
    boxes = [Box(z, 40, 40, 52, 52) for z in range(10)]
    mask = MaskPrompt(11, np.ones((96, 96), bool))
    single = [make(zoom=zoom).open(volume).predict_slice(b.z, [b]).logits for b in boxes]
    sizes.clear()
    predictor = make(zoom=zoom, batch_size=4).open(volume)

    predictor.announce([*boxes, mask, Click(10, 40, 40, positive=False)])
    assert sizes == []  # nothing is computed before it is needed
    batched = [predictor.predict_slice(b.z, [b]).logits for b in boxes]

    assert sizes == [4, 4, 2]
    np.testing.assert_allclose(batched, single, atol=1e-4)


def test_slices_to_come_are_encoded_in_batches_that_grow(
    make: Callable[..., SamImageModel],
    tiny_sam: Any,
    make_volume: Callable[..., Volume],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By half of what the object was carried over: of its end little is encoded in vain."""
    sizes, volume = spied(tiny_sam, monkeypatch), make_volume(30, 96)
    predictor = make(batch_size=8).open(volume)
    Spy(predictor, lambda i: 6.0 if i < 9 else 0.0)

    found = dict(propagate_object(predictor, [Box(0, 30, 34, 60, 66)], volume.geometry))

    assert sorted(found) == list(range(9))
    assert sizes == [1, 1, 2, 3, 4]  # one slice in vain
    single = make().open(volume)
    Spy(single, lambda i: 6.0 if i < 9 else 0.0)
    list(propagate_object(single, [Box(0, 30, 34, 60, 66)], volume.geometry))
    assert single.encoded == 10


def test_the_slice_alone_decides(make: Callable[..., SamImageModel], volume: Volume) -> None:
    """MedSAM's grey range is that of the slice: other slices must not change it."""
    changed = volume.array.copy()
    changed[6] = 3000
    one = make("medsam").open(volume).predict_slice(5, [BOX])

    other = make("medsam").open(Volume(changed, volume.geometry)).predict_slice(5, [BOX])

    assert np.array_equal(one.logits, other.logits)


def test_a_flat_slice_is_no_division_by_zero(
    make: Callable[..., SamImageModel], volume: Volume
) -> None:
    flat = Volume(np.zeros_like(volume.array), volume.geometry)

    assert np.isfinite(make("medsam").open(flat).predict_slice(5, [BOX]).logits).all()


def test_hand_edits_need_no_model(make: Callable[..., SamImageModel], volume: Volume) -> None:
    predictor = make().open(volume)
    mask = np.zeros((96, 96), bool)
    mask[3:9, 4:8] = True

    prediction = predictor.predict_slice(2, [MaskPrompt(2, mask), Click(2, 50, 50)])

    assert np.array_equal(prediction.mask, mask)
    assert predictor.encoded == 0


def test_something_must_be_known(make: Callable[..., SamImageModel], volume: Volume) -> None:
    predictor = make().open(volume)
    for prior in (None, Prior(4, np.zeros((96, 96), bool))):
        with pytest.raises(PromptError, match="slice 5 has no box or click"):
            predictor.predict_slice(5, [], prior)


# ---------------------------------------------------------------------- from slice to slice
class Spy:
    """Notes what the decoder is asked, and answers with a disc of a given radius."""

    def __init__(self, predictor: Any, radius: Callable[[int], float], iou: float = 0.9) -> None:
        self.calls: list[dict[str, Any]] = []
        self._radius, self._iou = radius, iou
        object.__setattr__(predictor, "_decoder", _Fake(predictor._decoder, self))

    def answer(self, **asked: Any) -> tuple[torch.Tensor, float]:
        radius = self._radius(len(self.calls))
        self.calls.append(asked)
        y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
        return 4.0 * (radius - torch.hypot(y - 16.0, x - 16.0))[None, None], self._iou


class _Fake:
    def __init__(self, decoder: Any, spy: Spy) -> None:
        self.view = decoder.view
        self.decode = lambda embedding, **asked: spy.answer(**asked)


@pytest.mark.parametrize("carry", ["box", "mask", "box+mask"])
def test_what_is_carried(make: Callable[..., SamImageModel], volume: Volume, carry: str) -> None:
    predictor = make(carry=carry).open(volume)
    spy = Spy(predictor, lambda _: 5.0)
    first = predictor.predict_slice(5, [BOX])

    predictor.predict_slice(6, [], Prior(5, first.mask, first.memory))

    asked = spy.calls[1]
    assert (asked["box"] is not None) == ("box" in carry)
    assert (asked["mask"] is not None) == ("mask" in carry)
    if "box" in carry:
        around = Box.around(first.mask, 5)  # moved outward by 1 voxel: 10 / 1024 of 96
        expected = np.array([around.x0 - 1, around.y0 - 1, around.x1, around.y1]) * 128 / 96
        np.testing.assert_allclose(asked["box"][0], expected)
    if "mask" in carry:
        assert isinstance(first.memory, SamMemory)
        assert asked["mask"] is first.memory.low


def test_an_expected_mask_is_not_the_neighbours(
    make: Callable[..., SamImageModel], volume: Volume
) -> None:
    """Between two prompted slices the interpolated mask is what goes in, not old logits."""
    predictor = make(carry="mask").open(volume)
    spy = Spy(predictor, lambda _: 5.0)
    first = predictor.predict_slice(5, [BOX])
    expected = np.zeros((96, 96), bool)
    expected[40:50, 20:30] = True

    predictor.predict_slice(6, [], Prior(5, expected, first.memory, between=True))

    logits = spy.calls[1]["mask"][0, 0].numpy()
    assert logits.shape == (32, 32)
    rows, columns = np.nonzero(logits > 0)
    assert (rows.min() * 3, (rows.max() + 1) * 3) == pytest.approx((40, 50), abs=2)
    assert (columns.min() * 3, (columns.max() + 1) * 3) == pytest.approx((20, 30), abs=2)
    assert logits.min() == -10.0


@pytest.mark.parametrize(
    ("radii", "iou", "last"),
    [
        ([9, 9, 9, 9, 2, 9], 0.9, 8),  # the area falls to a twentieth
        ([9, 8, 7, 6, 5, 4, 3], 0.9, 11),  # a slow decrease is no end
        ([9, 9, 0.0, 9], 0.9, 6),  # nothing left
        ([9] * 9, 0.3, 5),  # the model does not believe its own mask
    ],
)
def test_ends(
    make: Callable[..., SamImageModel], volume: Volume, radii: list[float], iou: float, last: int
) -> None:
    above = volume.crop((slice(5, None), slice(None), slice(None)))
    model = make().open(above)
    Spy(model, lambda i: radii[min(i, len(radii) - 1)], iou)

    stream = dict(propagate_object(model, [Box(0, 30, 34, 60, 66)], above.geometry))

    assert max(stream) + 5 == last


def test_between_prompted_slices_an_object_goes_on(
    make: Callable[..., SamImageModel], volume: Volume
) -> None:
    predictor = make().open(volume)
    Spy(predictor, lambda _: 6.0, 0.1)
    prompts = [Box(2, 30, 34, 60, 66), Box(7, 30, 34, 60, 66)]

    stream = dict(propagate_object(predictor, prompts, volume.geometry))

    assert set(stream) == set(range(2, 8))


def test_zoom_follows_the_mask(make: Callable[..., SamImageModel], volume: Volume) -> None:
    predictor = make(zoom=Zoom(2.0, 32.0)).open(volume)
    Spy(predictor, lambda _: 9.0)
    first = predictor.predict_slice(5, [Box(5, 50, 50, 58, 58)])
    assert isinstance(first.memory, SamMemory)
    crop = first.memory.crop
    assert crop.shape == (32, 32)
    assert first.mask[crop.slices].sum() == first.mask.sum() > 0

    prediction = predictor.predict_slice(6, [], Prior(5, first.mask, first.memory))

    assert isinstance(prediction.memory, SamMemory)
    assert prediction.memory.crop == crop  # it still does: features and logits fit


def test_mask_logits_leave_the_padding_outside() -> None:
    mask = np.ones((50, 100), bool)
    crop = Crop.whole((50, 100))

    logits = mask_logits(Prior(0, mask), crop, (16, 32), 32, expected=False)

    assert logits.shape == (1, 1, 32, 32)
    np.testing.assert_allclose(logits[0, 0, :16], 10.0, atol=1e-4)
    np.testing.assert_allclose(logits[0, 0, 16:], -10.0, atol=1e-4)


def test_the_box_around_a_mask_stays_inside() -> None:
    mask = np.zeros((512, 512), bool)
    mask[2:20, 500:512] = True

    assert box_around(mask, 7, 512) == Box(7, 0, 495, 25, 512)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda make: make(carry="everything"), "cannot be carried by 'everything'"),
        (lambda make: EndRule(min_iou=1.2), "min_iou must be between 0 and 1"),
        (lambda make: EndRule(min_area_mm2=float("nan")), "min_area_mm2"),
    ],
)
def test_options_that_make_no_sense(make: Any, call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(make)


def test_configurations_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="no value 'layers'"):
        build_sam({"layers": 3})
    with pytest.raises(ConfigError, match="multiple of 16 px, not 100"):
        build_sam({"image_size": 100})


def test_warming_up(make: Callable[..., SamImageModel], volume: Volume) -> None:
    model = make()
    model.warm_up()
    assert model.open(volume).encoded == 0
