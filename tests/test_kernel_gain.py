"""The signal gain against a plain RK4 with dense Hessians, and against finite differences."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipeline.kernel.batch import on_sphere
from pipeline.kernel.flow import Flow
from pipeline.kernel.gain import signal_gain
from pipeline.kernel.phase_retrieval import draw_instances, draw_starts

FLOAT64 = np.dtype(np.float64)
FLOAT32 = np.dtype(np.float32)
TIMES = (0.0, 0.05, 0.4, 1.0, 2.0)


def retrieval(count=3, *, n=16, alpha=3.0, a=1.0, dtype=FLOAT64):
    labels = [np.random.SeedSequence(81, spawn_key=(seed,)) for seed in range(count)]
    landscape = draw_instances(labels, measurements=round(alpha * n), dimension=n, a=a, dtype=dtype)
    return landscape, draw_starts(labels, "start", n, dtype), np.arange(count)


@dataclass(frozen=True)
class Instance:
    """One instance by the formulas of the spec, sections 1, 2 and 8."""

    X: np.ndarray
    signal: np.ndarray
    a: float

    def gradient(self, w):
        y, predicted = self.X @ self.signal, self.X @ w
        return self.X.T @ (predicted * (predicted**2 - y**2) / (self.a + y**2))

    def free(self, w):
        gradient = self.gradient(w)
        return -gradient + (w @ gradient) / (w @ w) * w

    def held(self, w):
        """Flow within the sphere and the equator, whose normals are w and w*."""
        gradient = self.gradient(w)
        for normal in (self.signal, w):
            gradient = gradient - (gradient @ normal) / (normal @ normal) * normal
        return -gradient

    def hessian(self, w):
        y, predicted = self.X @ self.signal, self.X @ w
        f = (3 * predicted**2 - y**2) / (self.a + y**2)
        multiplier = (w @ self.gradient(w)) / len(w)
        return self.X.T @ (f[:, None] * self.X) - multiplier * np.eye(len(w))

    def start(self, w):
        w = w - (w @ self.signal) / (self.signal @ self.signal) * self.signal
        return w * np.sqrt(len(w)) / np.linalg.norm(w)


def instances(landscape, a=1.0):
    pairs = zip(landscape.operators, landscape.signals, strict=True)
    return [Instance(operator.matrix, signal, a) for operator, signal in pairs]


def rk4(force, state, times, steps_per_time):
    """States at `times` of y' = force(y)."""
    out, t, h = [], 0.0, 1 / steps_per_time
    for end in times:
        count = round((end - t) / h)
        for _ in range(count):
            k1 = force(state)
            k2 = force(state + h / 2 * k1)
            k3 = force(state + h / 2 * k2)
            k4 = force(state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        t = end
        out.append(state)
    return np.array(out)


def dense_gain(instance, w, times, steps_per_time):
    """w held at m = 0; du/dt = −H u in the plane tangent at w, which turns with w."""
    n = len(w)

    def force(state):
        w, u = state
        moved = instance.held(w)
        product = instance.hessian(w) @ u
        tangent = -product + (w @ product) / (w @ w) * w
        return np.stack([moved, tangent - (u @ moved) / (w @ w) * w])

    e = instance.signal / np.sqrt(n)
    return rk4(force, np.stack([instance.start(w), e]), times, steps_per_time)[:, 1] @ e


def finite_difference_gain(instance, w, times, distance=1e-4):
    """Two free flows from either side of the held one, both pushed by what holds that one."""
    e = instance.signal / np.linalg.norm(instance.signal)

    def force(state):
        w, above, below = state
        push = instance.held(w) - instance.free(w)
        out = [instance.held(w)]
        for v in (above, below):
            moved = instance.free(v) + push
            out.append(moved - (v @ moved) / (v @ v) * v)
        return np.stack(out)

    w = instance.start(w)
    around = [
        v * np.linalg.norm(w) / np.linalg.norm(v) for v in (w + distance * e, w - distance * e)
    ]
    states = rk4(force, np.stack([w, *around]), times, steps_per_time=200)
    return (states[:, 1] - states[:, 2]) @ e / (2 * distance)


@pytest.mark.parametrize(
    ("a", "times", "steps_per_time"), [(1.0, TIMES, 300), (0.1, TIMES[:-1], 1000)]
)
def test_against_rk4_with_dense_hessians(a, times, steps_per_time):
    """To 1e-3 at tolerance 1e-5, and falling with the tolerance like any second-order method."""
    landscape, w0, owner = retrieval(a=a)
    pairs = zip(instances(landscape, a), w0, strict=True)
    exact = np.array([dense_gain(instance, w, times, steps_per_time) for instance, w in pairs])
    tolerances, errors = np.array([1e-2, 1e-3, 1e-4, 1e-5]), []
    for tolerance in tolerances:
        gain = signal_gain(landscape, w0, owner, times=times, tolerance=tolerance)
        assert gain.shape == (3, len(times))
        errors.append(np.max(np.abs(gain / exact - 1)))
    assert errors[-1] < 1e-3
    assert np.all(np.diff(errors) < 0)
    slope = np.polyfit(np.log(tolerances), np.log(errors), 1)[0]
    assert 0.5 < slope < 1.0


def test_is_the_derivative_of_the_overlap_by_that_at_the_start():
    """By two starts 2e-4 apart along the signal, no Hessian anywhere."""
    landscape, w0, owner = retrieval()
    pairs = zip(instances(landscape), w0, strict=True)
    differences = np.array([finite_difference_gain(instance, w, TIMES) for instance, w in pairs])
    gain = signal_gain(landscape, w0, owner, times=TIMES, tolerance=1e-5)
    np.testing.assert_allclose(gain, differences, rtol=1e-3)


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
def test_begins_at_one(dtype):
    landscape, w0, owner = retrieval(8, n=50, dtype=dtype)
    for times in ((0.0,), (0.0, 1e-3), (0.0, 5.0)):
        gain = signal_gain(landscape, w0, owner, times=times, tolerance=1e-2)
        assert gain.dtype == np.float64
        np.testing.assert_allclose(gain[:, 0], 1, rtol=20 * np.finfo(dtype).eps)


def test_begins_with_the_slope_of_the_hessian():
    """dG/dt = −e·H e at t = 0, positive in a random start of α = 3."""
    landscape, w0, owner = retrieval()
    dt = 1e-4
    gain = signal_gain(landscape, w0, owner, times=(dt,), tolerance=1e-6)
    for k, instance in enumerate(instances(landscape)):
        e = instance.signal / np.linalg.norm(instance.signal)
        slope = -e @ instance.hessian(instance.start(w0[k])) @ e
        assert (gain[k, 0] - 1) / dt == pytest.approx(slope, rel=0.01, abs=0.01)


def test_the_start_is_projected_onto_the_equator():
    landscape, w0, owner = retrieval()
    starts = np.array([i.start(w) for i, w in zip(instances(landscape), w0, strict=True)])
    one, other = (
        signal_gain(landscape, w, owner, times=TIMES, tolerance=1e-4) for w in (w0, starts)
    )
    np.testing.assert_allclose(one, other, rtol=1e-9)
    near = on_sphere(starts + 0.5 * landscape.signals)
    tilted = signal_gain(landscape, near, owner, times=TIMES, tolerance=1e-4)
    np.testing.assert_allclose(tilted, one, rtol=1e-9)


def test_does_not_depend_on_the_sign_of_the_start():
    landscape, w0, owner = retrieval()
    one, other = (signal_gain(landscape, w, owner, times=TIMES, tolerance=1e-2) for w in (w0, -w0))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("n", [16, 130])
def test_does_not_depend_on_the_other_instances(n, dtype):
    """To the last bit, with two trajectories on each."""
    landscape, w0, _ = retrieval(4, n=n, dtype=dtype)
    owner = np.repeat(np.arange(4), 2)
    w = np.repeat(w0, 2, axis=0)
    w[1::2] = w[1::2, ::-1]
    together = signal_gain(landscape, w, owner, times=TIMES, tolerance=1e-2)
    assert len(np.unique(together[:, -1])) == 8
    for wanted in ([0], [3], [1, 3]):
        rows = np.isin(owner, wanted)
        alone = signal_gain(landscape, w[rows], owner[rows], times=TIMES, tolerance=1e-2)
        np.testing.assert_array_equal(alone, together[rows])


def test_float32_agrees_with_float64_to_the_tolerance():
    (double, w0, owner), (single, w0_single, _) = retrieval(n=60), retrieval(n=60, dtype=FLOAT32)
    gain = signal_gain(double, w0, owner, times=TIMES, tolerance=1e-3)
    rounded = signal_gain(single, w0_single, owner, times=TIMES, tolerance=1e-3)
    np.testing.assert_allclose(rounded, gain, rtol=1e-3)


def test_rises_where_the_outlier_lives():
    """a = 1: at α = 3 random starts have the signal in an outlier, at α = 0.6 they do not."""
    rise = []
    for alpha in (0.6, 3.0):
        landscape, w0, owner = retrieval(6, n=150, alpha=alpha)
        rise.append(signal_gain(landscape, w0, owner, times=(1.0,), tolerance=1e-2)[:, 0])
    assert rise[1].min() > 1.4
    assert rise[1].mean() > rise[0].mean() + 0.3


def test_costs_little_more_than_the_flow_on_the_equator():
    """In passes, each twice as wide: u is as smooth as w."""
    landscape, w0, owner = retrieval(4, n=60)
    passes = []

    class Counting:
        dimension, signals, stiffness = landscape.dimension, landscape.signals, landscape.stiffness

        def gradient_and_product(self, w, u, owner):
            passes.append(len(w))
            return landscape.gradient_and_product(w, u, owner)

    for tolerance in (1e-2, 1e-4):
        passes.clear()
        signal_gain(Counting(), w0, owner, times=(20.0,), tolerance=tolerance)
        flow = Flow(landscape, 20.0, tolerance, on_equator=True).run(w0, owner)
        assert sum(passes) < 2 * flow.gradients.sum()


def test_without_times_there_is_nothing_to_give():
    landscape, w0, owner = retrieval()
    assert signal_gain(landscape, w0, owner, times=(), tolerance=1e-2).shape == (3, 0)


def test_without_trajectories_there_is_nothing_to_give():
    landscape, w0, owner = retrieval()
    gain = signal_gain(landscape, w0[:0], owner[:0], times=TIMES, tolerance=1e-2)
    assert gain.shape == (0, 5)


def test_an_instance_that_is_not_finite_has_no_gain():
    """As NaN and without a warning; the others are as ever."""
    landscape, w0, owner = retrieval()
    weights = landscape.weights.copy()
    weights[1, 0] = np.nan
    sound = signal_gain(landscape, w0, owner, times=TIMES, tolerance=1e-2)
    gain = signal_gain(replace(landscape, weights=weights), w0, owner, times=TIMES, tolerance=1e-2)
    assert np.isnan(gain[1]).all()
    np.testing.assert_array_equal(gain[[0, 2]], sound[[0, 2]])


def test_grows_and_falls_beyond_the_range_of_its_arrays():
    """Where the equator is left or approached exponentially for long; float32 ends at e^88."""
    logs = []
    for dtype in (FLOAT64, FLOAT32):
        landscape, w0, owner = retrieval(3, n=16, alpha=6.0, dtype=dtype)
        gain = signal_gain(landscape, w0, owner, times=(200.0, 400.0), tolerance=1e-2)
        assert np.isfinite(gain).all()
        logs.append(np.log(np.abs(gain)))
    assert logs[0].max() > 300
    assert logs[0].min() < -200
    assert logs[1] == pytest.approx(logs[0], rel=1e-2)
