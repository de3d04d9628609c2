"""How an overlap m(0) → 0 grows: rates from hitting times, and the gradient-flow line from them.

Spec section 3. Above the line m grows exponentially at last, below it at most algebraically, so
hitting times are ln(1/m(0))/r or longer than any multiple of it: growth alone proves nothing, how
hitting times scale with ln(1/m(0)) does.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pipeline.theory.laws import Array
from pipeline.theory.spiked_descent import Dynamics, descend_from_equator
from pipeline.theory.spiked_model import SpikedModel, SpikedModelError, make_spiked_model


def threshold_growth_rate(model: SpikedModel) -> float:
    """r = (a − σ)²/a at threshold states, 0 where the Hessian has no outlier there (a ≤ σ).

    The outlier is at −r: r + μ = a + σ²/a, with μ = 2σ.
    """
    lead = max(model.matrix - model.sigma, 0.0)
    return float(lead**2 / model.matrix)


def hitting_times(gain: Dynamics, log_inverse_overlap: ArrayLike) -> Array:
    """When m of order 1 is reached from m(0) → 0: the time at which ln(m(t)/m(0)) = ln(1/m(0)).

    Parameters
    ----------
    gain : Dynamics
        From `descend_from_equator` or `follow_flow_from_equator`.
    log_inverse_overlap : float array
        ln(1/m(0)).

    Returns
    -------
    float array
        NaN where the gain is not reached.
    """
    wanted = np.asarray(log_inverse_overlap, dtype=np.float64)
    reached = np.maximum.accumulate(np.log(gain.overlap))
    return np.asarray(np.interp(wanted, reached, gain.time, left=0.0, right=np.nan))


def growth_rate(gain: Dynamics) -> float:
    """r of an overlap at late times, from how hitting times T scale with ln(1/m(0)).

    A fit of ln(1/m(0)) = r T + c T^(1/3) + d to the last three quarters of the time: the second
    term is what the relaxation to threshold states, μ − 2σ ≈ −t^(−2/3), adds to it.

    Parameters
    ----------
    gain : Dynamics
        From `descend_from_equator` or `follow_flow_from_equator`.
    """
    last = float(np.log(gain.overlap[-1]))
    first = float(np.interp(gain.time[-1] / 4, gain.time, np.log(gain.overlap)))
    wanted = np.linspace(first, last, 200)
    hits = hitting_times(gain, wanted)
    powers = np.stack([hits, np.cbrt(hits), np.ones_like(hits)], axis=1)
    return float(np.linalg.lstsq(powers, wanted)[0][0])


def measure_line(
    delta_p: float, snrs: Sequence[float], order: int = 3, *, duration: float, step: float
) -> float:
    """Gradient-flow line 1/Δ₂ from hitting times alone, for comparison with `gradient_flow_line`.

    Where rates vanish quadratically, √(r/Δ₂) is linear in 1/Δ₂; the line is where it reaches zero.

    Parameters
    ----------
    delta_p : float
    snrs : sequence of float
        At least two 1/Δ₂ above the line.
    order : int
        p.
    duration, step : float
        Of each descent.

    Raises
    ------
    SpikedModelError
        If m does not grow exponentially at one of them.
    """
    rates = []
    for snr in snrs:
        model = make_spiked_model(snr, delta_p, order)
        rate = growth_rate(descend_from_equator(model, duration=duration, step=step))
        if not rate > 0:
            raise SpikedModelError(
                f"the overlap must grow exponentially at each snr, got {snr!r} with a rate of "
                f"{rate:.2g} in t = {duration!r}; choose larger values"
            )
        rates.append(rate)
    root = np.sqrt(np.array(rates) * np.array(snrs))
    line = np.polynomial.Polynomial.fit(np.array(snrs), root, 1)
    return float(line.roots()[0])
