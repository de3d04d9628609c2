"""How each run of a cube ended: recovered, not recovered, or without an outcome."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import xarray as xr

from store.schema import CONSTANTS, Status

END_OF_RUNS = "dynamics.T"
"""Key of the campaign's physics, kept as an attribute of its store: the time a run may take."""


_STOP_AT_MINIMUM = "dynamics.stop_at_minimum"


class ReductionError(ValueError):
    """A dataset that is not what a reduction needs."""


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the runs of a cube; arrays of bool with the axes of the cube.

    Parameters
    ----------
    finished : DataArray
        Runs that ended with a known outcome.
    recovered : DataArray
        Those of them that recovered the signal in time.
    failed : DataArray
        Runs that ended without an outcome: counted apart, never among the finished.
    """

    finished: xr.DataArray
    recovered: xr.DataArray
    failed: xr.DataArray


def control_name(dataset: xr.Dataset) -> str:
    """Name of the control parameter's axis: of a cube, of what is along its runs, or reduced.

    Raises
    ------
    ReductionError
        If not exactly one axis is left beside those of a cube and of the reductions.
    """
    known = {*CONSTANTS, "N", "seed", "init", "replica", "time", "horizon", "pair", "law", "size"}
    known |= {"term", "term_other"}
    found = [str(dim) for dim in dataset.dims if dim not in known]
    if len(found) != 1 or not {"N", "init"} <= set(dataset.dims):
        raise ReductionError(
            "dataset to reduce: expected the axes N, init and one control parameter, "
            f"got {tuple(dataset.dims)!r}; pass the cube of a store, or its reduced dataset"
        )
    return found[0]


def split_constants(dataset: xr.Dataset) -> Iterator[tuple[dict[str, float], xr.Dataset]]:
    """Values of the constants of the model that are axes, and the part that has these values.

    Parameters
    ----------
    dataset : Dataset
        A cube or a reduced dataset; one without such axes is its only part.
    """
    names = [name for name in CONSTANTS if name in dataset.dims]
    for labels in itertools.product(*(sorted(dataset[name].values.tolist()) for name in names)):
        constants = dict(zip(names, labels, strict=True))
        yield constants, dataset.sel(constants, drop=True)


def map_constants(reduce: Callable[[xr.Dataset], xr.Dataset], cube: xr.Dataset) -> xr.Dataset:
    """Reduce the part of each value of the constants by itself; the results with these axes first.

    Reductions so need not know of such axes. They do not mix values of a constant, whose runs are
    of the same instances.
    """
    parts = [
        reduce(part).expand_dims({name: [value] for name, value in constants.items()})
        for constants, part in split_constants(cube)
    ]
    whole = xr.combine_by_coords(parts, join="exact", combine_attrs="override")
    assert isinstance(whole, xr.Dataset)
    return whole.assign_coords(
        {name: cube[name].sortby(name) for name in CONSTANTS if name in whole.dims}
    )


def end_of_runs(cube: xr.Dataset) -> float | None:
    """Time T at which every run of a store ends at the latest; None if the cube does not say.

    It is part of the physics of a store and so the same for all of its runs.
    """
    physics = cube.attrs.get("physics", {})
    return float(physics[END_OF_RUNS]) if END_OF_RUNS in physics else None


def end_of_minima(cube: xr.Dataset) -> float | None:
    """T of a store whose runs that end before it, not recovered, did so at a minimum; else None."""
    stops = cube.attrs.get("physics", {}).get(_STOP_AT_MINIMUM, False)
    return end_of_runs(cube) if stops and "time_end" in cube else None


def outcomes(cube: xr.Dataset, horizon: float | None = None) -> Outcomes:
    """How the runs ended; the one place that reads their codes.

    Parameters
    ----------
    cube : Dataset
        `status` and `recovered`, and `hit_time` with a horizon, of any part of a store.
    horizon : float, optional
        Time up to which a recovery counts, at most T: what the cube would say had its runs ended
        then. By default T.

    Raises
    ------
    ReductionError
        If a variable is absent, or the horizon is not between 0 and T.
    """
    needed = ("status", "recovered") if horizon is None else ("status", "recovered", "hit_time")
    absent = [name for name in needed if name not in cube]
    if absent:
        raise ReductionError(
            f"cube: expected the variables {' and '.join(needed)}, got none named {absent!r}; "
            "pass the root group of a store"
        )
    done, known = cube["status"] == Status.DONE, cube["recovered"] >= 0
    finished = done & known
    recovered = finished & (cube["recovered"] == 1)
    if horizon is not None:
        last = end_of_runs(cube)
        if not 0 < horizon <= (last if last is not None else horizon):
            raise ReductionError(
                f"horizon: expected a time above 0 and up to T = {last}, got {horizon!r}; what "
                "happens later is not known, run a campaign with a larger dynamics.T"
            )
        recovered &= cube["hit_time"] <= horizon
    failed = (cube["status"] == Status.FAILED) | (done & ~known)
    return Outcomes(finished, recovered, failed)


def describe(dataset: xr.Dataset, name: str, long_name: str) -> None:
    """Give a pure number its meaning."""
    dataset[name].attrs = {"units": "1", "long_name": long_name}


def describe_interval(dataset: xr.Dataset, name: str, method: str, level: float) -> None:
    """Give the ends of an interval, NAME_low and NAME_high, their meaning."""
    for end, word in (("low", "lower"), ("high", "upper")):
        meaning = f"{word} end of the {level:.0%} interval of {name} ({method})"
        describe(dataset, f"{name}_{end}", meaning)
