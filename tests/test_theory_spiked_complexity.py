"""Complexity of minima: the spec's numbers, and its formula maximised without the closed forms."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize, minimize_scalar

from pipeline.theory.spiked_complexity import complexity
from pipeline.theory.spiked_landscape import signal_states
from pipeline.theory.spiked_model import SpikedModel, SpikedModelError, make_spiked_model

MODELS = [SpikedModel(1.2, 0.25), SpikedModel(2.2, 1.0), SpikedModel(1.5, 1.0, 4)]


def determinant_and_cost(theta: float, t: float) -> float:
    """Φ(t) − L(θ, t) as the spec has it, with its integral done numerically."""
    phi = t**2 / 4 + np.log(np.sqrt(t**2 / 4 - 1) + t / 2) - t / 4 * np.sqrt(t**2 - 4)
    out = theta + 1 / theta
    if theta <= 1 or t >= out:
        return float(phi)
    integral, _ = quad(lambda y: np.sqrt(y**2 - 4), out, t, epsabs=1e-14)
    return float(phi - (integral / 4 - theta / 2 * (t - out) + (t**2 - out**2) / 8))


def full_complexity(model: SpikedModel, m: float, matrix: float, tensor: float) -> float:
    """Σ(m, E₂, E_p) of the spec."""
    a, b, p = model.matrix, model.tensor, model.order
    t = (-2 * matrix - p * tensor) / model.sigma
    if t < 2:
        return -np.inf
    theta = float(model.curvature(m)) * (1 - m**2) / model.sigma
    return float(
        np.log(model.noise_curvature / model.noise_slope) / 2
        + np.log(1 - m**2) / 2
        - (1 - m**2) * model.slope(m) ** 2 / (2 * model.noise_slope)
        - (matrix + a * m**2 / 2) ** 2 / a
        - p / (2 * b) * (tensor + b * m**p / p) ** 2
        + determinant_and_cost(theta, t)
    )


def test_the_equator_of_the_spec_to_four_digits() -> None:
    value = float(complexity(make_spiked_model(1.2, 4.0), 0.0).value)
    assert value == pytest.approx(1.6727e-4, abs=5e-9)


@pytest.mark.parametrize("model", [SpikedModel(2, 1), SpikedModel(1.6, 0.25), SpikedModel(3, 1, 4)])
def test_zero_at_signal_states(model: SpikedModel) -> None:
    states = signal_states(model)
    assert states
    for state in states:
        found = complexity(model, state.overlap)
        assert float(found.value) == pytest.approx(0, abs=1e-12)
        assert float(found.multiplier) == pytest.approx(state.multiplier, rel=1e-7)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("m", [-0.3, 0.0, 0.1, 0.45, 0.8])
def test_the_maximum_over_the_multiplier(model: SpikedModel, m: float) -> None:
    found = complexity(model, m)
    sigma, both = model.sigma, model.noise_curvature + model.noise_slope
    theta = float(model.curvature(m)) * (1 - m**2) / sigma
    pull = m * float(model.slope(m))

    def lack(t: float) -> float:
        return (sigma * t - pull) ** 2 / (2 * both) - determinant_and_cost(theta, t)

    best = minimize_scalar(lack, bounds=(2, 8), method="bounded", options={"xatol": 1e-11})
    t = min((2.0, best.x), key=lack)  # the search does not reach the end of its bounds
    rest = (
        np.log(model.noise_curvature / model.noise_slope) / 2
        + np.log(1 - m**2) / 2
        - (1 - m**2) * float(model.slope(m)) ** 2 / (2 * model.noise_slope)
    )
    assert float(found.value) == pytest.approx(rest - lack(t), abs=1e-10)
    assert float(found.multiplier) == pytest.approx(sigma * t, abs=1e-4)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("m", [0.05, 0.4])
def test_the_maximum_over_both_energies(model: SpikedModel, m: float) -> None:
    found = complexity(model, m)
    mu = float(found.multiplier)
    start = [-mu / 4 - 0.01, -mu / (2 * model.order) - 0.01]
    best = minimize(
        lambda energies: -full_complexity(model, m, *energies),
        start,
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000},
    )
    assert -best.fun == pytest.approx(float(found.value), abs=1e-8)


def test_the_shape_of_the_overlaps_and_their_range() -> None:
    model = make_spiked_model(1.5, 1.0)
    assert complexity(model, np.linspace(-0.9, 0.9, 6).reshape(2, 3)).value.shape == (2, 3)
    with pytest.raises(SpikedModelError, match=r"must be in \(-1, 1\), got 1.0"):
        complexity(model, 1.0)
