import numpy as np
import pytest

from napari_lungfm._core.exceptions import DataError
from napari_lungfm._core.seeding import generator
from napari_lungfm.evaluation import parse_protocol
from napari_lungfm.evaluation.simulation import simulate
from napari_lungfm.geometry import Volume, VolumeGeometry
from napari_lungfm.inference import segment_object
from napari_lungfm.models.prompts import Box, Click
from napari_lungfm.models.registry import create_model

GRID = VolumeGeometry((14, 48, 48), (3.0, 1.0, 1.0))


def _two_lobes():
    """A reference that one ellipsoid cannot be, and its noisy image."""
    z, y, x = np.indices(GRID.shape)
    big = ((z - 6) * 3 / 12) ** 2 + ((y - 22) / 12) ** 2 + ((x - 18) / 11) ** 2 <= 1
    small = ((z - 8) * 3 / 8) ** 2 + ((y - 28) / 7) ** 2 + ((x - 32) / 7) ** 2 <= 1
    inside = big | small
    noise = np.random.default_rng(0).normal(0, 25, GRID.shape)
    hu = np.where(inside, 30, -820) + noise
    return Volume(hu.astype(np.int16), GRID), inside


@pytest.mark.parametrize("name", ["box-every-slice", "box-one", "point-one", "box-every-3"])
@pytest.mark.parametrize("model", ["prompt-ellipse", "classical"])
def test_without_corrections_it_is_segment_object(name, model):
    volume, reference = _two_lobes()
    protocol = parse_protocol(name)
    done = simulate(create_model(model), volume, reference, protocol, generator(3))
    prompts = protocol.prompts(reference, generator(3))
    assert done.prompts == prompts
    direct = segment_object(create_model(model), volume, prompts, fill=protocol.fill)
    assert np.array_equal(done.mask, direct.array == 3)
    assert len(done.interactions) == 1
    assert done.interactions[0].n_prompts == len(prompts)


def test_corrections_help_and_are_recorded():
    volume, reference = _two_lobes()
    protocol = parse_protocol("point-one+corrections-4")
    done = simulate(create_model("classical"), volume, reference, protocol, generator(1))
    dice = [look.dice for look in done.interactions]
    assert len(dice) == 5
    assert [look.n_prompts for look in done.interactions] == [1, 2, 3, 4, 5]
    assert dice[-1] > dice[0]
    assert all(isinstance(prompt, Click) for prompt in done.prompts)
    overlap = 2 * np.count_nonzero(done.mask & reference) / (done.mask.sum() + reference.sum())
    assert dice[-1] == pytest.approx(overlap)


def test_a_content_user_stops():
    volume, reference = _two_lobes()

    class Oracle:
        """Answers with the reference: nothing is left to correct."""

        name = "oracle"

        def open(self, volume):
            return self

        def propagate(self, prompts, slices, *, fill):
            from napari_lungfm.models.protocols import SlicePrediction

            for z in slices:
                if reference[z].any():
                    yield z, SlicePrediction(reference[z])

    done = simulate(
        Oracle(), volume, reference, parse_protocol("box-one+corrections-5"), generator(0)
    )
    assert len(done.interactions) == 1
    assert done.interactions[0].dice == 1.0
    assert [type(p) for p in done.prompts] == [Box]


def test_the_same_seed_is_the_same_user():
    volume, reference = _two_lobes()
    protocol = parse_protocol("box-one+corrections-2+jitter-4")
    first, second = (
        simulate(create_model("classical"), volume, reference, protocol, generator(9))
        for _ in range(2)
    )
    assert first.prompts == second.prompts
    assert np.array_equal(first.mask, second.mask)


def test_an_empty_reference_is_refused():
    volume, reference = _two_lobes()
    with pytest.raises(DataError, match="nothing to prompt"):
        simulate(
            create_model("prompt-box"),
            volume,
            np.zeros_like(reference),
            parse_protocol("box-one"),
            generator(0),
        )
