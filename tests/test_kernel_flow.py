"""The gradient flow: accuracy, hitting times, states along the path, the equator, failures."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

import pipeline.kernel.integrator as integrator_module
from pipeline.kernel.batch import off_signal, on_sphere, owned_rows
from pipeline.kernel.flow import Flow, Outcome
from pipeline.kernel.phase_retrieval import draw_instances, draw_starts

FLOAT64 = np.dtype(np.float64)
FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class QuadraticForm:
    """L(w) = ½ w·A w on the sphere, whose flow is w(t) = √N e^{−At} w(0)/|…|."""

    matrices: np.ndarray
    signals: np.ndarray

    @property
    def dimension(self):
        return self.signals.shape[1]

    def gradient(self, w, owner):
        gradient = np.empty_like(w)
        for instance, rows in owned_rows(owner):
            gradient[rows] = w[rows] @ self.matrices[instance]
        return gradient, w

    def stiffness(self, local, multiplier, owner):
        largest = np.array([np.linalg.eigvalsh(matrix)[-1] for matrix in self.matrices])
        return largest[owner] - multiplier

    def exact(self, w0, owner, t):
        out = []
        for w, instance in zip(w0, owner, strict=True):
            values, vectors = np.linalg.eigh(self.matrices[instance])
            out.append(vectors @ (np.exp(-(values - values[0]) * t) * (vectors.T @ w)))
        return on_sphere(np.array(out))


def quadratic(count=3, n=12, spread=8.0, seed=0, *, signal=0):
    """Random forms with eigenvalues over `spread`; the signal is an eigenvector.

    The lowest (0) is where the flow goes, the highest (-1) is never recovered.
    """
    random = np.random.default_rng(seed)
    matrices, signals = [], []
    for _ in range(count):
        axes, _ = np.linalg.qr(random.standard_normal((n, n)))
        values = np.concatenate([[-1.5, -0.5], np.linspace(0, spread - 1, n - 2)])
        matrices.append(axes @ np.diag(values) @ axes.T)
        signals.append(np.sqrt(n) * axes[:, signal])
    landscape = QuadraticForm(np.array(matrices), np.array(signals))
    return landscape, on_sphere(random.standard_normal((count, n))), np.arange(count)


def streams(count, entropy=21):
    return [np.random.SeedSequence(entropy, spawn_key=(seed,)) for seed in range(count)]


def retrieval(count=3, *, n=24, alpha=3.0, a=1.0, dtype=FLOAT64, entropy=21):
    labels = streams(count, entropy)
    landscape = draw_instances(labels, measurements=round(alpha * n), dimension=n, a=a, dtype=dtype)
    return landscape, draw_starts(labels, "start", n, dtype), np.arange(count)


def rms(difference):
    return np.sqrt(np.mean(np.square(difference), axis=-1))


def reference(landscape, w0, owner, duration, *, until_recovered=False):
    """Final points and hitting times by scipy's DOP853 at 1e-11, one trajectory at a time."""
    points, hits = [], []
    for w, instance in zip(w0, owner, strict=True):
        row = np.array([instance])

        def force(_, x, row=row):
            gradient = landscape.gradient(x[None], row)[0][0]
            return -gradient + (x @ gradient) / (x @ x) * x

        def crossing(_, x, instance=instance):
            return abs(x @ landscape.signals[instance]) / len(x) - 0.99

        crossing.terminal = until_recovered
        solution = solve_ivp(
            force, (0, duration), w, method="DOP853", rtol=1e-11, atol=1e-11, events=crossing
        )
        assert solution.success
        points.append(solution.y[:, -1])
        hits.append(solution.t_events[0][0] if len(solution.t_events[0]) else np.inf)
    return np.array(points), np.array(hits)


# -- error control --------------------------------------------------------------------------------


TOLERANCES = np.array([1e-2, 1e-3, 1e-4, 1e-5, 1e-6])


def check_error_falls(errors):
    """Error per unit time ∝ h² ∝ tolerance^(2/3), as for any second-order method."""
    assert np.all(np.diff(errors) < 0)
    slope = np.polyfit(np.log(TOLERANCES), np.log(errors), 1)[0]
    assert 0.55 < slope < 0.85
    assert np.all(errors < 2 * TOLERANCES ** (2 / 3))


