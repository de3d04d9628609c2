"""Initialisations against each other on the same seeds.

All initialisations of a seed share the instance and the random draw, so that the seeds on which
they end differently say far more about their difference than two separate probabilities do.
"""

from itertools import combinations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri

from pipeline.intervals import LEVEL
from pipeline.outcomes import control_name, describe, describe_interval, outcomes

Floats = NDArray[np.float64]


def compare_inits(cube: xr.Dataset) -> xr.Dataset:
    """Difference of the recovery probabilities of each two initialisations, on the same seeds.

    Parameters
    ----------
    cube : Dataset
        `status` and `recovered` of any part of a store that has all the replicas of its seeds.

    Returns
    -------
    Dataset [control, N, pair]
        The label of a pair is ``later-earlier`` in the order of the alphabet, which does not depend
        on the store's: ``spectral-random``.
        ``paired_seeds``: seeds on which both ended with a known outcome; of these ``gained``, on
        which the later recovered more often than the earlier, and ``lost``, on which it recovered
        less often. ``gain`` = p(later) - p(earlier) on these seeds with ``gain_low`` and
        ``gain_high``, see `difference_interval`. ``gain_p``: two-sided probability of so uneven a
        split of gained and lost seeds if both recover alike: McNemar's exact test (Psychometrika
        12, 1947), which with replicas is the sign test of the seeds. Empty with one initialisation.

    Raises
    ------
    ReductionError
        If a variable is absent, or the axes are not those of a cube.
    """
    control = control_name(cube)
    ended = outcomes(cube)
    labels = sorted(str(init) for init in cube["init"].to_numpy())
    places = [labels.index(str(init)) for init in cube["init"].to_numpy()]
    inner = [dim for dim in ("replica",) if dim in cube.dims]
    parts = []
    for i, j in combinations((places.index(place) for place in range(len(labels))), 2):
        known = ended.finished.isel(init=i, drop=True) & ended.finished.isel(init=j, drop=True)
        change = (
            ended.recovered.isel(init=j, drop=True).astype(np.int64)
            - ended.recovered.isel(init=i, drop=True)
        ).where(known, 0)
        runs, sums = known.sum(inner), change.sum(inner)
        mean = sums / runs.where(runs > 0, 1)  # of a seed, over its replicas
        parts.append(
            xr.Dataset(
                {
                    "paired_seeds": (runs > 0).sum("seed"),
                    "gained": (sums > 0).sum("seed"),
                    "lost": (sums < 0).sum("seed"),
                    "_sum": mean.sum("seed"),
                    "_squares": (mean**2).sum("seed"),
                }
            ).drop_vars("init", errors="ignore")
        )
    if not parts:
        return xr.Dataset()
    names = [f"{later}-{earlier}" for earlier, later in combinations(labels, 2)]
    whole = xr.concat(parts, dim="pair").transpose(control, "N", "pair")
    seeds = whole["paired_seeds"].to_numpy()
    gain, low, high = difference_interval(
        whole["_sum"].to_numpy(), whole["_squares"].to_numpy(), seeds
    )
    dims = (control, "N", "pair")
    compared = whole.drop_vars(["_sum", "_squares"]).assign(
        gain=(dims, gain),
        gain_low=(dims, low),
        gain_high=(dims, high),
        gain_p=(dims, sign_test(whole["gained"].to_numpy(), whole["lost"].to_numpy())),
    )
    compared = compared.assign_coords(pair=np.array(names, dtype=np.dtypes.StringDType()))
    for name, meaning in {
        "paired_seeds": "seeds on which both initialisations ended with a known outcome",
        "gained": "seeds on which the first of the pair recovered more often",
        "lost": "seeds on which the first of the pair recovered less often",
        "gain": "recovery probability of the first of the pair minus that of the second",
        "gain_p": "two-sided probability of so uneven a split if both recover alike (McNemar)",
    }.items():
        describe(compared, name, meaning)
    describe_interval(compared, "gain", "paired seeds", LEVEL)
    return compared


def difference_interval(
    total: Floats, squares: Floats, seeds: NDArray[np.integer]
) -> tuple[Floats, Floats, Floats]:
    """Mean of the seeds' differences d, each between -1 and 1, and its interval at `LEVEL`.

    The interval is that of Bonett and Price (J. Educ. Behav. Stat. 37, 2012): a seed with d = 1 and
    one with d = -1 are added before the variance is taken, so that few or no seeds that differ do
    not make it vanish. Written with sums of d and d², it holds for the means over replicas as well.

    Parameters
    ----------
    total, squares : ndarray
        Σ d and Σ d² over the seeds.
    seeds : ndarray of int
        Their number.

    Returns
    -------
    mean, low, high : ndarray
        NaN where there are no seeds.
    """
    mean = total / np.where(seeds > 0, seeds, np.nan)
    centre = total / (seeds + 2)
    variance = ((squares + 2) / (seeds + 2) - centre**2) / (seeds + 2)
    reach = ndtri((1 + LEVEL) / 2) * np.sqrt(variance)
    known = seeds > 0
    low = np.where(known, np.maximum(centre - reach, -1.0), np.nan)
    high = np.where(known, np.minimum(centre + reach, 1.0), np.nan)
    return mean, low, high


def sign_test(gained: NDArray[np.integer], lost: NDArray[np.integer]) -> Floats:
    """Two-sided exact probability of a split at least as uneven, if both sides are alike."""
    fewer = np.minimum(gained, lost)
    tail = np.asarray(bdtr(fewer.astype(float), gained + lost, 0.5), dtype=np.float64)
    return np.minimum(2 * tail, 1.0)
