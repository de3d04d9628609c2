"""The law of (y, ŷ) at threshold states, as a quadrature: ŷ is the proximal point of a Gaussian z.

Spec section 6; Sarao Mannelli et al., arXiv:2006.06997. ŷ*(y, z) is the minimiser of
(ŷ − z)²/(2χ) + ℓ_a(y, ŷ), V the minimum. It solves ŷ³ + p ŷ = b z, b = (a + y²)/χ, p = b − y².
Where p < 0 it jumps from −√−p to √−p at z = 0, and no ŷ in between occurs.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial.legendre import leggauss

from pipeline.theory.laws import Array, LabelLaw, loss_weight

# Beyond this a standard Gaussian has the weight of one rounding error
_FAR = 8.6
_LARGE_ZETA = 5.0


@dataclass(frozen=True)
class ProximalLaw:
    """The weights over (y, ŷ) for given χ and ζ; all arrays have the shape [nodes].

    Parameters
    ----------
    chi : float
    labels_squared, predictions : float array
        y² and ŷ.
    slope, curvature, loss : float array
        ℓ', ℓ'' and ℓ.
    weights : float array
        With sum 1.
    lowest : float
        Infimum of ℓ'' over the support.
    """

    chi: float
    labels_squared: Array
    predictions: Array
    slope: Array
    curvature: Array
    loss: Array
    weights: Array
    lowest: float

    def average(self, values: Array) -> float:
        """E⟨·⟩ of values at the nodes."""
        return float(self.weights @ values)

    def label_law(self) -> LabelLaw:
        """The same law in the form of which `pipeline.theory.bulk` takes the spectrum."""
        return LabelLaw(
            self.labels_squared,
            self.curvature,
            self.weights,
            pull=self.average(self.predictions * self.slope),
            lowest=self.lowest,
        )


def jump_label(a: float, chi: float) -> float:
    """The |y| with p = 0, beyond which ŷ* jumps at z = 0; ∞ if it never does (χ ≤ 1, finite a)."""
    if np.isinf(a):
        return float(1 / np.sqrt(chi))
    return float(np.sqrt(a / (chi - 1))) if chi > 1 else np.inf


def loss_scale(a: float) -> float:
    """max(1, a), or 1 for the unnormalised loss: χ and ζ go with it."""
    return 1.0 if np.isinf(a) else max(1.0, a)


def proximal_law(a: float, chi: float, zeta: float, *, refinement: int = 1) -> ProximalLaw:
    """Law of (y, ŷ*(y, z)), y standard Gaussian, z with density ∝ exp(−z²/2 − ζ V(y, z)) given y.

    Integrated over ŷ instead of z, z = ŷ + χ ℓ'(y, ŷ), dz = (1 + χ ℓ'') dŷ, so that no root is
    taken and nothing jumps. Gauss–Legendre rules in u, ŷ = √(p/3) sinh u or √−p cosh u, and over y
    in panels that take up the scale √a and the inverse square root at p = 0 (on which a plain grid
    over y and z converges like the square root of its spacing). Averages of 1/(1 + χ ℓ'') up to
    the second power are right to 1e-9 for χ ≤ 0.7 and a ≥ 0.01 (1e-7 for a = 1e-4, 1e-12 for
    a = 1), to 1e-5 otherwise while ζ < 20 max(1, a), and to 1e-3 while ζ < 60 max(1, a).

    Parameters
    ----------
    a : float
        Parameter of the loss, 0 < a ≤ ∞.
    chi, zeta : float
        χ > 0 and ζ ≥ 0.
    refinement : int
        Factor of the nodes in y and in ŷ.
    """
    # large ζ narrows the weights; at large a the loss is of order 1/a
    narrow = zeta > _LARGE_ZETA * loss_scale(a)
    count = refinement * (2 if narrow else 1)
    y, y_weights = _label_rule(a, chi, 32 * count)
    squares = (y**2)[:, None]
    scale = loss_weight(squares, a)
    b = 1 / (chi * scale)
    p = b - squares
    jumps = p < 0
    size = np.sqrt(np.maximum(np.abs(p), 1e-300) / np.where(jumps, 1, 3))
    top = _largest_prediction(p, b * _FAR)
    ends = np.where(jumps, np.arccosh(np.maximum(top / size, 1)), np.arcsinh(top / size))
    nodes, node_weights = _unit_rule(48 * count)
    u = ends * nodes
    even, odd = size * np.cosh(u), size * np.sinh(u)
    predicted, measure = np.where(jumps, (even, odd), (odd, even))
    slope = predicted * (predicted**2 - squares) * scale
    curvature = (3 * predicted**2 - squares) * scale
    loss = (predicted**2 - squares) ** 2 * scale / 4
    exponent = -((predicted + chi * slope) ** 2) / 2 - zeta * (chi * slope**2 / 2 + loss)
    exponent -= exponent.max(axis=1, keepdims=True)
    weights = np.exp(exponent) * (1 + chi * curvature) * measure * ends * node_weights
    weights *= (y_weights / weights.sum(axis=1))[:, None]
    return ProximalLaw(
        chi,
        np.broadcast_to(squares, predicted.shape).ravel(),
        predicted.ravel(),
        slope.ravel(),
        curvature.ravel(),
        loss.ravel(),
        weights.ravel() / weights.sum(),
        # f → −1 as y → ∞; where ŷ* jumps it comes down to 1 + χ f = 0
        lowest=-1 / chi if np.isinf(a) else -1 / max(chi, 1.0),
    )


def _largest_prediction(p: Array, q: Array) -> Array:
    """Largest root of ŷ³ + p ŷ = q > 0, to a part in a thousand, by Newton's method from above."""
    top = np.sqrt(np.maximum(-p, 0)) + np.cbrt(q)
    for _ in range(40):
        step = (top**3 + p * top - q) / (3 * top**2 + p)
        top = top - step
        if (step <= 1e-3 * top).all():
            break
    return np.asarray(top)


def _label_rule(a: float, chi: float, count: int) -> tuple[Array, Array]:
    """Nodes y > 0 and weights, summing to 1, of a standard Gaussian folded onto y > 0."""
    x, weights = _unit_rule(count)
    scale, jump = min(1.0, np.sqrt(a)), jump_label(a, chi)
    inner = _FAR if jump >= _FAR else jump / 2
    u = np.arcsinh(inner / scale) * x
    panels = [(scale * np.sinh(u), np.cosh(u) * np.arcsinh(inner / scale) * scale)]
    if jump < _FAR:
        # averages go like |y − jump|^(−1/2) on either side: y − jump is a square
        panels.append((jump * (1 - x**2 / 2), jump * x))
        near = min(jump, 1.0)
        end = np.arcsinh(np.sqrt((_FAR - jump) / near))
        v = end * x
        panels.append((jump + near * np.sinh(v) ** 2, end * near * np.sinh(2 * v)))
    y = np.concatenate([nodes for nodes, _ in panels])
    out = np.concatenate([measure * weights for _, measure in panels]) * np.exp(-(y**2) / 2)
    return y, out / out.sum()


@lru_cache(maxsize=16)  # one rule takes longer than all else that is done with it
def _unit_rule(count: int) -> tuple[Array, Array]:
    """The Gauss–Legendre rule on [0, 1], not to be written to."""
    x, weights = leggauss(count)
    nodes, shares = (x + 1) / 2, weights / 2
    for array in (nodes, shares):
        array.flags.writeable = False
    return nodes, shares
