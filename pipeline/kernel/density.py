"""Density of the Hessians' eigenvalues in given bins, for each matrix of a batch.

All eigenvalues where a dense diagonalisation is affordable; above, stochastic Lanczos quadrature
(Lin, Saad, Yang, SIAM Rev. 58, 2016; Ubaru, Chen, Saad, SIAM J. Matrix Anal. Appl. 38, 2017): the
spectral measure Σ_k (v·v_k)² δ(λ − λ_k) of a random unit vector v has the density as its mean, and
Lanczos from v gives its Gauss quadrature.
"""

from dataclasses import dataclass

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from pipeline.kernel.arrays import Array, namespace, on_device_of, to_host
from pipeline.kernel.spectrum import SymmetricBatch, ritz_pairs

Floats = NDArray[np.float64]

LARGEST_DENSE = 2048  # up to here all eigenvalues cost no more than the quadrature
PROBES = 16  # random vectors for each matrix; the error falls like 1/√(N PROBES)
_STEPS = 96  # of Lanczos, nodes across the spectrum
_BASIS_BYTES = 256 << 20
_POINT_LIKE = 0.1  # residual of a Ritz pair, in widths of a bin, below which it is an eigenpair


@dataclass(frozen=True)
class EigenvalueDensity:
    """Density of eigenvalues, normalised to 1 over the whole axis; NaN where H is not finite.

    Parameters
    ----------
    density : float array [trajectories, bins]
        Share of the eigenvalues in a bin, over its width.
    density_error : float array [trajectories, bins]
        Standard error of the mean over the probes, with that of one eigenvalue in a bin, which the
        quadrature does not resolve; 0 where all eigenvalues were found.
    below, above : float array [trajectories]
        Shares of the eigenvalues below the first edge, and from the last edge on.
    """

    density: Floats
    density_error: Floats
    below: Floats
    above: Floats


def diagonalised_density(
    matrices: SymmetricBatch, trajectories: int, edges: Floats
) -> EigenvalueDensity:
    """Density of the eigenvalues, all of which are found.

    Parameters
    ----------
    matrices : SymmetricBatch
    trajectories : int
        Their number.
    edges : float array [bins + 1]
        Ascending.
    """
    shares = np.full((trajectories, len(edges)), np.nan)
    for row in range(trajectories):
        matrix = matrices.dense(row)
        xp = namespace(matrix)
        if bool(xp.all(xp.isfinite(matrix))):  # LAPACK may or may not raise on it
            values = to_host(xp.linalg.eigvalsh(matrix))
            shares[row] = np.searchsorted(values, edges) / len(values)
    return _density(
        shares, edges, np.where(np.isnan(shares[:, :1]), np.nan, np.zeros(len(edges) - 1))
    )


def sampled_density(matrices: SymmetricBatch, probes: Array, edges: Floats) -> EigenvalueDensity:
    """Density of the eigenvalues by stochastic Lanczos quadrature.

    The nodes of a quadrature are points, so a node's weight is spread halfway to its neighbours,
    evenly, unless it has become an eigenvalue of its own, as at the ends of the spectrum.

    Parameters
    ----------
    matrices : SymmetricBatch
    probes : float array [trajectories, probes, N]
        Two or more independent vectors without a preferred direction, of any length.
    edges : float array [bins + 1]
        Ascending.
    """
    trajectories, count, n = probes.shape
    together = max(1, _BASIS_BYTES // (min(_STEPS, n) * n * 8))
    shares = np.empty((trajectories, count, len(edges)))
    for row in range(trajectories):
        for first in range(0, count, together):
            part = slice(first, min(first + together, count))
            diagonal, off = _tridiagonalise(matrices, row, probes[row, part, :])
            shares[row, part] = _shares_below(diagonal, off, edges)
    each = np.diff(shares, axis=-1) / np.diff(edges)
    spread = each.std(axis=1, ddof=1) / np.sqrt(count)
    return _density(shares.mean(axis=1), edges, np.hypot(spread, 1 / (n * np.diff(edges))))


def _density(shares: Floats, edges: Floats, error: Floats) -> EigenvalueDensity:
    """From the share of the eigenvalues below each edge [trajectories, edges]."""
    return EigenvalueDensity(
        density=np.diff(shares, axis=-1) / np.diff(edges),
        density_error=error,
        below=shares[:, 0],
        above=1 - shares[:, -1],
    )


def _tridiagonalise(matrices: SymmetricBatch, row: int, start: Array) -> tuple[Floats, Floats]:
    """Lanczos in one matrix from each row of `start` [probes, N]: diagonal and off-diagonal.

    Both [probes, steps]; the last off-diagonal is that of the step that was not made. Where the
    Krylov space ends before, zeros follow, which have no weight.
    """
    xp, (probes, n) = namespace(start), start.shape
    steps = min(_STEPS, n)
    rows = np.full(probes, row, dtype=np.intp)
    diagonal, off = np.zeros((2, probes, steps))
    v = start / xp.sqrt(xp.vecdot(start, start))[:, None]
    basis = xp.zeros((probes, steps, n), dtype=start.dtype, device=device(start))
    for k in range(steps):
        basis[:, k, :] = v
        known = basis[:, : k + 1, :]
        u = matrices.apply(v, rows)
        along = xp.vecdot(v, u)
        diagonal[:, k] = to_host(along)
        for _ in range(2):  # all of the basis, twice: the nodes are then distinct
            u = u - (known.mT @ (known @ u[:, :, None]))[:, :, 0]
        norm = to_host(xp.sqrt(xp.vecdot(u, u))).astype(np.float64)
        scale = np.max(np.abs(diagonal[:, : k + 1]) + off[:, : k + 1], axis=1)
        goes_on = norm > 30 * float(xp.finfo(u.dtype).eps) * scale
        off[:, k] = np.where(goes_on, norm, 0.0)
        v = u * on_device_of(u, np.where(goes_on, 1 / np.where(goes_on, norm, 1.0), 0.0)[:, None])
    return diagonal, off


def _shares_below(diagonal: Floats, off: Floats, edges: Floats) -> Floats:
    """Share of a probe's measure below each edge [probes, edges]."""
    finite = np.isfinite(diagonal).all(axis=1) & np.isfinite(off).all(axis=1)
    shares = np.full((len(diagonal), len(edges)), np.nan)
    if not finite.any():
        return shares
    nodes, vectors = ritz_pairs(diagonal[finite], off[finite])
    weights = vectors[:, 0, :] ** 2
    residual = np.abs(off[finite, -1:] * vectors[:, -1, :])
    point = residual < _POINT_LIKE * np.diff(edges).min()
    before = np.concatenate([nodes[:, :1], nodes[:, :-1]], axis=1)
    after = np.concatenate([nodes[:, 1:], nodes[:, -1:]], axis=1)
    total = np.zeros((len(nodes), len(edges)))
    for left, right in ((before, nodes), (nodes, after)):
        low = np.where(point, nodes, left)[:, :, None]
        width = np.where(point, nodes, right)[:, :, None] - low
        reach = np.where(width > 0, (edges - low) / np.where(width > 0, width, 1.0), edges > low)
        total += np.vecdot(np.clip(reach, 0.0, 1.0).mT, weights[:, None, :] / 2)
    shares[finite] = total
    return shares
