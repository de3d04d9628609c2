"""Lowest eigenpairs against dense diagonalisation, signs aligned."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipeline.kernel.phase_retrieval import draw_instances, draw_starts
from pipeline.kernel.spectrum import RESIDUAL, lowest_pairs, residual_bound

FLOAT64 = np.dtype(np.float64)
FLOAT32 = np.dtype(np.float32)
DTYPES = [FLOAT64, FLOAT32]
EPS = {dtype: float(np.finfo(dtype).eps) for dtype in DTYPES}


@dataclass(frozen=True)
class Matrices:
    """Symmetric matrices [trajectories, N, N] given in full."""

    matrices: np.ndarray
    residual: float = RESIDUAL
    degenerate: bool = False

    def apply(self, v, rows):
        return np.matvec(self.matrices[rows].astype(v.dtype), v)

    def dense(self, row):
        return self.matrices[row]


def with_spectra(spectra, seed=0):
    """Matrices with the given eigenvalues [trajectories, N] in random directions."""
    random = np.random.default_rng(seed)
    n = np.shape(spectra)[1]
    out = []
    for values in spectra:
        axes, _ = np.linalg.qr(random.standard_normal((n, n)))
        matrix = (axes * values) @ axes.T
        out.append((matrix + matrix.T) / 2)
    return Matrices(np.array(out))


def semicircle(n, *below):
    """Eigenvalues of a bulk on [-2, 2] with some below it."""
    quantiles = np.linspace(0, np.pi, n - len(below) + 2)[1:-1]
    return np.sort(np.concatenate([below, -2 * np.cos(quantiles)]))


def probes(count, n, dtype=FLOAT64, seed=1):
    return np.random.default_rng(seed).standard_normal((count, n)).astype(dtype)


def check_pairs(pairs, matrices, dtype, count=2):
    """Values, vectors up to sign, and residuals as measured and as promised.

    A dense diagonalisation is good to rounding. A pair of Lanczos has a residual r within the
    stated bound; its value is then off by at most r, and by about r² over the gap to the rest of
    the spectrum; its vector by r over the gap to the next value.
    """
    assert pairs.vectors.dtype == dtype
    assert pairs.values.dtype == np.float64
    for row, matrix in enumerate(matrices.matrices):
        exact, axes = np.linalg.eigh(matrix)
        scale = 1 + exact[-1] - exact[0]
        rounding = 20 * float(np.finfo(dtype).eps) * scale
        dense = pairs.products[row] >= len(matrix) or len(exact) == count
        bound = rounding if dense else float(residual_bound(EPS[dtype], scale)) + rounding
        to_the_rest = exact[count] - exact[count - 1] if len(exact) > count else np.inf
        accuracy = min(bound, 4 * bound**2 / to_the_rest) + rounding
        np.testing.assert_allclose(pairs.values[row], exact[:count], atol=accuracy)
        for k in range(count):
            v = pairs.vectors[row, k].astype(np.float64)
            assert np.linalg.norm(v) == pytest.approx(1, abs=30 * float(np.finfo(dtype).eps))
            defect = np.linalg.norm(matrix @ v - pairs.values[row, k] * v)
            assert defect <= bound
            assert pairs.residuals[row, k] == pytest.approx(defect, abs=rounding)
            gap = np.abs(np.delete(exact, k) - exact[k]).min()
            aligned = np.sign(v @ axes[:, k]) * v
            assert np.linalg.norm(aligned - axes[:, k]) <= 2 * bound / gap


def phase_retrieval(n, dtype, count=3, alpha=3.0):
    labels = [np.random.SeedSequence(41, spawn_key=(n, seed)) for seed in range(count)]
    landscape = draw_instances(
        labels, measurements=round(alpha * n), dimension=n, a=1.0, dtype=dtype
    )
    w = draw_starts(labels, "start", n, dtype)
    return landscape.hessian(w, np.arange(count)), draw_starts(labels, "probe", n, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 3, 40, 127, 128, 129, 150, 300])
def test_against_eigh_below_and_above_the_dense_regime(n, dtype):
    spectra = [semicircle(n), 3 * semicircle(n, -2.5), semicircle(n, -4.0, -2.4) + 7]
    if n < 4:
        spectra = [np.arange(n) * 1.0, np.arange(n) - 3.0]
    matrices = with_spectra(spectra, seed=n)
    pairs = lowest_pairs(matrices, probes(len(spectra), n, dtype))
    check_pairs(pairs, matrices, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [64, 200, 400])
def test_hessians_of_phase_retrieval(n, dtype):
    hessian, probe = phase_retrieval(n, dtype)
    pairs = lowest_pairs(hessian, probe)
    check_pairs(pairs, Matrices(np.array([hessian.dense(row) for row in range(3)])), dtype)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("n", [50, 260])
def test_any_number_of_pairs(n, count):
    matrices = with_spectra([semicircle(n, -5, -4, -3.5, -3, -2.5)], seed=2)
    pairs = lowest_pairs(matrices, probes(1, n), count)
    assert pairs.vectors.shape == (1, count, n)
    check_pairs(pairs, matrices, FLOAT64, count)
    overlaps = pairs.vectors[0] @ pairs.vectors[0].T
    np.testing.assert_allclose(overlaps, np.eye(count), atol=1e-8)


@pytest.mark.parametrize("n", [60, 300])
@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-10])
def test_nearly_degenerate_pairs(n, gap):
    """Each eigenvalue to its accuracy, and the plane they span, if not the vectors in it."""
    matrices = with_spectra([semicircle(n, -3.0, -3.0 + gap)], seed=3)
    pairs = lowest_pairs(matrices, probes(1, n))
    np.testing.assert_allclose(pairs.values[0], [-3.0, -3.0 + gap], atol=1e-6)
    assert pairs.residuals.max() <= residual_bound(EPS[FLOAT64], 5.0)
    _, axes = np.linalg.eigh(matrices.matrices[0])
    outside = np.linalg.norm(pairs.vectors[0] @ axes[:, 2:], axis=1)
    # the rest of the spectrum is 1 away
    assert np.all(outside <= 1.1 * pairs.residuals[0] + 1e-12)


def test_lanczos_costs_fewer_products_than_a_dense_matrix():
    n = 600
    matrices = with_spectra([semicircle(n, -3.0, -2.6)], seed=4)
    pairs = lowest_pairs(matrices, probes(1, n))
    assert pairs.products[0] < n / 4
    check_pairs(pairs, matrices, FLOAT64)
    assert lowest_pairs(with_spectra([semicircle(50)]), probes(1, 50)).products[0] == 50 + 2


def test_products_are_those_asked_for():
    n, asked = 200, np.zeros(3, dtype=int)
    matrices = with_spectra([semicircle(n, -2.2), semicircle(n, -6, -5), semicircle(n)], seed=5)

    class Counting:
        residual = RESIDUAL
        dense = matrices.dense
        degenerate = False

        def apply(self, v, rows):
            np.add.at(asked, rows, 1)
            return matrices.apply(v, rows)

    pairs = lowest_pairs(Counting(), probes(3, n))
    dense = pairs.products > n  # fell back to a dense diagonalisation, which counts N
    np.testing.assert_array_equal(pairs.products - n * dense, asked)
    assert len(set(asked)) > 1  # each matrix stops on its own


def test_a_krylov_space_too_large_falls_back_to_dense():
    """Eigenvalues crowded at the bottom of a wide spectrum: Lanczos would need about N steps."""
    n = 200
    matrices = with_spectra([np.geomspace(1e-3, 1e4, n)], seed=6)
    pairs = lowest_pairs(matrices, probes(1, n))
    assert pairs.products[0] == n // 2 + n + 2
    exact = np.linalg.eigvalsh(matrices.matrices[0])[:2]
    np.testing.assert_allclose(pairs.values[0], exact, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [60, 200])
def test_a_row_does_not_depend_on_the_others(n, dtype):
    """To the last bit: spectra of different difficulty, converging at different sizes."""
    spectra = [semicircle(n, -2.05), semicircle(n, -6, -5), semicircle(n), semicircle(n, -3)]
    matrices, start = with_spectra(spectra, seed=7), probes(4, n, dtype)
    together = lowest_pairs(matrices, start)
    for rows in ([0], [1], [2, 3], [0, 3]):
        alone = lowest_pairs(Matrices(matrices.matrices[rows]), start[rows])
        for name in ("values", "vectors", "residuals", "products"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together, name)[rows])


def test_a_row_that_breaks_down_does_not_change_the_others():
    n = 200
    matrices = with_spectra([semicircle(n, -3), semicircle(n)], seed=8)
    matrices.matrices[1] = np.diag(np.repeat([-1.0, 0.0, 1.0, 2.0], 50))
    start = probes(2, n)
    together = lowest_pairs(matrices, start)
    np.testing.assert_allclose(together.values[1], -1, atol=1e-12)  # both of the degenerate pair
    alone = lowest_pairs(Matrices(matrices.matrices[:1]), start[:1])
    for name in ("values", "vectors", "residuals", "products"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name)[:1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [0, 1, 100, 199])
def test_a_start_that_is_an_eigenvector(k, dtype):
    n = 200
    matrices = with_spectra([semicircle(n, -3, -2.5), semicircle(n, -4)], seed=9)
    start = probes(2, n)
    start[0] = np.linalg.eigh(matrices.matrices[0])[1][:, k]
    check_pairs(lowest_pairs(matrices, start.astype(dtype)), matrices, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [60, 200])
@pytest.mark.parametrize(
    "diagonal",
    [np.ones, np.zeros, lambda n: np.repeat([-2.0, 1.0], n // 2), lambda n: np.arange(n) % 7.0],
    ids=["identity", "zero", "two values", "seven values"],
)
def test_few_distinct_eigenvalues(diagonal, n, dtype):
    """The Krylov space ends at once and holds one vector of each eigenspace."""
    values = diagonal(n)
    pairs = lowest_pairs(Matrices(np.diag(values)[None]), probes(1, n, dtype))
    rounding = 20 * np.finfo(dtype).eps * 8  # all of these end in a dense diagonalisation
    np.testing.assert_allclose(pairs.values[0], np.sort(values)[:2], atol=rounding)
    assert pairs.residuals.max() <= rounding
    overlaps = pairs.vectors[0] @ pairs.vectors[0].T
    np.testing.assert_allclose(overlaps, np.eye(2), atol=30 * np.finfo(dtype).eps)


def underdetermined(dtype, measurements=80):
    """M < N: at w* H has N − M zero eigenvalues, and the lowest two are both 0."""
    labels = [np.random.SeedSequence(43)]
    landscape = draw_instances(labels, measurements=measurements, dimension=200, a=1.0, dtype=dtype)
    hessian = landscape.hessian(landscape.signals, np.array([0]))
    pairs = lowest_pairs(hessian, draw_starts(labels, "probe", 200, dtype))
    return pairs, np.linalg.eigvalsh(hessian.dense(0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_flat_directions_of_an_underdetermined_instance(dtype):
    """λ₁ is found, and whatever is given lies within its residual of an eigenvalue."""
    pairs, exact = underdetermined(dtype)
    rounding = 5 * np.finfo(dtype).eps * exact[-1]
    assert pairs.values[0, 0] == pytest.approx(0, abs=max(rounding, 1e-11))
    for value, residual in zip(pairs.values[0], pairs.residuals[0], strict=True):
        assert np.abs(exact - value).min() <= residual + rounding


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measurements", [20, 80, 150, 197])
def test_flat_directions_are_counted(dtype, measurements):
    """Also where they are few, and next to small eigenvalues that are not 0."""
    pairs, exact = underdetermined(dtype, measurements)
    np.testing.assert_allclose(exact[:3], 0, atol=1e-12 if dtype == FLOAT64 else 1e-5)
    np.testing.assert_allclose(pairs.values, 0, atol=residual_bound(EPS[dtype], exact[-1]))
    assert pairs.residuals.max() <= 1.1 * residual_bound(EPS[dtype], exact[-1])
    overlaps = pairs.vectors[0] @ pairs.vectors[0].T
    np.testing.assert_allclose(overlaps, np.eye(2), atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_degenerate_lowest_eigenvalues(count, dtype):
    """Two or three vectors of one eigenspace, beside a matrix that has none."""
    spectra = [
        semicircle(300, -3, -3, -2.5),
        semicircle(300, -3, -3, -3),
        semicircle(300, -4, -3, -3, -2.5),
        semicircle(300, -3, -2.7, -2.4),
    ]
    matrices = replace(with_spectra(spectra, seed=12), degenerate=True)
    pairs = lowest_pairs(matrices, probes(4, 300, dtype), count)
    for row, exact in enumerate(spectra):
        np.testing.assert_allclose(pairs.values[row], exact[:count], atol=1e-5)
        overlaps = pairs.vectors[row] @ pairs.vectors[row].T
        np.testing.assert_allclose(overlaps, np.eye(count), atol=1e-4)
    assert pairs.residuals.max() <= 1.1 * residual_bound(EPS[dtype], 6.0)
    assert pairs.products.max() < 300 * count / 2  # by Lanczos


def test_a_matrix_without_degeneracy_costs_nothing_more():
    one, other = (phase_retrieval(200, FLOAT64, alpha=alpha)[0] for alpha in (1.0, 0.99))
    assert not one.degenerate
    assert other.degenerate


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("n", [60, 200])
def test_a_matrix_that_is_not_finite_has_no_pairs(n, value):
    """As NaN, not as an exception, and without a word to the other rows."""
    matrices = with_spectra([semicircle(n, -3), semicircle(n), semicircle(n, -4)], seed=10)
    sound = lowest_pairs(matrices, probes(3, n))
    matrices.matrices[1, 3, 4] = matrices.matrices[1, 4, 3] = value
    with np.errstate(invalid="ignore"):  # ∞ − ∞ in the products, not in what is tested
        pairs = lowest_pairs(matrices, probes(3, n))
    assert np.isnan(pairs.values[1]).all()
    assert np.isnan(pairs.vectors[1]).all()
    assert np.isnan(pairs.residuals[1]).all()
    for name in ("values", "vectors", "residuals", "products"):
        np.testing.assert_array_equal(getattr(pairs, name)[[0, 2]], getattr(sound, name)[[0, 2]])


def test_no_matrices_give_no_pairs():
    for n in (10, 200):
        pairs = lowest_pairs(Matrices(np.zeros((0, n, n))), np.zeros((0, n)))
        assert pairs.values.shape == (0, 2)
        assert pairs.vectors.shape == (0, 2, n)


def test_a_larger_residual_costs_fewer_products_and_is_kept():
    n = 600
    spectrum = semicircle(n)
    exact, loose = (
        lowest_pairs(Matrices(with_spectra([spectrum]).matrices, residual), probes(1, n))
        for residual in (RESIDUAL, 3e-2)
    )
    assert loose.products[0] < exact.products[0] - 20
    assert exact.residuals.max() <= RESIDUAL < loose.residuals.max() <= 3e-2
    assert np.abs(loose.values - exact.values).max() < 3e-2


def test_residual_bound_is_2e_minus_4_or_what_rounding_leaves():
    spreads = np.array([0.0, 1.0, 20.0, 1e3, 1e6])
    np.testing.assert_array_equal(residual_bound(EPS[FLOAT64], spreads), np.full(5, 2e-4))
    single = residual_bound(EPS[FLOAT32], spreads)
    np.testing.assert_array_equal(single[:3], 2e-4)
    np.testing.assert_allclose(single[3:], 50 * np.finfo(np.float32).eps * spreads[3:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_spectra_are_solved_to_what_rounding_leaves(dtype):
    """The bound is absolute, so a spectrum a thousand times wider asks for more of the digits."""
    n = 300
    matrices = with_spectra([1000 * semicircle(n, -3.0, -2.2), semicircle(n, -3.0, -2.2)], seed=11)
    pairs = lowest_pairs(matrices, probes(2, n, dtype))
    check_pairs(pairs, matrices, dtype)
    assert pairs.products[0] >= pairs.products[1] + (10 if dtype == FLOAT64 else 0)
