import numpy as np
import pytest

from napari_lungfm._core.masks import largest_part


@pytest.mark.parametrize("shape", [(6, 9), (4, 6, 9)])
def test_the_largest_part_is_kept(shape) -> None:
    mask = np.zeros(shape, dtype=bool)
    mask[..., :2, :2] = True
    mask[..., 4:, 4:8] = True
    expected = np.zeros(shape, dtype=bool)
    expected[..., 4:, 4:8] = True
    np.testing.assert_array_equal(largest_part(mask), expected)


def test_corners_do_not_connect_and_the_first_of_equal_parts_is_kept() -> None:
    np.testing.assert_array_equal(
        largest_part(np.eye(2, dtype=bool)), [[True, False], [False, False]]
    )


def test_an_empty_mask_stays_empty() -> None:
    found = largest_part(np.zeros((3, 4), dtype=bool))
    assert found.dtype == bool
    assert found.shape == (3, 4)
    assert not found.any()
