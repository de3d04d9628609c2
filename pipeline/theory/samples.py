"""Left ends of the Hessians' spectra of many runs at once, each from its own samples of (y, ŷ).

The equations of `pipeline.theory.bulk` (spec, section 5) where each law is that of a run at some
time: M labels and predictions. All are solved together, and a law costs some dozens of sweeps over
its samples: 0.1 ms at M = 192, 1 ms at M = 6000.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import elementwise

from pipeline.theory.bulk import check_ratio
from pipeline.theory.laws import Array, LawError

_CHUNK = 1 << 18  # samples held at once: 2 MB in float64, which stay in a core's cache
_ACCURACY = 1e-10  # relative, of the Stieltjes variable

Laws = NDArray[np.intp]


@dataclass(frozen=True)
class LeftEnd:
    """Left end of the spectrum of the Hessian, every field [laws].

    Parameters
    ----------
    edge : float array
        Left edge of the bulk.
    outlier : float array
        Eigenvalue that the signal pulls out of it to the left; NaN where there is none.
    margin : float array
        α g E[r (y² − 1)] − 1 at the edge's g, r = f/(1 − f g): positive where the outlier exists.
        It stays smooth in the samples where the outlier comes and goes, so it can be averaged over
        seeds.
    """

    edge: Array
    outlier: Array
    margin: Array


def left_end_of_samples(
    labels_squared: ArrayLike, curvature: ArrayLike, multiplier: ArrayLike, alpha: float
) -> LeftEnd:
    """Edge, outlier and BBP margin of H for each law of (y, ŷ).

    Right for predictions that are independent of the signal (m = 0) but for what the labels say,
    as in `pipeline.theory.bulk`.

    Parameters
    ----------
    labels_squared, curvature : float array [laws, samples]
        y² and f = ℓ''(y, ŷ).
    multiplier : float array [laws]
        μ.
    alpha : float
        α = M/N > 0.

    Raises
    ------
    LawError
        If α is not positive, or the arrays are not of one shape [laws, samples ≥ 1].
    """
    ratio = float(check_ratio(alpha))
    squares, f, mu = map(np.asarray, (labels_squared, curvature, multiplier))
    if f.ndim != 2 or not f.shape[1] or squares.shape != f.shape or mu.shape != f.shape[:1]:
        raise LawError(
            "labels_squared and curvature must be arrays [laws, samples] of one shape, multiplier "
            f"one of [laws], got {squares.shape}, {f.shape} and {mu.shape}"
        )
    size = max(1, _CHUNK // squares.shape[1])
    found = np.empty((3, len(squares)))
    for first in range(0, len(squares), size):
        part = slice(first, first + size)
        found[:, part] = _solve(
            squares[part].astype(np.float64) - 1, f[part].astype(np.float64), ratio
        )
    edge, outlier, margin = found
    return LeftEnd(edge - mu, outlier - mu, margin)


def _solve(centred: Array, f: Array, alpha: float) -> tuple[Array, Array, Array]:
    """Edge and outlier at μ = 0, and the margin, of laws given as y² − 1 and f."""
    samples = f.shape[1]

    def response(g: Array, law: Laws) -> Array:
        """g r = f g/(1 − f g)."""
        u = f[law] * g[:, None]
        u /= 1 - u
        return u

    def bulk(g: Array, law: Laws) -> Array:
        """−g² z'(g), which falls as |g| grows and vanishes at the edge."""
        u = response(g, law)
        return np.asarray(1 - alpha / samples * np.vecdot(u, u))

    def signal(g: Array, law: Laws) -> Array:
        """Of the outlier's sign: below 0 at the edge where there is one."""
        return np.asarray(1 - alpha / samples * np.vecdot(response(g, law), centred[law]))

    def eigenvalue(g: Array, law: Laws) -> Array:
        mean = response(g, law).sum(axis=1) / samples
        return np.asarray((1 + alpha * mean) / g)

    every = np.arange(len(f))
    lowest, highest = f.min(axis=1), f.max(axis=1)
    # just inside g_min = 1/min f; where no f is negative, a g so large that 1/g vanishes
    tiny = np.finfo(np.float64).tiny
    inside = (1 - 1e-12) / np.where(lowest < 0, lowest, -1.0)
    g = np.where(lowest < 0, inside, -1e15 / np.maximum(highest, tiny))
    soft = np.flatnonzero(bulk(g, every) < 0)
    g[soft] = _roots(bulk, g[soft], soft)
    margin = -signal(g, every)
    outlier = np.full(len(f), np.nan)
    out = np.flatnonzero(margin > 0)
    outlier[out] = eigenvalue(_roots(signal, g[out], out), out)
    return eigenvalue(g, every), outlier, margin


def _roots(function: Callable[[Array, Laws], Array], left: Array, law: Laws) -> Array:
    """Root of each law's function between `left` and 0, by Chandrupatla's bracketing method."""
    if not law.size:
        return np.empty(0)
    found = elementwise.find_root(
        function, (left, np.zeros_like(left)), args=(law,), tolerances={"xrtol": _ACCURACY}
    )
    return np.asarray(found.x)
