"""Instances without couplings: the law of what is drawn, against theory and direct instances."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import Flow
from pipeline.kernel.gain import signal_gain
from pipeline.kernel.observables import hessian_snapshot
from pipeline.kernel.phase_retrieval import draw_starts
from pipeline.kernel.spiked_conditional import (
    ConditionalSpikedTensor,
    DirectionsExhaustedError,
    draw_conditional,
)
from pipeline.kernel.spiked_tensor import draw_spiked
from pipeline.theory.spiked_descent import descend
from pipeline.theory.spiked_flow import follow_flow_from_equator
from pipeline.theory.spiked_landscape import hessian_edges, hessian_outlier
from pipeline.theory.spiked_model import SpikedModel, make_spiked_model

MODELS = [SpikedModel(1.7, 0.6), SpikedModel(1.2, 1.5, 4)]


def streams(count: int, entropy: int = 11) -> list[np.random.SeedSequence]:
    return [np.random.SeedSequence(entropy, spawn_key=(k,)) for k in range(count)]


def start_at(
    landscape: ConditionalSpikedTensor, count: int, overlap: float, entropy: int = 11
) -> np.ndarray:
    w = landscape.draw_starts(streams(count, entropy))
    w[:, 0] = 0
    w *= np.sqrt((1 - overlap**2) * landscape.width / np.vecdot(w, w))[:, None]
    w[:, 0] = overlap * np.sqrt(landscape.width)
    return w


@pytest.mark.parametrize("model", MODELS)
def test_gradients_at_two_points_have_the_covariance_of_the_model(model: SpikedModel) -> None:
    """Cov(g_i(y), g_j(y')) = [δ_ij Q'(q) + y'_i y_j Q″(q)]/N, within the span and beyond it."""
    n, count, width = 12, 2000, 8
    draws = streams(count)
    landscape = draw_conditional(draws, model=model, dimension=n, width=width)
    landscape.draw_starts(draws, 2)  # three directions: y and y' lie in their span
    y = np.zeros((2, width))
    y[0, :3], y[1, :3] = [0.6, 0.8, 0.0], [-0.3, 0.5, np.sqrt(0.66)]
    owner = np.repeat(np.arange(count), 2)
    w = np.tile(y, (count, 1)) * np.sqrt(width)
    g = landscape.gradient(w, owner)[0].reshape(count, 2, width) / np.sqrt(width)
    g[:, :, 0] += model.slope(y[:, 0])
    q = y[0] @ y[1]
    outside = (n - 3) * float(model.slope(q)) / n
    assert np.vecdot(g[:, 0, 3:], g[:, 1, 3:]).mean() == pytest.approx(outside, rel=0.12)
    assert np.square(g[:, 0, 3:]).sum(axis=1).mean() == pytest.approx(
        (n - 3) * model.noise_slope / n, rel=0.07
    )
    inside = np.einsum("ki,kj->ij", g[:, 0, :3], g[:, 1, :3]) / count
    expected = np.eye(3) * model.slope(q) + np.outer(y[1, :3], y[0, :3]) * model.curvature(q)
    error = 4 * (model.noise_slope + model.noise_curvature) / n / np.sqrt(count)
    assert inside == pytest.approx(expected / n, abs=error)


@pytest.mark.parametrize("model", MODELS)
def test_the_gradient_is_that_of_the_energy(model: SpikedModel) -> None:
    landscape = draw_conditional(streams(2), model=model, dimension=500, width=20)
    w, owner = landscape.draw_starts(streams(2)), np.arange(2)
    for _ in range(3):  # along a few steps, to have a span
        gradient, _ = landscape.gradient(w, owner)
        w -= 0.1 * gradient
    gradient, energies = landscape.gradient(w, owner)
    degrees = np.array([2, model.order])
    assert (energies * degrees).sum(axis=1) == pytest.approx(np.vecdot(w, gradient) / 20)
    for k in range(5):
        e = np.zeros(20)
        e[k] = 1e-5
        ahead, behind = (
            landscape.loss(landscape.gradient(w + sign * e, owner)[1], owner) for sign in (1, -1)
        )
        assert gradient[:, k] == pytest.approx((ahead - behind) * 20 / 2e-5, rel=1e-6, abs=1e-6)


def test_very_large_instances_follow_the_closed_equations() -> None:
    """N = 10⁶: m, μ and both energies within three standard errors, at four times."""
    model, count, step = make_spiked_model(1.6667, 4.0), 16, 0.1
    draws = streams(count, 2024)
    landscape = draw_conditional(draws, model=model, dimension=10**6, width=80)
    times = (1.0, 3.0, 10.0, 20.0)
    run = GradientDescent(landscape, 20.0, step).run(
        start_at(landscape, count, 0.1, 2024), np.arange(count), times
    )
    exact = descend(model, 0.1, duration=20.0, step=step)
    for k, time in enumerate(times):
        at = round(time / step)
        w = run.path[:, k]
        gradient, energies = landscape.gradient(w, np.arange(count))
        measured = {
            "overlap": landscape.overlap(w, np.arange(count)),
            "multiplier": -np.vecdot(w, gradient) / landscape.dimension,
            "matrix_energy": energies[:, 0],
            "tensor_energy": energies[:, 1],
        }
        for name, values in measured.items():
            error = values.std(ddof=1) / np.sqrt(count)
            assert error < 5e-3
            assert abs(values.mean() - getattr(exact, name)[at]) < 3 * error, (name, time)


@pytest.mark.parametrize("model", MODELS)
def test_at_infinite_size_the_closed_equations_hold_exactly(model: SpikedModel) -> None:
    landscape = draw_conditional(streams(1), model=model, dimension=10**16, width=40)
    run = GradientDescent(landscape, 2.0, 0.1).run(
        start_at(landscape, 1, 0.3), np.zeros(1, dtype=np.intp)
    )
    exact = descend(model, 0.3, duration=2.0, step=0.1)
    assert run.w[0, 0] / np.sqrt(40) == pytest.approx(exact.overlap[-1], abs=1e-6)


def test_numbers_follow_from_the_streams_and_not_from_the_width() -> None:
    ends = []
    for width in (50, 50, 70):
        landscape = draw_conditional(streams(2), model=MODELS[0], dimension=10**4, width=width)
        run = Flow(landscape, 3.0, 0.01).run(landscape.draw_starts(streams(2)), np.arange(2))
        ends.append(run.w[:, :40] / np.sqrt(width))
    assert np.array_equal(ends[0], ends[1])
    assert ends[0] == pytest.approx(ends[2], abs=1e-9)


def test_the_tolerance_moves_the_overlap_less_than_the_seed_does() -> None:
    overlaps = []
    for tolerance in (1e-13, 1e-10, 1e-8):
        landscape = draw_conditional(
            streams(4), model=MODELS[0], dimension=10**5, width=120, tolerance=tolerance
        )
        run = GradientDescent(landscape, 10.0, 0.1).run(start_at(landscape, 4, 0.2), np.arange(4))
        overlaps.append(run.w[:, 0] / np.sqrt(120))
    spread = float(np.std(overlaps[0]))
    for other in overlaps[1:]:
        assert other == pytest.approx(overlaps[0], abs=0.25 * spread)


def test_too_few_directions_are_refused() -> None:
    landscape = draw_conditional(streams(1), model=MODELS[0], dimension=10**4, width=6)
    with pytest.raises(DirectionsExhaustedError, match=r"N = 10000 needs more than the 6"):
        Flow(landscape, 3.0, 0.01).run(landscape.draw_starts(streams(1)), np.zeros(1, dtype=int))


def test_an_instance_smaller_than_its_descent_is_revealed_whole() -> None:
    landscape = draw_conditional(streams(1), model=MODELS[0], dimension=10, width=12)
    run = Flow(landscape, 20.0, 1e-3).run(landscape.draw_starts(streams(1)), np.zeros(1, dtype=int))
    assert landscape.couplings[0].count == 10
    gradient, _ = landscape.gradient(run.w, np.zeros(1, dtype=np.intp))
    tangent = gradient - np.vecdot(run.w, gradient)[:, None] / 12 * run.w
    assert np.abs(tangent).max() < 0.1


def test_starts_are_uniform_and_share_their_instance() -> None:
    landscape = draw_conditional(streams(300), model=MODELS[0], dimension=50, width=4)
    w = landscape.draw_starts(streams(300), 2) / 2
    assert np.vecdot(w, w) == pytest.approx(1)
    assert 50 * np.square(w[:, 0]).mean() == pytest.approx(1, abs=0.2)
    products = np.vecdot(w[::2], w[1::2])
    assert 50 * np.square(products).mean() == pytest.approx(1, abs=0.25)


def test_edge_and_outlier_on_the_equator_are_those_of_the_theory() -> None:
    model, width = make_spiked_model(2.6, 1.0), 70
    landscape = draw_conditional(streams(3), model=model, dimension=10**8, width=width)
    descent = GradientDescent(landscape, 3.0, 0.1, on_equator=True)
    path = descent.run(start_at(landscape, 3, 0.0), np.arange(3), (0.0, 1.0, 3.0)).path
    exact = descend(model, 0.0, duration=3.0, step=0.1)
    for k, at in enumerate((0, 10, 30)):
        found = hessian_snapshot(landscape, path[:, k], np.arange(3), path[:, k])
        outlier, overlap2 = hessian_outlier(model, exact.multiplier[at], 0.0)
        edge, _ = hessian_edges(model, exact.multiplier[at])
        assert found.lambda1 == pytest.approx(float(outlier), abs=5e-3)
        assert found.lambda2 == pytest.approx(float(edge), abs=2e-3)
        assert found.alignment == pytest.approx(float(overlap2), abs=5e-3)


def test_below_the_line_the_lowest_eigenvalue_is_the_edge() -> None:
    model = make_spiked_model(1.5, 1.0)
    landscape = draw_conditional(streams(2), model=model, dimension=10**6, width=20)
    w = start_at(landscape, 2, 0.0)
    found = hessian_snapshot(landscape, w, np.arange(2), w)
    assert found.lambda1 == pytest.approx(-2 * model.sigma, abs=0.01)
    assert (found.lambda1 == found.lambda2).all()
    assert (found.alignment == 0).all()
    assert found.residual == pytest.approx(model.sigma * 1e-4)


def test_the_spectrum_in_law_is_that_of_hessians_drawn_from_it() -> None:
    """Along a descent with m of order 1, where the outlier also knows of past gradients."""
    model, width, n = make_spiked_model(2.5, 1.0), 60, 1500
    landscape = draw_conditional(streams(1), model=model, dimension=10**10, width=width)
    owner = np.zeros(1, dtype=np.intp)
    path = GradientDescent(landscape, 1.0, 0.1).run(start_at(landscape, 1, 0.1), owner, (1.0,)).path
    found = hessian_snapshot(landscape, path[:, 0], owner, path[:, 0])
    hessian = landscape.hessian(path[:, 0], owner)
    mu, known, noise = -float(hessian.multiplier[0]), hessian.known[0], hessian.noise[0]
    d, rng = len(known), np.random.default_rng(9)
    values, vectors = np.linalg.eigh(noise)
    root = vectors * np.sqrt(np.maximum(values, 0))
    square = rng.normal(size=(n, n)) * model.sigma / np.sqrt(2 * n)
    matrix = square + square.T
    matrix[:d, :d] = known
    matrix[:d, d:] = root @ rng.normal(size=(d, n - d)) / np.sqrt(n)
    matrix[d:, :d] = matrix[:d, d:].T
    values, vectors = np.linalg.eigh(matrix + mu * np.eye(n))
    assert values[:2] == pytest.approx([found.lambda1[0], found.lambda2[0]], abs=0.06)
    assert vectors[0, 0] ** 2 == pytest.approx(found.alignment[0], abs=0.06)
    # deeper than if the noise did not know of the descent
    independent, _ = hessian_outlier(model, mu, path[0, 0, 0] / np.sqrt(width))
    assert found.lambda1[0] < float(independent) - 0.03


def test_the_gain_of_a_small_overlap_is_that_of_the_closed_equations() -> None:
    model, width = make_spiked_model(2.2, 1.0), 150
    landscape = draw_conditional(streams(2), model=model, dimension=10**8, width=width)
    start, times = start_at(landscape, 2, 0.0), (1.0, 3.0)
    gain = signal_gain(landscape, start, np.arange(2), times=times, tolerance=1e-3)
    exact = follow_flow_from_equator(model, duration=3.0, step=0.1)
    for row in gain:
        assert row == pytest.approx(exact.overlap[[10, 30]], rel=0.01)


@pytest.mark.slow
def test_the_law_is_that_of_direct_instances() -> None:
    """N = 200, 500 seeds each: m, μ and both energies at four times, Kolmogorov–Smirnov."""
    model, n, seeds, width = make_spiked_model(2.2, 1.0), 200, 500, 90
    times, step = (0.5, 2.0, 7.0, 20.0), 0.1
    direct, conditional = [], []
    for stream in streams(seeds, 7):
        landscape = draw_spiked([stream], model=model, dimension=n, dtype=np.dtype(np.float32))
        w = draw_starts([stream], "start", n, np.dtype(np.float32))
        direct.append(_follow(landscape, w, times, step))
    for stream in streams(seeds, 8):
        drawn = draw_conditional([stream], model=model, dimension=n, width=width)
        conditional.append(_follow(drawn, drawn.draw_starts([stream]), times, step))
    first, second = np.array(direct), np.array(conditional)
    p_values = np.array(
        [
            ks_2samp(first[:, k, name], second[:, k, name]).pvalue
            for k in range(len(times))
            for name in range(4)
        ]
    )
    print(np.sort(p_values))
    assert p_values.min() * len(p_values) > 0.01
    assert np.median(p_values) > 0.05


def _follow(landscape, w, times, step):  # type: ignore[no-untyped-def]
    """|m|, μ, e₂ and e_p at `times` [times, 4]."""
    owner = np.zeros(1, dtype=np.intp)
    path = GradientDescent(landscape, times[-1], step).run(w, owner, times).path
    rows = []
    for k in range(len(times)):
        gradient, energies = landscape.gradient(path[:, k], owner)
        mu = -np.vecdot(path[:, k], gradient)[0] / landscape.dimension
        rows.append([abs(landscape.overlap(path[:, k], owner)[0]), mu, *energies[0]])
    return rows
