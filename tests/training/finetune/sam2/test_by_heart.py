"""Every recipe learns one case by heart, as the folder that it leaves is scored in use."""

from pathlib import Path
from typing import Any

import pytest

from napari_lungfm._core.seeding import generator
from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.evaluation.prompt_protocols import parse_protocol
from napari_lungfm.evaluation.simulation import simulate
from napari_lungfm.metrics import count_overlap
from napari_lungfm.models.registry import create_model
from napari_lungfm.training.finetune.base import BaseNetwork
from napari_lungfm.training.finetune.config import parse_fine_tuning
from napari_lungfm.training.finetune.finish import write_base
from napari_lungfm.training.finetune.run import fine_tune

#: A phantom of eight slices of 64 x 64, a round tumour of 5 cm on all of them.
COHORT = {
    "kind": "phantom",
    "name": "short",
    "n_test": 1,
    "n_train": 2,
    "shape": [8, 64, 64],
    "spacings": [[6.0, 1.5, 1.5]],
    "diameters_mm": [48, 52],
    "kinds": ["solid-round"],
    "contrast": ["none"],
}
UNCHANGED = {"flip": 0.0, "degrees": 0.0, "shear": 0.0, "brightness": 0.0, "contrast": 0.0}
QUICK = {
    **UNCHANGED,
    "clip": 2,
    "batch_size": 1,
    "mask_prompts": 0.0,
    "prompted_slices": 1,
    "corrected_slices": 1,
    "corrections": 1,
    "learning_rate": 1e-3,
}
RECIPES: dict[str, tuple[dict[str, Any], int]] = {
    "zhu": ({"learning_rate": 1e-3, "memory_learning_rate": 1e-3}, 240),
    "ma": ({**QUICK, "encoder_learning_rate": 1e-3}, 120),
    "ours": (QUICK, 120),
    "ours by adapters": ({**QUICK, "encoder": "adapters", "encoder_learning_rate": 1e-3}, 120),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", list(RECIPES))
def test_one_case_is_learnt_by_heart(name: str, base: BaseNetwork, tmp_path: Path) -> None:
    write_base(tmp_path / "base", "small SAM 2", base.network, base.settings)
    recipe, steps = RECIPES[name]
    config = parse_fine_tuning(
        {
            "name": "by heart",
            "base": "base",
            "recipe": {"name": name.split(maxsplit=1)[0], **recipe},
            "cohort": COHORT,
            "fraction": 50,  # one of the two
            "validation": 0.0,
            "epochs": 1,
            "samples_per_epoch": steps,
            "workers": 0,
        }
    )
    description = fine_tune(config, tmp_path / "model", base=tmp_path, device="cpu")
    assert description is not None
    (seen,) = description.seen
    sources = PhantomCohort.model_validate(COHORT).build(tmp_path).train
    case = next(source for source in sources if source.name == seen.case).load()
    truth = case.reference.mask(3)
    assert truth.any(axis=(1, 2)).all()
    model = create_model(str(tmp_path / "model"), device="cpu")
    protocol = parse_protocol("box-every-slice")
    found = simulate(model, case.volume, truth, protocol, generator("by heart"))
    assert count_overlap(found.mask, truth).dice >= 0.98
