"""Memory of the GPU, with the device that is not here played by its interface."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from napari_lungfm.benchmark.meter import UnitMeter

MIB = 2**20


@pytest.fixture
def torch(monkeypatch):
    """A torch with two CUDA devices, one of which holds a model."""
    module = ModuleType("torch")
    held, peaks = [30 * MIB, 0], [0, 0]

    def reset(device):
        peaks[device] = held[device]

    module.cuda = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_allocated=lambda device: held[device],
        max_memory_allocated=lambda device: peaks[device],
        reset_peak_memory_stats=reset,
    )
    module.peaks = peaks
    module.backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


def test_the_peak_of_all_gpus_during_the_block(torch):
    torch.peaks[0] = 999 * MIB  # of the unit before
    with UnitMeter() as meter:
        torch.peaks[0] = 50 * MIB
        torch.peaks[1] = 4 * MIB
    assert meter.peak_gpu_mb == 54.0
    assert meter.seconds > 0


def test_a_unit_on_the_cpu_has_none(torch):
    with UnitMeter() as meter:
        pass
    assert meter.peak_gpu_mb is None
    torch.cuda.is_initialized = lambda: False
    with UnitMeter() as meter:
        torch.peaks[0] = 60 * MIB
    assert meter.peak_gpu_mb is None


def test_apples_gpu_says_what_its_driver_holds(torch):
    torch.cuda.is_available = lambda: False
    torch.backends.mps.is_available = lambda: True
    torch.mps = SimpleNamespace(
        current_allocated_memory=lambda: 5 * MIB, driver_allocated_memory=lambda: 9 * MIB
    )
    with UnitMeter() as meter:
        pass
    assert meter.peak_gpu_mb == 9.0