def test_global_error_falls_with_the_tolerance_on_closed_forms():
    landscape, w0, owner = quadratic(count=8, signal=-1)
    exact = landscape.exact(w0, owner, 2.0)
    check_error_falls(
        [rms(Flow(landscape, 2.0, tol).run(w0, owner).w - exact).max() for tol in TOLERANCES]
    )


@pytest.mark.parametrize("a", [1.0, 0.1])
def test_global_error_falls_with_the_tolerance_on_phase_retrieval(a):
    landscape, w0, owner = retrieval(n=20, alpha=2.0, a=a)
    exact, hits = reference(landscape, w0, owner, 3.0)
    assert np.isinf(hits).all()
    check_error_falls(
        [rms(Flow(landscape, 3.0, tol).run(w0, owner).w - exact).max() for tol in TOLERANCES]
    )


def test_float32_follows_the_flow_to_its_tolerance():
    landscape, w0, owner = retrieval(n=40, alpha=2.0, dtype=FLOAT32)
    double, w0_double, _ = retrieval(n=40, alpha=2.0)
    result = Flow(landscape, 5.0, 1e-3).run(w0, owner)
    assert result.w.dtype == np.float32
    tight = Flow(double, 5.0, 1e-6).run(w0_double, owner)
    assert rms(result.w - tight.w).max() < 0.03
    np.testing.assert_allclose(np.vecdot(result.w, result.w), 40, rtol=1e-5)


# -- the sphere and the end of the run ------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("duration", [0.01, 1.0, 30.0])
def test_stays_on_the_sphere_to_rounding(duration, dtype):
    landscape, w0, owner = retrieval(dtype=dtype)
    w = Flow(landscape, duration, 1e-2).run(w0, owner).w
    np.testing.assert_allclose(np.vecdot(w, w), 24, rtol=10 * np.finfo(dtype).eps)


def test_loss_never_rises_along_the_flow():
    landscape, w, owner = retrieval(count=5)
    losses = []
    for _ in range(30):
        losses.append(landscape.loss(landscape.gradient(w, owner)[1], owner))
        w = Flow(landscape, 0.3, 1e-4).run(w, owner).w
    assert np.all(np.diff(losses, axis=0) < 1e-6)
    assert np.all(np.array(losses[-1]) < np.array(losses[0]))


def test_starting_points_are_left_alone():
    landscape, w0, owner = retrieval()
    before = w0.copy()
    Flow(landscape, 1.0, 1e-2).run(w0, owner)
    np.testing.assert_array_equal(w0, before)


def test_result_of_a_run_that_does_not_recover():
    landscape, w0, owner = retrieval(n=20, alpha=2.0)
    result = Flow(landscape, 3.0, 1e-2).run(w0, owner)
    np.testing.assert_array_equal(result.outcome, Outcome.NOT_RECOVERED)
    np.testing.assert_array_equal(result.time, 3.0)
    np.testing.assert_array_equal(result.hit_time, np.inf)
    assert result.gradients.min() > 3


def test_gradients_are_those_asked_of_the_landscape():
    landscape, w0, owner = retrieval(count=2)
    asked = np.zeros(2, dtype=int)

    class Counting:
        dimension, signals, stiffness = landscape.dimension, landscape.signals, landscape.stiffness

        def gradient(self, w, owner):
            np.add.at(asked, owner, 1)
            return landscape.gradient(w, owner)

    result = Flow(Counting(), 20.0, 1e-2).run(w0, owner)
    np.testing.assert_array_equal(result.gradients, asked)


# -- recovery -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tolerance", "accuracy"), [(1e-2, 0.1), (1e-4, 5e-3), (1e-6, 3e-4)])
def test_hitting_time_against_the_closed_form(tolerance, accuracy):
    landscape, w0, owner = quadratic(count=6)
    result = Flow(landscape, 50.0, tolerance).run(w0, owner)
    np.testing.assert_array_equal(result.outcome, Outcome.RECOVERED)
    for k in owner:
        exact = brentq(
            lambda t, k=k: abs(landscape.exact(w0, owner, t)[k] @ landscape.signals[k]) / 12 - 0.99,
            0,
            50,
        )
        assert result.hit_time[k] == pytest.approx(exact, abs=accuracy)
        assert result.hit_time[k] <= result.time[k] < exact + 10
    overlap = np.abs(np.vecdot(result.w, landscape.signals)) / 12
    assert overlap.min() >= 0.99


