"""Where a recovery curve crosses one half, and how well the runs say so. NumPy only, no labels.

The law p(x) = P(η), η = b0 + b1 x, of `pipeline.recovery_curve` is fitted to binomial counts with
Jeffreys' prior, so that every curve, also a separated one, has one finite fit; x_half = -b0/b1.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit, xlogy

from pipeline.intervals import LEVEL, SeedSums, effective_runs, wilson_interval
from pipeline.recovery_curve import log_probabilities, predictor_at, slopes

Floats = NDArray[np.float64]

_FEWEST_SEEDS: Final = 5


class Crossing(IntEnum):
    """What is known of the half-recovery point: found, or why it cannot be given."""

    FITTED = 0
    BETWEEN_POINTS = 1
    ABOVE_GRID = 2
    BELOW_GRID = 3
    FALLING = 4
    TOO_FEW_POINTS = 5


@dataclass(frozen=True)
class Transition:
    """The half-recovery point of one curve; numbers that cannot be given are NaN.

    Parameters
    ----------
    crossing : Crossing
        FITTED: intervals from resampled seeds. BETWEEN_POINTS: the curve jumps from 0 to 1 with at
        most one point between; the interval is the pair of grid points that enclose the jump.
        ABOVE_GRID, BELOW_GRID: one half lies beyond the last or first point; `half` is NaN and the
        interval one-sided. FALLING: the curve crosses one half downwards.
        TOO_FEW_POINTS: fewer than two points have runs.
    half, half_low, half_high : float
        x_half and its interval. An end is infinite where the measured points do not bound it:
        nothing is extrapolated beyond them.
    width, width_low, width_high : float
        x(p = 0.9) - x(p = 0.1) of the fitted curve, and its interval; given only with a FITTED
        half, which it scales with.
    intercept, slope : float
        b0 and b1 of η = b0 + b1 x; NaN where the runs do not bound the slope.
    deviance : float
        Of the fit, 2 sum(observed log(observed/expected)); about points - 2 if the law holds. Runs
        that share an instance count in it by what they are worth.
    points : int
        Number of points with runs.
    """

    crossing: Crossing
    half: float = np.nan
    half_low: float = np.nan
    half_high: float = np.nan
    width: float = np.nan
    width_low: float = np.nan
    width_high: float = np.nan
    intercept: float = np.nan
    slope: float = np.nan
    deviance: float = np.nan
    points: int = 0


def fit_curve(x: Floats, successes: Floats, trials: Floats) -> Floats:
    """Coefficients (b0, b1) of p = P(b0 + b1 x), for many curves at once.

    Maximises the binomial likelihood times Jeffreys' prior sqrt(det I), which keeps separated
    curves finite (Firth, Biometrika 80, 1993; Kosmidis and Firth, Biometrika 108, 2021, for links
    other than the logistic), by scoring steps that are halved where they do not ascend.

    Parameters
    ----------
    x : ndarray [points]
        Control parameter.
    successes, trials : ndarray [..., points]
        Counts, or weighted counts; points without trials do not take part.

    Returns
    -------
    ndarray [..., 2]
        b0 and b1, accurate to about 1e-7; NaN for a curve with fewer than two points with trials.
    """
    shape = trials.shape[:-1]
    k, n = successes.reshape(-1, x.size), trials.reshape(-1, x.size)
    fits = np.full((len(n), 2), np.nan)
    centre, scale = x.mean(), x.std() or 1.0
    scaled = (x - centre) / scale

    active = np.flatnonzero((n > 0).sum(axis=1) >= 2)
    k, n = k[active], n[active]
    mean = (k.sum(axis=1) + 0.5) / (n.sum(axis=1) + 1.0)
    beta = np.stack([np.log(mean / (1 - mean)), np.zeros_like(mean)], axis=1)
    step, best = np.zeros_like(beta), np.full(len(beta), -np.inf)
    for _ in range(500):
        candidate = beta + step
        value, newton = _penalised_likelihood(scaled, k, n, candidate)
        better = value >= best - 1e-12 * np.abs(best)
        beta = np.where(better[:, None], candidate, beta)
        best = np.where(better, value, best)
        step = np.where(better[:, None], newton, step / 2)
        fits[active] = beta
        going = np.abs(step).max(axis=1) > 1e-9 * (1 + np.abs(beta).max(axis=1))
        if not going.any():
            break
        active, k, n = active[going], k[going], n[going]
        beta, step, best = beta[going], step[going], best[going]
    slope = fits[:, 1] / scale
    return np.stack([fits[:, 0] - slope * centre, slope], axis=1).reshape(*shape, 2)


def _penalised_likelihood(u: Floats, k: Floats, n: Floats, beta: Floats) -> tuple[Floats, Floats]:
    """Log of likelihood times Jeffreys' prior [curves], and the step from there [curves, 2]."""
    eta = beta[:, :1] + beta[:, 1:] * u
    log_p, log_q = log_probabilities(eta)
    by_p, by_q, bend = slopes(eta)
    weight = n * by_p * by_q
    s0, _, v, s2 = _moments(u, weight)
    value = (k * log_p + (n - k) * log_q).sum(axis=1) + 0.5 * np.log(s0 * s2)[:, 0]
    leverage = weight * (1 / s0 + v**2 / s2)
    # the score, and half the leverage times the derivative of the log of each weight
    residual = k * by_p - (n - k) * by_q + leverage * (bend + (by_q - by_p) / 2)
    s0, middle, v, s2 = _moments(u, weight + leverage * by_p * by_q)
    tilt = (residual * v).sum(axis=1, keepdims=True) / s2
    shift = residual.sum(axis=1, keepdims=True) / s0
    return value, np.concatenate([shift - tilt * middle, tilt], axis=1)


