"""Lowest eigenvalues of the Hessian of instances drawn without couplings, given what is revealed.

Within the span of an instance the Hessian at y is known, A. Between the span and the unrevealed
directions its entries are Gaussian with covariance Γ/N, and among these it is a Gaussian symmetric
matrix. As N → ∞ the bulk is the semicircle [−μ − 2σ, −μ + 2σ], and an eigenvalue λ below it
solves det(A − μ − λ − s(λ) Γ) = 0, s the Stieltjes transform of the semicircle. On the equator and
at stationary points this is the outlier of `pipeline.theory.spiked_landscape`; along a descent Γ
and A also know of the gradients that led there, and the outlier lies lower.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from pipeline.kernel.arrays import Array
from pipeline.kernel.spectrum import LowestPairs

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HessianInLaw:
    """Hessians on the sphere for N → ∞ at given revealed couplings, one for each trajectory.

    Parameters
    ----------
    known : tuple of float array [span, span]
        P A P.
    noise : tuple of float array [span, span]
        P Γ P.
    multiplier : float array [trajectories]
        μ.
    radius : float
        2σ.
    dimension : int
        N, which sets the scale of what is left out.
    """

    known: tuple[Floats, ...]
    noise: tuple[Floats, ...]
    multiplier: Floats
    radius: float
    dimension: int

    def lowest_pairs(self, start: Array, count: int) -> LowestPairs:
        """The `count` lowest eigenvalues, or the edge of the bulk instead of those that are none.

        Vectors hold the components within the span of unit eigenvectors; zero for the edge. As
        residuals they have σ N^(−2/3), by which the edge moves at finite N. Nothing is revealed: a
        later descent is not changed by having been looked at.

        Parameters
        ----------
        start : float array [trajectories, width]
            Of the shape of the vectors.
        count : int
        """
        trajectories, width = start.shape
        pairs = LowestPairs(
            values=np.empty((trajectories, count)),
            vectors=np.zeros((trajectories, count, width)),
            residuals=np.full((trajectories, count), self.radius / 2 * self.dimension ** (-2 / 3)),
            products=np.zeros(trajectories, dtype=np.intp),
        )
        for row, (known, noise) in enumerate(zip(self.known, self.noise, strict=True)):
            for k in range(count):
                value, vector = _find_outlier(known, noise, self.radius, k)
                pairs.values[row, k] = value - self.multiplier[row]
                pairs.vectors[row, k, : len(vector)] = vector
        return pairs


def _find_outlier(known: Floats, noise: Floats, radius: float, k: int) -> tuple[float, Floats]:
    """The k-th lowest λ < −radius of [[known, B], [Bᵀ, D]], and its vector's part in the span.

    B has the covariance `noise`, D a semicircle of this radius around 0. Without such an
    eigenvalue: −radius, and a vector of zeros.
    """

    def reduced(value: float) -> Floats:
        return known - value * np.eye(len(known)) - _stieltjes(value, radius) * noise

    def eigenvalue(value: float) -> float:
        return float(np.linalg.eigvalsh(reduced(value))[k])

    if k >= len(known) or eigenvalue(-radius) >= 0:
        return -radius, np.zeros(len(known))
    below = -2 * radius
    while eigenvalue(below) < 0:
        below *= 2
    value = float(brentq(eigenvalue, below, -radius, xtol=1e-8))
    vector: Floats = np.linalg.eigh(reduced(value))[1][:, k]
    slope = _stieltjes(value, radius) / np.sqrt(value**2 - radius**2)
    return value, vector / np.sqrt(1 + slope * (vector @ noise @ vector))


def _stieltjes(value: float, radius: float) -> float:
    """∫ ρ(x)/(x − λ) dx of a semicircle, λ ≤ −radius."""
    return float(2 * (-value - np.sqrt(value**2 - radius**2)) / radius**2)
