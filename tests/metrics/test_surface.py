import math
import warnings

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist
from skimage.measure import marching_cubes, mesh_surface_area

from napari_lungfm._core.exceptions import DataError, GeometryError, UsageError
from napari_lungfm.metrics import find_surface, surface_scores, weighted_percentile

SPACINGS = st.tuples(*[st.sampled_from([0.5, 0.7, 0.977, 1.0, 2.0, 3.0])] * 3)
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
FILLED = SHAPES.flatmap(
    lambda shape: st.tuples(
        *[
            st.one_of(hnp.arrays(bool, shape), hnp.arrays(bool, shape, fill=st.just(False))).filter(
                np.any
            )
            for _ in range(2)
        ]
    )
)


def of_the_package(prediction, reference, spacing):
    """What surface-distance itself returns; it warns of names that scipy is going to drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return surface_distance.compute_surface_distances(reference, prediction, spacing)


@given(FILLED, SPACINGS)
@settings(max_examples=150, deadline=None)
def test_agrees_with_surface_distance(pair, spacing):
    prediction, reference = pair
    ours = surface_scores(prediction, reference, spacing, (0.0, 1.0, 2.0))
    theirs = of_the_package(prediction, reference, spacing)
    for tolerance, value in ours.nsd.items():
        expected = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert value == pytest.approx(expected)
    # A cumulative share of exactly 95 % falls to either side by rounding.
    around = [surface_distance.compute_robust_hausdorff(theirs, 95 + e) for e in (-1e-6, 0, 1e-6)]
    assert any(ours.hd95_mm == pytest.approx(value) for value in around)
    means = surface_distance.compute_average_surface_distance(theirs)
    areas = [theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()]
    assert ours.mean_distance_mm == pytest.approx(np.average(means, weights=areas))


@given(FILLED, SPACINGS)
@settings(max_examples=60, deadline=None)
def test_symmetric_and_independent_of_where_the_masks_lie(pair, spacing):
    prediction, reference = pair
    ours = surface_scores(prediction, reference, spacing)
    assert surface_scores(reference, prediction, spacing).nsd == pytest.approx(ours.nsd)
    # Masks that touch the border of the volume score as they do far from it.
    padded = [np.pad(m, ((3, 1), (0, 2), (5, 0))) for m in pair]
    moved = surface_scores(*padded, spacing)
    assert moved.hd95_mm == pytest.approx(ours.hd95_mm)
    assert moved.nsd == pytest.approx(ours.nsd)
    turned = surface_scores(*(m.transpose(2, 0, 1) for m in pair), (spacing[2], *spacing[:2]))
    assert turned.hd95_mm == pytest.approx(ours.hd95_mm)


@given(FILLED, SPACINGS)
@settings(max_examples=60, deadline=None)
def test_distances_agree_with_brute_force(pair, spacing):
    one, other = (find_surface(m, spacing) for m in pair)
    for surface, mask in zip((one, other), pair, strict=True):
        assert set(map(tuple, surface.corners.tolist())) == _mixed_corners(mask)
    apart = cdist(one.corners * np.array(spacing), other.corners * np.array(spacing))
    areas = np.concatenate([one.areas_mm2, other.areas_mm2])
    nearest = np.concatenate([apart.min(axis=1), apart.min(axis=0)])
    scores = surface_scores(*pair, spacing, (1.5,))
    assert scores.mean_distance_mm == pytest.approx(np.average(nearest, weights=areas))
    assert scores.nsd[1.5] == pytest.approx(areas[nearest <= 1.5 + 1e-9].sum() / areas.sum())


def _mixed_corners(mask):
    padded = np.pad(mask, 1)
    corners = np.ndindex(*(n + 1 for n in mask.shape))
    around = {c: padded[tuple(slice(i, i + 2) for i in c)] for c in corners}
    return {c for c, part in around.items() if part.any() and not part.all()}


def test_two_blocks_shifted_along_an_axis():
    block = np.zeros((20, 30, 30), bool)
    block[5:15, 5:25, 5:25] = True
    spacing = (3.0, 1.0, 1.0)
    assert surface_scores(block, block, spacing).hd95_mm == 0.0
    assert surface_scores(block, block, spacing).nsd == {1.0: 1.0, 2.0: 1.0}
    assert surface_scores(np.roll(block, 1, 0), block, spacing).hd95_mm == 3.0
    assert surface_scores(np.roll(block, 2, 1), block, spacing).hd95_mm == 2.0


def test_a_distance_equal_to_the_tolerance_counts_as_found():
    voxel = np.zeros((1, 1, 30), bool)
    voxel[..., 4] = True
    for spacing in (0.1, 0.3, 0.7, 1.1):
        shifted = np.roll(voxel, 7, axis=2)
        scores = surface_scores(shifted, voxel, (1.0, 1.0, spacing), (7 * spacing,))
        assert scores.nsd[7 * spacing] == 1.0


def test_area_of_a_ball_is_that_of_marching_cubes(ellipsoid):
    spacing = (1.5, 0.8, 1.0)
    ball = ellipsoid((32, 48, 40), (15, 23, 20), (20 / 1.5, 20 / 0.8, 17))
    vertices, faces, *_ = marching_cubes(np.pad(ball, 1).astype(float), 0.5, spacing=spacing)
    area = find_surface(ball, spacing).areas_mm2.sum()
    assert area == pytest.approx(mesh_surface_area(vertices, faces), rel=0.01)


def test_concentric_balls(ellipsoid):
    small = ellipsoid((61, 61, 61), (30, 30, 30), (15, 15, 15))
    large = ellipsoid((61, 61, 61), (30, 30, 30), (25, 25, 25))
    scores = surface_scores(large, small, (1, 1, 1), (8.0, 11.0))
    # The elements sit up to half a voxel diagonal off the true surface, and the nearest of them
    # is one on the near side: the distance comes out short by up to a voxel.
    assert 9.1 < scores.mean_distance_mm < scores.hd95_mm < 10.3
    assert scores.nsd == {8.0: 0.0, 11.0: 1.0}


def test_empty_masks():
    empty = np.zeros((3, 4, 5), bool)
    one = empty.copy()
    one[1, 2, 3] = True
    both = surface_scores(empty, empty, (1, 1, 1))
    assert math.isnan(both.hd95_mm)
    assert math.isnan(both.nsd[1.0])
    for pair in ((empty, one), (one, empty)):
        scores = surface_scores(*pair, (1, 1, 1))
        assert math.isnan(scores.hd95_mm)
        assert math.isnan(scores.mean_distance_mm)
        assert scores.nsd == {1.0: 0.0, 2.0: 0.0}


def test_bad_input_is_refused():
    mask = np.ones((3, 4, 5), bool)
    with pytest.raises(DataError):
        surface_scores(mask.astype(float), mask, (1, 1, 1))
    with pytest.raises(GeometryError):
        surface_scores(mask[0], mask[0], (1, 1, 1))
    with pytest.raises(GeometryError):
        surface_scores(mask, mask[:2], (1, 1, 1))
    for tolerance in (-1.0, math.nan):
        with pytest.raises(UsageError, match="tolerances"):
            surface_scores(mask, mask, (1, 1, 1), (tolerance,))


def test_weighted_percentile():
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 8.0, 1.0])
    assert weighted_percentile(values, weights, 50) == 1.0
    assert weighted_percentile(values, weights, 80) == 1.0
    assert weighted_percentile(values, weights, 81) == 2.0
    assert weighted_percentile(values, weights, 95) == 3.0
    assert weighted_percentile(values, weights, 100) == 3.0


def _monai_pair(ellipsoid, *, border):
    shape = (20, 30, 30) if border else (30, 50, 50)
    centre = (9, 14, 14) if border else (14, 24, 24)
    reference = ellipsoid(shape, centre, (12, 17, 15))
    prediction = ellipsoid(shape, np.add(centre, (1, 2, -1)), (11, 16, 18))
    assert reference[0].any() == border
    return prediction, reference


@pytest.mark.parametrize("border", [False, True])
def test_nsd_agrees_with_monai(ellipsoid, border):
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    prediction, reference = _monai_pair(ellipsoid, border=border)
    spacing = (3.0, 0.8, 1.2)
    ours = surface_scores(prediction, reference, spacing)
    for tolerance, value in ours.nsd.items():
        theirs = metrics.compute_surface_dice(
            *(torch.from_numpy(m)[None, None] for m in (prediction, reference)),
            class_thresholds=[tolerance],
            include_background=True,
            spacing=spacing,
            use_subvoxels=True,
        )
        assert value == pytest.approx(theirs.item(), abs=1e-5)


def test_hd95_is_near_that_of_monai(ellipsoid):
    """MONAI's surface is the outermost voxels, each counting the same, and its percentile
    interpolates; ours lies between voxels and is weighted by area. For surfaces that are about
    parallel both are within a voxel of each other, and cannot be equal."""
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    prediction, reference = _monai_pair(ellipsoid, border=False)
    theirs = metrics.compute_hausdorff_distance(
        *(torch.from_numpy(m)[None, None] for m in (prediction, reference)),
        include_background=True,
        percentile=95,
        spacing=(1.0, 1.0, 1.0),
    )
    ours = surface_scores(prediction, reference, (1.0, 1.0, 1.0))
    assert ours.hd95_mm == pytest.approx(theirs.item(), abs=1.0)
    assert ours.hd95_mm != theirs.item()


@pytest.mark.real_data
def test_agrees_with_surface_distance_on_a_real_tumour(ibsi_tumour):
    tumour, spacing = ibsi_tumour
    other = np.roll(tumour, (1, 3, -2), axis=(0, 1, 2))
    other[40:] = False
    ours = surface_scores(other, tumour, spacing)
    theirs = of_the_package(other, tumour, spacing)
    assert ours.hd95_mm == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 95))
    for tolerance, value in ours.nsd.items():
        expected = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert value == pytest.approx(expected)
