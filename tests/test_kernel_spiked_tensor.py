"""The spiked model with its couplings in memory: derivatives, covariance, spectrum."""

from math import factorial
from typing import Literal

import numpy as np
import pytest

from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import Flow
from pipeline.kernel.gain import signal_gain
from pipeline.kernel.observables import hessian_snapshot, observe_point
from pipeline.kernel.phase_retrieval import draw_starts
from pipeline.kernel.spiked_tensor import SpikedTensor, draw_spiked
from pipeline.theory.spiked_landscape import hessian_outlier, signal_state
from pipeline.theory.spiked_model import SpikedModel

FLOAT64 = np.dtype(np.float64)
MODELS = [SpikedModel(1.7, 0.6), SpikedModel(1.2, 1.5, 4)]
FORMS: list[Literal["isotropic", "strict"]] = ["isotropic", "strict"]


def streams(count: int, entropy: int = 11) -> list[np.random.SeedSequence]:
    return [np.random.SeedSequence(entropy, spawn_key=(k,)) for k in range(count)]


def draw(
    model: SpikedModel, n: int, count: int = 1, form: Literal["isotropic", "strict"] = "isotropic"
) -> SpikedTensor:
    return draw_spiked(streams(count), model=model, dimension=n, dtype=FLOAT64, form=form)


def points(n: int, count: int, entropy: int = 5) -> np.ndarray:
    return draw_starts(streams(count, entropy), "start", n, FLOAT64)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", FORMS)
def test_gradient_and_hessian_are_those_of_finite_differences(
    model: SpikedModel, form: Literal["isotropic", "strict"]
) -> None:
    n = 8
    landscape = draw(model, n, 2, form)
    w, owner = 0.8 * points(n, 3), np.array([0, 0, 1])
    gradient, energies = landscape.gradient(w, owner)
    curvature = np.stack(
        [landscape.gradient_and_product(w, np.tile(e, (3, 1)), owner)[2] for e in np.eye(n)], axis=1
    )
    for k, e in enumerate(1e-5 * np.eye(n)):
        ahead, behind = landscape.gradient(w + e, owner), landscape.gradient(w - e, owner)
        slope = n * (landscape.loss(ahead[1], owner) - landscape.loss(behind[1], owner)) / 2e-5
        assert gradient[:, k] == pytest.approx(slope, rel=1e-7, abs=1e-7)
        assert curvature[:, k] == pytest.approx((ahead[0] - behind[0]) / 2e-5, rel=1e-6, abs=1e-7)
    assert energies.shape == (3, 2)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", FORMS)