def test_hitting_time_against_a_tight_reference_on_phase_retrieval():
    landscape, w0, owner = retrieval(count=6, n=20, alpha=6.0)
    _, exact = reference(landscape, w0, owner, 50.0, until_recovered=True)
    assert np.isfinite(exact).sum() >= 3
    for tolerance, accuracy in ((1e-2, 0.05), (1e-4, 3e-3)):
        result = Flow(landscape, 50.0, tolerance).run(w0, owner)
        np.testing.assert_array_equal(result.outcome == Outcome.RECOVERED, np.isfinite(exact))
        np.testing.assert_allclose(result.hit_time, exact, rtol=accuracy)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_start_at_the_signal_has_recovered_at_time_zero(sign):
    landscape, _, owner = retrieval()
    result = Flow(landscape, 10.0, 1e-2).run(sign * landscape.signals, owner)
    np.testing.assert_array_equal(result.outcome, Outcome.RECOVERED)
    np.testing.assert_array_equal(result.hit_time, 0)
    np.testing.assert_array_equal(result.gradients, 1)


def test_mirrored_starts_mirror_the_run_to_the_last_bit():
    landscape, w0, owner = retrieval(count=4)
    one, other = (Flow(landscape, 30.0, 1e-2).run(w, owner) for w in (w0, -w0))
    np.testing.assert_array_equal(other.w, -one.w)
    for name in ("outcome", "time", "hit_time", "gradients"):
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name))


# -- states along the path ------------------------------------------------------------------------


@pytest.mark.parametrize("on_equator", [False, True])
def test_path_is_where_a_run_to_that_time_ends(on_equator):
    landscape, w0, owner = retrieval(n=20, alpha=2.0)
    times = (0.02, 0.3, 0.31, 1.0, 2.7)
    tight = [Flow(landscape, t, 1e-6, on_equator).run(w0, owner).w for t in times]
    for tolerance in (1e-2, 1e-3, 1e-4):
        result = Flow(landscape, 3.0, tolerance, on_equator).run(w0, owner, times)
        assert result.path.shape == (3, 5, 20)
        assert rms(result.path - np.stack(tight, axis=1)).max() < 2 * tolerance ** (2 / 3)


def test_path_against_the_closed_form():
    """Interpolation within a step costs no more than the steps themselves do."""
    landscape, w0, owner = quadratic(count=6, signal=-1)
    times = tuple(np.linspace(0, 3, 40))
    for tolerance in (1e-2, 1e-4, 1e-6):
        path = Flow(landscape, 3.0, tolerance).run(w0, owner, times).path
        exact = np.stack([landscape.exact(w0, owner, t) for t in times], axis=1)
        assert rms(path - exact).max() < 2 * tolerance ** (2 / 3)
        # off the sphere by the error of the cubic only
        assert np.abs(np.vecdot(path, path) / 12 - 1).max() < 0.1 * tolerance ** (2 / 3)


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
def test_path_begins_at_the_start_and_ends_at_the_end(dtype):
    landscape, w0, owner = retrieval(n=20, alpha=2.0, dtype=dtype)
    result = Flow(landscape, 3.0, 1e-2).run(w0, owner, (0.0, 3.0))
    assert result.path.dtype == dtype
    np.testing.assert_array_equal(result.path[:, 0], on_sphere(w0))
    np.testing.assert_allclose(result.path[:, 1], result.w, atol=50 * np.finfo(dtype).eps)
    held = Flow(landscape, 3.0, 1e-2, on_equator=True).run(w0, owner, (0.0,))
    projected = on_sphere(off_signal(w0, landscape.signals))
    np.testing.assert_array_equal(held.path[:, 0], projected)


def test_path_of_many_times_in_one_step_is_that_of_each_alone():
    """Up to forty in a step, some of them twice; what is kept does not change the run."""
    landscape, w0, owner = retrieval(n=20, alpha=2.0)
    flow = Flow(landscape, 20.0, 1e-2)
    times = (0.0, 0.0, 1e-9, *np.linspace(12.0, 12.2, 40), 12.2, 20.0)
    together, without = flow.run(w0, owner, times), flow.run(w0, owner)
    for name in ("w", "outcome", "time", "hit_time", "gradients"):
        np.testing.assert_array_equal(getattr(together, name), getattr(without, name))
    assert np.isfinite(together.path).all()
    for k in (0, 1, 2, 3, 20, 42, 43, 44):
        alone = flow.run(w0, owner, (times[k],)).path
        np.testing.assert_array_equal(alone[:, 0], together.path[:, k])
    speed = np.diff(together.path[:, 3:43], axis=1)
    assert np.all(rms(np.diff(speed, axis=1)) < 0.1 * rms(speed[:, 1:]))  # one smooth curve
    assert without.path.shape == (3, 0, 20)


