import json
import shutil
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("nnunetv2")

from napari_lungfm._core.exceptions import UsageError  # noqa: E402
from napari_lungfm.geometry import (  # noqa: E402
    LabelMap,
    Structure,
    Volume,
    VolumeGeometry,
    axis_codes,
    reorient,
)
from napari_lungfm.models.automatic import nnunet_folders  # noqa: E402
from napari_lungfm.models.automatic.nnunet_folders import (  # noqa: E402
    export_nnunet,
    import_nnunet,
)
from napari_lungfm.models.automatic.nnunet_model import (  # noqa: E402
    NNUNetModel,
    check_plans,
    load_nnunet,
)
from napari_lungfm.models.automatic.nnunet_settings import NNUNetSettings  # noqa: E402
from napari_lungfm.models.automatic.protocol import (  # noqa: E402
    AutomaticModel,
    SegmentationCancelledError,
)
from napari_lungfm.models.automatic.store import TrainedStore  # noqa: E402
from napari_lungfm.models.registry import (  # noqa: E402
    create_automatic_model,
    is_automatic,
    model_card,
    trained_model,
)
from napari_lungfm.models.weights import WeightsError, WeightsNotFoundError  # noqa: E402

GRID = VolumeGeometry((5, 20, 18), (3.0, 1.0, 1.2), (-10.0, 5.0, 40.0))
DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "left lung": 1, "right lung": 2, "tumour": 3},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
ALL = tuple(int(s) for s in Structure)


def make_plans(dim=3, spacing=(3.0, 1.5, 1.2)):
    """Plans as nnU-Net writes them, for a tiny network."""
    conv = f"torch.nn.modules.conv.Conv{dim}d"
    norm = f"torch.nn.modules.instancenorm.InstanceNorm{dim}d"
    ones, twos = [1] * dim, [2] * dim
    resampling = {"order_z": 0, "force_separate_z": None}
    name = "2d" if dim == 2 else "3d_fullres"
    return {
        "dataset_name": "Dataset501_tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 1.0, 1.2],
        "original_median_shape_after_transp": [5, 20, 18],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 300.0, "mean": -400.0, "median": -500.0, "min": -1000.0,
                "percentile_00_5": -1000.0, "percentile_99_5": 200.0, "std": 400.0,
            }
        },
        "configurations": {
            name: {
                "data_identifier": f"nnUNetPlans_{name}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [4, 16, 16][-dim:],
                "median_image_size_in_voxels": [5.0, 20.0, 18.0][-dim:],
                "spacing": list(spacing)[-dim:],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **resampling},
                "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **resampling},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **resampling},
                "architecture": {
                    "network_class_name": (
                        "dynamic_network_architectures.architectures.unet.PlainConvUNet"
                    ),
                    "arch_kwargs": {
                        "n_stages": 2,
                        "features_per_stage": [4, 4],
                        "conv_op": conv,
                        "kernel_sizes": [[3] * dim] * 2,
                        "strides": [ones, twos],
                        "n_conv_per_stage": [1, 1],
                        "n_conv_per_stage_decoder": [1],
                        "conv_bias": True,
                        "norm_op": norm,
                        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": False,
            }
        },
    }  # fmt: skip


