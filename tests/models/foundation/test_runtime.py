import warnings
from typing import Any

import numpy as np
import pytest
import torch

from napari_lungfm import LungFMWarning
from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.geometry import Volume
from napari_lungfm.models.foundation.runtime import (
    OutOfMemoryError,
    PrecisionError,
    Runtime,
    _mixed,
    pick_device,
)
from napari_lungfm.models.foundation.sam2_video import Sam2Model
from napari_lungfm.models.foundation.sam_image import SamImageModel
from napari_lungfm.models.prompts import Box
from napari_lungfm.preprocessing.windowing import Window


class FullGpu:
    """A GPU too small for anything: whatever runs on it fails as torch does."""

    def __init__(self, runtime: Runtime) -> None:
        runtime.device = torch.device("cuda")
        self.refused = 0
        self._call = runtime._call
        self._runtime = runtime
        runtime._call = self.call  # type: ignore[method-assign]

    def call(self, work: Any) -> Any:
        if self._runtime.on_cpu:
            return self._call(work)
        self.refused += 1
        msg = "CUDA out of memory. Tried to allocate 2.00 GiB"
        raise torch.OutOfMemoryError(msg)


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "CPU"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(UsageError, match=f"no device '{name}'"):
        pick_device(name)


def test_absent_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(UsageError, match="'cuda:1' was asked for, but torch sees 1 CUDA"):
        pick_device("cuda:1")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="'mps' was asked for"):
        pick_device("mps")


def test_auto_takes_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device().type == "cuda"


def test_half_precision_is_for_cuda() -> None:
    with pytest.raises(UsageError, match="bfloat16 is for CUDA devices, not for 'cpu'"):
        Runtime(torch.nn.Identity(), "cpu", "bfloat16")
    with pytest.raises(UsageError, match="no precision 'int8'"):
        Runtime(torch.nn.Identity(), "cpu", "int8")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="float16 is for CUDA and MPS devices, not for 'cpu'"):
        Runtime(torch.nn.Identity(), "cpu", "float16")
    assert Runtime(torch.nn.Identity(), "cpu").precision == "float32"


