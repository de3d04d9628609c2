"""Left ends of spectra from samples, many at once: against one law alone, and eigenvalues."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.theory.bulk import find_edge, find_outlier, respond
from pipeline.theory.laws import LawError, gaussian_law, make_law
from pipeline.theory.samples import LeftEnd, left_end_of_samples

Floats = NDArray[np.float64]


def draw_labels(laws: int, samples: int, seed: int = 0) -> tuple[Floats, Floats]:
    y, predicted = np.random.default_rng(seed).standard_normal((2, laws, samples))
    return y, predicted


def solve(y: Floats, predicted: Floats, a: float, alpha: float) -> LeftEnd:
    weight = 1 / (a + y**2)
    f = (3 * predicted**2 - y**2) * weight
    pull = np.mean(predicted**2 * (predicted**2 - y**2) * weight, axis=1)
    return left_end_of_samples(y**2, f, alpha * pull, alpha)


@pytest.mark.parametrize(("a", "alpha"), [(1.0, 3.0), (0.01, 3.0), (0.01, 2.0), (10.0, 1.0)])
def test_each_law_is_solved_as_it_would_be_alone(a: float, alpha: float) -> None:
    y, predicted = draw_labels(30, 150)
    found = solve(y, predicted, a, alpha)
    for k in range(30):
        law = make_law(y[k], predicted[k], a)
        edge = find_edge(law, alpha)
        outlier = find_outlier(law, alpha, edge)
        assert found.edge[k] == pytest.approx(float(edge.eigenvalue), rel=1e-6)
        np.testing.assert_allclose(found.outlier[k], outlier.eigenvalue, rtol=1e-6)
        at = respond(law, edge.g)
        margin = float(alpha * edge.g * at.signal - 1)
        assert found.margin[k] == pytest.approx(margin, rel=1e-4, abs=1e-6)
        assert (found.margin[k] > 0) == np.isfinite(found.outlier[k])
        assert not found.outlier[k] > found.edge[k]
    if alpha * a > 1:  # some laws have an outlier and some have none
        assert np.isfinite(found.outlier).sum() > 0


def test_many_samples_tend_to_the_gaussian_law() -> None:
    y, predicted = draw_labels(4, 200_000)
    found, law = solve(y, predicted, 1.0, 3.0), gaussian_law(1.0)
    edge = find_edge(law, 3.0)
    outlier = find_outlier(law, 3.0, edge)
    assert found.edge.mean() == pytest.approx(float(edge.eigenvalue), rel=0.005)
    assert found.outlier.mean() == pytest.approx(float(outlier.eigenvalue), rel=0.005)
    assert np.ptp(found.margin) < 0.05


def test_the_margin_changes_sign_where_the_outlier_comes() -> None:
    """At α_BBP = 1.1349 for a = 1 (spec, section 5), on average over laws."""
    y, predicted = draw_labels(8, 50_000, seed=2)
    margins = [solve(y, predicted, 1.0, alpha).margin.mean() for alpha in (1.0, 1.1349, 1.3)]
    assert margins[0] < -0.03
    assert margins[1] == pytest.approx(0.0, abs=0.02)
    assert margins[2] > 0.03


def test_laws_are_solved_in_parts_and_do_not_touch_each_other() -> None:
    y, predicted = draw_labels(5, 100_000, seed=3)  # more samples than are held at once
    together = solve(y, predicted, 1.0, 3.0)
    alone = solve(y[3:4], predicted[3:4], 1.0, 3.0)
    for name in ("edge", "outlier", "margin"):
        np.testing.assert_allclose(getattr(together, name)[3], getattr(alone, name)[0], rtol=1e-7)
    assert left_end_of_samples(y[:0], y[:0], y[:0, 0], 3.0).edge.shape == (0,)


def test_without_negative_curvature_the_edge_is_that_of_what_is_left() -> None:
    """y = ŷ, a recovered signal: f = 2y²/(a + y²) ≥ 0 and μ = 0, so none is negative."""
    y, _ = draw_labels(2, 3000)
    found = solve(y, y, 1.0, 3.0)
    x = np.random.default_rng(1).standard_normal((2, 3000, 1000)) / np.sqrt(1000)
    for k in range(2):
        f = 2 * y[k] ** 2 / (1 + y[k] ** 2)
        lowest = np.linalg.eigvalsh((x[k] * f[:, None]).T @ x[k])[0]
        assert found.edge[k] == pytest.approx(lowest, rel=0.05)
    below = solve(y, y, 1.0, 0.5)  # fewer measurements than dimensions: a null space
    np.testing.assert_allclose(below.edge, 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("squares", "f", "mu", "alpha", "message"),
    [
        ((2, 3), (2, 3), (2,), 0.0, "alpha = M/N must be positive"),
        ((2, 3), (2, 4), (2,), 1.0, r"got \(2, 3\), \(2, 4\) and \(2,\)"),
        ((3,), (3,), (3,), 1.0, r"\[laws, samples\] of one shape"),
        ((2, 0), (2, 0), (2,), 1.0, r"\[laws, samples\] of one shape"),
        ((2, 3), (2, 3), (3,), 1.0, "multiplier one of"),
    ],
)
def test_what_is_no_law_is_refused(
    squares: tuple[int, ...], f: tuple[int, ...], mu: tuple[int, ...], alpha: float, message: str
) -> None:
    with pytest.raises(LawError, match=message):
        left_end_of_samples(np.ones(squares), np.ones(f), np.ones(mu), alpha)
