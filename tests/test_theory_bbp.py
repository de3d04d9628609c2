"""The BBP threshold at initialisation: the spec's numbers, and a scan of the outlier too."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import erfcx

from pipeline.theory.bbp import bbp_at_initialisation, bbp_of_law
from pipeline.theory.bulk import find_edge, find_outlier
from pipeline.theory.laws import LabelLaw, gaussian_law

PARAMETERS = (1e-4, 1e-3, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


def scan_for_outlier(a: float, low: float, high: float) -> float:
    """α where `find_outlier` begins to find one, by scans ten times finer each."""
    law = gaussian_law(a)
    while high - low > 1e-7 * low:
        alpha = np.linspace(low, high, 11)
        there = find_outlier(law, alpha).overlap2 > 0
        first = int(np.argmax(there))
        assert first > 0
        assert there[first:].all()
        low, high = alpha[first - 1], alpha[first]
    return float(low)


def test_numbers_of_the_spec_to_four_digits() -> None:
    assert bbp_at_initialisation(1.0) == pytest.approx(1.1349, abs=5e-5)
    assert bbp_at_initialisation(0.01) == pytest.approx(2.8508, abs=5e-5)


@pytest.mark.parametrize("a", PARAMETERS)
def test_root_and_scan_of_the_outlier_agree(a: float) -> None:
    assert scan_for_outlier(a, 0.05, 200.0) == pytest.approx(bbp_at_initialisation(a), rel=1e-6)


@pytest.mark.parametrize("a", PARAMETERS)
def test_the_overlap_of_the_outlier_vanishes_at_the_threshold(a: float) -> None:
    threshold = bbp_at_initialisation(a)
    alpha = threshold * np.array([0.99995, 1.00005, 1.005, 1.01, 1.015, 1.02])
    law = gaussian_law(a)
    overlap2 = find_outlier(law, alpha).overlap2
    assert overlap2[0] == 0 < overlap2[1]
    if find_edge(law, threshold).hard:  # then it appears with an overlap already
        assert overlap2[1] > 0.1
    else:
        crossing = np.polynomial.Polynomial.fit(overlap2[2:], alpha[2:], 3)(0.0)
        assert crossing == pytest.approx(threshold, rel=1e-5)


def averages(a: float, g: float) -> tuple[float, float]:
    """g² E[r²] and g E[r (y² − 1)]: over ŷ in closed form, over y by adaptive quadrature."""

    def given_label(y: float) -> tuple[float, float]:
        # g r = c/(k + ŷ²) − 1, with c and k of y alone
        k = (a + y**2 + g * y**2) / (-3 * g)
        c = (a + y**2) / (-3 * g)
        t = np.sqrt(k / 2)
        inverse = np.sqrt(np.pi) / (2 * t) * erfcx(t)
        slope = np.sqrt(np.pi) / 2 * (2 * erfcx(t) - (erfcx(t) / t + 2 / np.sqrt(np.pi)) / t)
        square = -slope / (4 * t)  # E[1/(k + ŷ²)²] = −d/dk E[1/(k + ŷ²)]
        return c * inverse - 1, c**2 * square - 2 * c * inverse + 1

    def density(y: float) -> float:
        return float(np.sqrt(2 / np.pi) * np.exp(-(y**2) / 2))

    functions = (
        lambda y: density(y) * given_label(y)[1],
        lambda y: density(y) * given_label(y)[0] * (y**2 - 1),
    )
    points = [np.sqrt(a) * x for x in (0.1, 1, 10) if np.sqrt(a) * x < 8]
    second, signal = (
        quad(f, 1e-12, 9, points=points, epsabs=1e-10, limit=300)[0] for f in functions
    )
    return second, signal


@pytest.mark.parametrize("a", PARAMETERS)
def test_another_quadrature_gives_the_same_threshold(a: float) -> None:
    def lead(g: float) -> float:
        second, signal = averages(a, g)
        return signal - second

    if lead(-1 + 1e-9) > 0:  # the edge rests at g_min
        threshold = 1 / averages(a, -1 + 1e-9)[1]
    else:
        threshold = 1 / averages(a, brentq(lead, -1e-3 * min(a, 1), -1 + 1e-9, rtol=1e-9))[0]
    assert bbp_at_initialisation(a) == pytest.approx(threshold, rel=1e-6)


@pytest.mark.parametrize("a", PARAMETERS)
def test_thresholds_converge_as_the_quadrature_is_refined(a: float) -> None:
    assert bbp_of_law(gaussian_law(a, step=0.06)) == pytest.approx(
        bbp_at_initialisation(a), rel=1e-10
    )


@pytest.mark.parametrize("a", [10.0, 100.0, 1e6])
def test_closed_form_where_the_edge_rests_at_its_end(a: float) -> None:
    threshold = bbp_at_initialisation(a)
    assert bool(find_edge(gaussian_law(a), threshold).hard)
    # α = a/(2 E[1/(1 + 3ŷ²/a)])
    half = np.sqrt(np.pi * a / 6) * erfcx(np.sqrt(a / 6))
    assert threshold == pytest.approx(a / 2 / half, rel=1e-9)


def test_the_unnormalised_loss_has_no_threshold() -> None:
    assert bbp_at_initialisation(np.inf) == np.inf
    assert bbp_at_initialisation(1e6) == pytest.approx(5e5, rel=1e-3)


def test_curvature_that_knows_no_signal_has_no_threshold() -> None:
    law = LabelLaw(np.array([0.5, 1.5]), np.array([-1.0, -1.0]), np.full(2, 0.5), 0.0, -1.0)
    assert bbp_of_law(law) == np.inf
