"""The law of recovery curves against its definition and finite differences."""

import numpy as np
import pytest
from scipy.stats import norm

from pipeline.recovery_curve import log_probabilities, predictor_at, probability, slopes

ETA = np.linspace(-2.0, 8.0, 41)


def test_the_law_is_that_of_a_gaussian_overlap_above_a_bound() -> None:
    expected = 2 * norm.sf(norm.ppf(0.75) * np.exp(-ETA))
    assert probability(ETA) == pytest.approx(expected, rel=1e-12)
    assert probability(np.zeros(1)) == pytest.approx([0.5], rel=1e-15)


def test_logarithms_and_slopes_fit_the_probability() -> None:
    p, h = probability(ETA), 1e-5
    log_p, log_q = log_probabilities(ETA)
    assert np.exp(log_p) == pytest.approx(p, rel=1e-12)
    assert np.exp(log_q) == pytest.approx(1 - p, rel=1e-9, abs=1e-15)
    first = (probability(ETA + h) - probability(ETA - h)) / (2 * h)
    by_p, by_q, bend = slopes(ETA)
    assert by_p * p == pytest.approx(first, rel=1e-5)
    assert by_q * (1 - p) == pytest.approx(first, rel=1e-5)
    upper, lower = (slopes(ETA + e)[0] * probability(ETA + e) for e in (h, -h))
    assert bend == pytest.approx((upper - lower) / (2 * h) / (by_p * p), rel=1e-4, abs=1e-6)


def test_far_out_nothing_overflows() -> None:
    far = np.array([-1e4, -200.0, -20.0, 40.0, 1e4])
    log_p, log_q = log_probabilities(far)
    assert all(np.isfinite(value).all() for value in (log_p, log_q, *slopes(far)))
    assert (log_p <= 0).all()
    assert (log_q <= 0).all()


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_the_predictor_inverts_the_probability(p: float) -> None:
    assert probability(np.array([predictor_at(p)])) == pytest.approx([p], rel=1e-10)
