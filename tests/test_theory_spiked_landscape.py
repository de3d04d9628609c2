"""Lines, signal states and spectra of the spiked model: closed forms, and the model's own noise."""

import numpy as np
import pytest

from pipeline.theory.spiked_complexity import complexity
from pipeline.theory.spiked_landscape import (
    gradient_flow_line,
    hessian_edges,
    hessian_outlier,
    message_passing_line,
    signal_state,
    signal_states,
    triviality_line,
)
from pipeline.theory.spiked_model import SpikedModel, SpikedModelError, make_spiked_model

PLANE = [(1.0, 3), (4.0, 3), (0.3, 3), (1.0, 4), (2.0, 5)]


def test_lines_of_the_spec() -> None:
    assert gradient_flow_line(1.0) == pytest.approx(2, rel=1e-15)
    assert gradient_flow_line(4.0) == pytest.approx(1.3660, abs=5e-5)


@pytest.mark.parametrize(("delta_p", "order"), PLANE)
def test_lines_solve_their_equations_and_are_in_order(delta_p: float, order: int) -> None:
    flow, passing = gradient_flow_line(delta_p, order), message_passing_line(delta_p, order)
    assert flow == pytest.approx(make_spiked_model(flow, delta_p, order).sigma, rel=1e-14)
    assert passing**2 == pytest.approx(passing + 1 / delta_p, rel=1e-14)
    assert 1 < passing < flow < triviality_line(delta_p, order)


@pytest.mark.parametrize(("delta_p", "order"), PLANE)
def test_at_the_triviality_line_the_complexity_of_the_equator_is_zero(
    delta_p: float, order: int
) -> None:
    snr = triviality_line(delta_p, order)
    model = make_spiked_model(snr, delta_p, order)
    at_line = complexity(model, 0.0)
    assert float(at_line.value) == pytest.approx(0, abs=1e-14)
    assert float(at_line.multiplier) == pytest.approx(2 * model.sigma)
    around = [
        float(complexity(make_spiked_model(snr * by, delta_p, order), 0.0).value)
        for by in (0.99, 1.01)
    ]
    assert around[0] > 0 > around[1]


def test_signal_state_of_the_spec() -> None:
    state = signal_state(make_spiked_model(2.0, 1.0))
    assert state is not None
    assert state.overlap == pytest.approx(0.782665, abs=5e-7)


@pytest.mark.parametrize("model", [SpikedModel(2, 1), SpikedModel(1.6, 0.25), SpikedModel(3, 1, 4)])
def test_signal_states_solve_their_equation_and_are_stable(model: SpikedModel) -> None:
    states = signal_states(model)
    assert states
    for state in states:
        slope = model.slope(state.overlap)
        assert state.overlap == pytest.approx(slope / np.sqrt(slope**2 + model.noise_slope))
        low, _ = hessian_edges(model, state.multiplier)
        assert low > 0
        outlier, _ = hessian_outlier(model, state.multiplier, state.overlap)
        assert np.isnan(outlier) or outlier > 0


def test_anti_aligned_states_at_odd_order_and_mirror_images_at_even_order() -> None:
    low, high = (signal_states(make_spiked_model(snr, 4.0)) for snr in (1.3, 1.6))
    assert [state.overlap > 0 for state in low] == [True]
    assert [state.overlap > 0 for state in high] == [True, False]
    assert abs(high[1].overlap) < high[0].overlap
    first, second = signal_states(make_spiked_model(2.0, 1.0, 4))
    assert second.overlap == pytest.approx(-first.overlap)


def test_no_signal_state_below_its_threshold() -> None:
    assert signal_state(make_spiked_model(0.5, 4.0)) is None
    # and with the hard phase of the tensor a state exists where message passing does not find it
    assert signal_state(make_spiked_model(0.5, 0.2)) is not None


def test_the_spectrum_is_that_of_a_deformed_gaussian_matrix() -> None:
    model, mu, m, n = SpikedModel(2.5, 1.0), 3.0, 0.2, 1500
    rng = np.random.default_rng(7)
    matrix = rng.standard_normal((n, n)) * model.sigma / np.sqrt(2 * n)
    matrix += matrix.T
    matrix[np.diag_indices(n)] += mu
    matrix[0, 0] -= float(model.curvature(m)) * (1 - m**2)
    values, vectors = np.linalg.eigh(matrix)
    outlier, overlap2 = hessian_outlier(model, mu, m)
    low, high = hessian_edges(model, mu)
    assert values[0] == pytest.approx(float(outlier), abs=0.1)
    assert (values[1], values[-1]) == pytest.approx((float(low), float(high)), abs=0.1)
    # the first basis vector is v, of which x* is the part √(1 − m²)
    assert vectors[0, 0] ** 2 * (1 - m**2) == pytest.approx(float(overlap2), abs=0.1)


def test_no_outlier_where_the_signal_is_too_weak() -> None:
    model = SpikedModel(1.2, 1.0)
    outlier, overlap2 = hessian_outlier(model, [3.0, 4.0], 0.0)
    assert np.isnan(outlier).all()
    assert (overlap2 == 0).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.0, 1.0, 3), "snr = 1/Δ₂ must be positive, got 0.0"),
        ((1.0, 0.0, 3), "Δ_p must be a positive number, got 0.0"),
        ((1.0, np.inf, 3), "Δ_p must be a positive number, got inf"),
        ((np.inf, 1.0, 3), "1/Δ₂ must be a positive number, got inf"),
        ((1.0, 1.0, 2), "the order p must be an integer ≥ 3, got 2"),
    ],
)
def test_parameters_that_cannot_be(arguments: tuple[float, float, int], said: str) -> None:
    with pytest.raises(SpikedModelError, match=said):
        make_spiked_model(*arguments)
    assert issubclass(SpikedModelError, ValueError)