def make_state(values, seed=1):
    """Weights drawn at random, large enough for every class to be found."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    (chosen,) = values["configurations"].values()
    architecture = chosen["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        4,
        deep_supervision=False,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fresh = torch.randn(parameter.shape, generator=generator)
            # No class may outweigh the others: all have to be found.
            if "seg_layers" in name and name.endswith("weight"):
                fresh = torch.eye(4).reshape(parameter.shape)
            parameter.copy_(fresh if parameter.ndim > 1 else float(name.endswith("weight")))
    return network.state_dict()


def make_volume(grid=GRID):
    """Noise, so that every voxel matters."""
    hu = np.random.default_rng(3).normal(-300, 300, grid.shape)
    return Volume(np.clip(hu, -1000, 1000).astype(np.int16), grid)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_LUNGFM_WEIGHTS", str(tmp_path / "weights"))
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_compile"):
        monkeypatch.delenv(name, raising=False)


def _model(dim=3, folds=1, **options):
    values = make_plans(dim)
    settings = NNUNetSettings(
        configuration="2d" if dim == 2 else "3d_fullres",
        mirroring=tuple(range(dim)),
        weights=tuple(f"{n}.safetensors" for n in range(folds)),
    )
    weights = [make_state(values, seed) for seed in range(folds)]
    return NNUNetModel("tiny", values, DATASET, settings, weights, ALL, device="cpu", **options)


@pytest.fixture
def foreign(tmp_path):
    """A model as nnU-Net itself leaves it, numpy numbers in its log and all."""

    def make(dim=3, dataset=DATASET, folds=2, extra=None):
        folder = tmp_path / "nnUNetTrainer__nnUNetPlans__x"
        values = make_plans(dim)
        for fold in range(folds):
            (folder / f"fold_{fold}").mkdir(parents=True)
            checkpoint = {
                "network_weights": make_state(values, fold),
                "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)]},
                "current_epoch": 7,
                "init_args": {
                    "configuration": next(iter(values["configurations"])),
                    "device": torch.device("cpu"),
                },
                "trainer_name": "nnUNetTrainer",
                "inference_allowed_mirroring_axes": tuple(range(dim)),
                **(extra or {}),
            }
            torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
        (folder / "plans.json").write_text(json.dumps(values))
        (folder / "dataset.json").write_text(json.dumps(dataset))
        return folder

    return make


@pytest.mark.parametrize("dim", [2, 3])
def test_it_finds_what_nnunet_itself_finds(dim, foreign, tmp_path):
    """nnU-Net's predictor on its own folder, and ours on what was imported from it."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folder = foreign(dim)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0, 1))
    volume = make_volume()
    wanted = predictor.predict_single_npy_array(
        volume.array[np.newaxis].astype(np.float32), {"spacing": list(volume.spacing)}
    )
    import_nnunet(folder, tmp_path / "ours")
    found = load_nnunet(tmp_path / "ours", device="cpu").segment(volume)
    assert len(np.unique(wanted)) == 4
    assert np.array_equal(found.array, wanted)
    # and back: what is exported is read by nnU-Net, and gives the same again
    back = export_nnunet(tmp_path / "ours", tmp_path / "back")
    predictor.initialize_from_trained_model_folder(str(back), (0, 1))
    again = predictor.predict_single_npy_array(
        volume.array[np.newaxis].astype(np.float32), {"spacing": list(volume.spacing)}
    )
    assert np.array_equal(again, wanted)


def test_swapped_and_flipped_axes_come_out_on_their_own_grid():
    model = _model()
    assert isinstance(model, AutomaticModel)
    straight = model.segment(make_volume())
    for codes in ("RIA", "PSR", "IAL"):
        turned = reorient(make_volume(), codes)
        found = model.segment(turned)
        assert isinstance(found, LabelMap)
        assert found.geometry.difference(turned.geometry) is None
        back = reorient(found, axis_codes(straight.geometry))
        assert np.array_equal(back.array, straight.array)
    assert model.labels == {1: "left lung", 2: "right lung", 3: "tumour"}


def test_classes_become_the_labels_that_they_stand_for():
    values = make_plans()
    dataset = {**DATASET, "labels": {"background": 0, "a": 1, "b": 2, "c": 3}}
    settings = NNUNetSettings(configuration="3d_fullres", weights=("w",))
    weights = [make_state(values, 0)]
    one = NNUNetModel("a", values, dataset, settings, weights, (1, 2, 3), device="cpu")
    other = NNUNetModel("b", values, dataset, settings, weights, (3, 1, 2), device="cpu")
    table = np.array([0, 3, 1, 2])
    assert np.array_equal(
        other.segment(make_volume()).array, table[one.segment(make_volume()).array]
    )


def test_progress_reaches_its_end_and_mirroring_can_be_left_out():
    told = []
    with_mirrors = _model(folds=2).segment(
        make_volume(), progress=lambda done, total: told.append((done, total))
    )
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))
    plain = _model(folds=2, mirroring=False).segment(make_volume())
    assert not np.array_equal(plain.array, with_mirrors.array)


def test_a_cancelled_segmentation_leaves_no_thread_and_no_setting_behind():
    model = _model(folds=2)
    threads, number = threading.active_count(), torch.get_num_threads()
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(SegmentationCancelledError):
        model.segment(make_volume(), cancelled=cancelled)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(timeout=2)
    assert threading.active_count() <= threads
    assert torch.get_num_threads() == number
    assert model.segment(make_volume()).array.any()


