import numpy as np
import pytest

from napari_lungfm.models.intensity_model import ContrastScale, evidence, histogram, overlap

RNG = np.random.default_rng(3)
LUNG, SOFT = RNG.normal(-850, 30, (40, 40)), RNG.normal(40, 15, (40, 40))
BOTH = np.concatenate([LUNG, SOFT])


def test_histograms_add_up_and_rule_nothing_out() -> None:
    for image in (LUNG, SOFT, np.array([[-5000.0, 5000.0]])):
        counts = histogram(image, np.ones(image.shape), ContrastScale.of(image))
        assert counts.sum() == pytest.approx(1.0)
        assert counts.min() > 0
    nothing = histogram(LUNG, np.zeros(LUNG.shape), ContrastScale.of(LUNG))
    assert nothing.sum() == pytest.approx(1.0)


def test_evidence_points_to_the_tissue_that_a_pixel_looks_like() -> None:
    scale = ContrastScale.of(BOTH)
    soft, lung = (histogram(x, np.ones(x.shape), scale) for x in (SOFT, LUNG))
    assert (evidence(SOFT, soft, lung) > 3).all()
    assert (evidence(LUNG, soft, lung) < -3).all()
    np.testing.assert_allclose(evidence(BOTH, soft, soft), 0.0)


def test_overlap_of_histograms() -> None:
    scale = ContrastScale.of(BOTH)
    soft, lung = (histogram(x, np.ones(x.shape), scale) for x in (SOFT, LUNG))
    assert overlap(soft, soft) == pytest.approx(1.0)
    assert overlap(soft, lung) < 0.01
    mixed = histogram(BOTH, np.ones(BOTH.shape), scale)
    assert overlap(soft, mixed) == pytest.approx(0.5, abs=0.02)


def test_the_scale_follows_the_window() -> None:
    assert ContrastScale.of(BOTH).edge_hu > 3 * ContrastScale.of(SOFT).edge_hu
    assert ContrastScale.of(np.zeros((5, 5))).edge_hu > 0
