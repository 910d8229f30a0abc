"""The phantom generator: references, physics, determinism."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_lungfm._core.exceptions import UsageError
from napari_lungfm.datasets.phantoms import (
    Imaging,
    PhantomSpec,
    Tissue,
    TumourKind,
    TumourSpec,
    draw_patient,
    draw_tumours,
    generate_phantom,
    phantom_geometry,
    render,
    tumour_sizes,
)
from napari_lungfm.geometry import Structure, VolumeGeometry

CLEAN = Imaging(noise_hu=0.0, streaks_hu=0.0, table=False)
ROUND = TumourSpec(TumourKind.SOLID_ROUND, 20.0)


def small(**changes):
    """A cheap crop around the first tumour."""
    base = PhantomSpec(seed=3, shape=(16, 48, 48), spacing=(3.0, 1.5, 1.5), focus=0, imaging=CLEAN)
    return replace(base, **changes)


@pytest.fixture(scope="module")
def chest():
    """A whole chest, coarse, without noise, with its tissues."""
    return generate_phantom(
        PhantomSpec(
            seed=11, shape=(68, 140, 180), spacing=(5.0, 2.5, 2.5), imaging=CLEAN, tissues=True
        )
    )


# ---------------------------------------------------------------------- determinism
def test_same_spec_gives_the_same_voxels_in_a_fresh_start():
    spec = small(imaging=Imaging(noise_hu=15.0))
    first = generate_phantom(spec)
    draw_patient.cache_clear()
    second = generate_phantom(spec)
    np.testing.assert_array_equal(first.volume.array, second.volume.array)
    np.testing.assert_array_equal(first.labels.array, second.labels.array)
    assert first.tumours == second.tumours
    assert first.volume.array.dtype == np.int16
    assert first.labels.array.dtype == np.uint8


def test_parts_vary_independently():
    spec = small(tumours=(ROUND,))
    base = generate_phantom(spec)
    noisy = generate_phantom(replace(spec, imaging=Imaging(noise_hu=30.0, contrast="arterial")))
    np.testing.assert_array_equal(noisy.labels.array, base.labels.array)
    bigger = generate_phantom(replace(spec, tumours=(TumourSpec("solid-round", 26.0),)))
    assert not np.array_equal(bigger.labels.array, base.labels.array)
    two = tumour_sizes([replace(spec, n_tumours=2)])
    assert two[0] == tumour_sizes([spec])[0]
    other = generate_phantom(replace(spec, seed=4))
    assert not np.array_equal(other.volume.array, base.volume.array)


# ---------------------------------------------------------------------- labels
@pytest.mark.parametrize("diameter", [6.0, 20.0, 31.0])
def test_round_tumour_has_the_volume_and_diameter_of_a_sphere(diameter):
    """On a fine grid the reference is the ball: 4/3 pi r^3 and the diameter."""
    n = int(diameter * 1.4 / 0.5)
    spec = small(
        shape=(n, n, n),
        spacing=(0.5, 0.5, 0.5),
        tumours=(TumourSpec("solid-round", diameter, _deep_point(3)),),
    )
    info = generate_phantom(spec).tumours[0]
    exact = math.pi / 6 * diameter**3 / 1000
    assert info.volume_ml == pytest.approx(exact, rel=0.03)
    assert info.longest_diameter_mm == pytest.approx(diameter, rel=0.03)
    size = tumour_sizes([spec])[0]
    assert size.volume_ml == pytest.approx(exact, rel=0.02)
    assert size.longest_diameter_mm == pytest.approx(diameter, rel=0.03)


def test_irregular_tumours_keep_the_volume_asked_for():
    specs = [
        small(seed=s, tumours=(TumourSpec("lobulated", 16.0, _deep_point(s)),)) for s in (1, 2, 3)
    ]
    exact = math.pi / 6 * 16.0**3 / 1000
    for size in tumour_sizes(specs):
        assert size.volume_ml == pytest.approx(exact, rel=0.03)
        assert size.longest_diameter_mm > 16.2


def test_label_is_where_more_than_half_of_the_voxel_is_tumour():
    """Counting the fine voxels of each coarse one gives the coarse labels but for ties."""
    tumours = (TumourSpec("solid-round", 20.0, _deep_point(3)),)
    coarse = generate_phantom(small(shape=(12, 12, 12), spacing=(3.0, 3.0, 3.0), tumours=tumours))
    patient = draw_patient(3)
    fine_grid = coarse.volume.geometry.resampled((0.5, 0.5, 0.5))
    drawn = draw_tumours(patient, tumours, 3)
    fine = render(patient, drawn, fine_grid, CLEAN).labels.array == Structure.TUMOUR
    share = fine.reshape(12, 6, 12, 6, 12, 6).mean(axis=(1, 3, 5))
    label = coarse.labels.array == Structure.TUMOUR
    clear = np.abs(share - 0.5) > 0.12
    np.testing.assert_array_equal(label[clear], share[clear] > 0.5)
    assert 0 < label.sum() < label.size


def test_lungs_are_on_their_sides_and_of_human_size(chest):
    geometry, labels = chest.labels.geometry, chest.labels.array
    volumes, centres = {}, {}
    for part in (Structure.LEFT_LUNG, Structure.RIGHT_LUNG):
        index = np.argwhere(labels == part)
        volumes[part] = len(index) * geometry.voxel_volume_ml / 1000
        centres[part] = geometry.index_to_world(index.mean(axis=0))
        assert ndimage.label(labels == part)[1] <= 3
    assert centres[Structure.LEFT_LUNG][0] > 40  # LPS: +x is the patient's left
    assert centres[Structure.RIGHT_LUNG][0] < -40
    assert volumes[Structure.RIGHT_LUNG] > volumes[Structure.LEFT_LUNG]
    assert 2.5 < sum(volumes.values()) < 8.5


def test_heart_points_left_and_the_liver_lies_right(chest):
    heart = _centre(chest, Tissue.MYOCARDIUM, Tissue.ARTERIAL_BLOOD)
    liver, spleen = _centre(chest, Tissue.LIVER), _centre(chest, Tissue.SPLEEN)
    assert heart[0] > 2
    assert liver[0] < -20 < 40 < spleen[0]
    assert liver[2] < heart[2]
    assert _centre(chest, Tissue.SPINAL_CANAL)[1] > 40  # +y is the back


def test_reference_uses_the_structures_of_the_benchmark(chest):
    assert chest.labels.present() == (1, 2, 3)
    assert chest.labels.labels[3] == "tumour"
    assert chest.volume.geometry.is_close(chest.labels.geometry)


# ---------------------------------------------------------------------- attenuation
@pytest.mark.parametrize(
    ("tissue", "low", "high"),
    [
        (Tissue.LUNG, -930, -720),
        (Tissue.FAT, -125, -80),
        (Tissue.MUSCLE, 30, 75),
        (Tissue.CORTEX, 200, 1300),
        (Tissue.ARTERIAL_BLOOD, 30, 60),
        (Tissue.LIVER, 35, 80),
        (Tissue.AIRWAY_LUMEN, -1000, -850),
    ],
)
def test_tissues_have_their_usual_hu(chest, tissue, low, high):
    inside = ndimage.binary_erosion(chest.tissues.array == tissue, iterations=1)
    if tissue in (Tissue.CORTEX, Tissue.AIRWAY_LUMEN):
        inside = chest.tissues.array == tissue
    assert inside.sum() > 10
    assert low < np.median(chest.volume.array[inside]) < high


def test_lung_is_denser_at_the_back(chest):
    lung = chest.tissues.array == Tissue.LUNG
    lung &= ndimage.binary_erosion(chest.labels.array > 0, iterations=2)
    y = np.argwhere(lung)[:, 1]
    values = chest.volume.array[lung]
    front, back = y < np.quantile(y, 0.25), y > np.quantile(y, 0.75)
    assert 15 < values[back].mean() - values[front].mean() < 120


@pytest.mark.parametrize(("contrast", "low", "high"), [
    ("none", 30, 60), ("venous", 150, 230), ("arterial", 240, 400),
])  # fmt: skip
def test_contrast_medium_shows_in_the_aorta(contrast, low, high):
    imaging = replace(CLEAN, contrast=contrast)
    patient = draw_patient(3)
    x, y, z = patient.build.place(27, 43, -40)
    grid = VolumeGeometry((3, 7, 7), (2.0, 1.0, 1.0), (x - 3, y - 3, z - 2))
    aorta = render(patient, (), grid, imaging).volume.array
    assert low < aorta.mean() < high


# ---------------------------------------------------------------------- tumour kinds
@pytest.mark.parametrize("kind", list(TumourKind))
def test_every_kind_is_generated(kind):
    phantom = generate_phantom(small(seed=5, tumours=(TumourSpec(kind),)))
    info = phantom.tumours[0]
    assert info.kind == kind
    voxels = int((phantom.labels.array == Structure.TUMOUR).sum())
    assert voxels * phantom.labels.geometry.voxel_volume_ml == pytest.approx(info.volume_ml)
    assert info.volume_ml > 0
    expected = {
        TumourKind.GROUND_GLASS: (-720, -300),
        TumourKind.PART_SOLID: (-620, -60),
        TumourKind.CAVITATING: (-650, 20),
    }
    low, high = expected.get(kind, (-160, 90))
    assert low < info.mean_hu < high


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_juxta_pleural_tumours_touch_the_wall_and_inner_ones_do_not(seed):
    wall = small(seed=seed, spacing=(1.5, 1.5, 1.5), shape=(32, 32, 32),
                 tumours=(TumourSpec("juxta-pleural", 18.0),))  # fmt: skip
    phantom = generate_phantom(wall)
    assert phantom.tumours[0].pleural_contact
    labels = phantom.labels.array
    ring = ndimage.binary_dilation(labels == 3, iterations=2) & (labels == 0)
    assert ring.sum() > 20  # wall, not only lung, is next to it
    inner = replace(wall, tumours=(TumourSpec("solid-round", 12.0, _deep_point(seed)),))
    phantom = generate_phantom(inner)
    assert not phantom.tumours[0].pleural_contact


def test_atelectasis_is_dense_and_not_in_the_reference():
    spec = small(tumours=(TumourSpec("atelectasis", 24.0),), shape=(32, 60, 60), tissues=True)
    phantom = generate_phantom(spec)
    collapsed = phantom.tissues.array == Tissue.ATELECTASIS
    assert collapsed.sum() > 50
    assert not (phantom.labels.array[collapsed] == Structure.TUMOUR).mean() > 0.1
    core = ndimage.binary_erosion(collapsed)
    assert abs(np.median(phantom.volume.array[core]) - phantom.tumours[0].mean_hu) < 60


def test_spicules_are_seen_but_not_labelled():
    spec = small(tumours=(TumourSpec("spiculated", 24.0, _deep_point(3)),), shape=(48, 64, 64),
                 spacing=(1.0, 1.0, 1.0), tissues=True)  # fmt: skip
    phantom = generate_phantom(spec)
    tumour = phantom.labels.array == Structure.TUMOUR
    shell = ndimage.binary_dilation(tumour, iterations=5) & ~ndimage.binary_dilation(
        tumour, iterations=2
    )
    bright = phantom.volume.array[shell] > -500
    assert 0.01 < bright.mean() < 0.5
    assert phantom.tumours[0].volume_ml == pytest.approx(math.pi / 6 * 24**3 / 1000, rel=0.04)


@pytest.mark.parametrize("seed", range(6))
def test_small_juxta_pleural_tumours_reach_the_pleura(seed):
    tumour = draw_tumours(draw_patient(3), (TumourSpec("juxta-pleural", 5.0),), seed)[0]
    assert tumour.pleural_contact
    assert tumour.volume_ml > 0.4 * math.pi / 6 * 5**3 / 1000


def test_several_tumours_keep_apart():
    tumours = draw_tumours(draw_patient(8), (ROUND, ROUND, ROUND), 8)
    for i, first in enumerate(tumours):
        for second in tumours[:i]:
            assert math.dist(first.centre, second.centre) > 20.0


# ---------------------------------------------------------------------- sampling
def test_thick_slices_are_the_mean_of_thin_ones():
    patient = draw_patient(3)
    tumours = draw_tumours(patient, (ROUND,), 3)
    x, y, z = tumours[0].centre
    thin = VolumeGeometry((20, 24, 24), (1.0, 1.5, 1.5), (x - 18, y - 18, z - 10))
    thick = VolumeGeometry((4, 24, 24), (5.0, 1.5, 1.5), (x - 18, y - 18, z - 8))
    fine = render(patient, tumours, thin, CLEAN).volume.array.astype(float)
    coarse = render(patient, tumours, thick, CLEAN).volume.array.astype(float)
    difference = np.abs(fine.reshape(4, 5, 24, 24).mean(axis=1) - coarse)
    assert difference.mean() < 3.0
    assert np.quantile(difference, 0.99) < 45.0


def test_overlapping_slices_are_running_means():
    """5 mm slices every 1 mm are the moving average of 1 mm slices."""
    spec = small(tumours=(ROUND,), spacing=(1.0, 1.5, 1.5))
    narrow = generate_phantom(spec).volume.array.astype(float)
    wide = generate_phantom(replace(spec, imaging=replace(CLEAN, slice_thickness=5.0)))
    expected = ndimage.uniform_filter1d(narrow, 5, axis=0)[2:-2]
    difference = np.abs(wide.volume.array[2:-2] - expected)
    assert difference.mean() < 3.0
    assert np.abs(narrow[2:-2] - expected).mean() > 8.0


def test_two_grids_see_one_patient():
    """Positions are in mm: the mean over a shared box does not depend on the grid."""
    patient = draw_patient(6)
    tumours = draw_tumours(patient, (ROUND,), 6)
    x, y, z = tumours[0].centre
    fine = VolumeGeometry((32, 32, 32), (1.0, 1.0, 1.0), (x - 15.5, y - 15.5, z - 15.5))
    coarse = VolumeGeometry((16, 16, 16), (2.0, 2.0, 2.0), (x - 15, y - 15, z - 15))
    a, b = (render(patient, tumours, g, CLEAN) for g in (fine, coarse))
    blocks = a.volume.array.reshape(16, 2, 16, 2, 16, 2).mean(axis=(1, 3, 5))
    assert np.corrcoef(blocks.ravel(), b.volume.array.ravel())[0, 1] > 0.985
    assert blocks.mean() == pytest.approx(b.volume.array.mean(), abs=12)
    for grid, result in ((fine, a), (coarse, b)):
        inside = np.argwhere(result.labels.array == Structure.TUMOUR)
        centre = grid.index_to_world(inside.mean(axis=0))
        np.testing.assert_allclose(centre, (x, y, z), atol=0.3)


@pytest.mark.parametrize("noise", [0.0, 20.0])
def test_a_crop_equals_the_whole_where_they_overlap(noise):
    imaging = Imaging(noise_hu=noise, kernel="lung", contrast="venous")
    whole = generate_phantom(
        PhantomSpec(seed=2, shape=(40, 120, 160), spacing=(5.0, 2.0, 2.0), imaging=imaging)
    )
    crop = generate_phantom(
        PhantomSpec(seed=2, shape=(9, 40, 40), spacing=(5.0, 2.0, 2.0), imaging=imaging, focus=0)
    )
    start = np.rint(whole.volume.geometry.world_to_index(crop.volume.geometry.origin)).astype(int)
    low, high = np.maximum(start, 0), np.minimum(start + crop.volume.shape, whole.volume.shape)
    assert (high - low >= (5, 30, 30)).all()
    outer = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inner = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    np.testing.assert_array_equal(whole.labels.array[outer], crop.labels.array[inner])
    difference = whole.volume.array[outer].astype(int) - crop.volume.array[inner]
    assert np.abs(difference).max() <= 1  # sums in another order round differently


def test_grids_of_one_spacing_share_voxel_centres():
    a = phantom_geometry(PhantomSpec(seed=2, spacing=(5.0, 2.0, 2.0)))
    b = phantom_geometry(PhantomSpec(seed=2, spacing=(5.0, 2.0, 2.0), focus=0))
    shift = (np.array(a.origin) - b.origin) / (2.0, 2.0, 5.0)
    np.testing.assert_allclose(shift, np.rint(shift), atol=1e-9)


# ---------------------------------------------------------------------- noise
@pytest.mark.parametrize("kernel", ["soft", "lung"])
def test_noise_is_as_strong_as_asked_and_correlated(kernel):
    patient = draw_patient(4)
    x, y, z = patient.build.place(20, -25, -65)  # inside the heart
    grid = VolumeGeometry((24, 40, 40), (2.0, 0.8, 0.8), (x - 16, y - 16, z - 24))
    clean = replace(CLEAN, kernel=kernel)
    noisy = replace(clean, noise_hu=20.0)
    images = [render(patient, (), grid, i).volume.array.astype(float) for i in (clean, noisy)]
    noise = images[1] - images[0]
    assert noise.std() == pytest.approx(20.0, rel=0.2)
    assert abs(noise.mean()) < 1.5
    along = np.corrcoef(noise[..., 1:].ravel(), noise[..., :-1].ravel())[0, 1]
    across = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    assert along > (0.4 if kernel == "soft" else 0.05)
    assert abs(across) < 0.1
    again = render(patient, (), grid, replace(noisy, seed=99)).volume.array - images[0]
    assert abs(np.corrcoef(again.ravel(), noise.ravel())[0, 1]) < 0.1


def test_noise_has_little_power_at_low_frequencies():
    """Filtered back-projection: the spectrum rises with the frequency before it falls."""
    patient = draw_patient(4)
    x, y, z = patient.build.place(20, -25, -65)
    grid = VolumeGeometry((16, 64, 64), (2.0, 0.7, 0.7), (x - 22, y - 22, z - 16))
    images = [
        render(patient, (), grid, i).volume.array.astype(float)
        for i in (CLEAN, replace(CLEAN, noise_hu=20.0))
    ]
    power = (np.abs(np.fft.fft2(images[1] - images[0])) ** 2).mean(axis=0)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(64, 0.7), np.fft.fftfreq(64, 0.7)))
    low, middle, high = (
        power[(f > a) & (f < b)].mean() for a, b in ((0, 0.05), (0.12, 0.25), (0.6, 0.7))
    )
    assert low < 0.6 * middle
    assert high < 0.2 * middle


# ---------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TumourSpec("cube"), "no tumour kind 'cube'"),
        (lambda: TumourSpec("lobulated", 0.0), "tumour diameter"),
        (lambda: TumourSpec("lobulated", -5.0), "tumour diameter"),
        (lambda: TumourSpec("lobulated", math.nan), "tumour diameter"),
        (lambda: TumourSpec(centre=(0.0, 0.0)), "three finite numbers"),
        (lambda: Imaging(kernel="bone"), "no kernel 'bone'"),
        (lambda: Imaging(contrast="oral"), "no contrast 'oral'"),
        (lambda: Imaging(noise_hu=-1.0), "noise"),
        (lambda: Imaging(slice_thickness=0.0), "slice thickness"),
        (lambda: PhantomSpec(shape=(0, 10, 10)), "shape"),
        (lambda: PhantomSpec(shape=(10, 10)), "shape"),
        (lambda: PhantomSpec(shape=(1000, 1000, 1000)), "voxels"),
        (lambda: PhantomSpec(spacing=(0.0, 1.0, 1.0)), "spacing"),
        (lambda: PhantomSpec(spacing=(1.0, 1.0)), "spacing"),
        (lambda: PhantomSpec(n_tumours=-1), "n_tumours"),
        (lambda: PhantomSpec(n_tumours=1, tumours=(ROUND, ROUND)), "n_tumours"),
        (lambda: PhantomSpec(focus=1), "focus"),
        (lambda: PhantomSpec(focus=0, centre=(0.0, 0.0, 0.0)), "centre or focus"),
    ],
)
def test_bad_specifications_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_a_tumour_outside_the_lungs_is_refused():
    spec = small(tumours=(TumourSpec("solid-round", 10.0, (0.0, 60.0, 0.0)),))
    with pytest.raises(UsageError, match="does not lie in a lung"):
        generate_phantom(spec)


def test_a_rotated_grid_is_refused():
    grid = VolumeGeometry((2, 2, 2), direction=((-1, 0, 0), (0, -1, 0), (0, 0, 1)))
    with pytest.raises(UsageError, match="along the patient's axes"):
        render(draw_patient(3), (), grid, CLEAN)


# ---------------------------------------------------------------------- any small case
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.sampled_from([-2, 0, 1, 2]),
    tumour_seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 24), st.integers(1, 24)),
    spacing=st.tuples(st.floats(0.8, 6.0), st.floats(0.5, 4.0), st.floats(0.5, 4.0)),
    kind=st.one_of(st.none(), st.sampled_from(list(TumourKind))),
    diameter=st.one_of(st.none(), st.floats(4.0, 60.0)),
    imaging=st.builds(
        Imaging,
        slice_thickness=st.one_of(st.none(), st.floats(0.5, 8.0)),
        kernel=st.sampled_from(["soft", "lung"]),
        contrast=st.sampled_from(["none", "arterial", "venous"]),
        noise_hu=st.floats(0, 60),
        streaks_hu=st.floats(0, 20),
        table=st.booleans(),
    ),
    whole=st.booleans(),
)
def test_any_small_case_is_valid(seed, tumour_seed, shape, spacing, kind, diameter, imaging, whole):
    spec = PhantomSpec(
        seed=seed,
        shape=shape,
        spacing=spacing,
        focus=None if whole else 0,
        imaging=imaging,
        tumours=(TumourSpec(kind, diameter),),
        tumour_seed=tumour_seed,
    )
    phantom = generate_phantom(spec)
    assert phantom.volume.shape == phantom.labels.shape == shape
    assert phantom.volume.array.min() >= -1024
    assert phantom.volume.array.max() <= 3071
    assert set(np.unique(phantom.labels.array)) <= {0, 1, 2, 3}
    info = phantom.tumours[0]
    voxels = int((phantom.labels.array == 3).sum())
    assert info.volume_ml == pytest.approx(voxels * phantom.labels.geometry.voxel_volume_ml)
    assert math.isnan(info.mean_hu) == (voxels == 0)
    if diameter is not None:
        assert info.diameter_mm == diameter
    left, right = phantom.labels.array == 1, phantom.labels.array == 2
    x = phantom.volume.geometry.origin[0] + np.arange(shape[2]) * spacing[2]
    assert not left.any() or x[np.flatnonzero(left.any(axis=(0, 1)))].min() > -spacing[2]
    assert not right.any() or x[np.flatnonzero(right.any(axis=(0, 1)))].max() < spacing[2]


# ---------------------------------------------------------------------- helpers
def _deep_point(seed):
    """The point of the lungs that is farthest from their surface."""
    lung = draw_patient(seed).lung_map
    x, y, z = lung.nodes[int(np.argmax(lung.depth))].tolist()
    return (x, y, z)


def _centre(phantom, *tissues):
    inside = np.isin(phantom.tissues.array, [int(t) for t in tissues])
    index = np.argwhere(inside)
    assert len(index) > 5
    return phantom.volume.geometry.index_to_world(index.mean(axis=0))
