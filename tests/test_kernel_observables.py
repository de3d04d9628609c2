"""Snapshots of the Hessian against its dense matrix."""

import numpy as np
import pytest

from pipeline.kernel.observables import hessian_snapshot
from pipeline.kernel.phase_retrieval import draw_instances, draw_starts
from pipeline.kernel.spectrum import residual_bound


def retrieval(count, n, alpha, dtype):
    labels = [np.random.SeedSequence(61, spawn_key=(n, seed)) for seed in range(count)]
    landscape = draw_instances(
        labels, measurements=round(alpha * n), dimension=n, a=1.0, dtype=dtype
    )
    return landscape, *(draw_starts(labels, purpose, n, dtype) for purpose in ("start", "probe"))


@pytest.mark.parametrize("dtype", [np.dtype(np.float64), np.dtype(np.float32)])
@pytest.mark.parametrize("n", [50, 180])
def test_snapshot_against_eigh(n, dtype):
    landscape, w0, probe = retrieval(3, n, 3.0, dtype)
    owner = np.array([0, 0, 1, 2])  # two trajectories share an instance
    w = w0[owner]
    w[1] *= np.where(np.arange(n) % 2, 1, -1)
    snapshot = hessian_snapshot(landscape, w, owner, probe[owner])
    hessian = landscape.hessian(w, owner)
    for row, instance in enumerate(owner):
        values, vectors = np.linalg.eigh(hessian.dense(row))
        spread = values[-1] - values[0]
        rounding = 20 * np.finfo(dtype).eps * spread
        bound = rounding if n <= 128 else residual_bound(dtype, spread) + rounding
        # λ is off by at most r² over the gap to the rest of the spectrum
        accuracy = min(bound, bound**2 / (values[2] - values[1])) + rounding
        assert snapshot.lambda1[row] == pytest.approx(values[0], abs=accuracy)
        assert snapshot.lambda2[row] == pytest.approx(values[1], abs=accuracy)
        alignment = (vectors[:, 0] @ landscape.signals[instance]) ** 2 / n
        gap = values[1] - values[0]
        assert snapshot.alignment[row] == pytest.approx(alignment, abs=2 * bound / gap)
        v = snapshot.lowest[row].astype(np.float64)
        defect = np.linalg.norm(hessian.dense(row) @ v - snapshot.lambda1[row] * v)
        assert defect <= snapshot.residual[row] + rounding
        assert snapshot.residual[row] <= bound
    for name in ("lambda1", "lambda2", "alignment", "residual"):
        assert getattr(snapshot, name).dtype == np.float64


def test_alignment_with_the_signal_at_a_random_point():
    """Spec section 5, a = 1, α = 3: outlier at −5.624, overlap² 0.284, as N grows."""
    landscape, w0, probe = retrieval(24, 300, 3.0, np.dtype(np.float64))
    snapshot = hessian_snapshot(landscape, w0, np.arange(24), probe)
    assert np.all((snapshot.alignment >= 0) & (snapshot.alignment <= 1))
    error = np.std(snapshot.lambda1) / np.sqrt(24)
    assert abs(snapshot.lambda1.mean() - -5.624) < 4 * error
    assert abs(snapshot.alignment.mean() - 0.284) < 4 * np.std(snapshot.alignment) / np.sqrt(24)


def test_at_the_signal_itself_the_spectrum_is_positive():
    landscape, _, probe = retrieval(2, 60, 4.0, np.dtype(np.float64))
    snapshot = hessian_snapshot(landscape, landscape.signals, np.arange(2), probe)
    assert np.all(snapshot.lambda1 > 0)
    assert np.all(snapshot.lambda2 >= snapshot.lambda1)
