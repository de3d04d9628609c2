"""Plain gradient descent against ten lines of NumPy."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipeline.kernel.batch import on_sphere
from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import Flow, Outcome
from pipeline.kernel.gaussian_operator import DenseOperator
from pipeline.kernel.phase_retrieval import draw_instances, draw_starts
from pipeline.kernel.sensing import SeparateMatrices

FLOAT64 = np.dtype(np.float64)
FLOAT32 = np.dtype(np.float32)


def retrieval(count=3, *, n=24, alpha=4.0, a=1.0, dtype=FLOAT64):
    labels = [np.random.SeedSequence(31, spawn_key=(seed,)) for seed in range(count)]
    landscape = draw_instances(labels, measurements=round(alpha * n), dimension=n, a=a, dtype=dtype)
    return landscape, draw_starts(labels, "start", n, dtype), np.arange(count)


def plain_descent(X, signal, a, w, learning_rate, duration):
    """The scheme of arXiv:2403.02418 as anyone would write it: final w and hitting time."""
    n, y = len(w), X @ signal
    for step in range(round(duration / learning_rate)):
        predicted = X @ w
        gradient = X.T @ (predicted * (predicted**2 - y**2) / (a + y**2))
        w = w - learning_rate * (gradient - w * (w @ gradient) / n)
        w = w * np.sqrt(n) / np.linalg.norm(w)
        if abs(w @ signal) / n >= 0.99:
            return w, (step + 1) * learning_rate
    return w, np.inf


@pytest.mark.parametrize(("a", "learning_rate"), [(1.0, 0.005), (0.2, 0.002)])
def test_against_a_plain_loop(a, learning_rate):
    landscape, w0, owner = retrieval(6, a=a)
    result = GradientDescent(landscape, 3.0, learning_rate).run(w0, owner)
    hits = []
    for k in owner:
        X, signal = landscape.operators[k].matrix, landscape.signals[k]
        w, hit = plain_descent(X, signal, a, w0[k], learning_rate, 3.0)
        hits.append(hit)
        assert result.hit_time[k] == pytest.approx(hit, rel=1e-12)
        steps = round(min(hit, 3.0) / learning_rate)
        # rounding grows at most by about exp(|λ1| t)
        np.testing.assert_allclose(result.w[k], w, atol=1e-7)
        assert result.gradients[k] == steps
        assert result.time[k] == pytest.approx(steps * learning_rate, rel=1e-12)
    assert 0 < np.isfinite(hits).sum() < 6  # both ends are met
    np.testing.assert_array_equal(result.outcome == Outcome.RECOVERED, np.isfinite(hits))
    np.testing.assert_array_equal(result.outcome == Outcome.NOT_RECOVERED, np.isinf(hits))


def test_hitting_time_is_a_multiple_of_the_learning_rate():
    landscape, w0, owner = retrieval(8, alpha=8.0)
    learning_rate = 0.01
    result = GradientDescent(landscape, 50.0, learning_rate).run(w0, owner)
    hit = result.outcome == Outcome.RECOVERED
    assert hit.any()
    steps = result.hit_time[hit] / learning_rate
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    np.testing.assert_array_equal(result.gradients[hit], np.round(steps))
    np.testing.assert_array_equal(result.time[hit], result.hit_time[hit])
    assert np.abs(landscape.overlap(result.w, owner)[hit]).min() >= 0.99


def test_converges_to_the_flow_with_order_one():
    landscape, w0, owner = retrieval(alpha=2.0)
    exact = Flow(landscape, 2.0, 1e-8).run(w0, owner).w
    rates, errors = np.array([0.02, 0.01, 0.005, 0.0025]), []
    for rate in rates:
        w = GradientDescent(landscape, 2.0, rate).run(w0, owner).w
        errors.append(np.sqrt(np.mean((w - exact) ** 2)))
    assert np.polyfit(np.log(rates), np.log(errors), 1)[0] == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("duration", "learning_rate", "steps"),
    [
        (1.0, 0.1, 10),
        (1.1, 0.1, 11),
        (2.1, 0.3, 7),
        (1.0, 0.3, 4),
        (0.05, 0.1, 1),
        (300, 0.02, 15000),
    ],
)
def test_number_of_steps(duration, learning_rate, steps):
    """⌈T/η⌉, where a quotient off a whole number by rounding is that number."""
    landscape, w0, owner = retrieval(1, n=4)
    still = replace(landscape, weights=np.zeros_like(landscape.weights))  # no force
    result = GradientDescent(still, duration, learning_rate).run(w0, owner)
    assert result.outcome[0] == Outcome.NOT_RECOVERED
    assert result.gradients[0] == steps
    assert result.time[0] == pytest.approx(steps * learning_rate)


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
def test_stays_on_the_sphere_to_rounding(dtype):
    landscape, w0, owner = retrieval(dtype=dtype)
    w = GradientDescent(landscape, 5.0, 0.01).run(w0, owner).w
    assert w.dtype == dtype
    np.testing.assert_allclose(np.vecdot(w, w), 24, rtol=10 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
def test_on_the_equator_the_overlap_stays_zero_to_rounding(dtype):
    landscape, w0, owner = retrieval(dtype=dtype)
    result = GradientDescent(landscape, 20.0, 0.01, on_equator=True).run(w0, owner)
    np.testing.assert_array_equal(result.outcome, Outcome.NOT_RECOVERED)
    assert np.abs(landscape.overlap(result.w, owner)).max() < np.finfo(dtype).eps
    np.testing.assert_allclose(np.vecdot(result.w, result.w), 24, rtol=10 * np.finfo(dtype).eps)


def test_on_the_equator_it_follows_the_flow_there():
    landscape, w0, owner = retrieval(alpha=2.0)
    exact = Flow(landscape, 2.0, 1e-7, on_equator=True).run(w0, owner).w
    w = GradientDescent(landscape, 2.0, 0.0005, on_equator=True).run(w0, owner).w
    np.testing.assert_allclose(w, exact, atol=0.02)


def test_a_trajectory_does_not_depend_on_the_other_instances():
    landscape, w0, _ = retrieval(5, alpha=6.0)
    owner = np.repeat(np.arange(5), 2)
    w = np.empty((10, 24))
    w[::2], w[1::2] = w0, on_sphere(w0 + 0.5 * landscape.signals)
    times = (0.0, 0.5, 3.0)
    together = GradientDescent(landscape, 10.0, 0.02).run(w, owner, times)
    assert len(set(together.time)) > 3
    for instances in ([0], [3], [1, 4], [0, 2, 3]):
        rows = np.isin(owner, instances)
        alone = GradientDescent(landscape, 10.0, 0.02).run(w[rows], owner[rows], times)
        for name in ("w", "outcome", "time", "hit_time", "gradients", "path"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together, name)[rows])


def test_path_is_the_nearest_step_of_the_run():
    """To the last bit a shorter run's end; a time halfway belongs to the even step."""
    landscape, w0, owner = retrieval(alpha=2.0)
    rate = 0.125
    times = (0.0, 0.06, 0.07, 0.1875, 0.3125, 0.3125, 0.43, 0.44, 1.125, 1.18)
    steps = (0, 0, 1, 2, 2, 2, 3, 4, 9, 9)
    result = GradientDescent(landscape, 1.18, rate).run(w0, owner, times)
    assert result.path.shape == (3, 10, 24)
    np.testing.assert_array_equal(result.path[:, 0], on_sphere(w0))
    for k, step in enumerate(steps):
        shorter = GradientDescent(landscape, step * rate, rate).run(w0, owner)
        np.testing.assert_array_equal(shorter.gradients, step)
        np.testing.assert_array_equal(result.path[:, k], shorter.w)
    without = GradientDescent(landscape, 1.18, rate).run(w0, owner)
    for name in ("w", "outcome", "time", "hit_time", "gradients"):
        np.testing.assert_array_equal(getattr(result, name), getattr(without, name))


