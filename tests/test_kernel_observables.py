"""Snapshots of the Hessian, at a point and along a path, against its dense matrix."""

import numpy as np
import pytest

from pipeline.kernel.flow import Flow
from pipeline.kernel.observables import SNAPSHOT, hessian_snapshot, observe_path, observe_point
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
        eps = float(np.finfo(dtype).eps)
        bound = rounding if n <= 128 else residual_bound(eps, spread) + rounding
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


# -- along a path ---------------------------------------------------------------------------------

FLOAT64 = np.dtype(np.float64)
FLOAT32 = np.dtype(np.float32)
NAMES = ("overlap", "loss", "multiplier")
SPECTRAL = ("lambda1", "lambda2", "alignment", "residual")


def run_with_path(n, dtype=FLOAT64, *, alpha=3.0, times=None, duration=20.0):
    """Four trajectories on three instances, and their path."""
    landscape, w0, probe = retrieval(3, n, alpha, dtype)
    owner = np.array([0, 0, 1, 2])
    w = w0[owner]
    w[1] *= np.where(np.arange(n) % 2, 1, -1)
    times = (0.0, *np.geomspace(0.05, duration, 7)) if times is None else times
    path = Flow(landscape, duration, 1e-2).run(w, owner, times).path
    probe = probe[owner]
    probe[1] = probe[1, ::-1]
    return landscape, path, owner, probe


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
@pytest.mark.parametrize("n", [50, 180])
def test_path_against_eigh_at_each_time(n, dtype):
    landscape, path, owner, probe = run_with_path(n, dtype, alpha=4.0)
    observed = observe_path(landscape, path, owner, probe)
    assert set(observed) == {*NAMES, *SPECTRAL}
    assert np.isfinite(path[:, -1, 0]).sum() < 4  # some have recovered by then
    for name, column in observed.items():
        assert column.shape == path.shape[:2], name
        assert column.dtype == np.float64
        np.testing.assert_array_equal(np.isfinite(column), np.isfinite(path[:, :, 0]))
    for row, k in zip(*np.nonzero(np.isfinite(path[:, :, 0])), strict=True):
        w, instance = path[row : row + 1, k], owner[row : row + 1]
        dense = landscape.hessian(w, instance).dense(0)
        values, vectors = np.linalg.eigh(dense)
        spread = values[-1] - values[0]
        rounding = 20 * np.finfo(dtype).eps * spread
        eps = float(np.finfo(dtype).eps)
        bound = rounding if n <= 128 else residual_bound(eps, spread) + rounding
        accuracy = min(bound, 4 * bound**2 / (values[2] - values[1])) + rounding
        assert observed["lambda1"][row, k] == pytest.approx(values[0], abs=accuracy)
        assert observed["lambda2"][row, k] == pytest.approx(values[1], abs=accuracy)
        assert observed["residual"][row, k] <= bound
        alignment = (vectors[:, 0] @ landscape.signals[instance[0]]) ** 2 / n
        gap = values[1] - values[0]
        assert observed["alignment"][row, k] == pytest.approx(alignment, abs=4 * bound / gap)


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32])
def test_path_against_each_of_its_points(dtype):
    landscape, path, owner, _ = run_with_path(50, dtype)
    observed = observe_path(landscape, path, owner, None)
    assert set(observed) == {*NAMES, *SNAPSHOT}
    assert all(np.isnan(observed[name]).all() for name in SNAPSHOT)
    for k in range(path.shape[1]):
        alive = np.isfinite(path[:, k, 0])
        at_point = observe_point(landscape, path[alive, k], owner[alive])
        for name in NAMES:
            np.testing.assert_array_equal(observed[name][alive, k], at_point[name])
            assert np.isnan(observed[name][~alive, k]).all()


def test_point_against_the_formulas():
    landscape, path, owner, _ = run_with_path(50)
    observed = observe_point(landscape, path[:, 2], owner)
    for row, instance in enumerate(owner):
        X, signal, w = (
            landscape.operators[instance].matrix,
            landscape.signals[instance],
            path[row, 2],
        )
        y, predicted = X @ signal, X @ w
        loss = np.mean((predicted**2 - y**2) ** 2 / (4 * (1 + y**2)))
        multiplier = np.sum(predicted**2 * (predicted**2 - y**2) / (1 + y**2)) / 50
        assert observed["loss"][row] == pytest.approx(loss, rel=1e-12)
        assert observed["multiplier"][row] == pytest.approx(multiplier, rel=1e-10)
        assert observed["overlap"][row] == pytest.approx(w @ signal / 50, rel=1e-12)  # signed
        assert observed["overlap"].dtype == np.float64
    assert observed["overlap"].min() < 0