def test_path_is_nan_after_the_end_of_a_run():
    landscape, w0, owner = retrieval(count=6, n=20, alpha=6.0)
    times = tuple(np.geomspace(0.01, 50.0, 60))
    result = Flow(landscape, 50.0, 1e-2).run(w0, owner, times)
    assert 3 <= np.sum(result.outcome == Outcome.RECOVERED) < 6
    known = np.isfinite(result.path)
    np.testing.assert_array_equal(known.all(axis=2), known.any(axis=2))
    before = np.array(times) <= np.minimum(result.hit_time, result.time)[:, None]
    np.testing.assert_array_equal(known.all(axis=2), before)
    overlap = np.abs(np.vecdot(result.path, landscape.signals[:, None])) / 20
    assert np.all(overlap[before] < 0.99 + 1e-6)


def test_path_of_a_start_that_has_recovered_is_that_start():
    landscape, _, owner = retrieval()
    result = Flow(landscape, 10.0, 1e-2).run(landscape.signals, owner, (0.0, 0.1, 10.0))
    np.testing.assert_allclose(result.path[:, 0], landscape.signals, rtol=1e-14)
    assert np.isnan(result.path[:, 1:]).all()


def test_times_after_the_duration_are_not_reached():
    landscape, w0, owner = retrieval(n=20, alpha=2.0)
    path = Flow(landscape, 1.0, 1e-2).run(w0, owner, (0.5, 1.0, np.nextafter(1.0, 2), 3.0)).path
    assert np.isfinite(path[:, :2]).all()
    assert np.isnan(path[:, 2:]).all()


# -- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("n", [24, 130])
def test_a_trajectory_does_not_depend_on_the_other_instances(n, dtype):
    """To the last bit; instances end at different times, so the batch shrinks along the way."""
    landscape, w0, _ = retrieval(count=5, n=n, alpha=4.0, dtype=dtype)
    owner = np.repeat(np.arange(5), 2)
    w = np.empty((10, n), dtype=dtype)
    w[::2], w[1::2] = w0, on_sphere(w0 + 0.5 * landscape.signals)
    times = (0.0, 0.4, 7.0, 20.0)
    together = Flow(landscape, 20.0, 1e-2).run(w, owner, times)
    assert len(set(together.time)) > 3
    for instances in ([0], [3], [1, 4], [0, 2, 3]):
        rows = np.isin(owner, instances)
        alone = Flow(landscape, 20.0, 1e-2).run(w[rows], owner[rows], times)
        for name in ("w", "outcome", "time", "hit_time", "gradients", "path"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together, name)[rows])


def test_no_trajectories_give_no_results():
    landscape, w0, owner = retrieval()
    result = Flow(landscape, 1.0, 1e-2).run(w0[:0], owner[:0])
    assert result.w.shape == (0, 24)
    assert len(result.outcome) == 0


# -- failures are values --------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken(QuadraticForm):
    """`value` for the gradient or the stiffness of instance 1 where |m| > `beyond`."""

    value: float = np.nan
    beyond: float = -1.0
    where: str = "gradient"

    def bad(self, w, owner):
        overlap = np.abs(np.vecdot(w, self.signals[owner])) / self.dimension
        return (owner == 1) & (overlap > self.beyond)

    def gradient(self, w, owner):
        gradient, local = super().gradient(w, owner)
        if self.where == "gradient":
            gradient[self.bad(w, owner)] = self.value
        return gradient, local

    def stiffness(self, local, multiplier, owner):
        estimate = super().stiffness(local, multiplier, owner)
        if self.where == "stiffness":
            estimate[self.bad(local, owner)] = self.value
        return estimate


EVERYWHERE, LATER = -1.0, 0.6  # the |m| beyond which the landscape is broken


