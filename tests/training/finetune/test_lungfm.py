import numpy as np
import pytest
import torch

from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.models.foundation.finetuned import FineTunedSettings
from napari_lungfm.models.lungfm.look import CHANNELS
from napari_lungfm.models.lungfm.network import NetworkConfig, PromptNetwork
from napari_lungfm.models.registry import create_model
from napari_lungfm.training.finetune.base import BaseNetwork, load_base
from napari_lungfm.training.finetune.config import parse_fine_tuning
from napari_lungfm.training.finetune.finish import write_base
from napari_lungfm.training.finetune.lungfm import EpisodePreparation, central_clip
from napari_lungfm.training.finetune.run import fine_tune
from napari_lungfm.training.finetune.samples import cut_clip
from napari_lungfm.training.synthetic.clips import SIDE

WIDE = VolumeGeometry((12, 200, 220), (3.0, 0.7, 0.7))


@pytest.fixture
def wide_clip(stored):
    return cut_clip(stored("a", "b", a={"grid": WIDE, "radius": 10})[0], "tumour", range(12))


def test_clips_are_cut_around_their_object_at_their_own_resolution(wide_clip):
    clip = central_clip(wide_clip, np.random.default_rng(0))
    assert clip.image.shape == clip.mask.shape == (12, SIDE, SIDE)
    assert clip.spacing == wide_clip.spacing  # nothing is resampled that need not be
    assert clip.mask.sum() == wide_clip.mask.sum()
    assert set(clip.image[clip.mask]) == set(wide_clip.image[wide_clip.mask])


def test_large_objects_are_seen_more_coarsely_and_whole(stored):
    case = stored("a", "b", a={"grid": WIDE, "radius": 90})[0]
    whole = cut_clip(case, "right lung", range(12))
    whole = type(whole)(**{**whole.__dict__, "mask": case.labels[:12] == 3})
    clip = central_clip(whole, np.random.default_rng(0))
    scale = clip.spacing[1] / 0.7
    assert scale > 1.5
    assert clip.mask.sum() * scale**2 == pytest.approx(whole.mask.sum(), rel=0.05)


@pytest.mark.parametrize("prompts", ["box", "point", "mixed"])
def test_episodes_have_the_wanted_prompts(wide_clip, prompts):
    prepare = EpisodePreparation(prompts, walk=2)
    made = [prepare(wide_clip, np.random.default_rng(n)) for n in range(16)]
    boxed = {episode.box is not None for episode in made}
    assert boxed == {"box": {True}, "point": {False}, "mixed": {True, False}}[prompts]
    again = prepare(wide_clip, np.random.default_rng(3))
    assert torch.equal(again.planes, made[3].planes)


def test_a_fine_tuned_lungfm_is_a_model_of_its_own(make_cohort, make_source, tmp_path, monkeypatch):
    shipped = load_base("lungfm-s", "lungfm", place=tmp_path)
    assert shipped.settings.base.commercial == "yes"
    torch.manual_seed(0)
    network = PromptNetwork(NetworkConfig(CHANNELS, (8, 8, 8, 8), (1, 1, 1, 1), 8))
    settings = FineTunedSettings(network="lungfm", base=shipped.settings.base)
    write_base(tmp_path / "base", "small", BaseNetwork(network, settings).network, settings)
    grid = VolumeGeometry((12, 60, 60), (3.0, 1.0, 1.0))
    cohort = make_cohort(*(make_source(name, grid=grid, radius=9) for name in "abc"))
    monkeypatch.setattr(PhantomCohort, "build", lambda self, base: cohort)
    config = parse_fine_tuning(
        {
            "name": "our lungfm",
            "base": "base",
            "recipe": {"name": "lungfm", "clip": 10, "batch_size": 2, "walk": 1},
            "prompts": "mixed",
            "epochs": 2,
            "samples_per_epoch": 4,
            "validation": 0.3,
            "validation_clips": 2,
            "workers": 0,
            "cohort": {"kind": "phantom", "name": "clinic", "n_test": 1, "n_train": 2},
        }
    )
    description = fine_tune(config, tmp_path / "model", base=tmp_path, device="cpu")
    assert description is not None
    assert description.family == "finetuned-lungfm"
    assert description.validation is not None
    model = create_model(str(tmp_path / "model"), device="cpu")
    assert model.name == str((tmp_path / "model").resolve())
    assert model.weight_hash == description.files["weights.safetensors"]
    state = model.network.state_dict()
    assert any(not torch.equal(state[name], old) for name, old in network.state_dict().items())
    assert "validation/dice" in (tmp_path / "model" / "log.csv").read_text()
