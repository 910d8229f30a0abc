import numpy as np
import pytest
from pydantic import ValidationError

from napari_lungfm.datasets.phantom_cohort import PhantomCohort
from napari_lungfm.datasets.phantoms.scanner import Infiltration, Scanner

SPACING = (5.0, 1.0, 1.0)


def test_a_scanner_that_changes_nothing_gives_the_image_back():
    hu = np.random.default_rng(0).integers(-1000, 400, (3, 20, 24)).astype(np.int16)
    assert (Scanner().image(hu, SPACING, 1) == hu).all()


def test_grey_values_are_scaled_from_air_and_darker_in_the_middle():
    hu = np.full((2, 21, 21), 0, np.int16)
    image = Scanner(gain=0.5, offset_hu=100, cupping_hu=80).image(hu, SPACING, 1)
    assert image[0, 0, 0] == -1000 + 0.5 * 1000 + 100
    assert image[0, 10, 10] == image[0, 0, 0] - 80


def test_noise_has_its_strength_and_grain_and_depends_on_the_seed():
    hu = np.zeros((4, 80, 80), np.int16)
    fine, coarse = (Scanner(noise_hu=60, grain_mm=g).image(hu, SPACING, 1) for g in (0.0, 2.0))
    for image in (fine, coarse):
        assert image.std() == pytest.approx(60, rel=0.02)
    steps = [np.abs(np.diff(image.astype(float), axis=2)).mean() for image in (fine, coarse)]
    assert steps[1] < 0.5 * steps[0]
    assert (Scanner(noise_hu=60).image(hu, SPACING, 1) == fine).all()
    assert (Scanner(noise_hu=60).image(hu, SPACING, 2) != fine).any()


def test_a_tumour_grows_into_the_lung_only_and_stays_within_reach():
    labels = np.full((7, 60, 60), 2, np.uint8)
    labels[:, :, :20] = 0  # chest wall
    z, y, x = np.indices(labels.shape)
    distance = np.sqrt((5.0 * (z - 3)) ** 2 + (y - 30.0) ** 2 + (x - 28.0) ** 2)
    solid = distance < 10
    labels[solid] = 3
    hu = np.choose(labels, (40, 0, -850, 30)).astype(np.int16)
    growth = Infiltration(reach_mm=(6, 6), density_hu=(-400, -400), roughness=0.0)
    image, grown = growth.grow(hu, labels, SPACING, 1)
    new = (grown == 3) & ~solid
    assert new.sum() > solid.sum() / 2
    assert (grown[:, :, :20] == labels[:, :, :20]).all()
    assert distance[new].max() < 10 + 6 + 1
    assert (image[~new] == hu[~new]).all()
    assert -850 < image[new].min() < image[new].max() <= -400


def test_a_cohort_takes_both_and_tells_them_apart():
    values = {"name": "c", "n_test": 1, "shape": [6, 40, 40], "spacings": [[8, 3, 3]],
              "kinds": ["solid-round"], "diameters_mm": [20, 20]}  # fmt: skip
    changed = {"scanner": {"gain": 0.6}, "infiltration": {"reach_mm": [8, 8]}}
    plain, other = (PhantomCohort(**values, **more).build(None).test[0] for more in ({}, changed))
    assert plain.fingerprint() != other.fingerprint()
    before, after = plain.load(), other.load()
    assert after.reference.mask(3).sum() > 1.5 * before.reference.mask(3).sum()
    sizes = [case.attributes["tumour_diameter_mm"] for case in (before, after)]
    assert 10 < sizes[1] - sizes[0] < 20  # 8 mm on either side, on a grid of 3 mm
    assert after.attributes["tumour_mean_hu"] < before.attributes["tumour_mean_hu"]
    assert after.reference.labels == before.reference.labels
    assert after.volume.array.dtype == np.int16
    # Soft tissue is no longer where HU have it: it lies at 0.6 of the way up from air.
    assert np.percentile(before.volume.array, 95) > 0
    assert np.percentile(after.volume.array, 95) < -200
    with pytest.raises(ValidationError, match="gain"):
        PhantomCohort(**values, scanner={"gain": 0})
