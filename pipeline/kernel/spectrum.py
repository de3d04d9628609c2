"""Lowest eigenpairs of the Hessians of a batch of trajectories, with their residuals.

Dense diagonalisation where it is cheaper, otherwise Lanczos with full reorthogonalisation, all
trajectories at once: one product with every Hessian still iterated on is one pass over X.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.batch import Array, Rows

_DENSE_DIMENSION = 128  # below it a dense diagonalisation costs less than a Lanczos run
_DENSE_FRACTION = 0.5  # a Krylov space this large next to R^N means dense is cheaper after all
_LARGEST_DENSE = 4096
_BREAKDOWN = 30  # in units of the rounding of |H|: what is left of a product is then noise
_CHECK_GROWTH = 1.25  # the Ritz values are looked at when the space has grown by this factor


class SymmetricBatch(Protocol):
    """Symmetric matrices of a batch, one per trajectory, known by their products."""

    def apply(self, v: Array, rows: Rows) -> Array:
        """H v for `v` [k, N], the k-th in the matrix of trajectory rows[k]."""

    def dense(self, row: int) -> Array:
        """The matrix of one trajectory [N, N]."""


@dataclass(frozen=True)
class LowestPairs:
    """The lowest eigenpairs of each matrix.

    Parameters
    ----------
    values : float array [trajectories, count]
        Ascending; NaN, as the rest, where the matrix is not finite.
    vectors : float array [trajectories, count, N]
        Unit vectors.
    residuals : float array [trajectories, count]
        |H v − λ v|; some eigenvalue lies within that distance of λ.
    products : int array [trajectories]
        Products with H used (a dense diagonalisation counts N of them).
    """

    values: NDArray[np.float64]
    vectors: Array
    residuals: NDArray[np.float64]
    products: Rows


def residual_bound(dtype: np.dtype[np.floating], spread: Array) -> Array:
    """Largest residual |H v − λ v| of a pair, for matrices with λ_max − λ_min = `spread`.

    2e-4, or what rounding leaves: an eigenvalue is then good to 2e-4 in the worst case, and to
    (2e-4)²/gap where λ₁ and λ₂ are apart, as they are at N below 10⁴.
    """
    return np.asarray(np.maximum(2e-4, 50 * np.finfo(dtype).eps * spread))


def lowest_pairs(matrices: SymmetricBatch, start: Array, count: int = 2) -> LowestPairs:
    """The `count` lowest eigenpairs of every matrix of the batch.

    Parameters
    ----------
    matrices : SymmetricBatch
    start : float array [trajectories, N]
        Starting vectors of Lanczos, with a component on the pairs that are sought.
    count : int
    """
    trajectories, n = start.shape
    pairs = LowestPairs(
        values=np.empty((trajectories, count), dtype=np.float64),
        vectors=np.empty((trajectories, count, n), dtype=start.dtype),
        residuals=np.empty((trajectories, count), dtype=np.float64),
        products=np.zeros(trajectories, dtype=np.intp),
    )
    everyone = np.arange(trajectories)
    most = int(_DENSE_FRACTION * n) if n <= _LARGEST_DENSE else n
    left = everyone if n <= _DENSE_DIMENSION else _lanczos(matrices, start, pairs, most)
    for row in left:
        _diagonalise(matrices, int(row), pairs)
    for k in range(count):  # measured, not inferred from the recurrence
        v = pairs.vectors[:, k]
        defect = matrices.apply(v, everyone) - pairs.values[:, k, None].astype(v.dtype) * v
        pairs.residuals[:, k] = np.sqrt(np.vecdot(defect, defect))
    pairs.products[:] += count
    return pairs


def _diagonalise(matrices: SymmetricBatch, row: int, pairs: LowestPairs) -> None:
    # numpy's eigh releases the GIL; scipy's does not, and a worker's heartbeat would starve
    matrix = matrices.dense(row)
    if not np.isfinite(matrix).all():  # LAPACK may or may not raise on it
        pairs.values[row] = pairs.vectors[row] = np.nan
        return
    values, vectors = np.linalg.eigh(matrix)
    count = pairs.values.shape[1]
    pairs.values[row] = values[:count]
    pairs.vectors[row] = vectors[:, :count].T
    pairs.products[row] += len(values)


def _lanczos(matrices: SymmetricBatch, start: Array, pairs: LowestPairs, most: int) -> Rows:
    """Fill `pairs` by Lanczos; the rows that it does not serve are returned.

    Those not converged within `most` products, and those whose Krylov space ends: it is invariant,
    and need not hold the lowest pairs, nor both of a degenerate one.
    """
    trajectories, n = start.shape
    count = pairs.values.shape[1]
    rows = np.arange(trajectories)
    unserved = rows[:0]
    basis = np.zeros((trajectories, min(64, most), n), dtype=start.dtype)
    basis[:, 0] = start / np.sqrt(np.vecdot(start, start))[:, None]
    diagonal, off = np.zeros((2, trajectories, most))
    next_check = 4 * count + 12
    for k in range(most):
        v = basis[:, k]
        u = matrices.apply(v, rows)
        diagonal[:, k] = np.vecdot(v, u)
        u -= diagonal[:, k, None].astype(u.dtype) * v
        if k:
            u -= off[:, k - 1, None].astype(u.dtype) * basis[:, k - 1]
        known = basis[:, : k + 1]
        u -= np.matvec(known.mT, np.matvec(known, u))  # what rounding brought back
        off[:, k] = np.sqrt(np.vecdot(u, u))
        pairs.products[rows] += 1
        size = np.max(np.abs(diagonal[:, : k + 1]) + off[:, : k + 1], axis=1)
        ended = ~(off[:, k] > _BREAKDOWN * np.finfo(start.dtype).eps * size)  # also where NaN
        done = np.zeros_like(ended)
        if k + 1 in (next_check, most):
            next_check = int(np.ceil(_CHECK_GROWTH * (k + 1)))
            ritz = _ritz(diagonal[:, : k + 1], off[:, : k + 1])
            done = ~ended & _converged(ritz, off[:, k], count, start.dtype)
            for row in np.flatnonzero(done):
                pairs.values[rows[row]] = ritz[0][row, :count]
                vectors = ritz[1][row, :, :count].T.astype(basis.dtype) @ basis[row, : k + 1]
                pairs.vectors[rows[row]] = vectors / np.sqrt(np.vecdot(vectors, vectors))[:, None]
        if ended.any() or done.any():
            unserved = np.concatenate([unserved, rows[ended]])
            keep = ~(done | ended)
            rows, basis, u = rows[keep], basis[keep], u[keep]
            diagonal, off = diagonal[keep], off[keep]
        if not len(rows):
            break
        if k + 1 < most:
            if k + 1 == basis.shape[1]:
                more = min(basis.shape[1], most - basis.shape[1])
                basis = np.concatenate([basis, np.zeros_like(basis[:, :more])], axis=1)
            basis[:, k + 1] = u / off[:, k, None].astype(u.dtype)
    return np.concatenate([unserved, rows])


def _ritz(diagonal: Array, off: Array) -> tuple[Array, Array]:
    """Eigenvalues [trajectories, k] and vectors [trajectories, k, k] of the tridiagonals."""
    k = diagonal.shape[1]
    tridiagonal = np.zeros((len(diagonal), k, k))
    i = np.arange(k)
    tridiagonal[:, i, i] = diagonal
    tridiagonal[:, i[1:], i[:-1]] = off[:, :-1]  # eigh reads the lower triangle
    values, vectors = np.linalg.eigh(tridiagonal)
    return values, vectors


def _converged(
    ritz: tuple[Array, Array], off: Array, count: int, dtype: np.dtype[np.floating]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    values, vectors = ritz
    residual = np.abs(off[:, None] * vectors[:, -1, :count]).max(axis=-1)
    return np.asarray(residual <= residual_bound(dtype, values[:, -1] - values[:, 0]))
