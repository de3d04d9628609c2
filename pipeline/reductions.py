"""All reductions of a store: what is computed for each size, and put together.

Sizes N are independent of each other: `reduce_size` is a task of its own.
"""

from collections.abc import Sequence

import xarray as xr

from pipeline.outcomes import ReductionError, control_name, map_constants, split_constants
from pipeline.paired import compare_inits
from pipeline.recovery import (
    count_outcomes,
    describe_runs,
    half_recovery,
    load_sorted,
    recovery_probability,
)
from pipeline.scaling import fit_scaling
from pipeline.scaling_inputs import known_gains, limit_of
from pipeline.survival import survival
from store.array_store import open_group, read_attributes
from store.cube import open_store
from store.groups import TRAJECTORY
from store.place import StorePath
from store.schema import CONSTANTS

__all__ = [
    "ReductionError",
    "add_scaling",
    "combine",
    "control_name",
    "count_outcomes",
    "describe_runs",
    "half_recovery",
    "recovery_probability",
    "reduce_cube",
    "reduce_size",
    "reduce_store",
]


def reduce_size(cube: xr.Dataset, *, resamples: int = 1000) -> xr.Dataset:
    """All reductions of the cube of one size N, for each value of a constant that is an axis.

    Counts, probabilities and half-recovery points; the same by earlier horizons where the cube has
    hitting times and says when its runs end; pairs of initialisations on the same seeds.

    Parameters
    ----------
    cube : Dataset
        One N of a store's cube, its N axis kept (``cube.sel(N=[128])``); it may be lazy, and only
        `status`, `recovered`, `hit_time` and `time_end` are read.
    resamples : int
        As for `half_recovery`.

    Raises
    ------
    ReductionError
        If there is not exactly one N, or as for `count_outcomes`.
    """
    control_name(cube)
    if cube.sizes["N"] != 1:
        raise ReductionError(
            f"reduce_size: expected one N, got {cube['N'].to_numpy().tolist()!r}; "
            "select one with cube.sel(N=[…]), or call reduce_cube"
        )

    def reduce(part: xr.Dataset) -> xr.Dataset:
        part = load_sorted(part)
        parts = [
            recovery_probability(count_outcomes(part)),
            half_recovery(part, resamples=resamples),
            survival(part, resamples=resamples),
            compare_inits(part),
        ]
        return xr.merge(parts, compat="identical", join="exact")

    return map_constants(reduce, cube)


def combine(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Reduced datasets of different sizes as one, sorted by the control parameter and N.

    Parameters
    ----------
    parts : sequence of Dataset
        From `reduce_size`, in any order, with the same other labels.

    Raises
    ------
    ReductionError
        If there is no part, a size occurs twice, or other labels differ.
    """
    if not parts:
        raise ReductionError("combine: expected at least one reduced dataset, got none")
    sizes = [int(N) for part in parts for N in part["N"].to_numpy()]
    if len(set(sizes)) < len(sizes):
        raise ReductionError(f"combine: expected every N once, got {sorted(sizes)!r}")
    control = control_name(parts[0])
    constants = [name for name in CONSTANTS if name in parts[0].dims]
    for dim in (*constants, control, "init"):
        labels = [tuple(part[dim].to_numpy().tolist()) for part in parts]
        if len(set(labels)) > 1:
            raise ReductionError(
                f"combine: expected the same labels of {dim!r} in every part, got "
                f"{sorted(set(labels))!r}; reduce all sizes from one state of the store"
            )
    whole = xr.concat(
        list(parts),
        dim="N",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="exact",
    )
    return whole.transpose(*constants, control, "N", "init", ...).sortby([control, "N"])


def reduce_cube(cube: xr.Dataset, *, resamples: int = 1000) -> xr.Dataset:
    """All reductions of a cube: `combine` of `reduce_size` of each N.

    Parameters
    ----------
    cube : Dataset
        As `store.array_store.open_store` or ``xr.open_zarr`` gives it.
    resamples : int
        As for `half_recovery`.

    Returns
    -------
    Dataset
        Variables of `recovery_probability` and `half_recovery`, sorted by control parameter and N;
        initialisations in the store's order.

    Raises
    ------
    ReductionError
        As for `count_outcomes`.
    """
    control_name(cube)
    return combine(
        [reduce_size(cube.sel(N=[N]), resamples=resamples) for N in cube["N"].to_numpy()]
    )


def add_scaling(reduced: xr.Dataset, path: StorePath, gain_from: StorePath) -> xr.Dataset:
    """Reductions of a whole store, with the laws of its half-recovery points.

    Parameters
    ----------
    reduced : Dataset
        From `combine`.
    path : str or PathLike
        The store, for its physics.
    gain_from : str or PathLike
        Store whose trajectories have the signal gain; without them the law ``gain`` is left out,
        unless theory has the gain.
    """
    physics = read_attributes(path).get("physics", {})
    along = dict[str, xr.Dataset]()
    if TRAJECTORY in open_group(gain_from):
        trajectory = open_store(gain_from, TRAJECTORY)
        along = {str(constants): part for constants, part in split_constants(trajectory)}
    parts = []
    for constants, part in split_constants(reduced):
        own = {**physics, **{f"parameters.{name}": value for name, value in constants.items()}}
        gains = known_gains(own, part, along.get(str(constants)))
        scaling = fit_scaling(part, limit=limit_of(own), gains=gains)
        parts.append(scaling.expand_dims({name: [value] for name, value in constants.items()}))
    whole = xr.combine_by_coords(parts, join="exact", combine_attrs="override")
    return reduced.merge(whole, compat="override", join="exact")


def reduce_store(path: StorePath, gain_from: StorePath | None = None) -> xr.Dataset:
    """All reductions of a store, as `add_scaling` of `reduce_cube`; raises as `reduce_cube`."""
    return add_scaling(reduce_cube(open_store(path)), path, gain_from or path)
