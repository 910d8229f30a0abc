import pytest
import yaml

from napari_lungfm._core.imports import is_available

torch = pytest.importorskip("torch")
if not is_available("segment_anything"):
    pytest.skip("segment-anything is not installed", allow_module_level=True)
pytest.importorskip("napari_lungfm.training.lightning_import", exc_type=ImportError)

COHORT = {
    "kind": "phantom",
    "name": "coarse",
    "n_test": 1,
    "n_train": 3,
    "kinds": ["solid-round"],
    "shape": [20, 64, 80],
    "spacings": [[15.0, 5.5, 5.0]],
    "diameters_mm": [50, 60],
    "whole_chest": True,
}
CONFIG = {
    "kind": "finetune",
    "name": "tiny",
    "base": "base",
    "recipe": {"name": "medsam", "least_pixels": 1},
    "epochs": 1,
    "samples_per_epoch": 4,
    "validation": 0.3,
    "workers": 0,
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    from napari_lungfm.models.foundation.finetuned import (
        BaseFacts,
        FineTunedSettings,
        build_network,
    )
    from napari_lungfm.training.finetune.finish import write_base

    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    sizes = {"image_size": 64, "embed_dim": 16, "depth": 1, "num_heads": 1, "prompt_dim": 32}
    settings = FineTunedSettings(
        network="sam",
        build={**sizes, "global_attn_indexes": [0]},
        preprocessing="medsam",
        base=BaseFacts(name="random", sha256="0" * 64, licence="CC-BY-NC-4.0", commercial="no"),
    )
    torch.manual_seed(0)
    write_base(tmp_path / "base", "small SAM", build_network(settings), settings)
    config, cohort = tmp_path / "config.yaml", tmp_path / "cohort.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    cohort.write_text(yaml.safe_dump(COHORT))
    return config, cohort


@pytest.mark.slow
def test_fine_tune_import_and_segment(bench, files, tmp_path):
    from napari_lungfm import io
    from napari_lungfm.datasets.phantom_cohort import PhantomCohort

    config, cohort = files
    model = tmp_path / "model"
    done = bench("train", config, "--cohort", cohort, "--out", model, "--device", "cpu")
    assert done.code == 0, done.err
    assert "validation: tumour, prompted on every slice: mean Dice" in done.err
    assert "moved: 0.0 % of the weights of prompt_encoder" in done.err
    assert "licence of the base, and so of the result: CC-BY-NC-4.0" in done.err
    again = bench("train", config, "--cohort", cohort, "--out", model)
    assert again.code == 2
    assert "holds a trained model already" in again.err

    assert bench("models", "import", model).code == 0
    assert "finetuned" in bench("models", "list").out
    case = PhantomCohort.model_validate(COHORT).build(tmp_path).test[0].load()
    image, out = tmp_path / "ct.nii.gz", tmp_path / "out.nii.gz"
    io.write_image(case.volume, image)
    masks = []
    for name in ("finetuned", model):
        result = bench(
            "segment", "--image", image, "--model", name, "--out", out, "--box", "9,20,20,40,40",
            "--no-propagate", "--json",
        )  # fmt: skip
        assert result.code == 0, result.err
        masks.append(io.read_label_map(out).array)
        assert "has seen this very image" not in result.err
    assert (masks[0] == masks[1]).all()
    io.write_image(
        PhantomCohort.model_validate(COHORT).build(tmp_path).train[0].load().volume, image
    )
    seen = bench(
        "segment", "--image", image, "--model", model, "--out", out, "--box", "9,20,20,40,40",
        "--no-propagate",
    )  # fmt: skip
    assert "note: 'tiny' has seen this very image in its training (case 'train-000-" in seen.err
    unprompted = bench("segment", "--image", image, "--model", model, "--out", out)
    assert unprompted.code == 2


def test_what_is_wrong_is_told_in_one_line(bench, files, tmp_path):
    config, cohort = files
    missing = bench("train", config, "--out", tmp_path / "model")
    assert missing.code != 0
    assert "has no cohort; give one with --cohort" in missing.err
    config.write_text(yaml.safe_dump({**CONFIG, "fraction": 0}))
    zero = bench("train", config, "--cohort", cohort, "--out", tmp_path / "model")
    assert zero.code != 0
    assert "zero-shot" in zero.err
    assert zero.err.strip().count("\n") == 0


def test_shipped_fine_tunings_are_listed(bench):
    assert {"medsam-box", "medsam-point"} <= set(bench("train", "list", "--json").json)
