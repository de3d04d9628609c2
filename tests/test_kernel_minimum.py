"""Where a descent stands at a local minimum: found, and not mistaken for slopes and saddles."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipeline.kernel.batch import on_sphere
from pipeline.kernel.block import Dynamics, Task, run_block
from pipeline.kernel.flow import Flow, Outcome
from pipeline.kernel.minimum import _on_tangent, at_minimum
from pipeline.kernel.models import PhaseRetrievalModel
from pipeline.kernel.observables import hessian_snapshot
from pipeline.kernel.phase_retrieval import draw_instances, draw_starts

TOLERANCE = 1e-2
N = 32


def streams(*seeds):
    return tuple(np.random.SeedSequence(17, spawn_key=(3, seed)) for seed in seeds)


# -- a slope of one direction ---------------------------------------------------------------------


@dataclass
class Slope:
    """Near the pole of the sphere N (s x + c x³/6 + stiff |rest|²/2), x the first coordinate.

    All coordinates are r.m.s., in units of √N; the last one is that of the pole. The term
    −b √(1 − …) of the sphere is taken away again along x.
    """

    slope: float
    cubic: float
    stiff: float = 5.0

    def _parts(self, w):
        pull = np.zeros_like(w)
        pull[:, -1] = -1.0
        x = w[:, 0] / np.sqrt(w.shape[1])
        first = self.slope + self.cubic * x**2 / 2 - x
        second = self.cubic * x - 1
        return pull, first, second

    def gradient(self, w, owner):
        pull, first, _ = self._parts(w)
        gradient = np.sqrt(w.shape[1]) * pull
        gradient[:, 0] += np.sqrt(w.shape[1]) * first
        gradient[:, 1:-1] += self.stiff * w[:, 1:-1]
        return gradient, w

    def hessian(self, w, owner):
        _, _, second = self._parts(w)
        diagonal = np.full_like(w, self.stiff)
        diagonal[:, 0], diagonal[:, -1] = second, 0
        gradient, _ = self.gradient(w, owner)
        return Diagonal(diagonal - (np.vecdot(w, gradient) / w.shape[1])[:, None])


@dataclass
class Diagonal:
    diagonal: np.ndarray
    residual = 1e-6
    degenerate = False

    def apply(self, v, rows):
        return self.diagonal[rows] * v

    def dense(self, row):
        return np.diag(self.diagonal[row])


def point(x, rest=0.0):
    """A point near the pole with x r.m.s. in the first coordinate, `rest` in each of the others."""
    w = np.full((1, N), rest)
    w[:, 0] = x * np.sqrt(N)
    w[:, -1] = np.sqrt(N - w[0, :-1] @ w[0, :-1])
    return on_sphere(w)


def found(landscape, w):
    probe = np.ones((1, N))
    return bool(at_minimum(landscape, w, np.array([0]), probe, TOLERANCE)[0])


@pytest.mark.parametrize("away", [-2e-3, 0.0, 2e-3])
def test_a_minimum_is_found_from_around_it(away):
    lowest = 0.1  # x = λ₁/c: slope − c x²/2
    landscape = Slope(slope=-(lowest**2) / 2, cubic=1.0)
    assert found(landscape, point(lowest + away, rest=1e-3))


def test_a_minimum_further_away_than_the_tolerance_is_not():
    landscape = Slope(slope=-(0.1**2) / 2, cubic=1.0)
    assert not found(landscape, point(0.1 + 1.5 * TOLERANCE))
    assert not found(landscape, point(0.1, rest=1.5 * TOLERANCE * np.sqrt(N)))


def test_a_maximum_beside_it_is_not():
    landscape = Slope(slope=-(0.1**2) / 2, cubic=1.0)
    assert not found(landscape, point(-0.1))


@pytest.mark.parametrize("x", [0.002, 0.005, 0.01, 0.02, 0.05])
def test_a_slope_without_a_minimum_is_not_taken_for_one_however_flat(x):
    """Where H > 0 and the force is below 10⁻⁵: only that Newton's method wanders off tells it."""
    landscape = Slope(slope=1e-5, cubic=1.0)
    w = point(x)
    assert landscape.hessian(w, None).diagonal.min() > 0
    assert not found(landscape, w)


# -- phase retrieval ------------------------------------------------------------------------------


def trapped(dtype, *, alpha=3.0, n=128, seeds=12, duration=3000.0):
    """Ends of runs of random starts that did not recover, with their landscape."""
    labels, owner = streams(*range(seeds)), np.arange(seeds)
    landscape = draw_instances(
        labels, measurements=round(alpha * n), dimension=n, a=1.0, dtype=dtype
    )
    w0, probe = (draw_starts(labels, purpose, n, dtype) for purpose in ("start", "probe"))
    run = Flow(landscape, duration, TOLERANCE).run(w0, owner)
    lost = np.flatnonzero(run.outcome == Outcome.NOT_RECOVERED)
    assert len(lost) >= 3
    return landscape, run.w[lost], owner[lost], probe[lost]


@pytest.mark.parametrize("dtype", [np.dtype(np.float64), np.dtype(np.float32)])
def test_ends_of_trapped_runs_are_minima_and_points_beside_them_are_not(dtype):
    landscape, w, owner, probe = trapped(dtype)
    assert at_minimum(landscape, w, owner, probe, TOLERANCE).all()
    shifted = on_sphere(w + 5 * TOLERANCE * probe)
    assert not at_minimum(landscape, shifted, owner, probe, TOLERANCE).any()


