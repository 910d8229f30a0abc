import itertools

import pytest

torch = pytest.importorskip("torch")

from pydantic import ValidationError  # noqa: E402

from napari_lungfm.models.automatic.networks import (  # noqa: E402
    DeepLabSpec,
    UNetSpec,
    build_network,
    count_parameters,
)
from napari_lungfm.models.registry import trainable_cards  # noqa: E402

TINY = (2, 3, 4, 5, 6)


def _by_hand(levels, classes):
    """Weights of Primakov's U-Net: two 3 × 3 convolutions a level, 2 × 2 ones on the way up."""
    total, below = 0, 1
    for width in levels:
        total += 9 * below * width + width + 9 * width * width + width
        below = width
    for shallow, deep in itertools.pairwise(levels):
        total += 4 * deep * shallow + shallow
        total += 9 * 2 * shallow * shallow + shallow + 9 * shallow * shallow + shallow
    return total + levels[0] * classes + classes


def test_the_unet_has_the_size_that_primakov_reports():
    spec = UNetSpec(dropout=0.5)
    with torch.device("meta"):
        network = build_network(spec, in_channels=1, classes=4)
    assert count_parameters(network) == _by_hand(spec.channels, 4)
    assert round(count_parameters(network) / 1e6, 1) == 31.0
    dropouts = [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout) and m.p]
    assert dropouts == [0.5, 0.5]
    norms = (torch.nn.BatchNorm2d, torch.nn.InstanceNorm2d)
    assert not [m for m in network.modules() if isinstance(m, norms)]


def test_the_cards_say_what_the_networks_have():
    sizes = {card.name: card.parameters for card in trainable_cards()}
    with torch.device("meta"):
        for spec in (UNetSpec(dropout=0.5), DeepLabSpec()):
            network = build_network(spec, in_channels=1, classes=4)
            assert count_parameters(network) == sizes[spec.architecture]


@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
def test_the_unet_gives_logits_of_the_size_of_the_slice(norm):
    network = build_network(UNetSpec(channels=TINY, norm=norm), in_channels=3, classes=4).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 32, 48)).shape == (2, 4, 32, 48)


def test_signals_neither_vanish_nor_explode_at_the_start():
    torch.manual_seed(0)
    network = build_network(UNetSpec(channels=(8, 16, 16, 32, 32)), in_channels=1, classes=4)
    with torch.inference_mode():
        spread = float(network(torch.rand(2, 1, 64, 64)).std())
    assert 0.01 < spread < 10.0


@pytest.mark.slow
def test_deeplab_is_torchvisions_on_three_equal_channels():
    from napari_lungfm._core.imports import require

    models = require("torchvision.models.segmentation", purpose="this test")
    network = build_network(DeepLabSpec(backbone="resnet50"), in_channels=1, classes=4).eval()
    stock = models.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=4).eval()
    stock.load_state_dict(
        {k.removeprefix("network."): v for k, v in network.state_dict().items()}, strict=True
    )
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(image), stock(image.repeat(1, 3, 1, 1))["out"])


def test_options_of_another_architecture_are_refused():
    with pytest.raises(ValidationError):
        DeepLabSpec.model_validate({"channels": TINY})
    with pytest.raises(ValueError, match="1 or 3 slices"):
        build_network(DeepLabSpec(), in_channels=5, classes=4)
