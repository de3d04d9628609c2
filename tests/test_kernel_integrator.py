"""The batched RKC2 integrator on systems with closed forms: order, control, time, failures."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

import pipeline.kernel.integrator as integrator_module
from pipeline.kernel.chebyshev import stable_step
from pipeline.kernel.integrator import Outcome, Step, integrate

FLOAT64 = np.dtype(np.float64)
FLOAT32 = np.dtype(np.float32)


@dataclass
class Linear:
    """y' = −A y, one A per trajectory; y(t) = e^{−At} y(0).

    `factor` times the largest eigenvalue is what it gives for the stiffness; a trajectory whose
    first component falls to `goal` has recovered.
    """

    matrices: np.ndarray
    tolerance: float = 1e-2
    factor: float = 1.0
    goal: float = -np.inf
    asked: np.ndarray = field(init=False)
    steps: list = field(default_factory=list)

    def __post_init__(self):
        self.asked = np.zeros(len(self.matrices), dtype=int)
        self.largest = np.linalg.eigvalsh(self.matrices)[:, -1]

    def force(self, y, place):
        self.asked[place] += 1
        return -np.matvec(self.matrices[place].astype(y.dtype), y), place.copy()

    def stiffness(self, local, selected, place):
        np.testing.assert_array_equal(local[selected], place)
        return self.factor * self.largest[place]

    def project(self, y, place):
        return y.copy()

    def error(self, estimate, y):
        return np.sqrt(np.mean(estimate**2, axis=-1)) / self.tolerance

    def arrive(self, step):
        self.steps.append(step)
        hit = step.y1[:, 0] <= self.goal
        return np.where(hit, Outcome.RECOVERED, Outcome.RUNNING).astype(np.int8)

    def exact(self, y, t):
        values, vectors = np.linalg.eigh(self.matrices)
        return np.matvec(vectors, np.exp(-values * t) * np.matvec(vectors.mT, y))


class Claimed(Linear):
    """`factor` itself for the stiffness."""

    def stiffness(self, local, selected, place):
        return np.full(len(place), self.factor)


def linear(count=3, n=10, spread=8.0, seed=0, kind=Linear, **options):
    """Eigenvalues from 0.1 to `spread` in random directions, and starting points of r.m.s. 1."""
    random = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(random.standard_normal((count, n, n)))
    matrices = (axes * np.linspace(0.1, spread, n)) @ axes.mT
    return kind(matrices, **options), random.standard_normal((count, n))


def rms(difference):
    return np.sqrt(np.mean(np.square(difference), axis=-1))


# -- order and error control ----------------------------------------------------------------------


def test_order_two_by_slope_against_the_closed_form():
    """Steps held equal by a stiffness so large that the stability limit is what bounds them."""
    steps, errors = np.array([8, 16, 32, 64]), []
    for count in steps:
        # 1.1 is the integrator's margin on the stiffness it is given
        claimed = stable_step(200) * count / 1.1
        system, y = linear(n=30, kind=Claimed, factor=claimed, tolerance=1e3)
        result = integrate(system, y, 1.0, 1e3)
        np.testing.assert_array_equal(result.outcome, Outcome.NOT_RECOVERED)
        errors.append(rms(result.y - system.exact(y, 1.0)).max())
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(2, abs=0.15)


def test_global_error_falls_with_the_tolerance():
    """Error per unit time ∝ h² ∝ tolerance^(2/3), as for any second-order method."""
    tolerances, errors = np.array([1e-2, 1e-3, 1e-4, 1e-5, 1e-6]), []
    for tolerance in tolerances:
        system, y = linear(count=8, tolerance=tolerance)
        result = integrate(system, y, 2.0, tolerance)
        errors.append(rms(result.y - system.exact(y, 2.0)).max())
    assert np.all(np.diff(errors) < 0)
    slope = np.polyfit(np.log(tolerances), np.log(errors), 1)[0]
    assert 0.55 < slope < 0.85
    assert np.all(errors < 2 * tolerances ** (2 / 3))


def test_every_trajectory_is_controlled_by_its_own_error():
    """Steps differ within a batch, and each accepted one is within the tolerance."""
    system, y = linear(count=4, spread=50.0, tolerance=1e-3)
    y *= np.array([0.01, 0.1, 1.0, 10.0])[:, None]
    result = integrate(system, y, 3.0, 1e-3)
    assert np.all(np.diff(result.evaluations) > 0)
    assert rms(result.y - system.exact(y, 3.0)).max() < 2 * 1e-3 ** (2 / 3)
    for step in system.steps:
        moved = step.h > 0
        estimate = 0.8 * (step.y0 - step.y1) + 0.4 * step.h[:, None] * (step.f0 + step.f1)
        assert np.all(rms(estimate[moved]) <= 1e-3)


def test_cost_grows_like_the_root_of_the_stiffness():
    """The point of a stabilised method: 100 times the stiffness, about 10 times the forces."""
    counts = []
    for spread in (30.0, 3000.0):
        system, y = linear(spread=spread)
        y = system.exact(y, 1.0)  # past the fast transients
        counts.append(integrate(system, y, 3.0, 1e-2).evaluations.mean())
    assert counts[1] < 15 * counts[0]


@pytest.mark.parametrize("factor", [0.3, 0.6, 3.0])
def test_a_wrong_stiffness_costs_forces_and_not_accuracy(factor):
    """Understated, steps are unstable, rejected and taken again; overstated, merely dearer."""
    honest, y = linear(spread=200.0, tolerance=1e-4)
    wrong, _ = linear(spread=200.0, tolerance=1e-4, factor=factor)
    result = integrate(wrong, y, 3.0, 1e-4)
    np.testing.assert_array_equal(result.outcome, Outcome.NOT_RECOVERED)
    assert rms(result.y - honest.exact(y, 3.0)).max() < 10 * 1e-4 ** (2 / 3)
    assert result.evaluations.mean() > integrate(honest, y, 3.0, 1e-4).evaluations.mean()


@pytest.mark.parametrize("call", range(2, 40))
def test_a_rejected_step_starts_again_from_where_it_began(call):
    """One jolt at right angles to y(0), whatever stage it meets, and no force before or after.

    The stages of the step it spoils move at right angles; the step is rejected, and all stages
    that follow are y(0). A stage that leans on what the rejected step left lies elsewhere.
    """
    n = 12
    points = []
    random = np.random.default_rng(call)
    y = random.standard_normal((1, n))
    jolt = random.standard_normal(n)
    jolt -= (jolt @ y[0]) / (y[0] @ y[0]) * y[0]

    class Jolted(Claimed):
        def force(self, y, place):
            points.append(y[0].copy())
            force = np.zeros_like(y)
            if len(points) == call:
                force[0] = 1e4 * jolt
            return force, place.copy()

    result = integrate(Jolted(np.zeros((1, n, n)), factor=5.0), y, 50.0, 1e-2)
    assert result.outcome[0] == Outcome.NOT_RECOVERED
    assert len(points) > call
    along = np.array(points) @ y[0] / (y[0] @ y[0])
    np.testing.assert_allclose(along, 1, rtol=1e-9)
    np.testing.assert_allclose(result.y, y, rtol=1e-9)
    np.testing.assert_allclose(points[-1], y[0], rtol=1e-9)


@pytest.mark.parametrize(
    ("tolerance", "dtype", "most"), [(1e-2, FLOAT64, 200), (1e-2, FLOAT32, 91), (1e-7, FLOAT32, 4)]
)
def test_rounding_limits_the_number_of_stages(tolerance, dtype, most):
    """s stages multiply rounding errors by about s² (Sommeijer et al., section 2.2)."""
    stages = []

    class Counting(Claimed):
        def force(self, y, place):
            stages[-1] += 1
            return np.zeros_like(y), place.copy()

        def arrive(self, step):
            stages.append(0)
            return super().arrive(step)

    stages.append(0)
    system = Counting(np.zeros((1, 5, 5)), factor=1e4)
    integrate(system, np.ones((1, 5), dtype=dtype), 40.0 * stable_step(most) / 1e4, tolerance)
    assert max(stages) == most


# -- bookkeeping ----------------------------------------------------------------------------------


def test_steps_follow_one_another_from_the_start_to_the_end():
    """What `arrive` is told: times without gaps, states and forces of the trajectory itself."""
    system, y = linear(count=3, tolerance=1e-3)
    result = integrate(system, y, 2.0, 1e-3)
    for k in range(3):
        steps = [(s, np.flatnonzero(s.place == k)) for s in system.steps]
        rows = [(s, int(at[0])) for s, at in steps if len(at)]
        first, row = rows[0]
        assert first.t[row] == first.end[row] == first.h[row] == 0
        np.testing.assert_array_equal(first.y1[row], y[k])
        for (before, i), (after, j) in pairwise(rows):
            assert after.t[j] == before.end[i]
            assert after.h[j] > 0
            np.testing.assert_array_equal(after.y0[j], before.y1[i])
            np.testing.assert_array_equal(after.f0[j], before.f1[i])
        for step, i in rows:
            at = step.y1[i : i + 1]
            np.testing.assert_array_equal(step.f1[i], system.force(at, np.array([k]))[0][0])
        last, row = rows[-1]
        assert last.end[row] == result.time[k] == 2.0
        np.testing.assert_array_equal(last.y1[row], result.y[k])


def test_evaluations_are_the_forces_asked_for():
    system, y = linear(count=4, spread=60.0)
    result = integrate(system, y * np.array([[0.1], [1], [3], [9]]), 5.0, 1e-2)
    np.testing.assert_array_equal(result.evaluations, system.asked)
    assert len(set(system.asked)) > 1


def test_the_end_of_every_step_is_projected():
    """Here onto a last component of zero, which the force drives it away from."""

    class Held(Linear):
        def project(self, y, place):
            y = y.copy()
            y[:, -1] = 0
            return y

    system, y = linear(kind=Held)
    result = integrate(system, y, 1.0, 1e-2)
    for step in system.steps:
        np.testing.assert_array_equal(step.y1[:, -1], 0)
    assert np.any(system.steps[-1].f1[:, -1] != 0)
    np.testing.assert_array_equal(result.y[:, -1], 0)


def test_a_trajectory_that_recovers_ends_with_its_step():
    system, y = linear(count=4, tolerance=1e-3)
    y[:, 0] = [0.1, 1.0, 5.0, 20.0]
    system.goal = 0.3
    result = integrate(system, y, 0.4, 1e-3)
    assert result.evaluations[0] == 1  # there from the start
    assert result.time[0] == 0
    np.testing.assert_array_equal(result.y[0], y[0])
    np.testing.assert_array_equal(result.outcome == Outcome.RECOVERED, result.y[:, 0] <= 0.3)
    assert set(result.outcome) == {Outcome.RECOVERED, Outcome.NOT_RECOVERED}
    assert np.any((result.time > 0) & (result.time < 0.4))
    for k in range(4):
        ends = [float(s.end[s.place == k][0]) for s in system.steps if (s.place == k).any()]
        assert ends[-1] == result.time[k]
        assert (ends[-1] == 0.4) == (result.outcome[k] == Outcome.NOT_RECOVERED)


@pytest.mark.parametrize(
    ("duration", "stiffness"),
    [
        (1000.0, 3.0),
        (1 / 3, 17.0),
        # here t + (T − t), in floating point, is one unit in the last place short of T or beyond
        (1910.8886923474895, 13.562357016817128),
        (774.8306174886098, 7.8911605213955465),
        (188.69586640992944, 36.321455102411264),
    ],
)
def test_time_ends_at_the_duration_to_the_last_bit(duration, stiffness):
    system = Claimed(np.zeros((1, 5, 5)), factor=stiffness)
    result = integrate(system, np.ones((1, 5)), duration, 1e-2)
    assert result.outcome[0] == Outcome.NOT_RECOVERED
    assert result.time[0] == duration


def test_no_duration_ends_at_the_start():
    system, y = linear()
    result = integrate(system, y, 0.0, 1e-2)
    np.testing.assert_array_equal(result.outcome, Outcome.NOT_RECOVERED)
    np.testing.assert_array_equal(result.y, y)
    np.testing.assert_array_equal(result.evaluations, 1)


def test_no_trajectories_give_no_results():
    system, y = linear()
    result = integrate(system, y[:0], 1.0, 1e-2)
    assert result.y.shape == (0, 10)
    assert len(result.outcome) == 0


def test_starting_points_are_left_alone():
    system, y = linear()
    before = y.copy()
    integrate(system, y, 1.0, 1e-2)
    np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
def test_a_trajectory_does_not_depend_on_the_others(dtype):
    """To the last bit; they end at different times, so the batch shrinks along the way."""
    system, y = linear(count=5, spread=40.0, tolerance=1e-3)
    y = (y * np.array([[1.0], [0.1], [8.0], [1.0], [3.0]])).astype(dtype)
    system.goal = 0.0
    together = integrate(system, y, 3.0, 1e-3)
    assert together.y.dtype == dtype
    assert len(set(together.time)) > 2
    for rows in ([0], [3], [1, 4], [0, 2, 3]):
        alone = integrate(
            Linear(system.matrices[rows], tolerance=1e-3, goal=0.0), y[rows], 3.0, 1e-3
        )
        for name in ("y", "outcome", "time", "evaluations"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together, name)[rows])


# -- interpolation --------------------------------------------------------------------------------


def steps_of(y, slope, t, h):
    """Steps of given function and derivative from `t` to `t + h`."""
    return Step(np.arange(len(t)), t, t + h, h, y(t), slope(t), y(t + h), slope(t + h))


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
def test_interpolation_is_exact_for_cubics(dtype):
    coefficients = np.random.default_rng(0).standard_normal((4, 6))

    def cubic(t):
        return sum(c * t[:, None] ** p for p, c in enumerate(coefficients)).astype(dtype)

    def slope(t):
        powers = enumerate(coefficients[1:], start=1)
        return sum(c * p * t[:, None] ** (p - 1) for p, c in powers).astype(dtype)

    step = steps_of(cubic, slope, np.array([0.0, 0.5, 2.0]), np.array([0.7, 1.5, 0.1]))
    rows = np.array([2, 0, 1, 1])
    t = np.array([2.03, 0.69, 0.5, 1.234])
    states = step.interpolate(rows, t)
    assert states.dtype == dtype
    np.testing.assert_allclose(states, cubic(t), atol=60 * np.finfo(dtype).eps)


def test_interpolation_at_the_ends_of_a_step_is_its_states():
    step = steps_of(
        lambda t: np.sin(t)[:, None], lambda t: np.cos(t)[:, None], np.zeros(2), np.array([0.0, 1])
    )
    both = np.arange(2)
    np.testing.assert_array_equal(step.interpolate(both, step.t), step.y0)
    np.testing.assert_array_equal(step.interpolate(both, step.end), step.y1)


def test_interpolation_has_order_four():
    lengths, errors = np.array([0.4, 0.2, 0.1, 0.05]), []
    for h in lengths:
        step = steps_of(
            lambda t: np.exp(-t)[:, None],
            lambda t: -np.exp(-t)[:, None],
            np.zeros(1),
            np.array([h]),
        )
        errors.append(
            abs(step.interpolate(np.zeros(1, int), np.array([h / 2]))[0, 0] - np.exp(-h / 2))
        )
    assert np.polyfit(np.log(lengths), np.log(errors), 1)[0] == pytest.approx(4, abs=0.1)


# -- failures are values --------------------------------------------------------------------------


@dataclass
class Broken(Linear):
    """`value` for the force or the stiffness of trajectory 1 where |y| < `below`."""

    value: float = np.nan
    below: float = np.inf
    where: str = "force"

    def bad(self, y, place):
        return (place == 1) & (np.sqrt(np.vecdot(y, y)) < self.below)

    def force(self, y, place):
        force, _ = super().force(y, place)
        bad = self.bad(y, place)
        if self.where == "force":
            force[bad] = self.value
        return force, (place.copy(), bad)

    def stiffness(self, local, selected, place):
        known, bad = local
        estimate = super().stiffness(known, selected, place)
        if self.where == "stiffness":
            estimate[bad[selected]] = self.value
        return estimate


EVERYWHERE, LATER = np.inf, 2.0  # the |y| below which the system is broken


@pytest.mark.parametrize(
    ("where", "value", "below", "expected"),
    [
        ("force", np.nan, EVERYWHERE, Outcome.NOT_FINITE),
        ("force", np.inf, EVERYWHERE, Outcome.NOT_FINITE),
        ("force", np.nan, LATER, Outcome.STEP_TOO_SMALL),
        ("force", -np.inf, LATER, Outcome.STEP_TOO_SMALL),
        ("force", 1e200, LATER, Outcome.STEP_TOO_SMALL),
        ("stiffness", np.nan, EVERYWHERE, Outcome.NOT_FINITE),
        ("stiffness", np.nan, LATER, Outcome.NOT_FINITE),
        ("stiffness", np.inf, LATER, Outcome.NOT_FINITE),
        ("stiffness", 1e30, EVERYWHERE, Outcome.STEP_TOO_SMALL),
    ],
)
def test_a_broken_system_ends_its_own_trajectory_only(where, value, below, expected):
    """As an outcome: no exception, and no warning either, which pytest would raise."""
    sound, y = linear()
    assert np.linalg.norm(y[1]) > LATER
    broken = Broken(sound.matrices, where=where, value=value, below=below)
    result = integrate(broken, y, 5.0, 1e-2)
    assert result.outcome[1] == expected
    assert np.isfinite(result.y[1]).all()
    assert (result.time[1] > 0) == (below == LATER)
    without = integrate(sound, y, 5.0, 1e-2)
    for name in ("y", "outcome", "time", "evaluations"):
        np.testing.assert_array_equal(getattr(result, name)[[0, 2]], getattr(without, name)[[0, 2]])


def test_too_many_evaluations_end_a_trajectory(monkeypatch):
    monkeypatch.setattr(integrator_module, "_MOST_EVALUATIONS", 50)
    system, y = linear(tolerance=1e-6)
    y[2] = 0  # at rest, done in few steps
    result = integrate(system, y, 100.0, 1e-6)
    np.testing.assert_array_equal(result.outcome[:2], Outcome.TOO_MANY_GRADIENTS)
    assert result.outcome[2] == Outcome.NOT_RECOVERED
    assert np.all((result.evaluations[:2] > 50) & (result.evaluations[:2] < 100))
    assert np.all((result.time[:2] > 0) & (result.time[:2] < 100))