def test_a_saddle_is_not_a_minimum():
    """On the equator the flow ends where the force is 0 there, and λ₁ < 0 towards the signal."""
    n, labels, owner = 32, streams(*range(8)), np.arange(8)
    float64 = np.dtype(np.float64)
    landscape = draw_instances(labels, measurements=256, dimension=n, a=1.0, dtype=float64)
    w0, probe = (draw_starts(labels, purpose, n, float64) for purpose in ("start", "probe"))
    run = Flow(landscape, 500.0, 1e-4, on_equator=True).run(w0, owner)
    saddles = hessian_snapshot(landscape, run.w, owner, probe).lambda1 < 0
    assert saddles.any()
    assert not at_minimum(landscape, run.w, owner, probe, TOLERANCE)[saddles].any()


@pytest.mark.parametrize("dtype", [np.dtype(np.float64), np.dtype(np.float32)])
def test_the_hessian_on_the_tangent_space_is_that_of_a_basis_of_it(dtype):
    landscape, w, owner, _ = trapped(dtype, n=20, alpha=3.0, seeds=20)
    hessian, whole = _on_tangent(landscape, w, owner), landscape.hessian(w, owner)
    accuracy = 1e-9 if dtype == np.float64 else 1e-4
    for row in range(len(w)):
        axes = np.linalg.svd(w[row : row + 1].astype(float))[2][1:]
        expected = np.linalg.eigvalsh(axes @ whole.dense(row) @ axes.T)
        dense = hessian.dense(row)
        values = np.linalg.eigvalsh(dense)
        np.testing.assert_allclose(values[:5], expected[:5], atol=accuracy)
        identity = np.eye(20, dtype=dtype)
        np.testing.assert_allclose(
            hessian.apply(identity, np.full(20, row)), dense, atol=10 * accuracy
        )


# -- runs that stop there -------------------------------------------------------------------------


FLOW = Dynamics("flow", 3000.0, TOLERANCE, 0.0, 50.0, "float32")


def task(*seeds, stop, n=64, alpha=3.0, **options):
    dynamics = replace(options.pop("dynamics", FLOW), stop_at_minimum=stop)
    instances = options.pop("instances", "dense")
    return Task(
        PhaseRetrievalModel(1.0, n, round(alpha * n), instances),
        streams=streams(*seeds),
        inits=options.pop("inits", ("random", "spectral", "constrained")),
        dynamics=dynamics,
        **options,
    )


@pytest.mark.parametrize("n", [64, 150])
def test_runs_that_stop_end_as_those_that_go_on(n):
    seeds = range(10)
    stopped, whole = (run_block(task(*seeds, stop=stop, n=n)).values for stop in (True, False))
    for name in ("recovered", "lambda1_start", "gradients_init"):
        np.testing.assert_array_equal(stopped[name], whole[name], err_msg=name)
    # the products of a run that goes on are of fewer rows once its neighbours have stopped
    np.testing.assert_allclose(stopped["hit_time"], whole["hit_time"], rtol=1e-3)
    there = stopped["time_end"] < np.where(stopped["recovered"], 0, FLOW.duration)
    assert there.sum() >= 5
    assert np.all(stopped["lambda2_end"][there] > 0)  # λ₁ in all of R^N may be below 0
    assert np.all(stopped["gradients"][there] < whole["gradients"][there])
    for name, closeness in (("overlap", 0.01), ("loss", 1e-4), ("lambda1_end", 5e-3)):
        np.testing.assert_allclose(
            stopped[name][there], whole[name][there], atol=closeness, err_msg=name
        )
    # a run that recovers ends then; one that does neither ends at T
    hit = whole["recovered"] == 1
    assert np.all(whole["time_end"][hit] >= whole["hit_time"][hit])
    np.testing.assert_array_equal(whole["time_end"][~hit], FLOW.duration)


def test_where_a_seed_stops_does_not_depend_on_the_other_seeds():
    together = run_block(task(*range(6), stop=True)).values
    for seed in range(6):
        alone = run_block(task(seed, stop=True)).values
        for name in set(together) - {"seconds"}:
            np.testing.assert_array_equal(alone[name][0], together[name][seed], err_msg=name)


def test_a_run_is_followed_to_the_last_time_at_which_it_is_shown():
    times = (1.0, 1500.0)
    shown = run_block(task(*range(6), stop=True, times=times, hessian_along=False))
    lost = shown.values["recovered"] == 0
    assert lost.any()
    assert np.all(shown.values["time_end"][lost] >= 1500)
    assert np.isfinite(shown.trajectory["loss"][lost]).all()


def test_runs_on_conditional_instances_go_on_to_the_end():
    values = run_block(
        task(*range(6), stop=True, inits=("random",), instances="conditional")
    ).values
    lost = values["recovered"] == 0
    assert lost.any()
    np.testing.assert_array_equal(values["time_end"][lost], FLOW.duration)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "alpha", "seeds"), [(64, 2.5, 300), (128, 4.0, 300), (256, 3.0, 100)]
)
def test_no_run_that_stops_would_have_recovered(n, alpha, seeds):
    dynamics = replace(FLOW, duration=20000.0, constrained_time=200.0)
    options = {"n": n, "alpha": alpha, "dynamics": dynamics, "inits": ("random", "constrained")}
    stopped, whole = (
        run_block(task(*range(seeds), stop=stop, **options)).values for stop in (True, False)
    )
    np.testing.assert_array_equal(stopped["recovered"], whole["recovered"])
    lost = stopped["recovered"] == 0
    there = stopped["time_end"] < dynamics.duration
    fewer = whole["gradients"][lost].mean() / stopped["gradients"][lost].mean()
    print(
        f"N = {n}: {there[lost].sum()} of {lost.sum()} runs that did not recover stopped, "
        f"with {fewer:.1f} times fewer gradients"
    )
    assert there[lost].mean() > 0.98
