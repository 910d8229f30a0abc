import sys
import time

import numpy as np
import pytest

from napari_lungfm._core.environment import available_cores, hardware, package_versions
from napari_lungfm._core.measure import Meter


def test_the_time_of_the_block_is_measured():
    with Meter() as meter:
        time.sleep(0.05)
    assert 0.05 <= meter.seconds < 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_the_peak_is_that_of_the_block_alone():
    big = np.ones(40 * 2**20, np.uint8)
    del big
    with Meter() as small:
        np.ones(2**20, np.uint8)
    with Meter() as large:
        block = np.ones(80 * 2**20, np.uint8)
    assert large.peak_rss_mb is not None
    assert small.peak_rss_mb is not None
    assert large.peak_rss_mb - small.peak_rss_mb > 60
    assert block.size


def test_the_meter_ends_when_the_block_fails():
    with pytest.raises(ValueError, match="x"), Meter() as meter:
        raise ValueError("x")
    assert meter.seconds > 0


def test_the_environment_is_described():
    assert package_versions()["numpy"] == np.__version__
    facts = hardware()
    assert int(facts["cores"]) == available_cores() >= 1
    assert all(isinstance(value, str) and value for value in facts.values())
