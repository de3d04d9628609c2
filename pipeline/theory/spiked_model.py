"""The spiked matrix-tensor model: a landscape whose statistics follow from one function Q.

Spec section 1; Sarao Mannelli, Biroli, Cammarota, Krzakala, Zdeborová, arXiv:1907.08226.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pipeline.theory.laws import Array


class SpikedModelError(ValueError):
    """A parameter of the spiked matrix-tensor model, or of its theory, that cannot be."""


@dataclass(frozen=True)
class SpikedModel:
    """Q(x) = a x²/2 + b xᵖ/p: H = H_noise − N Q(m), Cov(H_noise(x), H_noise(y)) = N Q(x·y/N).

    Parameters
    ----------
    matrix : float
        a = 1/Δ₂ > 0, the signal-to-noise ratio of the matrix.
    tensor : float
        b = 1/Δ_p > 0, that of the tensor.
    order : int
        p ≥ 3.
    """

    matrix: float
    tensor: float
    order: int = 3

    def __post_init__(self) -> None:
        for name, value in (("1/Δ₂", self.matrix), ("1/Δ_p", self.tensor)):
            if not 0 < value < np.inf:
                raise SpikedModelError(f"{name} must be a positive number, got {value!r}")
        if self.order != int(self.order) or self.order < 3:
            raise SpikedModelError(f"the order p must be an integer ≥ 3, got {self.order!r}")

    def covariance(self, x: ArrayLike) -> Array:
        """Q(x), in the shape of x."""
        x = np.asarray(x, dtype=np.float64)
        return self.matrix * x**2 / 2 + self.tensor * x**self.order / self.order

    def slope(self, x: ArrayLike) -> Array:
        """Q'(x) = a x + b xᵖ⁻¹, in the shape of x."""
        x = np.asarray(x, dtype=np.float64)
        return self.matrix * x + self.tensor * x ** (self.order - 1)

    def curvature(self, x: ArrayLike) -> Array:
        """Q″(x) = a + (p − 1) b xᵖ⁻², in the shape of x."""
        x = np.asarray(x, dtype=np.float64)
        return self.matrix + (self.order - 1) * self.tensor * x ** (self.order - 2)

    @property
    def noise_slope(self) -> float:
        """Q'(1) = a + b, the variance of a component of the noise's gradient."""
        return self.matrix + self.tensor

    @property
    def noise_curvature(self) -> float:
        """Q″(1) = σ² = a + (p − 1) b; 2σ is half the width of the Hessian's semicircle."""
        return self.matrix + (self.order - 1) * self.tensor

    @property
    def sigma(self) -> float:
        """σ."""
        return float(np.sqrt(self.noise_curvature))


def make_spiked_model(snr: float, delta_p: float, order: int = 3) -> SpikedModel:
    """Model with 1/Δ₂ = `snr` and noise Δ_p = `delta_p` of the tensor.

    Raises
    ------
    SpikedModelError
        If one of them is not a positive number, or the order p is below 3.
    """
    if not snr > 0:
        raise SpikedModelError(f"snr = 1/Δ₂ must be positive, got {snr!r}")
    if not 0 < delta_p < np.inf:
        raise SpikedModelError(f"Δ_p must be a positive number, got {delta_p!r}")
    return SpikedModel(float(snr), 1 / float(delta_p), order)
