"""Starting points: random, spectral, constrained."""

from dataclasses import dataclass

import numpy as np
import pytest

from pipeline.kernel.batch import on_sphere
from pipeline.kernel.descent import GradientDescent
from pipeline.kernel.flow import DescentResult, Flow, Outcome
from pipeline.kernel.inits import (
    INITS,
    constrained_starts,
    overlap_starts,
    random_starts,
    spectral_starts,
)
from pipeline.kernel.observables import hessian_snapshot
from pipeline.kernel.phase_retrieval import draw_instances, draw_starts

FLOAT64 = np.dtype(np.float64)
FLOAT32 = np.dtype(np.float32)


def retrieval(count=4, *, n=40, alpha=3.0, dtype=FLOAT64):
    labels = [np.random.SeedSequence(51, spawn_key=(n, seed)) for seed in range(count)]
    landscape = draw_instances(
        labels, measurements=round(alpha * n), dimension=n, a=1.0, dtype=dtype
    )
    draws = [draw_starts(labels, purpose, n, dtype) for purpose in ("start", "probe")]
    return landscape, *draws, np.arange(count)


def test_vocabulary():
    assert INITS == ("random", "spectral", "constrained")


def test_random_start_is_the_draw_itself():
    _, w0, _, _ = retrieval()
    starts = random_starts(w0)
    np.testing.assert_array_equal(starts.w, w0)
    np.testing.assert_array_equal(starts.gradients, 0)
    np.testing.assert_array_equal(starts.outcome, Outcome.RUNNING)


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("overlap", [0.0, 0.3, -1.0])
def test_overlap_start_has_its_overlap_in_the_plane_of_the_draw(overlap, dtype):
    landscape, w0, _, owner = retrieval(dtype=dtype)
    signals = landscape.signals[owner]
    starts = overlap_starts(w0, signals, overlap)
    assert starts.w.dtype == dtype
    np.testing.assert_allclose(np.vecdot(starts.w, starts.w), 40, rtol=1e-5)
    np.testing.assert_allclose(landscape.overlap(starts.w, owner), overlap, atol=1e-6)
    for row in owner:
        assert np.linalg.matrix_rank([starts.w[row], w0[row], signals[row]], tol=1e-3) <= 2
        across = w0[row] - (w0[row] @ signals[row]) / 40 * signals[row]
        assert (starts.w[row] - overlap * signals[row]) @ across >= -1e-3
    np.testing.assert_array_equal(starts.outcome, Outcome.RUNNING)


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("n", [40, 160])
def test_spectral_start_is_the_lowest_eigenvector_on_the_sphere(n, dtype):
    landscape, w0, probe, owner = retrieval(n=n, dtype=dtype)
    starts = spectral_starts(hessian_snapshot(landscape, w0, owner, probe))
    hessian = landscape.hessian(w0, owner)
    assert starts.w.dtype == dtype
    np.testing.assert_allclose(np.vecdot(starts.w, starts.w), n, rtol=10 * np.finfo(dtype).eps)
    for row in owner:
        lowest = np.linalg.eigh(hessian.dense(row))[1][:, 0]
        cosine = starts.w[row] @ lowest / np.sqrt(n)
        assert abs(cosine) == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(starts.outcome, Outcome.RUNNING)
    assert np.all(starts.gradients >= 20)


def descents(landscape):
    return {
        "flow": Flow(landscape, 200.0, 1e-2, on_equator=True),
        "descent": GradientDescent(landscape, 40.0, 0.01, on_equator=True),
    }


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("method", ["flow", "descent"])
def test_constrained_start_is_a_marginal_state_at_the_equator(method, dtype):
    landscape, w0, probe, owner = retrieval(dtype=dtype)
    starts = constrained_starts(w0, owner, descents(landscape)[method])
    np.testing.assert_array_equal(starts.outcome, Outcome.RUNNING)
    assert np.abs(landscape.overlap(starts.w, owner)).max() <= 2 * np.finfo(dtype).eps
    np.testing.assert_allclose(np.vecdot(starts.w, starts.w), 40, rtol=10 * np.finfo(dtype).eps)
    before, after = (hessian_snapshot(landscape, w, owner, probe) for w in (w0, starts.w))
    assert np.all(before.lambda1 < -2)
    assert np.all(np.abs(after.lambda1) < 0.1 * np.abs(before.lambda1))
    assert np.all(starts.gradients > 50)


def test_constrained_starts_share_an_instance_among_replicas():
    """Replicas of one instance relax to states of their own, each as if it were alone."""
    landscape, w0, _, _ = retrieval(count=2)
    owner = np.array([0, 0, 1, 1])
    w = on_sphere(np.random.default_rng(3).standard_normal((4, 40)))
    w[[0, 2]] = w0
    relax = Flow(landscape, 20.0, 1e-4, on_equator=True)
    together = constrained_starts(w, owner, relax)
    for row in range(4):
        alone = constrained_starts(w[row : row + 1], owner[row : row + 1], relax)
        np.testing.assert_allclose(together.w[row], alone.w[0], atol=1e-6)
    assert np.abs(together.w[0] - together.w[1]).max() > 0.1
    assert np.abs(landscape.overlap(together.w, owner)).max() < 1e-15


def test_constrained_starts_have_the_energy_of_the_spec():
    """Section 6: 0.089 per measurement at a = 1, α = 6, N = 128."""
    landscape, w0, probe, owner = retrieval(16, n=128, alpha=6.0)
    w = constrained_starts(w0, owner, Flow(landscape, 200.0, 1e-2, on_equator=True)).w
    loss = landscape.loss(landscape.gradient(w, owner)[1], owner)
    assert abs(loss.mean() - 0.089) < 4 * loss.std() / np.sqrt(16)
    lowest = hessian_snapshot(landscape, w, owner, probe).lambda1
    assert np.abs(lowest).max() < 0.4  # from about −10 at w(0)


@dataclass(frozen=True)
class Ends:
    """A descent that ends as it is told."""

    outcome: tuple[Outcome, ...]

    def run(self, w, owner, times=()):
        count = len(w)
        assert list(owner) == [0, 0, 1, 3]
        assert times == ()
        outcome = np.array(self.outcome, dtype=np.int8)
        ones = np.ones(count)
        return DescentResult(2 * w, outcome, ones, ones, np.arange(count), np.empty((count, 0, 0)))


def test_a_relaxation_that_fails_is_passed_on_as_its_outcome():
    _, w0, _, _ = retrieval()
    ends = (
        Outcome.NOT_RECOVERED,
        Outcome.NOT_FINITE,
        Outcome.STEP_TOO_SMALL,
        Outcome.TOO_MANY_GRADIENTS,
    )
    starts = constrained_starts(w0, np.array([0, 0, 1, 3]), Ends(ends))
    np.testing.assert_array_equal(starts.outcome, [Outcome.RUNNING, *ends[1:]])
    np.testing.assert_array_equal(starts.gradients, [0, 1, 2, 3])
    np.testing.assert_array_equal(starts.w, 2 * w0)
