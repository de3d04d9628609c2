"""Annealed complexity of minima of the spiked matrix-tensor model (Kac–Rice).

Spec section 3; Sarao Mannelli et al., arXiv:1902.00139. At a minimum the Hessian's semicircle ends
at μ − 2σ ≥ 0; with t = μ/σ = u + 1/u, u ≥ 1, every integral over the semicircle is elementary, and
so is the maximum over u.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pipeline.theory.laws import Array
from pipeline.theory.spiked_model import SpikedModel, SpikedModelError


@dataclass(frozen=True)
class Complexity:
    """Σ(m) = lim (1/N) ln E[number of minima at m], each field in the shape of m.

    Parameters
    ----------
    value : float array
        Σ; negative where minima are exponentially rare.
    multiplier : float array
        μ of the most numerous minima, ≥ 2σ.
    """

    value: Array
    multiplier: Array


def complexity(model: SpikedModel, overlap: ArrayLike) -> Complexity:
    """Σ(m), maximised over the energies and over μ ≥ 2σ.

    At fixed μ = σt the maximum over the energies leaves −(σt − m Q'(m))²/(2 (Q″(1) + Q'(1))).
    What is left is concave in t, with its maximum at a root of a quadratic equation in u.

    Parameters
    ----------
    model : SpikedModel
    overlap : float array
        m, |m| < 1.

    Raises
    ------
    SpikedModelError
        If |m| ≥ 1.
    """
    m = np.asarray(overlap, dtype=np.float64)
    if not (np.abs(m) < 1).all():
        raise SpikedModelError(f"the overlap of a minimum must be in (-1, 1), got {overlap!r}")
    sigma, both = model.sigma, model.noise_curvature + model.noise_slope
    theta = model.curvature(m) * (1 - m**2) / sigma
    pull = m * model.slope(m)
    u = _most_numerous(model.noise_curvature / both, sigma * pull / both, theta)
    mu = sigma * (u + 1 / u)
    value = (
        np.log(model.noise_curvature / model.noise_slope) / 2
        + np.log1p(-(m**2)) / 2
        - (1 - m**2) * model.slope(m) ** 2 / (2 * model.noise_slope)
        - (mu - pull) ** 2 / (2 * both)
        + _log_determinant(u)
        - _cost_of_stability(theta, u)
    )
    return Complexity(np.asarray(value), np.asarray(mu))


def _most_numerous(spread: float, pull: Array, theta: Array) -> Array:
    """u ≥ 1 where −spread t²/2 + pull t + Φ(t) − L(θ, t) is largest.

    Its slope is pull − (spread − ½) t − s/2 beyond t = θ + 1/θ, with s = √(t² − 4) = u − 1/u, and
    pull + θ/2 − (spread − ¼) t − ¾ s before it.
    """
    beyond = _root(spread - 0.5, 0.5, pull)
    before = _root(spread - 0.25, 0.75, pull + theta / 2)
    return np.maximum(np.where(before < theta, before, beyond), 1)


def _root(plus: float, minus: float, level: Array) -> Array:
    """u > 0 with plus (u + 1/u) + minus (u − 1/u) = level, minus > |plus|."""
    lead, tail = minus + plus, minus - plus
    return np.asarray((level + np.sqrt(level**2 + 4 * lead * tail)) / (2 * lead))


def _log_determinant(u: Array) -> Array:
    """Φ(t) = ½ + ln|·| of a semicircle of radius 2 at distance t ≥ 2 from its middle."""
    return np.asarray(0.5 + 1 / (2 * u**2) + np.log(u))


def _cost_of_stability(theta: Array, u: Array) -> Array:
    """L(θ, t): the large deviation that holds the outlier of strength θ at or above zero.

    (θ − u)²/4 + ½ [ln(θ/u) + 1 − θ/u] while u < θ, else 0: then the outlier is positive already.
    """
    excess = np.maximum(theta - u, 0)
    return np.asarray(excess**2 / 4 + (np.log1p(excess / u) - excess / u) / 2)