def test_the_callers_environment_plays_no_part(monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_compile", "true")  # would compile on the CPU, for minutes
    monkeypatch.setenv("nnUNet_results", "/nowhere")
    _model().segment(make_volume())
    assert capsys.readouterr().out == ""


def test_a_folder_of_nnunets_own_needs_trust_and_is_a_model_then(foreign):
    from safetensors.torch import load_file

    folder = foreign()
    store = TrainedStore()
    with pytest.raises(UsageError, match="--trust"):
        store.add(folder, "nnunet-3d-fullres:lab")
    with pytest.raises(UsageError, match="cannot be 'nnunet-2d:lab'"):
        store.add(folder, "nnunet-2d:lab", trust=True)
    kept = store.add(folder, "nnunet-3d-fullres:lab", trust=True)
    assert {path.suffix for path in kept.iterdir()} == {".json", ".safetensors"}
    tensors = load_file(kept / "weights.safetensors")
    assert sum(t.numel() for t in tensors.values()) == trained_model(str(kept)).parameters
    assert store.names() == ("nnunet-3d-fullres:lab",)
    assert is_automatic("nnunet-3d-fullres:lab")
    model = create_automatic_model("nnunet-3d-fullres:lab", device="cpu")
    description = trained_model("nnunet-3d-fullres:lab")
    assert model.parameters == description.parameters == model_card(str(kept)).parameters
    assert "not known" in description.notes[0]
    assert description.epochs == 7
    with pytest.raises(WeightsNotFoundError, match="nnunet-2d"):
        create_automatic_model("nnunet-2d")


@pytest.mark.parametrize("value", [0, 5, -1])
def test_the_step_from_patch_to_patch_has_bounds(foreign, value):
    kept = TrainedStore().add(foreign(folds=1), trust=True)
    with pytest.raises(UsageError, match="must be a number above 0 and of at most 1, not"):
        create_automatic_model(str(kept), device="cpu", step=value)
    create_automatic_model(str(kept), device="cpu", step=1)


SEEN = {"cohort": "clinic", "case": "a", "part": "train", "image": "0" * 32}
SCORES = {"b": {"left lung": 0.5, "right lung": None, "tumour": 0.25}}


def _own(foreign, tmp_path, **facts):
    """A model as a training of ours leaves it."""
    import_nnunet(foreign(), tmp_path / "own")
    path = tmp_path / "own" / "model.json"
    values = json.loads(path.read_text())
    values["settings"]["postprocessing"] = ["largest-lungs"]
    known = {"title": "ours", "small": True, "seen": [SEEN], "cohort": "clinic", "notes": []}
    known |= {"cohort_hash": "c", "split_hash": "s", "validation": SCORES}
    path.write_text(json.dumps({**values, **known, **facts}))
    return tmp_path / "own"


def test_what_we_know_of_a_model_survives_export_and_import(foreign, tmp_path):
    own = _own(foreign, tmp_path)
    back = export_nnunet(own, tmp_path / "back")
    kept = TrainedStore().add(back, "nnunet-3d-fullres:again", trust=True)
    before, after = trained_model(str(own)), trained_model(str(kept))
    assert after == before  # the very weights: their sha256 are the same
    assert after.small
    assert after.validation == SCORES
    assert [patient.case for patient in after.seen] == ["a"]
    model = create_automatic_model(str(kept), device="cpu")
    assert model.postprocessing == ("largest-lungs",)
    with pytest.raises(UsageError, match="says what its labels are"):
        TrainedStore().add(back, trust=True, labels={1: "right lung", 2: "left lung"})


@pytest.mark.parametrize("changed", ["fold_0/checkpoint_final.pth", "plans.json", "fold_1"])
def test_what_was_changed_since_is_a_model_of_unknown_origin(foreign, tmp_path, changed):
    back = export_nnunet(_own(foreign, tmp_path), tmp_path / "back")
    path = back / changed
    if path.is_dir():
        (path / "checkpoint_final.pth").unlink()
    elif path.suffix == ".json":
        path.write_text(json.dumps(json.loads(path.read_text())))
    else:
        content = torch.load(path, weights_only=False)
        torch.save({**content, "current_epoch": 8}, path)
    description = trained_model(str(TrainedStore().add(back, trust=True)))
    assert (description.small, description.seen, description.validation) == (False, (), None)
    assert description.cohort_hash == "unknown"


def test_our_small_trainer_and_plans_are_known_wherever_they_come_from(foreign, tmp_path):
    folder = foreign(folds=1, extra={"trainer_name": "LungFMSmallTrainer"})
    assert import_nnunet(folder, tmp_path / "trainer").small
    plans = json.loads((folder / "plans.json").read_text())
    (folder / "plans.json").write_text(json.dumps({**plans, "plans_name": "nnUNetPlansSmall"}))
    assert import_nnunet(folder, tmp_path / "plans").small


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({9: "tumour"}, "no label 9 in .*; its labels: 1 'left lung', 2 'right lung', 3 'tumour'"),
        ({0: "tumour"}, "no label 0 in"),
        ({1: "tumour"}, "labels 1 and 3 of .* would both be tumour"),
    ],
)
def test_labels_that_make_no_sense_are_refused(foreign, labels, message):
    with pytest.raises(UsageError, match=message) as caught:
        TrainedStore().add(foreign(folds=1), trust=True, labels=labels)
    assert "\n" not in str(caught.value)


