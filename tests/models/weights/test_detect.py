import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm.models.weights.detect import ONLY_IN_21, detect, normalise
from napari_lungfm.models.weights.errors import WeightsError
from napari_lungfm.models.weights.reference import (
    check_finite,
    check_floating,
    check_tensors,
    reference_shapes,
)

SAM2 = [f"sam2{version}_hiera_{size}" for version in ("", ".1") for size in ("t", "s")]


@pytest.mark.parametrize(
    "architecture", [*SAM2, "vit_b", "vit_l", "vit_h", "litemedsam", "lungmask-3"]
)
def test_stock_networks_are_recognised(thin, architecture):
    layout = detect(normalise(thin(architecture)))
    assert layout.architecture == architecture
    assert layout.tensors == len(reference_shapes(architecture))
    assert layout.image_size == (1024 if architecture.startswith("vit") else None)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sam2_hiera_b+", "sam2.1_hiera_b+", "sam2.1_hiera_l"])
def test_large_stock_networks_are_recognised(thin, architecture):
    assert detect(normalise(thin(architecture))).architecture == architecture


def test_sam_20_and_21_differ_in_just_three_tensors():
    old, new = reference_shapes("sam2_hiera_t"), reference_shapes("sam2.1_hiera_t")
    assert set(new) - set(old) == set(ONLY_IN_21)
    assert all(new[name] == shape for name, shape in old.items())
    assert (len(old), len(new), len(reference_shapes("sam2_hiera_s"))) == (468, 471, 516)


def test_a_part_of_what_is_new_in_21_is_an_incomplete_21(thin):
    state = thin("sam2.1_hiera_t")
    del state["no_obj_embed_spatial"]
    assert detect(normalise(state)).architecture == "sam2.1_hiera_t"
    with pytest.raises(WeightsError, match=r"1 of 471 tensors are missing \(no_obj_embed_spatial"):
        check_tensors(state, "sam2.1_hiera_t")


def test_what_keys_cannot_tell_apart_is_said(thin):
    assert detect(normalise(thin("vit_b"))).candidates == ("medsam", "sam-vit-b", "medicosam")
    names = detect(normalise(thin("sam2.1_hiera_t"))).candidates
    assert {"sam2.1-tiny", "medsam2-ma", "medsam2-ma:CTLesion"} <= set(names)
    for size in ("s", "t"):
        assert detect(normalise(thin(f"sam2_hiera_{size}"))).candidates == ("medsam2-zhu",)


def test_litemedsam_is_not_mobilesam(thin):
    state = thin("litemedsam")
    assert detect(normalise(state)).candidates == ("litemedsam",)
    state["image_encoder.patch_embed.seq.0.c.weight"] = torch.zeros(32, 3, 3, 3)
    layout = detect(normalise(state))
    assert layout.family is None
    assert "MobileSAM" in layout.hint


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ({}, "no tensors"),
        ([1, 2], "no tensors"),
        ({"epoch": 3}, "no tensors"),
        ({"vision_encoder.layers.0.weight": torch.zeros(1)}, "transformers"),
        ({"image_encoder.odd": torch.zeros(1)}, "no stock SAM"),
        ({"fc.weight": torch.zeros(1)}, "'fc.weight'"),
    ],
)
def test_unknown_things_are_described(content, hint):
    layout = detect(normalise(content))
    assert layout.family is None
    assert hint in str(layout)


@given(
    wrappers=st.lists(st.sampled_from(["model", "state_dict", "network_state_dict"]), max_size=2),
    prefixes=st.lists(st.sampled_from(["module.", "_orig_mod."]), max_size=3),
)
def test_normalise_takes_off_any_stack_of_wrappers_and_prefixes(wrappers, prefixes):
    plain = {"a.weight": torch.zeros(2), "b.bias": torch.ones(3)}
    content = {"".join(prefixes) + name: value for name, value in plain.items()}
    for wrapper in reversed(wrappers):
        content = {wrapper: content, "epoch": 7, "optimizer": {"lr": 1e-4}}
    state = normalise(content)
    assert state.tensors.keys() == plain.keys()
    assert state.wrapper == ("/".join(wrappers) or None)
    assert state.prefix == ("".join(prefixes) or None)


def test_a_prefix_that_only_some_names_have_stays():
    state = normalise({"module.a": torch.zeros(1), "b": torch.zeros(1)})
    assert set(state.tensors) == {"module.a", "b"}
    assert state.prefix is None


def test_a_tensor_named_like_a_wrapper_is_none():
    assert set(normalise({"model": torch.zeros(1)}).tensors) == {"model"}


def test_missing_unexpected_and_misshapen_tensors_are_counted_and_named(thin):
    state = thin("lungmask-3")
    names = list(state)
    del state[names[0]], state[names[1]]
    state["extra"] = torch.zeros(1)
    state["last.bias"] = torch.zeros(4)
    with pytest.raises(WeightsError) as error:
        check_tensors(state, "lungmask-3", where="'x.pth'")
    text = str(error.value)
    assert f"2 of 227 tensors are missing ({names[0]}, {names[1]})" in text
    assert "1 are unexpected (extra)" in text
    assert "last.bias (4,) instead of (3,)" in text
    assert "'x.pth'" in text


def test_long_lists_are_cut(thin):
    state = {k: v for k, v in thin("lungmask-3").items() if "up_path" not in k}
    with pytest.raises(WeightsError, match="…"):
        check_tensors(state, "lungmask-3")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(bad):
    state = {"a": torch.zeros(3), "b": torch.tensor([0.0, bad]), "n": torch.tensor(3)}
    with pytest.raises(WeightsError, match=r"1 of 3 tensors \(b\)"):
        check_finite(state)
    check_finite({"a": torch.zeros(3), "n": torch.tensor(3), "h": torch.zeros(2).bfloat16()})


@pytest.mark.parametrize("kind", [torch.int8, torch.int32, torch.complex64, torch.bool])
def test_weights_that_are_no_floating_point_numbers_are_refused(kind):
    name = str(kind).removeprefix("torch.")
    state = {"a": torch.zeros(3), "b": torch.zeros(2, 2, dtype=kind), "n": torch.tensor(3)}
    with pytest.raises(WeightsError, match=rf"has {name} instead of .* 1 of 3 tensors \(b\)"):
        check_floating(state)
    check_floating({"a": torch.zeros(3).half(), "n": torch.tensor(3)})
