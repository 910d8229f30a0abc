import numpy as np
import pytest
import torch

from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.geometry import VolumeGeometry
from napari_lungfm.inference.segmentation import segment_object
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.foundation.finetuned import FineTunedSettings
from napari_lungfm.models.lungfm.look import CHANNELS
from napari_lungfm.models.lungfm.model import LungFMModel
from napari_lungfm.models.lungfm.network import NetworkConfig, PromptNetwork
from napari_lungfm.models.registry import create_model
from napari_lungfm.training.finetune.base import BaseNetwork, load_base, write_weights
from napari_lungfm.training.finetune.config import parse_fine_tuning
from napari_lungfm.training.finetune.finish import write_base
from napari_lungfm.training.finetune.lungfm import EpisodePreparation, LungFMTask, central_clip
from napari_lungfm.training.finetune.prompts import tight_box
from napari_lungfm.training.finetune.recipe import LungFMRecipe
from napari_lungfm.training.finetune.run import fine_tune
from napari_lungfm.training.finetune.samples import cut_clip
from napari_lungfm.training.promptable.episodes import draw_episode
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


@pytest.mark.filterwarnings("ignore:.*does not look like HU")  # the object fills the image
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


@pytest.mark.parametrize("sees_mask", [False, True])
def test_a_fine_tuned_lungfm_is_a_model_of_its_own(
    make_cohort, make_source, tmp_path, monkeypatch, sees_mask
):
    shipped = load_base("lungfm-s", "lungfm", place=tmp_path)
    assert shipped.settings.base.commercial == "yes"
    torch.manual_seed(0)
    sizes = NetworkConfig(CHANNELS, (8, 8, 8, 8), (1, 1, 1, 1), 8, answers_see_mask=sees_mask)
    network = PromptNetwork(sizes)
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
    assert model.network.config == sizes
    state = model.network.state_dict()
    assert any(not torch.equal(state[name], old) for name, old in network.state_dict().items())
    assert "validation/dice" in (tmp_path / "model" / "log.csv").read_text()


@pytest.mark.slow
def test_one_case_is_learnt_by_heart(stored, make_source, tmp_path):
    """A ball of 28 voxels, a box on every slice, as users segment: Dice of 0.98 and more."""
    # With this seed the ball lies in the middle of the lung.
    ball = {"grid": VolumeGeometry((12, 60, 60), (3.0, 1.0, 1.0)), "radius": 14, "seed": 1}
    case = stored("a", "b", a=ball)[0]
    sizes = NetworkConfig(CHANNELS, (16, 16, 24, 32), (1, 1, 1, 1), 8, answers_see_mask=True)
    torch.manual_seed(0)
    base = load_base("lungfm-s", "lungfm", place=tmp_path)
    small = BaseNetwork(PromptNetwork(sizes), base.settings)
    recipe = LungFMRecipe(learning_rate=5e-3, warm_up=5, walk=1)
    task = LungFMTask(small, recipe, "box", seed=0, steps=110)
    clip = central_clip(cut_clip(case, "tumour", range(12)), np.random.default_rng(0))
    episodes = [draw_episode(clip, np.random.default_rng(n), walk=1) for n in range(12)]
    boxed = [each for each in episodes if each.box is not None]
    made = task.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    task.train()
    for number in range(110):
        batch = [boxed[(2 * number + k) % len(boxed)] for k in range(2)]
        optimizer.zero_grad()
        task.training_step(batch, number).backward()
        optimizer.step()
        schedule.step()
    write_weights(tmp_path / "w.safetensors", task.result_state(), base.settings, task.network)
    model = LungFMModel(weights=tmp_path / "w.safetensors", device="cpu")
    made_case = make_source("a", **ball).load()
    truth = made_case.reference.array == 3
    boxes = [tight_box(truth[z], int(z)) for z in np.flatnonzero(truth.any(axis=(1, 2)))]
    found = segment_object(model, made_case.volume, boxes, fill=False, label=3)
    assert count_overlap(found.mask(3), truth).dice >= 0.98
