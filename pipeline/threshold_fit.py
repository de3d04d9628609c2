"""Threshold states of simulated runs: what they tend to as N and the time on the equator grow.

A run that is held at m = 0 ends at a threshold state (spec, sections 3 and 6). Its energy and the
edge of its Hessian tend to their limits like x(N, t) = x∞ + b/N + c t^(−γ).
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import stdtrit

from pipeline.intervals import LEVEL
from pipeline.outcomes import control_name, describe, describe_interval, outcomes

Floats = NDArray[np.float64]

QUANTITIES = {"loss_equator": "energy", "bulk_edge_equator": "edge"}
"""Variables along the equator, and what their limits are called."""

_EXPONENTS = (0.1, 3.0)


@dataclass(frozen=True)
class Limit:
    """The fit of x∞ + b/N + c t^(−γ) to one table of means.

    Parameters
    ----------
    value : float
        x∞.
    size, time, exponent : float
        b, c and γ.
    """

    value: float
    size: float
    time: float
    exponent: float

    def at(self, N: Floats, t: Floats) -> Floats:
        """The fit at sizes and times that broadcast."""
        return np.asarray(self.value + self.size / N + self.time * t**-self.exponent)


def fit_limit(sizes: Floats, times: Floats, means: Floats, errors: Floats) -> Limit:
    """Least squares of x∞ + b/N + c t^(−γ), weighted by the errors, with γ from 0.1 to 3.

    Parameters
    ----------
    sizes, times : float array [sizes], [times]
        With one size alone, b = 0.
    means, errors : float array [sizes, times]
        Errors > 0.
    """
    weight = (1 / errors).ravel()
    inverse, t = (grid.ravel() for grid in np.meshgrid(1 / sizes, times, indexing="ij"))

    def solve(exponent: float) -> tuple[Floats, float]:
        columns = [np.ones_like(t), t**-exponent, *([inverse] if len(sizes) > 1 else [])]
        design = np.stack(columns, axis=1) * weight[:, None]
        found = np.asarray(np.linalg.lstsq(design, means.ravel() * weight, rcond=None)[0])
        return found, float(np.sum((design @ found - means.ravel() * weight) ** 2))

    best = minimize_scalar(lambda x: solve(x)[1], bounds=_EXPONENTS, method="bounded")
    value, time, *size = solve(float(best.x))[0]
    return Limit(float(value), float(size[0]) if size else 0.0, float(time), float(best.x))


def extrapolate_threshold(
    cube: xr.Dataset, trajectory: xr.Dataset, *, since: float = 10.0, resamples: int = 200
) -> xr.Dataset:
    """Energy and edge of threshold states for N → ∞ and infinite time on the equator.

    Of the runs that start at random. The intervals hold what is seen in resampled seeds; not that
    the law of approach may be another one.

    Parameters
    ----------
    cube, trajectory : Dataset
        Root group of a store and its group of that name.
    since : float
        Time from which the law is fitted.
    resamples : int
        Number of resamples of whole seeds behind an interval.

    Returns
    -------
    Dataset [control]
        ``energy`` (loss per measurement) and ``edge``, each with its 95 % interval, ``_exponent``,
        ``_size`` and ``_time`` of the fit; NaN where there are less than two seeds or four times.
    """
    control = control_name(cube)
    finished = outcomes(cube[["status", "recovered"]].load()).finished
    late = trajectory[list(QUANTITIES)].sel(time=trajectory["time"] >= since)
    runs = late.where(finished).sel(init="random", drop=True).load()
    if "replica" in runs.dims:
        runs = runs.mean("replica")
    sizes, times = runs["N"].to_numpy().astype(float), runs["time"].to_numpy()
    found = xr.Dataset(coords={control: runs[control]})
    for name, short in QUANTITIES.items():
        table = runs[name].transpose(control, "N", "seed", "time").to_numpy()
        rows = [_limit_with_interval(sizes, times, part, resamples) for part in table]
        ends = ("", "_low", "_high", "_size", "_time", "_exponent")
        for end, column in zip(ends, np.array(rows).T, strict=True):
            found[f"{short}{end}"] = (control, column)
        describe(found, short, f"{name} for N and time to infinity")
        describe_interval(found, short, "resampled seeds", LEVEL)
        for end, meaning in (("size", "b"), ("time", "c"), ("exponent", "γ")):
            describe(found, f"{short}_{end}", f"{meaning} of {short} + b/N + c t^(-γ)")
    return found


def _limit_with_interval(
    sizes: Floats, times: Floats, values: Floats, resamples: int
) -> tuple[float, ...]:
    """Limit, ends of its interval, b, c and γ, of values [sizes, seeds, times]."""
    values = values[:, np.isfinite(values).all(axis=(0, 2))]
    seeds = values.shape[1]
    if seeds < 2 or len(times) < 4:
        return (np.nan,) * 6
    errors = values.std(axis=1, ddof=1) / np.sqrt(seeds)
    errors = np.maximum(errors, 1e-3 * errors.mean() + 1e-300)
    fit = fit_limit(sizes, times, values.mean(axis=1), errors)
    random = np.random.Generator(np.random.Philox(seeds))
    limits = []
    for _ in range(resamples):
        # instances of different sizes are independent
        drawn = [part[random.integers(seeds, size=seeds)].mean(axis=0) for part in values]
        limits.append(fit_limit(sizes, times, np.stack(drawn), errors).value)
    # the spread of few seeds is itself uncertain, as for a mean
    reach = float(stdtrit(seeds - 1, (1 + LEVEL) / 2)) * float(np.std(limits, ddof=1))
    reach *= float(np.sqrt(seeds / (seeds - 1)))
    low, high = fit.value - reach, fit.value + reach
    return fit.value, low, high, fit.size, fit.time, fit.exponent
