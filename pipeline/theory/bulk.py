"""Left edge of the Hessian's bulk and the outlier along the signal, for any law of (y, ŷ).

Spec section 5. With r = f/(1 − f g) and g < 0 the Stieltjes variable left of the bulk, an
eigenvalue of H is λ = z(g) − μ, z(g) = 1/g + α E[r], μ = α E[ŷ ℓ'].
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import elementwise

from pipeline.theory.laws import Array, LabelLaw, LawError

# Numbers held at once for the averages: 8 MB in float64
_CHUNK = 1 << 20


@dataclass(frozen=True)
class BulkEdge:
    """Left edge of the bulk, each field in the shape of α.

    Parameters
    ----------
    g : float array
        Stieltjes variable of the edge, < 0.
    eigenvalue : float array
        λ_edge.
    hard : bool array
        Whether it sits at g_min, where z(g) is still falling: the density then starts without the
        square root.
    """

    g: Array
    eigenvalue: Array
    hard: np.ndarray


@dataclass(frozen=True)
class Outlier:
    """The eigenvalue that the signal pulls out to the left, each field in the shape of α.

    Parameters
    ----------
    g : float array
        Its Stieltjes variable, between the edge's and 0; NaN where there is no outlier.
    eigenvalue : float array
        λ_out; NaN where there is none.
    overlap2 : float array
        (v·w*)²/N of its eigenvector; 0 where there is none.
    """

    g: Array
    eigenvalue: Array
    overlap2: Array


@dataclass(frozen=True)
class Response:
    """Averages over the law at given g, in the shape of g; r = f/(1 − f g).

    Parameters
    ----------
    first, second : array
        E[r] and E[r²].
    signal : array
        E[r (y² − 1)].
    signal_second : array
        E[r² y²].
    """

    first: np.ndarray
    second: np.ndarray
    signal: np.ndarray
    signal_second: np.ndarray


def respond(law: LabelLaw, g: ArrayLike) -> Response:
    """The averages of `Response` at real or complex g of any shape."""
    g = np.asarray(g)
    flat = g.reshape(-1)
    out = np.empty((4, flat.size), dtype=np.result_type(flat, np.float64))
    plain = np.stack([law.weights, law.weights * (law.labels_squared - 1)], axis=1)
    square = np.stack([law.weights, law.weights * law.labels_squared], axis=1)
    rows = max(1, _CHUNK // len(law.weights))
    for start in range(0, flat.size, rows):
        part = slice(start, start + rows)
        r = law.curvature / (1 - law.curvature * flat[part, None])
        out[:2, part] = (r @ plain).T
        out[2:, part] = (r**2 @ square).T
    first, signal, second, signal_second = out.reshape(4, *g.shape)
    return Response(first, second, signal, signal_second)


def find_edge(law: LabelLaw, alpha: ArrayLike) -> BulkEdge:
    """Left edge of the bulk: z'(g) = −1/g² + α E[r²] = 0, or g_min where z' keeps its sign.

    g² E[r²] grows with |g|, from 0, so the root is unique.

    Parameters
    ----------
    law : LabelLaw
    alpha : float array of any shape
        α > 0.

    Returns
    -------
    BulkEdge
        With g = 0 and eigenvalue −∞ where f is unbounded below.

    Raises
    ------
    LawError
        If an α is not a positive number.
    """
    alpha = check_ratio(alpha)
    if np.isneginf(law.lowest):
        minus = np.full(alpha.shape, -np.inf)
        return BulkEdge(np.zeros(alpha.shape), minus, np.ones(alpha.shape, dtype=bool))
    least = lowest_g(law)

    def excess(g: Array, ratio: Array) -> Array:
        return np.asarray(ratio * g**2 * respond(law, g).second - 1)

    hard = excess(np.full(alpha.shape, least), alpha) <= 0
    g = np.where(hard, least, 0.0)
    g[~hard] = _roots(excess, np.full((~hard).sum(), least), 0.0, alpha[~hard])
    return BulkEdge(g, eigenvalue_at(law, alpha, g), hard)


def find_outlier(law: LabelLaw, alpha: ArrayLike, edge: BulkEdge | None = None) -> Outlier:
    """Outlier along the signal: 1/g = α E[r (y² − 1)] with g between the edge's and 0.

    The resolvent's entry along the signal is monotone left of the bulk, so there is at most one.
    Its overlap is 1/(1 − g'(z) α E[r² y²]), g'(z) = 1/z'(g).

    Parameters
    ----------
    law : LabelLaw
    alpha : float array of any shape
    edge : BulkEdge, optional
        Of the same law and α; found here if not given.

    Raises
    ------
    LawError
        If an α is not a positive number.
    """
    alpha = check_ratio(alpha)
    edge = edge or find_edge(law, alpha)

    def excess(g: Array, ratio: Array) -> Array:
        return np.asarray(1 - ratio * g * respond(law, g).signal)

    out = excess(edge.g, alpha) < 0
    g = np.full(alpha.shape, np.nan)
    overlap2 = np.zeros(alpha.shape)
    if out.any():
        g[out] = _roots(excess, edge.g[out], 0.0, alpha[out])
        at = respond(law, g[out])
        slope = alpha[out] * at.second - 1 / g[out] ** 2
        overlap2[out] = 1 / (1 - alpha[out] * at.signal_second / slope)
    eigenvalue = np.full(alpha.shape, np.nan)
    eigenvalue[out] = eigenvalue_at(law, alpha[out], g[out])
    return Outlier(g, eigenvalue, overlap2)


def eigenvalue_at(law: LabelLaw, alpha: Array, g: Array) -> Array:
    """λ = 1/g + α E[r] − α E[ŷ ℓ'] at given g, which has the shape of α."""
    return np.asarray(1 / g + alpha * (respond(law, g).first - law.pull))


def lowest_g(law: LabelLaw) -> float:
    """g_min = −1/sup(−f), the end of the admissible g; just inside it where a node has the least f.

    Where no f is negative, a g so large that 1/g vanishes in double precision.
    """
    if law.lowest >= 0:
        return -1e15 / float(law.curvature.max())
    least = 1 / law.lowest
    return float(least if law.curvature.min() > law.lowest else least * (1 - 1e-12))


def check_ratio(alpha: ArrayLike) -> Array:
    """α as a float array.

    Raises
    ------
    LawError
        If one is not a positive, finite number.
    """
    values = np.asarray(alpha, dtype=np.float64)
    wrong = values[~((values > 0) & np.isfinite(values))]
    if wrong.size:
        raise LawError(f"the ratio alpha = M/N must be positive and finite, got {wrong.tolist()!r}")
    return values


def _roots(
    function: Callable[[Array, Array], Array], left: Array, right: float, alpha: Array
) -> Array:
    """Root between `left` and `right` for each α, by Chandrupatla's bracketing method."""
    if not alpha.size:
        return np.empty(0)
    found = elementwise.find_root(
        function, (left, np.full_like(left, right)), args=(alpha,), tolerances={"xrtol": 1e-14}
    )
    return np.asarray(found.x)