def test_the_hessian_is_projected_and_its_products_are_its_own(
    model: SpikedModel, form: Literal["isotropic", "strict"]
) -> None:
    n = 9
    landscape = draw(model, n, 1, form)
    w, owner = points(n, 2), np.zeros(2, dtype=np.intp)
    gradient, _ = landscape.gradient(w, owner)
    multiplier = np.vecdot(w, gradient) / n
    hessian = landscape.hessian(w, owner)
    for row in range(2):
        dense = hessian.dense(row)
        products = hessian.apply(np.eye(n), np.full(n, row))
        assert products == pytest.approx(dense, abs=1e-12)
        assert dense @ w[row] == pytest.approx(-multiplier[row] * w[row], abs=1e-12)
        # along a geodesic the energy has the second derivative u·H u
        u = np.random.default_rng(row).normal(size=n)
        u -= (u @ w[row]) / n * w[row]
        u *= np.sqrt(n) / np.linalg.norm(u)
        turns = np.array([-1e-3, 0, 1e-3])
        circle = np.cos(turns)[:, None] * w[row] + np.sin(turns)[:, None] * u
        three = np.zeros(3, dtype=np.intp)
        low, here, high = n * landscape.loss(landscape.gradient(circle, three)[1], three)
        assert u @ dense @ u == pytest.approx((low - 2 * here + high) / 1e-6, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", FORMS)
def test_energies_have_the_covariance_of_the_model(
    model: SpikedModel, form: Literal["isotropic", "strict"]
) -> None:
    """N Q(x·y/N) at small N; in the strict form, the sums over distinct indices instead."""
    n, count = 6, 1500
    landscape = draw(model, n, count, form)
    pair = points(n, 2)
    owner = np.repeat(np.arange(count), 2)
    w = np.tile(pair, (count, 1))
    _, energies = landscape.gradient(w, owner)
    signal = covariance(model, form, landscape.signals[owner] * w)
    noise = (n * energies + signal).reshape(count, 2, 2)  # H = H_noise − Cov(x*, x)
    expected = covariance(model, form, np.stack([pair[0] ** 2, pair[1] ** 2, pair[0] * pair[1]]))
    error = np.sqrt(expected[0] * expected[1] / count)
    assert (noise**2).mean(axis=0) == pytest.approx(expected[:2], rel=0.16)
    crossed = (noise[:, 0] * noise[:, 1]).mean(axis=0)
    assert (np.abs(crossed - expected[2]) < 4 * error).all()


def covariance(model: SpikedModel, form: str, products: np.ndarray) -> np.ndarray:
    """Covariance of both parts of H_noise at x and y, for the rows x_i y_i of `products`."""
    n, p = products.shape[1], model.order
    if form == "isotropic":
        q = products.mean(axis=1)
        return n * np.stack([model.matrix * q**2 / 2, model.tensor * q**p / p], axis=1)
    strengths = (model.matrix / n, factorial(p - 1) * model.tensor / n ** (p - 1))
    parts = [s * _elementary(products, d) for s, d in zip(strengths, (2, p), strict=True)]
    return np.stack(parts, axis=1)


def _elementary(values: np.ndarray, degree: int) -> np.ndarray:
    """Σ over i < j < … of products of `values` [rows, N]."""
    sums = np.zeros((degree + 1, len(values)))
    sums[0] = 1
    for column in values.T:
        for d in range(degree, 0, -1):
            sums[d] += column * sums[d - 1]
    return sums[degree]


def test_the_spectrum_at_a_random_start_is_that_of_the_theory() -> None:
    model, n = SpikedModel(3.0, 0.5), 250
    landscape = draw(model, n)
    w, owner = points(n, 1), np.zeros(1, dtype=np.intp)
    values = np.linalg.eigvalsh(landscape.hessian(w, owner).dense(0))
    seen = observe_point(landscape, w, owner)
    mu = -seen["multiplier"]
    assert values[1] == pytest.approx(mu - 2 * model.sigma, abs=0.25)
    stiffness = landscape.stiffness(np.zeros((1, 2)), seen["multiplier"], owner)
    assert values[-1] == pytest.approx(stiffness, abs=0.25)
    snapshot = hessian_snapshot(landscape, w, owner, points(n, 1, 8))
    outlier, overlap2 = hessian_outlier(model, mu, seen["overlap"])
    assert snapshot.lambda1 == pytest.approx(outlier, abs=0.35)
    assert snapshot.lambda1 == pytest.approx(values[0], abs=1e-3)
    assert snapshot.alignment == pytest.approx(overlap2, abs=0.15)


@pytest.mark.parametrize("form", FORMS)
def test_flow_and_descent_reach_the_signal_state(form: Literal["isotropic", "strict"]) -> None:
    model, n = SpikedModel(6.0, 1.0, 4), 40
    landscape = draw(model, n, 2, form)
    w, owner = points(n, 2), np.arange(2)
    state = signal_state(model)
    assert state is not None
    for dynamics in (Flow(landscape, 12.0, 1e-3), GradientDescent(landscape, 12.0, 0.05)):
        ended = dynamics.run(w, owner)
        overlap = np.abs(landscape.overlap(ended.w, owner))
        assert overlap == pytest.approx(state.overlap, abs=0.08)
        gradient, _ = landscape.gradient(ended.w, owner)
        gradient -= np.vecdot(ended.w, gradient)[:, None] / n * ended.w
        assert np.abs(gradient).max() < 1e-2


def test_a_run_ends_at_the_overlap_that_counts_as_recovery() -> None:
    landscape = draw(SpikedModel(6.0, 1.0, 4), 40, 2)
    w, owner = points(40, 2), np.arange(2)
    for kind, step in ((Flow, 1e-3), (GradientDescent, 0.02)):
        whole = kind(landscape, 12.0, step).run(w, owner)
        until = kind(landscape, 12.0, step, recovered_overlap=0.6).run(w, owner)
        assert np.isinf(whole.hit_time).all()
        assert (until.time < whole.time).all()
        start = kind(landscape, float(until.hit_time[0]), step).run(w[:1], owner[:1])
        assert np.abs(landscape.overlap(start.w, owner[:1])) == pytest.approx(0.6, abs=0.02)


def test_the_gain_of_a_small_overlap_is_that_of_the_linearised_flow() -> None:
    model, n = SpikedModel(2.5, 1.0), 20
    landscape = draw(model, n)
    start, owner = points(n, 1), np.zeros(1, dtype=np.intp)
    gain = signal_gain(landscape, start, owner, times=(0.5, 1.0), tolerance=1e-5)
    assert gain.shape == (1, 2)
    assert (gain > 1).all()


def test_single_precision_rounds_the_instance() -> None:
    exact = draw(MODELS[0], 12)
    rounded = draw_spiked(streams(1), model=MODELS[0], dimension=12, dtype=np.dtype(np.float32))
    w, owner = points(12, 1), np.zeros(1, dtype=np.intp)
    gradient, energies = rounded.gradient(w.astype(np.float32), owner)
    assert gradient.dtype == np.float32
    assert gradient == pytest.approx(exact.gradient(w, owner)[0], abs=1e-4)
    assert energies == pytest.approx(exact.gradient(w, owner)[1], abs=1e-5)


def test_each_coupling_is_stored_once() -> None:
    landscape = draw(MODELS[0], 40)
    used = sum(np.count_nonzero(rows) for _, rows in landscape.tensors[0].blocks)
    assert used == 40 * 41 * 42 // 6
    large = draw_spiked(streams(1), model=MODELS[0], dimension=150, dtype=np.dtype(np.float32))
    stored = sum(rows.size for _, rows in large.tensors[0].blocks)
    assert stored < 1.25 * 150 * 151 * 152 // 6
