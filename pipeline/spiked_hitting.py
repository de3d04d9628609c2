"""Hitting times of the spiked model from starts of given overlaps m(0), and how they scale.

Above the line of gradient flow an overlap grows at a rate r at last and hitting times go like
ln(1/m(0))/r; on and below it they grow faster than any multiple of ln(1/m(0)).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.outcomes import outcomes
from pipeline.theory.spiked_growth import fit_growth_rate, line_of_rates

Floats = NDArray[np.float64]

_FEWEST: Final = 5  # starts of a fit with three parameters
_SMALL: Final = 0.25  # starts that are fitted, in units of the overlap that is to be reached
_CLEAR: Final = 8.0  # and in units of N^(-1/2), the overlap that noise leads to
_RESAMPLES: Final = 200


@dataclass(frozen=True)
class GrowthRates:
    """Rates from hitting times, and the line where they vanish, with standard errors.

    Parameters
    ----------
    snr : float array [values]
        1/Δ₂ at which enough starts reached the overlap.
    rate, error : float array [values]
        r; the error over resampled seeds.
    line, line_error : float
        1/Δ₂; NaN with fewer than two rates above 0.
    """

    snr: Floats
    rate: Floats
    error: Floats
    line: float
    line_error: float


def mean_hitting_times(cube: xr.Dataset, step: float = 0.0) -> xr.Dataset:
    """Mean hitting time over seeds and its standard error, where all runs that ended arrived.

    Parameters
    ----------
    cube : Dataset
        Of one initialisation.
    step : float
        Of a descent, which is seen to arrive at its next step only: half a step late.

    Returns
    -------
    Dataset
        `time` and `error`, without the axes of seeds and replicas; NaN where a run did not arrive.
    """
    times, all_arrived = _arrivals(cube, step)
    over = [dim for dim in ("seed", "replica") if dim in cube.dims]
    error = times.std(over, ddof=1) / np.sqrt(times.notnull().sum(over))
    return xr.Dataset(
        {"time": times.mean(over).where(all_arrived), "error": error.where(all_arrived)}
    )


def growth_rates(
    cube: xr.Dataset, level: float, *, step: float = 0.0, seed: int = 0
) -> GrowthRates:
    """Rates from the mean hitting times of each 1/Δ₂, and the line, with bootstrap over seeds.

    Parameters
    ----------
    cube : Dataset
        Of one initialisation and one N, with the axis `m0`.
    level : float
        The overlap that ends a run; `small_starts` are fitted.
    step : float
        As for `mean_hitting_times`.
    seed : int
        Of the resampling.
    """
    small = small_starts(cube, level)
    times, all_arrived = _arrivals(small, step)
    if "replica" in times.dims:
        times = times.mean("replica")
    log = -np.log(small["m0"].to_numpy())
    values, starts, hits = [], [], []
    for snr in np.sort(cube["snr"].to_numpy()):
        there = all_arrived.sel(snr=snr).to_numpy()
        if there.sum() >= _FEWEST:
            values.append(float(snr))
            starts.append(log[there])
            hits.append(times.sel(snr=snr).transpose("m0", "seed").to_numpy()[there])

    def fit(seeds: NDArray[np.intp]) -> Floats:
        return np.array(
            [
                fit_growth_rate(one, np.nanmean(found[:, seeds], axis=1))
                for one, found in zip(starts, hits, strict=True)
            ]
        )

    def line(rates: Floats) -> float:
        if len(rates) < 2 or not (rates > 0).all():
            return float("nan")
        return line_of_rates(values, rates)

    count = times.sizes["seed"]
    rng = np.random.default_rng(seed)
    resampled = [fit(rng.integers(count, size=count)) for _ in range(_RESAMPLES)]
    rates = fit(np.arange(count))
    return GrowthRates(
        np.array(values),
        rates,
        np.std(resampled, axis=0),
        line(rates),
        float(np.std([line(one) for one in resampled])),
    )


def small_starts(cube: xr.Dataset, level: float) -> xr.Dataset:
    """The part with 8 N^(-1/2) ≤ m(0) ≤ level/4, ascending, of a cube of one N.

    Smaller ones are buried in the overlap that noise leads to, and larger ones are not small.
    """
    starts = cube["m0"].to_numpy()
    least = _CLEAR / np.sqrt(float(cube["N"]))
    return cube.sel(m0=np.sort(starts[(starts >= least) & (starts <= _SMALL * level)]))


def _arrivals(cube: xr.Dataset, step: float) -> tuple[xr.DataArray, xr.DataArray]:
    """Hitting times, NaN without one, and whether all runs that ended have one."""
    ended = outcomes(cube)
    over = [dim for dim in ("seed", "replica") if dim in cube.dims]
    count = ended.finished.sum(over)
    times = (cube["hit_time"] - step / 2).where(ended.recovered)
    return times, (ended.recovered.sum(over) == count) & (count > 1)
