"""Lowest eigenvalues of the Hessian of instances drawn without couplings, given what is revealed.

Within the span of an instance the Hessian at y is known, A. Between the span and the unrevealed
directions its entries are Gaussian with covariance Γ/N, and among these it is a Gaussian symmetric
matrix. As N → ∞ the bulk is the semicircle [−μ − 2σ, −μ + 2σ], and an eigenvalue λ below it
solves det(A − μ − λ − s(λ) Γ) = 0, s the Stieltjes transform of the semicircle. On the equator and
at stationary points this is the outlier of `pipeline.theory.spiked_landscape`; along a descent Γ
and A also know of the gradients that led there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from pipeline.kernel.arrays import Array
from pipeline.kernel.batch import Rows
from pipeline.kernel.spiked_conditional import ConditionalSpikedTensor

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SpectrumInLaw:
    """Lower end of Hessians for N → ∞ at given revealed couplings; each field [trajectories].

    Parameters
    ----------
    edge : float array
        Left edge of the bulk.
    outlier : float array
        The lowest eigenvalue below it, NaN where there is none.
    alignment : float array
        (v·w*)²/N of its unit eigenvector v, 0 where there is none.
    """

    edge: Floats
    outlier: Floats
    alignment: Floats


def spectrum_in_law(landscape: ConditionalSpikedTensor, w: Array, owner: Rows) -> SpectrumInLaw:
    """Edge and outlier of the Hessian on the sphere at each row of `w` [trajectories, width].

    It reveals the gradients there and nothing of the Hessian: a later descent is not changed by
    having been looked at. Finite N moves the edge by O(N^(−2/3)), an outlier by O(N^(−1/2)).
    """
    gradient, _ = landscape.gradient(w, owner)
    multiplier = np.vecdot(w, gradient) / landscape.dimension
    radius = 2 * landscape.model.sigma
    outlier, alignment = np.full(len(w), np.nan), np.zeros(len(w))
    for k, point in enumerate(w / np.sqrt(landscape.width)):
        known, noise = landscape.known_hessian(point, int(owner[k]))
        outlier[k], alignment[k] = _find_outlier(known, noise, radius)
    return SpectrumInLaw(-multiplier - radius, outlier - multiplier, alignment)


def _find_outlier(known: Floats, noise: Floats, radius: float) -> tuple[float, float]:
    """Lowest λ < −radius of [[known, B], [Bᵀ, D]], and the first basis vector's share of it.

    B has the covariance `noise`, D a semicircle of this radius around 0.
    """

    def reduced(value: float) -> Floats:
        return known - value * np.eye(len(known)) - _stieltjes(value, radius) * noise

    def lowest(value: float) -> float:
        return float(np.linalg.eigvalsh(reduced(value))[0])

    if lowest(-radius) >= 0:
        return np.nan, 0.0
    below = -2 * radius
    while lowest(below) < 0:
        below *= 2
    value = float(brentq(lowest, below, -radius, xtol=1e-12))
    vector = np.linalg.eigh(reduced(value))[1][:, 0]
    transform = _stieltjes(value, radius)
    slope = transform / np.sqrt(value**2 - radius**2)
    return value, float(vector[0] ** 2 / (1 + slope * (vector @ noise @ vector)))


def _stieltjes(value: float, radius: float) -> float:
    """∫ ρ(x)/(x − λ) dx of a semicircle, λ ≤ −radius."""
    return float(2 * (-value - np.sqrt(value**2 - radius**2)) / radius**2)
