"""Intervals of a probability, from runs that are independent or that share an instance.

Replicas of one instance share its matrix X and so recover together more often than runs of
different seeds do: K of them say less than K runs would. How much less is seen in the counts of the
seeds, by sums that add over blocks.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Floats = NDArray[np.float64]
Numbers = NDArray[np.integer] | Floats

LEVEL: Final = 0.95
"""Confidence of every interval of the reductions."""

_CLUMP: Final = 0.1  # seeds added with all and with no replicas recovered, to doubt what few show


@dataclass(frozen=True)
class SeedSums:
    """Sums over the seeds s, of their n_s runs and the k_s of these that recovered; any one shape.

    Parameters
    ----------
    seeds : ndarray
        Seeds with runs.
    runs, recovered : ndarray
        Σ n_s and Σ k_s.
    runs_squared, recovered_runs, recovered_squared : ndarray
        Σ n_s², Σ k_s n_s and Σ k_s².
    """

    seeds: Numbers
    runs: Numbers
    recovered: Numbers
    runs_squared: Numbers
    recovered_runs: Numbers
    recovered_squared: Numbers

    @classmethod
    def of(cls, recovered: NDArray[np.integer], runs: NDArray[np.integer]) -> Self:
        """Sums along the first axis, that of the seeds."""
        return cls(
            seeds=(runs > 0).sum(axis=0),
            runs=runs.sum(axis=0),
            recovered=recovered.sum(axis=0),
            runs_squared=(runs * runs).sum(axis=0),
            recovered_runs=(recovered * runs).sum(axis=0),
            recovered_squared=(recovered * recovered).sum(axis=0),
        )


def effective_runs(sums: SeedSums) -> Floats:
    """Independent runs that would know the probability of recovery as well as these runs do.

    Their number over the design effect (Kish, Survey Sampling, 1965): the variance between seeds
    over that of independent runs, here with a tenth of a seed added that recovered with all its
    replicas and a tenth that did with none, since few recovered runs cannot show that they come
    together. No fewer than the seeds, no more than the runs; then less by (z/t)², as the variance
    is known from S seeds only (Korn and Graubard, Survey Methodology 24, 1998). All runs where
    every seed has one.

    Returns
    -------
    ndarray
        Shape of the sums; 0 where nothing has run.
    """
    single = np.asarray(sums.runs == sums.seeds)
    n, seeds = np.maximum(sums.runs, 1), np.maximum(sums.seeds, 1)
    replicas = sums.runs_squared / n  # in a typical run's seed
    p = (sums.recovered + _CLUMP * replicas) / (n + 2 * _CLUMP * replicas)
    between = sums.recovered_squared - 2 * p * sums.recovered_runs + p**2 * sums.runs_squared
    between = between + _CLUMP * replicas**2 * ((1 - p) ** 2 + p**2)
    freedom = np.maximum(seeds - 1, 1)
    within = np.where(single, 1.0, (n + 2 * _CLUMP * replicas) * p * (1 - p))
    effect = np.maximum(between / within * seeds / freedom, 1.0)
    tail = (1 + LEVEL) / 2
    known = np.maximum(n / effect, seeds) * (ndtri(tail) / stdtrit(freedom, tail)) ** 2
    return np.where(single, sums.runs, known).astype(np.float64)


def wilson_interval(
    successes: Numbers, trials: Numbers, effective: Floats | None = None
) -> tuple[Floats, Floats]:
    """Interval of a probability at `LEVEL`.

    Parameters
    ----------
    successes, trials : ndarray
        Counts, of any one shape.
    effective : ndarray, optional
        Independent trials that these are worth, as from `effective_runs`; by default they are
        independent.

    Returns
    -------
    low, high : ndarray of float
        Ends of the score interval (Wilson, J. Am. Stat. Assoc. 22, 1927), NaN without trials.
    """
    z2 = ndtri((1 + LEVEL) / 2) ** 2
    p = successes / np.where(trials > 0, trials, np.nan)
    n = np.where(trials > 0, trials if effective is None else effective, np.nan)
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    reach = np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    # Exact at the ends, where rounding would leave 1e-17 and hence a probability outside.
    low = np.where(successes == 0, np.minimum(p, 0.0), centre - reach)
    high = np.where(successes == trials, np.maximum(p, 1.0), centre + reach)
    return low, high
