"""Whether a descent stands at a local minimum of the loss: where the flow would stay for ever.

A point belongs to the minimum to which Newton's method converges from it, if it does at once and
the Hessian is positive there. That is the theorem of Newton and Kantorovich with its constant
measured: with K the Lipschitz constant of H and d the first step, the second step is about
K |d|²/(2 λ₁), so that their ratio is a bound on how much H changes on the way to the minimum,
compared with λ₁. Along one direction, a slope that only slows the flow down without a minimum
(the ghost of a saddle and a minimum that have met) gives a ratio of at least 1/2.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.kernel.arrays import Array, namespace, take_rows, to_host
from pipeline.kernel.batch import Rows, off_signal, on_sphere
from pipeline.kernel.integrator import Mask
from pipeline.kernel.spectrum import SolvedBatch, SymmetricBatch, lowest_pairs

_CONTRACTION = 0.25  # of the second step to the first
_ACCURACY = 0.1  # of a step, relative to it
_MOST_PRODUCTS = 400  # of one step
_NEGLIGIBLE = 0.01  # a step of this share of the tolerance may be rounding


class CurvedLandscape(Protocol):
    """What is asked of a model."""

    def gradient(self, w: Array, owner: Rows) -> tuple[Array, Array]:
        """∇L(w) [trajectories, N], and something else."""

    def hessian(self, w: Array, owner: Rows) -> SymmetricBatch | SolvedBatch:
        """Hessians on the sphere at each row of `w`."""


def at_minimum(
    landscape: CurvedLandscape, w: Array, owner: Rows, probe: Array, tolerance: float
) -> Mask:
    """Which points [trajectories] lie within `tolerance` of a local minimum, and lead to it.

    Those where λ₁ > 0 on the tangent space, beyond its residual, and two steps of Newton's method
    show that it converges: the first is at most `tolerance` long, the second at most a quarter of
    it. (The Hessian in all of R^N, whose λ₁ a store has, may have a λ₁ below 0 there.)

    Parameters
    ----------
    landscape : CurvedLandscape
    w : float array [trajectories, N]
        On the sphere.
    owner : int array [trajectories]
        Instance of each.
    probe : float array [trajectories, N]
        Starting vectors of Lanczos.
    tolerance : float
        r.m.s. over the N components.
    """
    pairs = lowest_pairs(_on_tangent(landscape, w, owner), probe)
    lowest = pairs.values[:, 0] - pairs.residuals[:, 0]
    found = lowest > 0
    for row in np.flatnonzero(found):
        rows = np.array([row])
        found[row] = _newton_converges(
            landscape, take_rows(w, rows), owner[rows], float(lowest[row]), tolerance
        )
    return found


def _force(landscape: CurvedLandscape, w: Array, owner: Rows) -> Array:
    """−∇L + μ w at points on the sphere [trajectories, N]."""
    gradient, _ = landscape.gradient(w, owner)
    return off_signal(-gradient, w)


def _newton_converges(
    landscape: CurvedLandscape, w: Array, owner: Rows, lowest: float, tolerance: float
) -> bool:
    first = _newton_step(landscape, w, owner, lowest, _NEGLIGIBLE * tolerance)
    if first is None or _rms(first) > tolerance:
        return False
    longest = max(_CONTRACTION * _rms(first), _NEGLIGIBLE * tolerance)
    second = _newton_step(landscape, on_sphere(w + first), owner, lowest, longest)
    return second is not None and _rms(second) <= longest


def _newton_step(
    landscape: CurvedLandscape, w: Array, owner: Rows, lowest: float, scale: float
) -> Array | None:
    """H⁻¹ of the force on the tangent space at `w` [1, N], by conjugate gradients.

    To a tenth of its length or of a `scale` (r.m.s.), whichever is longer. None where a direction
    of negative curvature turns up, or the step is not found.
    """
    xp, only = namespace(w), np.array([0])
    hessian = _on_tangent(landscape, w, owner)
    rest = _force(landscape, w, owner)
    step, direction = xp.zeros_like(rest), rest
    squared = _squared(rest)
    for _ in range(_MOST_PRODUCTS):
        # the error of the step is at most |rest|/λ₁
        if _rms(rest) <= _ACCURACY * lowest * max(_rms(step), scale):
            return step
        product = hessian.apply(direction, only)
        curvature = float(to_host(xp.vecdot(direction, product))[0])
        if not curvature > 0:
            return None
        step = step + (squared / curvature) * direction
        rest = rest - (squared / curvature) * product
        before, squared = squared, _squared(rest)
        direction = rest + (squared / before) * direction
    return None


def _on_tangent(landscape: CurvedLandscape, w: Array, owner: Rows) -> "_TangentHessian":
    hessian = landscape.hessian(w, owner)
    assert not isinstance(hessian, SolvedBatch), "a model whose Hessian is never applied"
    along = namespace(w).vecdot(w, hessian.apply(w, np.arange(w.shape[0]))) / w.shape[-1]
    return _TangentHessian(hessian, w, abs(along))


@dataclass(frozen=True)
class _TangentHessian:
    """P H P + |c| w wᵀ/N at each `w` [trajectories, N], P the projection on the tangent space.

    `along` is |c|, c = w·H w/N, so that w itself is an eigenvector that is not among the lowest.
    """

    hessian: SymmetricBatch
    w: Array
    along: Array
    degenerate: bool = False

    @property
    def residual(self) -> float:
        """As of H."""
        return self.hessian.residual

    def apply(self, v: Array, rows: Rows) -> Array:
        """For `v` [k, N], the k-th at w[rows[k]]."""
        w = take_rows(self.w, rows)
        tangent = off_signal(v, w)
        product = off_signal(self.hessian.apply(tangent, rows), w)
        return product + take_rows(self.along, rows)[:, None] * (v - tangent)

    def dense(self, row: int) -> Array:
        """The matrix at w[row] [N, N], float64."""
        matrix = self.hessian.dense(row)
        xp = namespace(matrix)
        n = xp.astype(self.w[row, :], matrix.dtype)
        n = n / xp.sqrt(xp.vecdot(n, n))
        there = matrix @ n
        matrix = matrix - n[:, None] * there[None, :] - there[:, None] * n[None, :]
        return matrix + (n @ there + float(self.along[row])) * (n[:, None] * n[None, :])


def _squared(v: Array) -> float:
    return float(to_host(namespace(v).vecdot(v, v))[0])


def _rms(v: Array) -> float:
    """r.m.s. over the components of one row."""
    return float(np.sqrt(_squared(v) / v.shape[-1]))
