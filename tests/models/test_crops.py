"""Slice masks cut to their box."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lungfm.models.crops import SliceCrop, whole_mask


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (16, 16)])
@given(data=st.data())
def test_crops_hold_any_mask(shape: tuple[int, int], data: Any) -> None:
    bits = data.draw(st.binary(min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    mask = (np.frombuffer(bits, np.uint8) % 3 == 0).reshape(shape)
    crop = SliceCrop.of(mask)
    np.testing.assert_array_equal(whole_mask(crop, shape), mask)
    assert (crop is None) == (not mask.any())
    if crop is not None:
        assert crop.area == mask.sum()
        assert crop == SliceCrop.of(mask.copy())