def test_path_ends_at_the_duration():
    landscape, w0, owner = retrieval(alpha=2.0)
    result = GradientDescent(landscape, 3.0, 0.02).run(w0, owner, (3.0,))
    np.testing.assert_array_equal(result.path[:, 0], result.w)


def test_path_is_nan_after_the_end_of_a_run():
    landscape, w0, owner = retrieval(8, alpha=8.0)
    rate, steps = 0.01, np.arange(0, 1000, 7)
    result = GradientDescent(landscape, 10.0, rate).run(w0, owner, tuple(steps * rate))
    assert len(set(result.time)) > 3
    known = np.isfinite(result.path)
    np.testing.assert_array_equal(known.all(axis=2), known.any(axis=2))
    np.testing.assert_array_equal(known.all(axis=2), steps <= result.gradients[:, None])


def test_starting_points_are_left_alone():
    landscape, w0, owner = retrieval()
    before = w0.copy()
    GradientDescent(landscape, 0.1, 0.02).run(w0, owner)
    np.testing.assert_array_equal(w0, before)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_start_at_the_signal_has_recovered_at_time_zero(sign):
    landscape, _, owner = retrieval()
    result = GradientDescent(landscape, 10.0, 0.02).run(sign * landscape.signals, owner)
    np.testing.assert_array_equal(result.outcome, Outcome.RECOVERED)
    np.testing.assert_array_equal(result.hit_time, 0)
    np.testing.assert_array_equal(result.gradients, 0)


