"""Gradient descent of the spiked matrix-tensor model for N → ∞: exact equations at any step h.

Spec section 2. Projected descent y = x_k + h (−∇H − μ_k x_k), x_{k+1} = √N y/|y|, has closed
equations for the correlations C and responses R, without an error of discretisation: a simulation
with the same step converges to them as N → ∞. The flow is their limit h → 0 (`spiked_flow`).
"""

from dataclasses import dataclass

import numpy as np

from pipeline.theory.laws import Array
from pipeline.theory.spiked_model import SpikedModel, SpikedModelError

MOST_STEPS = 10_000
"""C and R then take 1.6 GB."""


@dataclass(frozen=True)
class Dynamics:
    """A descent for N → ∞, at its times t_k.

    Parameters
    ----------
    time : float array [times]
    overlap : float array [times]
        m.
    multiplier : float array [times]
        μ = −2 e₂ − p e_p.
    matrix_energy, tensor_energy : float array [times]
        e₂ and e_p, energies per N of the two parts; their sum is the energy.
    correlation : float array [times, times]
        C(t, t') = x(t)·x(t')/N, symmetric.
    response : float array [times, times]
        R(t, t'), the response of x(t) to a field added to dx/dt at t'; 1 at t = t' and 0 for
        t < t'.
    """

    time: Array
    overlap: Array
    multiplier: Array
    matrix_energy: Array
    tensor_energy: Array
    correlation: Array
    response: Array


def descend(model: SpikedModel, overlap: float, *, duration: float, step: float) -> Dynamics:
    """Projected gradient descent from x(0) with m(0) = `overlap`, for N → ∞.

    Costs of order (duration/step)³: 2000 steps take some seconds.

    Parameters
    ----------
    model : SpikedModel
    overlap : float
        m(0) in [-1, 1].
    duration : float
        The last time, in units of the flow; a whole number of steps.
    step : float
        h. The equations hold for any; beyond 2/(μ + 2σ) the descent oscillates.

    Raises
    ------
    SpikedModelError
        If m(0) is outside [-1, 1], or the duration is not 1 to 10 000 whole steps.
    """
    if not -1 <= overlap <= 1:
        raise SpikedModelError(f"the overlap m(0) must be in [-1, 1], got {overlap!r}")
    return _Descent(model, step, count_steps(duration, step), linear=False).run(overlap)


def descend_from_equator(model: SpikedModel, *, duration: float, step: float) -> Dynamics:
    """The same for m(0) → 0: C, R and μ at m = 0, and as `overlap` the gain m(t)/m(0).

    The overlap obeys a linear equation as long as it is small: dm/dt = (a − μ) m + ∫ Q″(C) R m.

    Raises
    ------
    SpikedModelError
        As `descend`.
    """
    return _Descent(model, step, count_steps(duration, step), linear=True).run(1.0)


def count_steps(duration: float, step: float) -> int:
    """Whole number of steps in a duration.

    Raises
    ------
    SpikedModelError
        If there is no such number from 1 to 10 000.
    """
    if not (0 < step < np.inf and 0 < duration < np.inf):
        raise SpikedModelError(f"duration and step must be positive, got {duration!r} and {step!r}")
    steps = duration / step
    if abs(steps - round(steps)) > 1e-6 or not 1 <= round(steps) <= MOST_STEPS:
        raise SpikedModelError(
            f"the duration must be 1 to {MOST_STEPS} whole steps, got {duration!r} "
            f"with steps of {step!r}"
        )
    return round(steps)


@dataclass(frozen=True)
class _Descent:
    """The recursion; `linear`: C and R on the equator, with a small m beside them."""

    model: SpikedModel
    step: float
    steps: int
    linear: bool

    def run(self, overlap: float) -> Dynamics:
        """Iterate from m(0) = `overlap`."""
        n = self.steps
        correlation, response = np.zeros((2, n + 1, n + 1))
        m, mu, matrix_energy, tensor_energy = np.zeros((4, n + 1))
        correlation[0, 0], m[0] = 1, overlap
        for k in range(n + 1):
            # what enters C, R, μ and the energies
            signal = 0.0 if self.linear else float(m[k])
            known, memory = correlation[k, :k], self.step * response[k, :k]
            mu[k] = signal * self.model.slope(signal) + memory @ (
                self.model.curvature(known) * known + self.model.slope(known)
            )
            matrix_energy[k], tensor_energy[k] = self._energies(signal, known, memory)
            if k < n:
                self._advance(k, (correlation, response), m, float(mu[k]))
        response[np.diag_indices(n + 1)] = 1
        time = self.step * np.arange(n + 1, dtype=np.float64)
        return Dynamics(time, m, mu, matrix_energy, tensor_energy, correlation, response)

    def _energies(self, signal: float, known: Array, memory: Array) -> tuple[float, float]:
        a, b, p = self.model.matrix, self.model.tensor, self.model.order
        return (
            -a * (signal**2 / 2 + float(memory @ known)),
            -b * (signal**p / p + float(memory @ known ** (p - 1))),
        )

    def _advance(self, k: int, two_times: tuple[Array, Array], m: Array, mu: float) -> None:
        """Rows k + 1 of C and R and m_{k+1}, from those up to k (spec, section 2)."""
        correlation, response = two_times
        h, model, past = self.step, self.model, slice(k)
        known = correlation[k, past]
        keep = 1 - h * mu
        v = h * model.curvature(known) * response[k, past]
        pull = 0.0 if self.linear else float(model.slope(m[k]))
        drift = float((model.matrix * m[k] if self.linear else pull) + v @ m[past])  # D
        noise = h * (response[past, past] @ model.slope(known))  # B
        force = v @ correlation[past, past] + noise  # G
        if not self.linear:
            force += pull * m[past]
        gradient = pull * drift + model.noise_slope + float(v @ (force + noise))  # |g|²/N
        shrink = 1 / np.sqrt(1 + h**2 * (gradient - mu**2))  # z
        m[k + 1] = shrink * (keep * m[k] + h * drift)
        correlation[k + 1, past] = shrink * (keep * known + h * force)
        correlation[k + 1, k] = shrink  # G_k = μ_k
        correlation[: k + 1, k + 1] = correlation[k + 1, : k + 1]
        correlation[k + 1, k + 1] = 1
        response[k + 1, past] = shrink * (keep * response[k, past] + h * (v @ response[past, past]))
        response[k + 1, k] = shrink