def test_messages_name_the_folder_that_the_user_gave(foreign):
    folder = foreign(folds=1)
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"] = {"2d": plans["configurations"]["3d_fullres"]}
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(WeightsError, match="no plans of nnU-Net v2") as caught:
        TrainedStore().add(folder, trust=True)
    assert str(folder) in str(caught.value)


def _checkpoint(folder, fold=0, *, lacking=None, **changes):
    """Change the checkpoint of a fold."""
    path = folder / f"fold_{fold}" / "checkpoint_final.pth"
    content = {**torch.load(path, weights_only=False), **changes}
    content.pop(lacking, None)
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("lacking", "fold"), [("init_args", 0), ("trainer_name", 0), ("network_weights", 1)]
)
def test_a_checkpoint_that_lacks_something_is_named(foreign, lacking, fold):
    folder = foreign()
    path = _checkpoint(folder, fold, lacking=lacking)
    with pytest.raises(UsageError) as caught:
        TrainedStore().add(folder, trust=True)
    assert f"'{path}' has no '{lacking}'" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_args": {}}, "has no 'configuration'"),
        ({"init_args": {"configuration": "3d_cascade_fullres"}}, "'3d_cascade_fullres'; only 2d"),
        ({"network_weights": [1, 2]}, "'network_weights' are no tensors"),
        ({"inference_allowed_mirroring_axes": 3}, "not iterable"),
    ],
)
def test_a_checkpoint_of_another_kind_is_named(foreign, changes, message):
    folder = foreign(folds=1)
    path = _checkpoint(folder, **changes)
    with pytest.raises(UsageError, match=message) as caught:
        TrainedStore().add(folder, trust=True)
    assert str(path) in str(caught.value)


def test_nan_is_told_of_the_checkpoint_that_has_it(foreign):
    folder = foreign()
    state = make_state(make_plans(), 1)
    path = _checkpoint(folder, 1, network_weights={k: t * torch.nan for k, t in state.items()})
    with pytest.raises(WeightsError, match="NaN or infinite values") as caught:
        TrainedStore().add(folder, trust=True)
    assert str(caught.value).startswith(f"'{path}' has NaN")


@pytest.mark.parametrize("name", ["nnunet-2d:lab", "unet:lab", "nnunet-3d-fullres:a/b"])
def test_a_name_is_checked_before_checkpoints_are_converted(foreign, monkeypatch, name):
    monkeypatch.setattr(nnunet_folders, "write_weights", None)  # a call would be a TypeError
    with pytest.raises(UsageError, match=f"'{name}'"):
        TrainedStore().add(foreign(), name, trust=True)


