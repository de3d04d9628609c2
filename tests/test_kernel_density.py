"""Density of eigenvalues: against all of them, its sum, and whether its error bar covers them."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import stdtrit

from pipeline.kernel.arrays import Array
from pipeline.kernel.batch import Rows
from pipeline.kernel.density import PROBES, diagonalised_density, sampled_density
from pipeline.kernel.phase_retrieval import draw_instances, draw_starts

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Matrices:
    """A batch of matrices in memory."""

    matrices: Floats

    def apply(self, v: Array, rows: Rows) -> Array:
        return np.matvec(self.matrices[rows].astype(v.dtype), v)

    def dense(self, row: int) -> Array:
        return self.matrices[row]


def draw_matrices(n: int, count: int = 1, seed: int = 0) -> Matrices:
    """Semicircles of radius 2 with an eigenvalue at −4 each."""
    x = np.random.default_rng(seed).standard_normal((count, n, n))
    x = (x + x.mT) / np.sqrt(2 * n)
    x -= 4 * np.eye(n)[0] * np.eye(n)[:, :1]
    return Matrices(x)


def draw_probes(n: int, count: int = 1, seed: int = 1, probes: int = PROBES) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, probes, n))


def test_all_eigenvalues_are_counted() -> None:
    batch, edges = draw_matrices(60, 3), np.linspace(-1.5, 2.5, 9)
    found = diagonalised_density(batch, 3, edges)
    for row in range(3):
        values = np.linalg.eigvalsh(batch.matrices[row])
        counts, _ = np.histogram(values, edges)
        np.testing.assert_allclose(found.density[row], counts / 60 / 0.5)
        assert found.below[row] == pytest.approx(np.mean(values < -1.5))
        assert found.above[row] == pytest.approx(np.mean(values >= 2.5))
    np.testing.assert_array_equal(found.density_error, 0.0)


@pytest.mark.parametrize("edges", [np.linspace(-6, 6, 61), np.array([-1.0, -0.5, 0.0, 1.0])])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_density_integrates_to_one(edges: Floats, dtype: type) -> None:
    batch = draw_matrices(150, 2)
    exact = diagonalised_density(batch, 2, edges)
    sampled = sampled_density(batch, draw_probes(150, 2).astype(dtype), edges)
    for found in (exact, sampled):
        total = found.density @ np.diff(edges) + found.below + found.above
        np.testing.assert_allclose(total, 1.0, atol=1e-5 if dtype is np.float32 else 1e-12)
        assert (found.density >= 0).all()
    np.testing.assert_allclose(sampled.below, exact.below, atol=0.05)


def test_with_as_many_steps_as_dimensions_each_probe_is_exact() -> None:
    """Then the nodes are the eigenvalues, and the weights those of the probe."""
    batch, edges = draw_matrices(40), np.linspace(-5, 3, 33)
    probes = draw_probes(40, probes=2)
    values, vectors = np.linalg.eigh(batch.matrices[0])
    unit = probes[0] / np.linalg.norm(probes[0], axis=1, keepdims=True)
    weights = (unit @ vectors) ** 2
    expected = np.mean([np.histogram(values, edges, weights=each)[0] for each in weights], axis=0)
    found = sampled_density(batch, probes, edges)
    np.testing.assert_allclose(found.density[0] * 0.25, expected, atol=1e-10)


def test_the_error_bar_covers_the_eigenvalues() -> None:
    n, count = 250, 12
    batch, edges = draw_matrices(n, count, seed=3), np.linspace(-2.2, 2.2, 23)
    exact = diagonalised_density(batch, count, edges)
    sampled = sampled_density(batch, draw_probes(n, count, seed=4), edges)
    miss = np.abs(sampled.density - exact.density) / sampled.density_error
    inside = (miss < stdtrit(PROBES - 1, 0.975)).mean()  # 0.985
    assert 0.93 < inside < 0.999
    # nor is it far too wide: the spread of a Gaussian vector's share of 0.06 N eigenvalues
    assert np.median(sampled.density_error) < 1.3 * np.sqrt(2 * 0.06 / n / PROBES) / 0.2


def test_a_detached_eigenvalue_stays_in_its_bin() -> None:
    n = 400
    batch, edges = draw_matrices(n), np.linspace(-5.0, 3.0, 81)
    lowest = np.linalg.eigvalsh(batch.matrices[0])[0]
    found = sampled_density(batch, draw_probes(n), edges)
    place = int((lowest - edges[0]) // 0.1)
    gap = found.density[0, edges[:-1] < -2.3]
    assert np.flatnonzero(gap).tolist() == [place]
    assert found.density[0, place] * 0.1 == pytest.approx(1 / n, rel=1.0)


def test_an_exhausted_krylov_space_ends_the_quadrature() -> None:
    """Of a matrix with three eigenvalues only, hence three nodes."""
    levels = np.repeat([-1.0, 0.5, 2.0], [20, 50, 30])
    batch, edges = Matrices(np.diag(levels)[None]), np.array([-1.5, -0.5, 0.25, 1.0, 3.0])
    found = sampled_density(batch, draw_probes(100), edges)
    np.testing.assert_allclose(
        found.density[0] * np.diff(edges), [0.2, 0.0, 0.5, 0.3], atol=4 * 0.02
    )
    assert found.density[0, 1] < 1e-12


def test_what_is_not_finite_is_nan_and_leaves_the_others() -> None:
    batch, edges = draw_matrices(60, 2), np.linspace(-3, 3, 7)
    whole = sampled_density(batch, draw_probes(60, 2), edges)
    batch.matrices[0, 3, 4] = np.nan
    with np.errstate(invalid="ignore"):
        for found in (
            diagonalised_density(batch, 2, edges),
            sampled_density(batch, draw_probes(60, 2), edges),
        ):
            for column in (found.density, found.density_error, found.below, found.above):
                assert np.isnan(column[0]).all()
                assert np.isfinite(column[1]).all()
    np.testing.assert_array_equal(found.density[1], whole.density[1])


def test_the_hessian_of_a_landscape() -> None:
    n, stream = 300, np.random.SeedSequence(5)
    landscape = draw_instances(
        [stream], measurements=900, dimension=n, a=1.0, dtype=np.dtype(np.float32)
    )
    w = draw_starts([stream], "start", n, np.dtype(np.float32))
    hessian = landscape.hessian(w, np.array([0]))
    edges = np.linspace(-6.0, 10.0, 33)
    exact = diagonalised_density(hessian, 1, edges)
    sampled = sampled_density(hessian, draw_probes(n).astype(np.float32), edges)
    assert np.abs(np.cumsum(sampled.density - exact.density) * 0.5).max() < 0.02
    assert sampled.above == pytest.approx(exact.above, abs=0.02)
