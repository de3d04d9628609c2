"""Laws of (label y, prediction ŷ), as quadratures or samples: the Hessian's spectrum follows.

Spec sections 1 and 5. The loss is ℓ_a = (ŷ² − y²)²/(4 (a + y²)); a = ∞ stands for the unnormalised
loss (ŷ² − y²)²/4, the limit of a·ℓ_a, whose thresholds are those of a → ∞.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Beyond this a standard Gaussian has the weight of one rounding error
_FAR = 8.6


class LawError(ValueError):
    """A law of (y, ŷ), or a parameter of the theory, that cannot be."""


@dataclass(frozen=True)
class LabelLaw:
    """The law of (y, ŷ) at m = 0, as the theory of the Hessian needs it.

    Parameters
    ----------
    labels_squared : float array [nodes]
        y².
    curvature : float array [nodes]
        f = ℓ''(y, ŷ).
    weights : float array [nodes]
        Of each node, with sum 1.
    pull : float
        E[ŷ ℓ'], the multiplier per α: μ = α E[ŷ ℓ'].
    lowest : float
        Infimum of f over the support of the law; −∞ if there is none.
    """

    labels_squared: Array
    curvature: Array
    weights: Array
    pull: float
    lowest: float


def check_parameter(a: float) -> float:
    """The loss parameter a, if 0 < a ≤ ∞.

    Raises
    ------
    LawError
        For any other number.
    """
    if not a > 0:
        raise LawError(f"the loss parameter a must be positive (inf: unnormalised loss), got {a!r}")
    return float(a)


def loss_weight(labels_squared: Array, a: float) -> Array:
    """1/(a + y²) of the loss ℓ_a, or 1 of the unnormalised one, in the shape of y²."""
    return np.ones_like(labels_squared) if np.isinf(a) else 1 / (a + labels_squared)


def make_law(
    labels: ArrayLike,
    predictions: ArrayLike,
    a: float,
    *,
    weights: ArrayLike | None = None,
    lowest: float | None = None,
) -> LabelLaw:
    """Law of (y, ŷ) from samples, or from the nodes and weights of a quadrature.

    Parameters
    ----------
    labels, predictions : float array [nodes]
        y and ŷ, for instance those of one run; the law is even, so signs do not matter.
    a : float
        Parameter of the loss, 0 < a ≤ ∞.
    weights : float array [nodes], optional
        Of each node, normalised here; equal ones (samples) if not given.
    lowest : float, optional
        Infimum of f over the support, where the nodes do not reach it; the least f of the nodes if
        not given, which is right for samples.

    Raises
    ------
    LawError
        If shapes differ, nothing is given, numbers are not finite or weights are negative.
    """
    a = check_parameter(a)
    y, predicted = (np.asarray(values, dtype=np.float64) for values in (labels, predictions))
    share = np.ones_like(y) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (y.ndim == 1 and y.shape == predicted.shape == share.shape and y.size):
        raise LawError(
            "labels, predictions and weights of a law must be arrays [nodes] of one length ≥ 1, "
            f"got shapes {y.shape}, {predicted.shape} and {share.shape}"
        )
    if not all(np.isfinite(values).all() for values in (y, predicted, share)):
        raise LawError("labels, predictions and weights of a law must be finite numbers")
    if share.min() < 0 or share.sum() <= 0:
        raise LawError(
            f"weights of a law must be ≥ 0 and not all 0, got {float(share.min())!r} among them"
        )
    share = share / share.sum()
    squares = y**2
    scale = loss_weight(squares, a)
    curvature = (3 * predicted**2 - squares) * scale
    return LabelLaw(
        squares,
        curvature,
        share,
        pull=float(share @ (predicted**2 * (predicted**2 - squares) * scale)),
        lowest=float(curvature.min()) if lowest is None else lowest,
    )


def gaussian_law(a: float, *, step: float = 0.12) -> LabelLaw:
    """The law at a random w(0): y and ŷ independent standard Gaussians.

    The midpoint rule in u and v, y = s sinh u, ŷ = s sinh(v)/√3, s = min(1, √a): f varies on the
    scale √a at small a, and its averages have their poles at y = ±i√a, ŷ = ±i√(a/3) or beyond. It
    converges exponentially. With the default step, averages on the real axis left of the bulk are
    right to 1e-11 for a ≥ 1e-4. Inside the bulk the poles come close to the real nodes where the
    density is small: in the far right tail it is smooth with a smaller step only.

    Parameters
    ----------
    a : float
        Parameter of the loss, 0 < a ≤ ∞.
    step : float
        Distance of the nodes in u and v; their number grows like 1/step².

    Raises
    ------
    LawError
        If `a` or `step` is not positive.
    """
    a = check_parameter(a)
    if not 0 < step <= 1:
        raise LawError(f"the step of a quadrature must be in (0, 1], got {step!r}")
    scale = min(1.0, np.sqrt(a))
    y, y_weights = _half_gaussian(scale, step)
    predicted, weights = _half_gaussian(scale / np.sqrt(3), step)
    return make_law(
        np.repeat(y, len(predicted)),
        np.tile(predicted, len(y)),
        a,
        weights=np.outer(y_weights, weights).ravel(),
        # f → −1 as y → ∞ at fixed ŷ
        lowest=-np.inf if np.isinf(a) else -1.0,
    )


def _half_gaussian(scale: float, step: float) -> tuple[Array, Array]:
    """Nodes x = scale·sinh u > 0 and weights of a standard Gaussian folded onto x > 0."""
    u = step * (np.arange(np.ceil(np.arcsinh(_FAR / scale) / step)) + 0.5)
    x = scale * np.sinh(u)
    return x, np.exp(-(x**2) / 2) * np.cosh(u)