def test_folders_that_are_nearly_a_model_are_told_what_they_lack(foreign, tmp_path):
    store = TrainedStore()
    whole = foreign(folds=1)
    above = tmp_path / "results" / "Dataset001_X"
    folder = shutil.copytree(whole, above / whole.name)

    def told(place, **options):
        with pytest.raises(UsageError) as caught:
            store.add(place, trust=True, **options)
        assert "model.json" not in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    for place in (above, above.parent):
        assert told(place).endswith(
            f"holds models of nnU-Net and is none; give one of them: '{folder}'"
        )
    assert told(folder / "fold_0").endswith(f"give the folder above it: '{folder}'")
    final, best = (folder / "fold_0" / f"checkpoint_{kind}.pth" for kind in ("final", "best"))
    final.rename(best)
    (best.parent / "checkpoint_latest.pth").touch()
    assert (
        "it has no fold_N/checkpoint_final.pth, only fold_0/checkpoint_best.pth, "
        "fold_0/checkpoint_latest.pth; to use it, copy fold_0/checkpoint_best.pth to "
        "fold_0/checkpoint_final.pth"
    ) in told(folder)
    (folder / "dataset.json").unlink()
    assert "it has no dataset.json and no fold_N/checkpoint_final.pth, only" in told(folder)
    best.rename(final)
    assert "it has no dataset.json; copy the whole folder again" in told(folder)
    shutil.rmtree(folder / "fold_0")
    (folder / "fold_0").mkdir()
    assert "no dataset.json and no fold_N/checkpoint_final.pth; copy" in told(folder)
    with pytest.raises(UsageError, match=r"model\.json"):  # nothing of nnU-Net's
        store.add(tmp_path / "weights", trust=True)
    with pytest.raises(UsageError, match=r"as nnU-Net keeps it; .* models import .* --trust"):
        create_automatic_model(str(whole))


class Opaque:
    """Something that only a pickle with code can hold."""


def test_pickles_with_code_are_read_only_because_they_are_trusted(foreign, tmp_path, monkeypatch):
    monkeypatch.setattr(Opaque, "__module__", "builtins", raising=False)
    import builtins

    monkeypatch.setattr(builtins, "Opaque", Opaque, raising=False)
    folder = foreign(folds=1, extra={"more": Opaque()})
    with pytest.raises(UsageError, match="--trust"):
        TrainedStore().add(folder)
    assert import_nnunet(folder, tmp_path / "ours").structures == (1, 2, 3)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"labels": {"background": 0, "cancer": 1, "left lung": 2, "right lung": 3}}, "--label 1="),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "regions"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "wants 2 images"),
        ({"labels": {"background": 0}}, "finds nothing"),
    ],
)
def test_what_cannot_be_run_here_is_refused(foreign, dataset, message):
    folder = foreign(dataset={**DATASET, **dataset})
    with pytest.raises(UsageError, match=message) as caught:
        TrainedStore().add(folder, trust=True)
    assert "\n" not in str(caught.value)
    assert TrainedStore().names() == ()


def test_labels_can_be_said(foreign):
    labels = {"background": 0, "cancer": 1, "left lung": 2, "right lung": 3}
    folder = foreign(dataset={**DATASET, "labels": labels})
    kept = TrainedStore().add(folder, trust=True, labels={1: "tumour"})
    assert trained_model(str(kept)).structures == (3, 1, 2)


@pytest.mark.parametrize(
    ("place", "name"),
    [("network_class_name", "os.system"), ("conv_op", "subprocess.Popen"), ("nonlin", "os.remove")],
)
def test_plans_may_name_nothing_but_networks_and_layers(place, name):
    values = make_plans()
    architecture = values["configurations"]["3d_fullres"]["architecture"]
    (architecture if place in architecture else architecture["arch_kwargs"])[place] = name
    with pytest.raises(WeightsError, match=name):
        check_plans(values, "3d_fullres", where="plans")


def test_changed_or_unfitting_files_are_refused(foreign, tmp_path):
    import_nnunet(foreign(), tmp_path / "ours")
    with pytest.raises(WeightsError, match="no plans of nnU-Net"):
        check_plans(make_plans(), "2d", where="plans")
    path = tmp_path / "ours" / "plans.json"
    path.write_text(path.read_text().replace("0.5", "0.6").replace("3.0", "4.0"))
    with pytest.raises(WeightsError, match="was changed"):
        load_nnunet(tmp_path / "ours")
    values = make_plans()
    wrong = {k: v for k, v in make_state(values).items() if "seg_layers" not in k}
    settings = NNUNetSettings(configuration="3d_fullres", weights=("w",))
    with pytest.raises(WeightsError, match="do not fit"):
        NNUNetModel("x", values, DATASET, settings, [wrong], ALL, device="cpu")
