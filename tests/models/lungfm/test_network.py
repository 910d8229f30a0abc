from dataclasses import replace

import pytest
import torch

from napari_lungfm._core.exceptions import ConfigError, InputFileError
from napari_lungfm.models.lungfm.look import CHANNELS
from napari_lungfm.models.lungfm.model import facts_of, read_network, write_network
from napari_lungfm.models.lungfm.network import NetworkConfig, PromptNetwork
from napari_lungfm.models.lungfm.window import LOOK_SIDE

SMALL = NetworkConfig(CHANNELS, widths=(8, 16, 16, 24), blocks=(1, 1, 1, 1), detail=8)


@pytest.fixture(params=[False, True], ids=["deepest", "mask"])
def network(request: pytest.FixtureRequest) -> PromptNetwork:
    torch.manual_seed(0)
    return PromptNetwork(replace(SMALL, answers_see_mask=request.param)).eval()


def test_answers_have_the_side_of_the_looks(network: PromptNetwork) -> None:
    logits, presence, quality = network(torch.randn(2, CHANNELS, 64, 64))
    assert logits.shape == (2, 64, 64)
    assert presence.shape == quality.shape == (2,)
    assert bool(((quality > 0) & (quality < 1)).all())


def test_looks_of_a_batch_do_not_see_each_other(network: PromptNetwork) -> None:
    looks = torch.randn(3, CHANNELS, 64, 64)
    with torch.no_grad():
        together, alone = network(looks)[0], network(looks[1:2])[0]
    assert torch.allclose(together[1], alone[0], atol=1e-5)


def test_every_parameter_learns(network: PromptNetwork) -> None:
    logits, presence, quality = network(torch.randn(2, CHANNELS, 64, 64))
    (logits.sum() + presence.sum() + quality.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"widths": (), "blocks": ()}, "widths: 0 levels; give 1 to 6"),
        ({"widths": (8,) * 7, "blocks": (1,) * 7}, "widths: 7 levels; give 1 to 6"),
        ({"blocks": (1, 1)}, "blocks: 2 numbers for 4 widths"),
        ({"widths": (8, 12, 16, 24)}, "each has to be a multiple of 8 from 8"),
        ({"widths": (8, 0, 16, 24)}, "each has to be a multiple of 8 from 8"),
        ({"widths": (8, -8, 16, 24)}, "each has to be a multiple of 8 from 8"),
        ({"widths": (8, 16, 16, 10**6)}, "from 8 to 2048"),
        ({"blocks": (1, 0, 1, 1)}, "blocks: .* each has to be 1 to 64"),
        ({"detail": 0}, "detail: 0 channels"),
    ],
)
def test_sizes_of_no_network_are_refused(sizes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **sizes)


@pytest.mark.parametrize("levels", [1, 6])
def test_the_fewest_and_the_most_levels_take_a_look(levels) -> None:
    network = PromptNetwork(replace(SMALL, widths=(8,) * levels, blocks=(1,) * levels))
    assert network(torch.randn(1, CHANNELS, LOOK_SIDE, LOOK_SIDE))[0].shape == (1, 128, 128)


def test_weights_come_back_in_half_precision(network, tmp_path) -> None:
    path = tmp_path / "w.safetensors"
    write_network(network, path, {"trained": "in a test"})
    again = read_network(path)
    assert again.config == network.config
    assert facts_of(path)["trained"] == "in a test"
    for (name, a), b in zip(network.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a.detach().half().float(), b), name


def test_other_files_are_refused_in_one_line(network, tmp_path) -> None:
    path = tmp_path / "w.safetensors"
    write_network(network, path, {})
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:-100])
    text = tmp_path / "text.safetensors"
    text.write_text("no weights")
    for file in (broken, text, tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(InputFileError, match="not the weights of LungFM-S") as problem:
            read_network(file)
        assert "\n" not in str(problem.value)


def test_weights_that_are_not_numbers_are_refused(network, tmp_path) -> None:
    with torch.no_grad():
        network.stem.bias[0] = float("nan")
    write_network(network, tmp_path / "w.safetensors", {})
    with pytest.raises(InputFileError, match=r"not finite in stem\.bias"):
        read_network(tmp_path / "w.safetensors")