def test_snapshots_that_start_from_the_one_before_cost_less():
    """Products with H along a path at N = 256, counted, against the probe's at every time."""
    landscape, path, owner, probe = run_with_path(256, times=tuple(np.geomspace(0.1, 20, 12)))
    counted = Counted(landscape)
    observed = observe_path(counted, path, owner, probe)
    warm = counted.products
    cold, counted.products = 0, 0
    for k in range(12):
        alive = np.isfinite(path[:, k, 0])
        snapshot = hessian_snapshot(counted, path[alive, k], owner[alive], probe[alive])
        cold += snapshot.products.sum()
        for name, accuracy in (("lambda1", 2e-5), ("lambda2", 2e-5), ("alignment", 4e-3)):
            np.testing.assert_allclose(
                observed[name][alive, k], getattr(snapshot, name), atol=accuracy
            )
    assert cold == counted.products
    print(f"\nproducts along 12 times of 4 runs: {warm} warm, {cold} cold")
    assert warm < 0.9 * cold


class Counted:
    """A landscape that counts the products with its Hessians."""

    def __init__(self, landscape):
        self.landscape, self.products = landscape, 0
        self.dimension = landscape.dimension
        self.gradient, self.loss = landscape.gradient, landscape.loss
        self.overlap = landscape.overlap

    def hessian(self, w, owner):
        hessian = self.landscape.hessian(w, owner)
        counter = self

        class Counting:
            residual = hessian.residual
            degenerate = hessian.degenerate
            dense = hessian.dense

            def apply(self, v, rows):
                counter.products += len(rows)
                return hessian.apply(v, rows)

        return Counting()


def test_a_direction_that_was_not_there_before_is_found():
    """The lowest vectors change from one time to the next altogether: here from one start's."""
    n = 200
    landscape, w0, probe = retrieval(1, n, 3.0, FLOAT64)
    other = w0[:, ::-1].copy()
    path = np.stack([w0, other, w0], axis=1)
    owner = np.array([0])
    observed = observe_path(landscape, path, owner, probe)
    for k in range(3):
        exact = np.linalg.eigvalsh(landscape.hessian(path[:, k], owner).dense(0))
        np.testing.assert_allclose(observed["lambda1"][0, k], exact[0], atol=1e-5)
        np.testing.assert_allclose(observed["lambda2"][0, k], exact[1], atol=1e-5)


@pytest.mark.parametrize("n", [50, 180])
def test_a_path_that_is_nan_is_left_out(n):
    """A run that ended, and one that was never: the others are as ever, to the last bit."""
    landscape, path, owner, probe = run_with_path(n, duration=2.0)
    assert np.isfinite(path).all()
    sound = observe_path(landscape, path, owner, probe)
    path[0] = path[2, 3:] = np.nan
    observed = observe_path(landscape, path, owner, probe)
    for name, column in observed.items():
        assert np.isnan(column[0]).all()
        assert np.isnan(column[2, 3:]).all()
        # the first shared its products with the second
        np.testing.assert_allclose(column[1], sound[name][1], atol=1e-5)
        np.testing.assert_array_equal(column[2, :3], sound[name][2, :3])
        np.testing.assert_array_equal(column[3], sound[name][3])


def test_a_path_of_nothing_but_nan_or_without_times():
    landscape, path, owner, probe = run_with_path(50)
    for given in (None, probe):
        gone = observe_path(landscape, np.full_like(path, np.nan), owner, given)
        assert all(np.isnan(column).all() for column in gone.values())
        none = observe_path(landscape, path[:, :0], owner, given)
        assert all(column.shape == (4, 0) for column in none.values())


def test_a_trajectory_is_observed_as_if_it_were_alone():
    """Other instances change nothing, to the last bit, in the Lanczos regime."""
    landscape, path, owner, probe = run_with_path(180)
    together = observe_path(landscape, path, owner, probe)
    for rows in ([0, 1], [2], [2, 3]):
        alone = observe_path(landscape, path[rows], owner[rows], probe[rows])
        for name, column in alone.items():
            np.testing.assert_array_equal(column, together[name][rows])