def _moments(u: Floats, weight: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Total weight, mean of u, deviations, and their weighted square: the information, diagonal.

    About the mean nothing cancels, even where one point carries nearly all the weight.
    """
    s0 = np.maximum(weight.sum(axis=1, keepdims=True), 1e-150)
    middle = (weight @ u)[:, None] / s0
    v = u - middle
    return s0, middle, v, np.maximum((weight * v**2).sum(axis=1, keepdims=True), 1e-150)


def locate_half(
    x: Floats,
    successes: NDArray[np.integer],
    trials: NDArray[np.integer],
    stream: np.random.SeedSequence,
    *,
    resamples: int = 1000,
) -> Transition:
    """Half-recovery point of one curve, with its interval at `LEVEL` from resampling whole seeds.

    A resample draws n - 1 of the n seeds with replacement, so that its spread is that of the
    estimate also for small n (Rao and Wu, J. Am. Stat. Assoc. 83, 1988), and the percentiles are
    those of Student's t with n - 1 degrees of freedom (Hesterberg, Am. Stat. 69, 2015). All that a
    seed shares (its points, and replicas summed in its counts) is drawn with it. Below five seeds
    the interval is the pair of grid points that are each clearly below and above one half.

    Parameters
    ----------
    x : ndarray [points]
        Control parameter, ascending.
    successes, trials : ndarray of int [seeds, points]
        Recovered and finished runs of each seed; seeds and points without runs are allowed.
    stream : SeedSequence
        Decides the resamples; equal streams and counts give equal results.
    resamples : int
        Number of resamples.
    """
    seeds = trials.any(axis=1)
    points = trials.any(axis=0)
    x, successes, trials = x[points], successes[seeds][:, points], trials[seeds][:, points]
    if x.size < 2:
        return Transition(Crossing.TOO_FEW_POINTS, points=x.size)
    k, n = successes.sum(axis=0), trials.sum(axis=0)
    worth = effective_runs(SeedSums.of(successes, trials))
    fit = fit_curve(x, k.astype(float), n.astype(float))
    b0, b1 = map(float, fit)
    half = float(_half_points(x, fit[None])[0])
    if np.isnan(half):
        return Transition(Crossing.FALLING, intercept=b0, slope=b1, points=x.size)

    low, high = _enclosing_points(x, *wilson_interval(k, n, worth), half)
    separated = _is_separated(k, n)
    if np.isinf(half):
        crossing, reported = Crossing.ABOVE_GRID if half > 0 else Crossing.BELOW_GRID, np.nan
    else:
        crossing, reported = Crossing.BETWEEN_POINTS if separated else Crossing.FITTED, half
    if separated:
        return Transition(crossing, reported, low, high, points=x.size)

    width = width_low = width_high = np.nan
    if crossing is Crossing.FITTED:
        width = float(_widths(fit[None])[0])
    if len(trials) >= _FEWEST_SEEDS:
        draws = np.random.Generator(np.random.Philox(stream)).multinomial(
            len(trials) - 1, np.full(len(trials), 1 / len(trials)), size=resamples
        )
        weights = draws.astype(np.float64)  # sums of counts stay exact, and use the fast product
        fits = fit_curve(x, weights @ successes, weights @ trials)
        tail = float(ndtr(stdtrit(len(trials) - 1, (1 - LEVEL) / 2)))
        low, high = _percentile_interval(_half_points(x, fits), half, tail)
        low, high = min(low, float(x[-1])), max(high, float(x[0]))
        if crossing is Crossing.FITTED:
            width_low, width_high = _percentile_interval(_widths(fits), width, tail)
    return Transition(
        crossing,
        half=reported,
        half_low=low,
        half_high=high,
        width=width,
        width_low=width_low,
        width_high=width_high,
        intercept=b0,
        slope=b1,
        deviance=_deviance(x, k * worth / n, worth, b0, b1),
        points=x.size,
    )


def _is_separated(k: NDArray[np.integer], n: NDArray[np.integer]) -> bool:
    """Whether the curve is 0 … 0, at most one other value, 1 … 1: no slope is too steep for it."""
    mixed = (k > 0) & (k < n)
    return bool(mixed.sum() <= 1 and (np.diff(k / n) >= 0).all())


def _half_points(x: Floats, fits: Floats) -> Floats:
    """x_half of each fit; -inf or inf where it is beyond the points, NaN where the fit falls."""
    b0, b1 = fits.T
    first, last = b0 + b1 * x[0], b0 + b1 * x[-1]
    found = np.full(len(fits), np.nan)
    found[(first < 0) & (last < 0)] = np.inf
    found[(first > 0) & (last > 0)] = -np.inf
    inside = (first <= 0) & (last >= 0) & (b1 > 0)
    found[inside] = np.clip(-b0[inside] / b1[inside], x[0], x[-1])  # against rounding
    return found


def _widths(fits: Floats) -> Floats:
    """x(p = 0.9) - x(p = 0.1) of each fit; infinite where it does not rise."""
    rising = fits[:, 1] > 0
    found = np.full(len(fits), np.inf)
    found[rising] = (predictor_at(0.9) - predictor_at(0.1)) / fits[rising, 1]
    return found


def _enclosing_points(x: Floats, low: Floats, high: Floats, half: float) -> tuple[float, float]:
    """Nearest points around `half` whose own intervals are below and above one half."""
    below, above = x[(high < 0.5) & (x <= half)], x[(low > 0.5) & (x >= half)]
    return (
        float(below.max()) if below.size else -np.inf,
        float(above.min()) if above.size else np.inf,
    )


def _percentile_interval(found: Floats, estimate: float, tail: float) -> tuple[float, float]:
    """Percentiles `tail` and 1 - `tail` of resampled estimates, widened to hold the estimate.

    A resample without an answer counts against both ends: the interval can only widen.
    """
    unknown = np.isnan(found)
    low = np.quantile(np.where(unknown, -np.inf, found), tail, method="inverted_cdf")
    high = np.quantile(np.where(unknown, np.inf, found), 1 - tail, method="inverted_cdf")
    return min(float(low), estimate), max(float(high), estimate)


def _deviance(x: Floats, k: Floats, n: Floats, b0: float, b1: float) -> float:
    log_p, log_q = log_probabilities(b0 + b1 * x)
    misses = n - k
    terms = xlogy(k, k / n) + xlogy(misses, misses / n) - k * log_p - misses * log_q
    return float(2 * terms.sum())