@dataclass(frozen=True)
class Broken:
    """Instance 1 of a landscape has gradients of `value`."""

    sound: object
    value: float

    @property
    def dimension(self):
        return self.sound.dimension

    @property
    def signals(self):
        return self.sound.signals

    def gradient(self, w, owner):
        gradient, predictions = self.sound.gradient(w, owner)
        gradient[owner == 1] = self.value
        return gradient, predictions

    def stiffness(self, local, multiplier, owner):
        return self.sound.stiffness(local, multiplier, owner)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("on_equator", [False, True])
def test_a_broken_landscape_ends_its_own_trajectories_only(value, on_equator):
    """As an outcome: no exception, and no warning either, which pytest would raise."""
    landscape, w0, owner = retrieval()
    result = GradientDescent(Broken(landscape, value), 1.0, 0.02, on_equator).run(w0, owner)
    assert result.outcome[1] == Outcome.NOT_FINITE
    assert np.isinf(result.hit_time[1])
    assert result.gradients[1] == 1
    without = GradientDescent(landscape, 1.0, 0.02, on_equator).run(w0, owner)
    for name in ("w", "outcome", "time", "hit_time", "gradients"):
        np.testing.assert_array_equal(getattr(result, name)[[0, 2]], getattr(without, name)[[0, 2]])


def test_a_learning_rate_beyond_the_stability_limit_does_not_overflow():
    """The renormalisation bounds it; it wanders (and is silently wrong, spec section 2)."""
    landscape, w0, owner = retrieval()
    result = GradientDescent(landscape, 100.0, 5.0).run(w0, owner)
    assert np.isfinite(result.w).all()


def test_operator_protocol_is_all_it_asks():
    """Any operator with the products serves: here one that hides its matrix."""

    @dataclass(frozen=True)
    class Hidden:
        dense: DenseOperator

        @property
        def shape(self):
            return self.dense.shape

        def pull_back(self, u, response):
            return self.dense.pull_back(u, response)

    landscape, w0, owner = retrieval()
    hidden = replace(
        landscape, operators=SeparateMatrices([Hidden(x) for x in landscape.operators])
    )
    one, other = (GradientDescent(x, 1.0, 0.02).run(w0, owner) for x in (landscape, hidden))
    np.testing.assert_array_equal(one.w, other.w)
