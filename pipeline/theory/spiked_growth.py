"""How an overlap m(0) → 0 grows: rates from hitting times, and the gradient-flow line from them.

Spec section 3. Above the line m grows exponentially at last, below it at most algebraically, so
hitting times are ln(1/m(0))/r or longer than any multiple of it: growth alone proves nothing, how
hitting times scale with ln(1/m(0)) does.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import solve_triangular

from pipeline.theory.laws import Array
from pipeline.theory.spiked_descent import Dynamics, descend, descend_from_equator
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


def hitting_time(
    model: SpikedModel, overlap: float, level: float, *, duration: float, step: float
) -> float:
    """When gradient descent from m(0) = `overlap` has |m| = `level`, for N → ∞, not only m(0) → 0.

    Parameters
    ----------
    model : SpikedModel
    overlap, level : float
    duration, step : float
        As for `descend`.

    Returns
    -------
    float
        Between the steps on a line; infinite where it is later than `duration`.

    Raises
    ------
    SpikedModelError
        As `descend`.
    """
    found = descend(model, overlap, duration=duration, step=step)
    m = np.abs(found.overlap)
    if not (m >= level).any():
        return np.inf
    k = int(np.argmax(m >= level))
    return float(np.interp(level, m[: k + 1][-2:], found.time[: k + 1][-2:]))


def overlap_spread(model: SpikedModel, gain: Dynamics) -> Array:
    """√N times the standard deviation of m(t) from random starts, while m is small.

    To a signal that it does not know, noise alone leads with an overlap z of covariance C(t, t')/N,
    whatever the landscape; the signal amplifies it, m = z + ∫ R(t, s) a m(s) ds. This m is
    Gaussian; the start explains the part G(t)² of its variance.

    Parameters
    ----------
    model : SpikedModel
    gain : Dynamics
        From `descend_from_equator`.

    Returns
    -------
    float array [times]
    """
    step = float(gain.time[1] - gain.time[0])
    feedback = step * model.matrix * np.tril(gain.response, -1)
    amplified = solve_triangular(
        np.eye(len(feedback)) - feedback, np.eye(len(feedback)), lower=True, unit_diagonal=True
    )
    return np.asarray(np.sqrt(np.vecdot(amplified @ gain.correlation, amplified)))


def growth_rate(gain: Dynamics) -> float:
    """r of an overlap at late times, from how hitting times T scale with ln(1/m(0)).

    `fit_growth_rate` to the last three quarters of the time.

    Parameters
    ----------
    gain : Dynamics
        From `descend_from_equator` or `follow_flow_from_equator`.
    """
    last = float(np.log(gain.overlap[-1]))
    first = float(np.interp(gain.time[-1] / 4, gain.time, np.log(gain.overlap)))
    wanted = np.linspace(first, last, 200)
    return fit_growth_rate(wanted, hitting_times(gain, wanted))


def fit_growth_rate(log_inverse_overlap: Array, hits: Array) -> float:
    """r from a fit of ln(1/m(0)) = r T + c T^(1/3) + d to hitting times T.

    The second term is what the relaxation to threshold states, μ − 2σ ≈ −t^(−2/3), adds to it.

    Parameters
    ----------
    log_inverse_overlap, hits : float array [starts]
        ln(1/m(0)) and T, three of them or more.
    """
    powers = np.stack([hits, np.cbrt(hits), np.ones_like(hits)], axis=1)
    return float(np.linalg.lstsq(powers, log_inverse_overlap)[0][0])


def line_of_rates(snrs: ArrayLike, rates: ArrayLike) -> float:
    """1/Δ₂ at which growth rates r vanish: where the line through √(r/Δ₂) reaches zero.

    At threshold states √(r/Δ₂) = 1/Δ₂ − σ.

    Parameters
    ----------
    snrs, rates : float array [values]
        1/Δ₂ and r > 0, two of them or more.
    """
    snrs = np.asarray(snrs, dtype=np.float64)
    root = np.sqrt(np.asarray(rates) * snrs)
    return float(np.polynomial.Polynomial.fit(snrs, root, 1).roots()[0])


def measure_line(
    delta_p: float, snrs: Sequence[float], order: int = 3, *, duration: float, step: float
) -> float:
    """Gradient-flow line 1/Δ₂ from hitting times alone, for comparison with `gradient_flow_line`.

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
    return line_of_rates(snrs, rates)
