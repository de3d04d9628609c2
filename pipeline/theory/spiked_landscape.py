"""Lines of the phase diagram, signal states and the Hessian's spectrum of the spiked model.

Spec section 3; Sarao Mannelli et al., arXiv:1907.08226 and arXiv:1902.00139. Lines are given as
the value of 1/Δ₂ above which something holds, at given Δ_p and order p.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from pipeline.theory.laws import Array
from pipeline.theory.samples import LeftEnd
from pipeline.theory.spiked_model import SpikedModel, make_spiked_model

SNR_BAYES = 1.0
"""1/Δ₂ above which Bayes-optimal message passing finds the signal from m → 0, for any Δ_p."""


@dataclass(frozen=True)
class SignalState:
    """A minimum of the landscape along the signal, for N → ∞.

    Parameters
    ----------
    overlap : float
        m.
    susceptibility : float
        χ = √((1 − m²)/Q'(1)).
    multiplier : float
        μ = 1/χ + χσ²; the Hessian's bulk is [μ − 2σ, μ + 2σ].
    """

    overlap: float
    susceptibility: float
    multiplier: float


def gradient_flow_line(delta_p: float, order: int = 3) -> float:
    """1/Δ₂ above which gradient flow leaves threshold states: 1/Δ₂² = 1/Δ₂ + (p − 1)/Δ_p.

    There an outlier along the signal detaches from their Hessian, 1/Δ₂ = σ (BBP).
    """
    tensor = make_spiked_model(1, delta_p, order).tensor
    return float((1 + np.sqrt(1 + 4 * (order - 1) * tensor)) / 2)


def message_passing_line(delta_p: float, order: int = 3) -> float:
    """1/Δ₂ above which maximum-likelihood message passing leaves m = 0: 1/Δ₂² = 1/Δ₂ + 1/Δ_p."""
    tensor = make_spiked_model(1, delta_p, order).tensor
    return float((1 + np.sqrt(1 + 4 * tensor)) / 2)


def triviality_line(delta_p: float, order: int = 3) -> float:
    """1/Δ₂ above which the equator has no minima any more: the complexity at m = 0 is zero.

    With r = Q″(1)/Q'(1) and θ = 1/(Δ₂σ): ½ ln r − (r − 1)/(r + 1) = ½ ln θ + θ²/4 − θ + ¾.
    """

    def complexity(snr: float) -> float:
        model = make_spiked_model(snr, delta_p, order)
        ratio = model.noise_curvature / model.noise_slope
        theta = model.matrix / model.sigma
        left = np.log(ratio) / 2 - (ratio - 1) / (ratio + 1)
        return float(left - (np.log(theta) / 2 + theta**2 / 4 - theta + 0.75))

    low = gradient_flow_line(delta_p, order)  # θ = 1 there, and the right-hand side is zero
    high = 2 * low
    while complexity(high) > 0:
        high *= 2
    return float(brentq(complexity, low, high, xtol=1e-300, rtol=1e-13))


def signal_states(model: SpikedModel) -> tuple[SignalState, ...]:
    """Stable states with m = Q'(m)/√(Q'(m)² + Q'(1)), the largest m first.

    m and Q'(m) have one sign, so (Q'(m)/m)² (1 − m²) = Q'(1), a polynomial. Stable where
    χ²σ² < 1. For odd p a state with m < 0 can be stable at large 1/Δ₂, for even p it always comes
    with its mirror image.
    """
    pull = np.zeros(model.order - 1)
    pull[0], pull[-1] = model.matrix, model.tensor  # Q'(m)/m = a + b mᵖ⁻²
    polynomial = np.polynomial.Polynomial(pull)
    equation = polynomial**2 * np.polynomial.Polynomial([1, 0, -1]) - model.noise_slope
    roots = equation.roots()
    real = roots.real[np.abs(roots.imag) < 1e-9]
    states = [
        _make_state(model, float(m))
        for m in real[np.abs(real) < 1]
        if polynomial(m) > 0  # a state along −Q'(m) is a maximum
    ]
    stable = [s for s in states if s.susceptibility**2 * model.noise_curvature < 1]
    return tuple(sorted(stable, key=lambda state: -state.overlap))


def signal_state(model: SpikedModel) -> SignalState | None:
    """The stable state with the largest m > 0, or None where there is none."""
    return next((state for state in signal_states(model) if state.overlap > 0), None)


def hessian_edges(model: SpikedModel, multiplier: ArrayLike) -> tuple[Array, Array]:
    """Ends μ − 2σ and μ + 2σ of the Hessian's semicircle, in the shape of μ."""
    mu = np.asarray(multiplier, dtype=np.float64)
    return mu - 2 * model.sigma, mu + 2 * model.sigma


def hessian_outlier(
    model: SpikedModel, multiplier: ArrayLike, overlap: ArrayLike
) -> tuple[Array, Array]:
    """Eigenvalue that the signal pulls out of the Hessian, and the square of its overlap with x*.

    The rank-one term −Q″(m)(1 − m²) v vᵀ beside a semicircle of radius 2σ, v the direction of
    x* in the tangent plane: with θ = Q″(m)(1 − m²)/σ > 1 the eigenvalue is μ − σ(θ + 1/θ) and its
    eigenvector has the overlap² (1 − m²)(1 − 1/θ²) with x*. Exact where the noise at x is
    independent of how x was found: on the equator and at stationary points.

    Parameters
    ----------
    model : SpikedModel
    multiplier, overlap : float array
        μ and m, of shapes that broadcast.

    Returns
    -------
    eigenvalue, overlap2 : float array
        NaN and 0 where there is no outlier.
    """
    mu, m = np.broadcast_arrays(
        np.asarray(multiplier, dtype=np.float64), np.asarray(overlap, dtype=np.float64)
    )
    theta = model.curvature(m) * (1 - m**2) / model.sigma
    out = theta > 1
    safe = np.where(out, theta, 1.0)
    eigenvalue = np.where(out, mu - model.sigma * (safe + 1 / safe), np.nan)
    return eigenvalue, np.where(out, (1 - m**2) * (1 - 1 / safe**2), 0.0)


def hessian_left_end(model: SpikedModel, multiplier: ArrayLike, overlap: ArrayLike) -> LeftEnd:
    """Left edge μ − 2σ of the semicircle, outlier as in `hessian_outlier`, and the margin θ − 1."""
    mu, m = np.asarray(multiplier, dtype=np.float64), np.asarray(overlap, dtype=np.float64)
    margin = model.curvature(m) * (1 - m**2) / model.sigma - 1
    return LeftEnd(mu - 2 * model.sigma, hessian_outlier(model, mu, m)[0], np.asarray(margin))


def _make_state(model: SpikedModel, m: float) -> SignalState:
    chi = float(np.sqrt((1 - m**2) / model.noise_slope))
    return SignalState(m, chi, 1 / chi + chi * model.noise_curvature)
