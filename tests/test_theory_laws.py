"""Laws of (y, ŷ): moments in closed form, convergence of the quadrature, refusals."""

import numpy as np
import pytest
from scipy.special import erfcx

from pipeline.theory.bulk import respond
from pipeline.theory.laws import LawError, gaussian_law, make_law


def mean_inverse(a: float) -> float:
    """E[1/(a + y²)] of a standard Gaussian y, in closed form."""
    return float(np.sqrt(np.pi / (2 * a)) * erfcx(np.sqrt(a / 2)))


@pytest.mark.parametrize("a", [1e-4, 0.01, 1.0, 100.0])
def test_gaussian_law_has_the_moments_of_closed_form(a: float) -> None:
    law = gaussian_law(a)
    assert law.weights.sum() == pytest.approx(1, abs=1e-14)
    assert law.weights @ law.labels_squared == pytest.approx(1, rel=1e-12)
    # E[f] = E[(3 − y²)/(a + y²)] and E[ŷ ℓ'] is the same
    expected = (3 + a) * mean_inverse(a) - 1
    assert law.weights @ law.curvature == pytest.approx(expected, rel=1e-10)
    assert law.pull == pytest.approx(expected, rel=1e-10)
    assert law.lowest == -1 < law.curvature.min()


def test_unnormalised_law() -> None:
    law = gaussian_law(np.inf)
    assert law.weights @ law.curvature == pytest.approx(2, rel=1e-12)
    assert law.pull == pytest.approx(2, rel=1e-12)  # E[ŷ⁴ − ŷ² y²]
    assert law.lowest == -np.inf


@pytest.mark.parametrize("a", [1e-4, 0.01, 0.3, 1.0, 100.0])
def test_averages_converge_as_stated(a: float) -> None:
    g = -np.array([1.0, 0.9, 0.3, 0.01, 1e-4])
    default, fine = (respond(gaussian_law(a, step=step), g) for step in (0.12, 0.05))
    for name in ("first", "second", "signal", "signal_second"):
        assert getattr(default, name) == pytest.approx(getattr(fine, name), rel=1e-11), name
    coarse = respond(gaussian_law(a, step=0.6), g)
    assert coarse.second != pytest.approx(fine.second, rel=1e-6)


def test_samples_and_weighted_nodes_give_the_same_law() -> None:
    y, predicted = np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.2, -0.3])
    samples = make_law(np.repeat(y, [1, 2, 1]), np.repeat(predicted, [1, 2, 1]), 0.5)
    nodes = make_law(y, predicted, 0.5, weights=[1, 2, 1])
    assert nodes.pull == pytest.approx(samples.pull)
    assert nodes.lowest == samples.lowest == nodes.curvature.min()
    g = np.array([-0.2, -0.1 - 0.3j])
    assert respond(nodes, g).second == pytest.approx(respond(samples, g).second)


@pytest.mark.parametrize(
    ("labels", "predictions", "weights", "said"),
    [
        ([1.0, 2.0], [1.0], None, r"shapes \(2,\), \(1,\)"),
        ([], [], None, "length ≥ 1"),
        ([[1.0]], [[1.0]], None, "shapes"),
        ([1.0, np.nan], [1.0, 1.0], None, "finite"),
        ([1.0, 2.0], [1.0, 1.0], [1.0, -0.5], "got -0.5"),
        ([1.0], [1.0], [0.0], "not all 0"),
    ],
)
def test_what_is_no_law_is_refused(
    labels: list[float], predictions: list[float], weights: list[float] | None, said: str
) -> None:
    with pytest.raises(LawError, match=said):
        make_law(labels, predictions, 1.0, weights=weights)


@pytest.mark.parametrize("a", [0.0, -1.0, np.nan])
def test_a_must_be_positive(a: float) -> None:
    with pytest.raises(LawError, match="a must be positive"):
        gaussian_law(a)
    with pytest.raises(LawError, match="a must be positive"):
        make_law([1.0], [1.0], a)


@pytest.mark.parametrize("step", [0.0, 2.0])
def test_the_step_must_be_sensible(step: float) -> None:
    with pytest.raises(LawError, match="step"):
        gaussian_law(1.0, step=step)
