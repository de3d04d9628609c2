"""Means over seeds with their intervals, of what runs are measured at or along."""

import xarray as xr
from scipy.special import stdtrit

from pipeline.intervals import LEVEL
from pipeline.outcomes import describe, describe_interval


def average_seeds(values: xr.Dataset) -> xr.Dataset:
    """Mean over seeds of each variable, with its interval at `LEVEL` of Student's t.

    Replicas of a seed are averaged first: they share the instance, so that only seeds are
    independent. Missing values (NaN) do not take part.

    Parameters
    ----------
    values : Dataset
        With an axis `seed`, and any others.

    Returns
    -------
    Dataset
        Without `seed` and `replica`: ``NAME``, ``NAME_low`` and ``NAME_high`` of each variable. NaN
        without a seed, the ends also with one alone.
    """
    averaged = xr.Dataset()
    for name, variable in values.data_vars.items():
        of_seeds = variable.mean("replica") if "replica" in variable.dims else variable
        count = of_seeds.notnull().sum("seed")
        mean = of_seeds.mean("seed")
        spread = (((of_seeds - mean) ** 2).sum("seed") / (count - 1).where(count > 1)) ** 0.5
        quantile = xr.apply_ufunc(stdtrit, (count - 1).clip(min=1), (1 + LEVEL) / 2)
        reach = quantile * spread / count.where(count > 0) ** 0.5
        for end, value in (("", mean), ("_low", mean - reach), ("_high", mean + reach)):
            averaged[f"{name}{end}"] = value
        meaning = str(variable.attrs.get("long_name", name))
        describe(averaged, str(name), f"mean over seeds: {meaning}")
        describe_interval(averaged, str(name), "Student's t over seeds", LEVEL)
    return averaged