def test_emulated_bfloat16_is_not_taken_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch counts emulation as support; on such devices it is slower than float32."""
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert _mixed(cuda, "auto") is torch.bfloat16
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert _mixed(cuda, "auto") is None
    assert _mixed(cuda, "float16") is torch.float16
    assert _mixed(torch.device("mps"), "float16") is torch.float16
    assert _mixed(torch.device("mps"), "auto") is None


def half(runtime: Runtime) -> Runtime:
    """A runtime in float16 on the CPU, where autocast knows it too."""
    runtime._mixed = torch.float16
    return runtime


def test_float16_computes_in_it_and_says_where_its_range_ends(
    tiny_sam: torch.nn.Module, volume: Volume, window: Window
) -> None:
    def make() -> SamImageModel:
        return SamImageModel(
            "m", tiny_sam, weight_hash="w", window=window, preprocessing="medsam", device="cpu"
        )

    prompts = [Box(5, 30, 30, 60, 60)]
    exact, model = make().open(volume).predict_slice(5, prompts), make()
    assert half(model.runtime).precision == "float16"

    rounded = model.open(volume).predict_slice(5, prompts)

    assert not np.array_equal(rounded.logits, exact.logits)
    np.testing.assert_allclose(rounded.logits, exact.logits, atol=0.05)
    runtime = half(Runtime(torch.nn.Identity(), "cpu"))
    large = runtime.run(lambda: torch.full((1, 1), 300.0) @ torch.full((1, 1), 300.0))
    with pytest.raises(PrecisionError, match="left the range of float16; use precision=float32"):
        runtime.check_finite([torch.zeros(1), large])
    Runtime(torch.nn.Identity(), "cpu").check_finite([torch.tensor(torch.inf)])


class SmallGpu(FullGpu):
    """A GPU with memory for two slices at once."""

    def __init__(self, runtime: Runtime, encoder: Any) -> None:
        super().__init__(runtime)
        runtime.device = torch.device("meta")  # any that is not the CPU
        self.sizes: list[int] = []
        self._forward, encoder.forward = encoder.forward, self._encode

    def _encode(self, images: torch.Tensor) -> Any:
        self.sizes.append(len(images))
        if len(images) > 2:
            msg = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise torch.OutOfMemoryError(msg)
        return self._forward(images)

    def call(self, work: Any) -> Any:
        self._runtime.device = torch.device("cpu")  # it only pretends
        try:
            return self._call(work)
        finally:
            self._runtime.device = torch.device("meta")


def test_a_small_gpu_gets_smaller_batches(
    tiny_sam: Any, volume: Volume, window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_sam.image_encoder, "forward", tiny_sam.image_encoder.forward)
    options = {"weight_hash": "w", "window": window, "preprocessing": "sam", "device": "cpu"}
    model = SamImageModel("m", tiny_sam, **options)
    prompts = [Box(z, 30, 30, 60, 60) for z in range(6)]
    gpu = SmallGpu(model.runtime, tiny_sam.image_encoder)
    model.warm_up()
    predictor = model.open(volume)
    predictor.announce(prompts)

    masks = [predictor.predict_slice(prompt.z, [prompt]).mask for prompt in prompts]

    assert gpu.sizes == [1, 6, 3, 1, 1, 1, 1, 1, 1]  # the GPU is not left
    assert predictor.encoded == 6
    assert all(mask.shape == (96, 96) for mask in masks)


def test_a_gpu_is_warmed_up_once(model: Sam2Model, volume: Volume) -> None:
    """Not a CPU: there it costs more than the first click gains."""
    calls: list[int] = []
    model.warm_up = lambda: (calls.append(1), setattr(model, "_warm", True))  # type: ignore[assignment,method-assign,func-returns-value]
    model.open(volume)
    assert calls == []
    model.runtime.device = torch.device("meta")
    model.open(volume)
    model.open(volume)
    assert calls == [1]


def test_a_full_gpu_is_left_once_with_a_warning(
    model: Sam2Model, volume: Volume, network: Any, window: Window
) -> None:
    gpu = FullGpu(model.runtime)
    with pytest.warns(LungFMWarning, match="'cuda' ran out of memory; the model goes on"):
        predictor = model.open(volume)  # warms up, where there is a GPU
    state, prediction = predictor.prompt(predictor.start(), 5, [Box(5, 30, 30, 60, 60)])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slices = list(predictor.walk(state, range(3, 8)))
    assert gpu.refused == 1
    assert len(slices) == 4
    on_cpu = Sam2Model("tiny", network, weight_hash="w", window=window, device="cpu").open(volume)
    expected = on_cpu.prompt(on_cpu.start(), 5, [Box(5, 30, 30, 60, 60)])[1]
    assert (prediction.logits == expected.logits).all()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
    ],
)
def test_a_full_computer_is_an_error_of_its_own(error: Exception) -> None:
    runtime = Runtime(torch.nn.Identity(), "cpu")

    def work() -> None:
        raise error

    with pytest.raises(OutOfMemoryError, match="too little memory for the model"):
        runtime.run(work)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
    ],
)
def test_a_gpu_and_then_a_computer_that_are_full(error: Exception) -> None:
    """The second failure, on the CPU, is as plain as if it had been the first."""
    runtime = Runtime(torch.nn.Identity(), "cpu")
    runtime.device, tried = torch.device("mps"), []

    def work() -> None:
        tried.append(runtime.device.type)
        raise error if runtime.device.type == "mps" else MemoryError

    with (
        pytest.warns(LungFMWarning, match="'mps' ran out of memory"),
        pytest.raises(OutOfMemoryError, match="too little memory for the model"),
    ):
        runtime.run(work)
    assert tried == ["mps", "cpu"]


def test_models_without_memory_leave_a_full_gpu_too(
    tiny_sam: torch.nn.Module, volume: Volume, window: Window
) -> None:
    def make() -> SamImageModel:
        return SamImageModel(
            "m", tiny_sam, weight_hash="w", window=window, preprocessing="medsam", device="cpu"
        )

    prompts = [Box(5, 30, 30, 60, 60)]
    expected = make().open(volume).predict_slice(5, prompts)
    model = make()
    gpu = FullGpu(model.runtime)

    with pytest.warns(LungFMWarning, match="'cuda' ran out of memory; the model goes on"):
        found = model.open(volume).predict_slice(5, prompts)

    assert gpu.refused == 1
    assert np.array_equal(found.logits, expected.logits)


def test_other_errors_are_not_hidden() -> None:
    runtime = Runtime(torch.nn.Identity(), "cpu")

    def work() -> None:
        msg = "shapes do not match"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="shapes do not match"):
        runtime.run(work)


def test_no_gradients_are_kept() -> None:
    layer = torch.nn.Linear(2, 2)

    assert not Runtime(layer, "cpu").run(lambda: layer(torch.ones(1, 2))).requires_grad