@pytest.mark.parametrize(
    ("where", "value", "beyond", "on_equator", "expected"),
    [
        ("gradient", np.nan, EVERYWHERE, False, Outcome.NOT_FINITE),
        ("gradient", np.nan, EVERYWHERE, True, Outcome.NOT_FINITE),
        ("gradient", np.nan, LATER, False, Outcome.STEP_TOO_SMALL),
        ("gradient", 1e200, LATER, False, Outcome.STEP_TOO_SMALL),
        ("stiffness", np.nan, EVERYWHERE, False, Outcome.NOT_FINITE),
        ("stiffness", np.nan, EVERYWHERE, True, Outcome.NOT_FINITE),
        ("stiffness", np.inf, LATER, False, Outcome.NOT_FINITE),
    ],
)
def test_a_broken_landscape_ends_its_own_trajectories_only(
    where, value, beyond, on_equator, expected
):
    """As an outcome: no exception, and no warning either, which pytest would raise."""
    sound, w0, owner = quadratic()
    broken = Broken(sound.matrices, sound.signals, value=value, beyond=beyond, where=where)
    result = Flow(broken, 20.0, 1e-2, on_equator).run(w0, owner)
    assert result.outcome[1] == expected
    assert np.isinf(result.hit_time[1])
    assert np.isfinite(result.w[1]).all()
    assert (result.time[1] > 0) == (beyond == LATER)
    without = Flow(sound, 20.0, 1e-2, on_equator).run(w0, owner)
    for name in ("w", "outcome", "time", "hit_time", "gradients"):
        np.testing.assert_array_equal(getattr(result, name)[[0, 2]], getattr(without, name)[[0, 2]])


def test_a_tolerance_below_the_working_precision_is_a_failure(monkeypatch):
    """It cannot be met; that takes long to notice."""
    monkeypatch.setattr(integrator_module, "_MOST_EVALUATIONS", 3000)
    landscape, w0, owner = retrieval(dtype=FLOAT32)
    result = Flow(landscape, 5.0, 1e-8).run(w0, owner)
    failures = (Outcome.STEP_TOO_SMALL, Outcome.TOO_MANY_GRADIENTS)
    assert np.isin(result.outcome, failures).all()


def test_too_many_gradients_end_a_run(monkeypatch):
    monkeypatch.setattr(integrator_module, "_MOST_EVALUATIONS", 50)
    landscape, w0, owner = retrieval(n=20, alpha=2.0)
    result = Flow(landscape, 1000.0, 1e-3).run(w0, owner)
    np.testing.assert_array_equal(result.outcome, Outcome.TOO_MANY_GRADIENTS)
    assert np.all((result.gradients > 50) & (result.gradients < 300))
    assert np.all(result.time < 1000)


# -- the equator ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("duration", [0.1, 100.0])
def test_on_the_equator_the_overlap_stays_zero_to_rounding(duration, dtype):
    landscape, w0, owner = retrieval(count=6, dtype=dtype)
    result = Flow(landscape, duration, 1e-2, on_equator=True).run(w0, owner)
    np.testing.assert_array_equal(result.outcome, Outcome.NOT_RECOVERED)
    np.testing.assert_array_equal(result.time, duration)
    assert np.abs(landscape.overlap(result.w, owner)).max() < np.finfo(dtype).eps
    np.testing.assert_allclose(np.vecdot(result.w, result.w), 24, rtol=10 * np.finfo(dtype).eps)


def test_on_the_equator_it_is_the_flow_in_the_complement_of_the_signal():
    """The quadratic form with w* projected out has the same flow, in closed form."""
    landscape, w0, owner = quadratic()
    e = landscape.signals / np.sqrt(12)
    w0 = w0 - np.vecdot(w0, e)[:, None] * e
    without = np.eye(12) - e[:, :, None] * e[:, None, :]
    projected = QuadraticForm(without @ landscape.matrices @ without, landscape.signals)
    w0 = on_sphere(w0)
    exact = projected.exact(w0, owner, 2.0)
    result = Flow(landscape, 2.0, 1e-5, on_equator=True).run(w0, owner)
    assert rms(result.w - exact).max() < 2 * 1e-5 ** (2 / 3)


def test_on_the_equator_a_start_off_it_is_projected_first():
    landscape, w0, owner = retrieval()
    e = landscape.signals / np.sqrt(24)
    projected = on_sphere(w0 - np.vecdot(w0, e)[:, None] * e)
    one, other = (
        Flow(landscape, 2.0, 1e-4, on_equator=True).run(w, owner) for w in (w0, projected)
    )
    np.testing.assert_allclose(one.w, other.w, atol=1e-10)
