"""Lowest eigenpairs of the Hessians of a batch of trajectories, with their residuals.

Dense diagonalisation where it is cheaper, otherwise Lanczos with full reorthogonalisation, all
trajectories at once: one product with every Hessian still iterated on is one pass over X.

A Krylov space holds one vector of each eigenspace. Where eigenvalues may be degenerate, as for
M < N, where H = −μ on the null space of X, a second one starts orthogonal to what the first found.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array, namespace, on_device_of, precision, take_rows, to_host
from pipeline.kernel.batch import Rows

Floats = NDArray[np.float64]

RESIDUAL = 2e-4
_DENSE_DIMENSION = 128  # below it a dense diagonalisation costs less than a Lanczos run
_DENSE_FRACTION = 0.5  # a Krylov space this large next to R^N means dense is cheaper after all
_LARGEST_DENSE = 4096
_BREAKDOWN = 30  # in units of the rounding of |H|: what is left of a product is then noise
_CHECK_GROWTH = 1.25  # the Ritz values are looked at when the space has grown by this factor


class SymmetricBatch(Protocol):
    """Symmetric matrices of a batch, one per trajectory, known by their products."""

    @property
    def residual(self) -> float:
        """|H v − λ v| at which a pair is good enough; `RESIDUAL` where products are cheap."""

    @property
    def degenerate(self) -> bool:
        """Whether the lowest eigenvalues may be degenerate; to find out costs a second run."""

    def apply(self, v: Array, rows: Rows) -> Array:
        """H v for `v` [k, N], the k-th in the matrix of trajectory rows[k]."""

    def dense(self, row: int) -> Array:
        """The matrix of one trajectory [N, N]."""


@runtime_checkable
class SolvedBatch(Protocol):
    """Matrices of a batch that know their lowest eigenpairs without being applied."""

    def lowest_pairs(self, start: Array, count: int) -> "LowestPairs":
        """Their `count` lowest eigenpairs; `start` [trajectories, N] has the shape of vectors."""


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


def residual_bound(eps: float, spread: Floats, residual: float = RESIDUAL) -> Floats:
    """Largest residual |H v − λ v| of a pair, for matrices with λ_max − λ_min = `spread`.

    What is asked for, or what rounding leaves; `eps` is the precision of the products. With 2e-4 an
    eigenvalue is good to 2e-4 in the worst case, and to (2e-4)²/gap where λ₁ and λ₂ are apart, as
    they are at N below 10⁴.
    """
    return np.asarray(np.maximum(residual, 50 * eps * spread))


def lowest_pairs(
    matrices: SymmetricBatch | SolvedBatch, start: Array, count: int = 2
) -> LowestPairs:
    """The `count` lowest eigenpairs of every matrix of the batch.

    Parameters
    ----------
    matrices : SymmetricBatch or SolvedBatch
    start : float array [trajectories, N]
        Starting vectors of Lanczos, with a component on the pairs that are sought.
    count : int
    """
    if isinstance(matrices, SolvedBatch):
        return matrices.lowest_pairs(start, count)
    xp, (trajectories, n) = namespace(start), start.shape
    pairs = LowestPairs(
        values=np.empty((trajectories, count), dtype=np.float64),
        vectors=xp.empty((trajectories, count, n), dtype=start.dtype, device=device(start)),
        residuals=np.empty((trajectories, count), dtype=np.float64),
        products=np.zeros(trajectories, dtype=np.intp),
    )
    everyone = np.arange(trajectories)
    most = int(_DENSE_FRACTION * n) if n <= _LARGEST_DENSE else n
    left = everyone
    if n > _DENSE_DIMENSION:
        left = _lanczos(matrices, start, pairs, most)
        if matrices.degenerate:
            found = np.setdiff1d(everyone, left)
            left = np.concatenate([left, _find_missed(matrices, found, pairs, most)])
    for row in left:
        _diagonalise(matrices, int(row), pairs)
    for k in range(count):  # measured, not inferred from the recurrence
        v = pairs.vectors[:, k, :]
        defect = matrices.apply(v, everyone) - on_device_of(v, pairs.values[:, k, None]) * v
        pairs.residuals[:, k] = to_host(xp.sqrt(xp.vecdot(defect, defect)))
    pairs.products[:] += count
    return pairs


def _diagonalise(matrices: SymmetricBatch, row: int, pairs: LowestPairs) -> None:
    # numpy's eigh releases the GIL; scipy's does not, and a worker's heartbeat would starve
    matrix = matrices.dense(row)
    xp, count = namespace(matrix), pairs.values.shape[1]
    if not bool(xp.all(xp.isfinite(matrix))):  # LAPACK may or may not raise on it
        pairs.values[row] = np.nan
        pairs.vectors[row, ...] = math.nan
        return
    values, vectors = xp.linalg.eigh(matrix)
    pairs.values[row] = to_host(values[:count])
    pairs.vectors[row, ...] = xp.astype(vectors[:, :count].T, pairs.vectors.dtype)
    pairs.products[row] += matrix.shape[0]


@dataclass(frozen=True)
class _Deflated:
    """Some matrices of a batch on the space orthogonal to vectors of each.

    Parameters
    ----------
    matrices : SymmetricBatch
    chosen : int array [k]
        Which.
    vectors : float array [k, count, N]
        Orthonormal.
    """

    matrices: SymmetricBatch
    chosen: Rows
    vectors: Array
    degenerate: bool = False

    @property
    def residual(self) -> float:
        """As of the whole matrices."""
        return self.matrices.residual

    def apply(self, v: Array, rows: Rows) -> Array:
        """P H P v."""
        return self.project(self.matrices.apply(self.project(v, rows), self.chosen[rows]), rows)

    def dense(self, row: int) -> Array:
        """H of one trajectory, not deflated."""
        return self.matrices.dense(int(self.chosen[row]))

    def project(self, v: Array, rows: Rows) -> Array:
        """P v = v − Σ_k v_k (v_k · v)."""
        known = take_rows(self.vectors, rows)
        return v - (known.mT @ (known @ v[:, :, None]))[:, :, 0]


def _find_missed(matrices: SymmetricBatch, found: Rows, pairs: LowestPairs, most: int) -> Rows:
    """Add to the `found` pairs what their Krylov space missed; the rows where that fails."""
    xp, (_, count, n) = namespace(pairs.vectors), pairs.vectors.shape
    direction = np.random.Generator(np.random.Philox(n)).standard_normal((1, n))
    failed = found[:0]
    for _ in range(count - 1):  # each run finds one more vector of an eigenspace
        known = take_rows(pairs.vectors, found)
        deflated = _Deflated(matrices, found, known)
        everyone = np.arange(len(found))
        start = on_device_of(known, np.broadcast_to(direction, (len(found), n)))
        more = LowestPairs(
            np.empty((len(found), 1)),
            xp.empty_like(known[:, :1, :]),
            np.empty((len(found), 1)),
            np.zeros(len(found), dtype=np.intp),
        )
        # only in coordinates that the found vectors have: others are not known of every instance
        start = start * xp.astype(xp.any(known != 0, axis=1), start.dtype)
        start = deflated.project(start, everyone)
        unserved = _lanczos(deflated, start, more, most, pairs.values[found, -1])
        pairs.products[found] += more.products
        failed = np.concatenate([failed, found[unserved]])
        lower = []
        for k in np.setdiff1d(everyone, unserved).tolist():
            row = int(found[k])
            if more.values[k] < pairs.values[row, -1]:
                values = np.concatenate([pairs.values[row], more.values[k]])
                vectors = xp.concat([known[k, ...], more.vectors[k, ...]])
                order = np.argsort(values, kind="stable")[:count]
                pairs.values[row] = values[order]
                pairs.vectors[row, ...] = take_rows(vectors, order)
                lower.append(row)
        found = np.array(lower, dtype=np.intp)
        if not lower:
            break
    return failed


def _lanczos(
    matrices: SymmetricBatch,
    start: Array,
    pairs: LowestPairs,
    most: int,
    ceiling: Floats | float = math.inf,
) -> Rows:
    """Fill `pairs` by Lanczos; the rows that it does not serve are returned.

    Those not converged within `most` products, and those whose Krylov space ends: it is invariant,
    and need not hold the lowest pairs, nor both of a degenerate one. Where the lowest pair turns
    out to lie above a `ceiling` [trajectories], it need not converge.
    """
    xp, (trajectories, n) = namespace(start), start.shape
    count, eps = pairs.values.shape[1], precision(start)
    rows = np.arange(trajectories)
    unserved = rows[:0]
    size = (trajectories, min(64, most), n)
    basis = xp.zeros(size, dtype=start.dtype, device=device(start))
    basis[:, 0, :] = start / xp.sqrt(xp.vecdot(start, start))[:, None]
    diagonal, off = np.zeros((2, trajectories, most))
    next_check = 4 * count + 12
    for k in range(most):
        v = basis[:, k, :]
        u = matrices.apply(v, rows)
        along = xp.vecdot(v, u)
        u -= along[:, None] * v
        if k:
            u -= on_device_of(u, off[:, k - 1, None]) * basis[:, k - 1, :]
        known = basis[:, : k + 1, :]
        u -= (known.mT @ (known @ u[:, :, None]))[:, :, 0]  # what rounding brought back
        diagonal[:, k], off[:, k] = to_host(along), to_host(xp.sqrt(xp.vecdot(u, u)))
        pairs.products[rows] += 1
        spread = np.max(np.abs(diagonal[:, : k + 1]) + off[:, : k + 1], axis=1)
        ended = ~(off[:, k] > _BREAKDOWN * eps * spread)  # also where NaN
        done = np.zeros_like(ended)
        if k + 1 in (next_check, most):
            next_check = int(np.ceil(_CHECK_GROWTH * (k + 1)))
            values, vectors = ritz_pairs(diagonal[:, : k + 1], off[:, : k + 1])
            residuals = np.abs(off[:, k, None] * vectors[:, -1, :count])
            bound = residual_bound(eps, values[:, -1] - values[:, 0], matrices.residual)
            above = values[:, 0] - residuals[:, 0] > np.broadcast_to(ceiling, trajectories)[rows]
            done = ~ended & ((residuals.max(axis=-1) <= bound) | above)
            for row in np.flatnonzero(done).tolist():
                pairs.values[rows[row]] = values[row, :count]
                lowest = on_device_of(basis, vectors[row, :, :count].T) @ known[row, ...]
                norms = xp.sqrt(xp.vecdot(lowest, lowest))
                pairs.vectors[int(rows[row]), ...] = lowest / norms[:, None]
        if ended.any() or done.any():
            unserved = np.concatenate([unserved, rows[ended]])
            keep = ~(done | ended)
            rows, basis, u = rows[keep], take_rows(basis, keep), take_rows(u, keep)
            diagonal, off = diagonal[keep], off[keep]
        if not len(rows):
            break
        if k + 1 < most:
            if k + 1 == basis.shape[1]:
                more = min(basis.shape[1], most - basis.shape[1])
                basis = xp.concat([basis, xp.zeros_like(basis[:, :more, :])], axis=1)
            basis[:, k + 1, :] = u / on_device_of(u, off[:, k, None])
    return np.concatenate([unserved, rows])


def ritz_pairs(diagonal: Floats, off: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues [trajectories, k] and vectors [trajectories, k, k] of the tridiagonals."""
    k = diagonal.shape[1]
    tridiagonal = np.zeros((len(diagonal), k, k))
    i = np.arange(k)
    tridiagonal[:, i, i] = diagonal
    tridiagonal[:, i[1:], i[:-1]] = off[:, :-1]  # eigh reads the lower triangle
    values, vectors = np.linalg.eigh(tridiagonal)
    return values, vectors
