"""Data collapse: do recovery curves of all sizes lie on one another once shifted? NumPy only."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.intervals import LEVEL
from pipeline.recovery_curve import probability
from pipeline.scaling_fit import Cells, fit_law, free_law
from pipeline.scaling_laws import Floats
from pipeline.transition import fit_curve

_SIMULATIONS: Final = 200


@dataclass(frozen=True)
class Collapse:
    """Quality of a data collapse.

    Parameters
    ----------
    quality : float
        S, the mean squared distance of the points of each size from the curve of the others, in
        units of the standard error of that distance (Houdayer and Hartmann, Phys. Rev. B 70,
        014418, 2004): near 1 if the curves collapse, larger if not. NaN if they do not overlap.
    low, high : float
        What S lies within in 95 % of cases if all curves have one shape and steepness: from
        simulated counts with the runs of the data, shifted in the same way.
    """

    quality: float = np.nan
    low: float = np.nan
    high: float = np.nan

    def words(self) -> str:
        """What it says."""
        if np.isnan(self.quality):
            return "curves of different sizes do not overlap"
        within = f"S = {self.quality:.2f}, {self.low:.2f}–{self.high:.2f} for curves of one shape"
        verb = "do not collapse" if self.quality > self.high else "collapse"
        return f"shifted to their half points the curves {verb} ({within})"


def collapse_quality(cells: Cells, *, simulations: int = _SIMULATIONS, seed: int = 0) -> Collapse:
    """Quality of the collapse p(c, N) = F(c - c_½(N)), with what is expected of it.

    Each size is shifted by its own half-recovery point, from its own fit, in the data and in the
    simulations alike; nothing else is adjusted, so that curves that steepen with N do not collapse.

    Parameters
    ----------
    cells : Cells
        Counts of sizes whose curves cross one half.
    simulations : int
        Simulated sets of counts behind the expected range.
    seed : int
        Of their random numbers: equal counts give equal results.
    """
    sizes = cells.sizes()
    common = _common_shape(cells, sizes)
    rng = np.random.Generator(np.random.Philox(seed))
    runs = np.maximum(np.rint(cells.runs), 1).astype(np.int64)
    draws = rng.binomial(runs, common, size=(simulations, len(common))).astype(np.float64)
    observed = cells.recovered / cells.runs * runs
    values = _distances(cells, sizes, np.vstack([observed, draws]), runs.astype(np.float64))
    if np.isnan(values[0]):
        return Collapse()
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(values[1:], [tail, 1 - tail])
    return Collapse(float(values[0]), float(low), float(high))


def _common_shape(cells: Cells, sizes: Floats) -> Floats:
    """Probabilities of the cells if all sizes have the steepness of their mean."""
    fit = fit_law(free_law(sizes), cells)
    return probability(np.exp(fit.steepness[0]) * (cells.control - fit.half(cells.size)))


def _distances(cells: Cells, sizes: Floats, recovered: Floats, runs: Floats) -> Floats:
    """S of each set of counts [sets, cells]."""
    curves = []
    for N in sizes:
        own = np.flatnonzero(cells.size == N)
        own = own[np.argsort(cells.control[own])]
        c, k, n = cells.control[own], recovered[:, own], runs[own]
        half = _half_points(c, fit_curve(c, k, np.broadcast_to(n, k.shape)))
        p = (k + 0.5) / (n + 1)  # the variance of cells without or with only recoveries is not 0
        curves.append((c - half[:, None], k / n, p * (1 - p) / n))
    total, count = np.zeros(len(recovered)), np.zeros(len(recovered))
    for i, (x, y, variance) in enumerate(curves):
        weights, weighted = np.zeros_like(y), np.zeros_like(y)
        for j, (others, p, spread) in enumerate(curves):
            if i != j:
                value, error = _between(x, others, p, spread)
                known = np.isfinite(error)
                weights += np.where(known, 1 / error, 0.0)
                weighted += np.where(known, value / error, 0.0)
        inside = weights > 0
        master = np.divide(weighted, weights, out=np.zeros_like(y), where=inside)
        error = np.divide(1.0, weights, out=np.zeros_like(y), where=inside)
        total += np.where(inside, (y - master) ** 2 / (variance + error), 0.0).sum(axis=1)
        count += inside.sum(axis=1)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _half_points(c: Floats, fits: Floats) -> Floats:
    """c_½ of each fit [sets]; NaN, so that the curve takes no part, where the points do not say it.

    That is where the fit does not rise, or crosses one half farther outside the points than they
    reach.
    """
    b0, b1 = fits.T
    reach = c[-1] - c[0]
    known = (b0 + b1 * (c[0] - reach) < 0) & (b0 + b1 * (c[-1] + reach) > 0)
    half: Floats = np.full_like(b0, np.nan)
    np.divide(-b0, b1, out=half, where=known)
    return half


def _between(x: Floats, others: Floats, p: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Value and variance at x [sets, points] on the polygon of another size; inf outside it."""
    right = (x[:, :, None] >= others[:, None, :]).sum(axis=-1)
    inside = (right > 0) & (right < others.shape[1])
    right = np.clip(right, 1, others.shape[1] - 1)
    a, b = (np.take_along_axis(others, place, axis=1) for place in (right - 1, right))
    share = np.where(inside, (x - a) / (b - a), 0.0)
    pa, pb = (np.take_along_axis(p, place, axis=1) for place in (right - 1, right))
    va, vb = (np.take_along_axis(spread, place, axis=1) for place in (right - 1, right))
    variance = (1 - share) ** 2 * va + share**2 * vb
    return (1 - share) * pa + share * pb, np.where(inside, variance, np.inf)
