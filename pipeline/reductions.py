"""From the cube of runs to recovery probabilities and half-recovery points, by sums that add.

Counts are made first and add over any split of the cube; the nonlinear part (intervals, fits)
comes once at the end. Sizes N are independent of each other: `reduce_size` is a task of its own.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any
from zlib import crc32

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.intervals import LEVEL, SeedSums, effective_runs, wilson_interval
from pipeline.transition import Crossing, Transition, locate_half
from store.schema import Status


class ReductionError(ValueError):
    """A dataset that is not what a reduction needs."""


def control_name(dataset: xr.Dataset) -> str:
    """Name of the control parameter's axis, of a cube or of a reduced dataset.

    Raises
    ------
    ReductionError
        If not exactly one axis is left beside N, seed, init and replica.
    """
    known = {"N", "seed", "init", "replica"}
    found = [str(dim) for dim in dataset.dims if dim not in known]
    if len(found) != 1 or not {"N", "init"} <= set(dataset.dims):
        raise ReductionError(
            "dataset to reduce: expected the axes N, init and one control parameter, "
            f"got {tuple(dataset.dims)!r}; pass the cube of a store, or its reduced dataset"
        )
    return found[0]


def count_outcomes(cube: xr.Dataset) -> xr.Dataset:
    """Numbers of runs, of recovered runs and of failed runs: sums, which add over blocks.

    Parameters
    ----------
    cube : Dataset
        `status` and `recovered` of any part of a store; other variables are not read. Pending and
        quarantined cells do not count.

    Returns
    -------
    Dataset [control, N, init]
        ``runs``, ended with a known outcome; ``recovered`` of these; ``failed``, ended without one
        (numerical failure). Failed runs are counted apart: they are not among the runs. Labels
        keep the cube's order. From a cube with replicas, whose runs are not independent, also the
        other sums of `pipeline.intervals.SeedSums`, which add over parts of the cube that do not
        split the replicas of a seed; and their number as the coordinate ``replicas``.

    Raises
    ------
    ReductionError
        If a variable is absent, or the axes are not those of a cube.
    """
    control = control_name(cube)
    finished, recovered, failed = _outcomes(cube)
    meanings = {
        "runs": (finished, "runs that ended with a known outcome"),
        "recovered": (recovered, "runs that recovered the signal"),
        "failed": (failed, "runs that failed numerically, not counted among the runs"),
    }
    if "replica" in cube.dims:
        n, k = finished.sum("replica"), recovered.sum("replica")
        meanings |= {
            "seeds": (n > 0, "seeds with runs that ended with a known outcome"),
            "runs_squared": (n * n, "square of the runs of a seed, summed over seeds"),
            "recovered_runs": (n * k, "recovered times all runs of a seed, summed over seeds"),
            "recovered_squared": (k * k, "square of the recovered runs of a seed, summed"),
        }
    axes = (control, "N", "init")
    counts = xr.Dataset(
        {name: each.sum(set(each.dims) - set(axes)) for name, (each, _) in meanings.items()}
    ).transpose(*axes)
    for name, (_, meaning) in meanings.items():
        _describe(counts, name, meaning)
    if "replica" in cube.dims:
        counts = counts.assign_coords(replicas=cube.sizes["replica"])
        _describe(counts, "replicas", "starts w(0) on each instance")
    return counts


def recovery_probability(counts: xr.Dataset) -> xr.Dataset:
    """Counts with ``probability`` = recovered/runs and its 95 % Wilson interval.

    Parameters
    ----------
    counts : Dataset [control, N, init]
        From `count_outcomes`, or a sum of such.

    Returns
    -------
    Dataset [control, N, init]
        The counts, with ``probability``, ``probability_low`` and ``probability_high``; NaN where
        nothing has run. The interval takes runs of different seeds as independent, which they are,
        and replicas of a seed as far as they are: then ``effective_runs`` says how many independent
        runs would give this interval, see `pipeline.intervals.effective_runs`.
    """
    dims = counts["runs"].dims
    runs, recovered = counts["runs"].to_numpy(), counts["recovered"].to_numpy()
    method, worth = "Wilson", None
    if "replicas" in counts.coords:
        sums = [counts[field.name].to_numpy() for field in fields(SeedSums)]
        worth = effective_runs(SeedSums(*sums))
        method = "Wilson, of effective_runs"
        counts = counts.assign(effective_runs=(dims, worth))
        meaning = "independent runs that would know the probability as well as these runs do"
        _describe(counts, "effective_runs", meaning)
    low, high = wilson_interval(recovered, runs, worth)
    estimate = recovered / np.where(runs > 0, runs, np.nan)
    reduced = counts.assign(
        probability=(dims, estimate), probability_low=(dims, low), probability_high=(dims, high)
    )
    _describe(reduced, "probability", "probability of recovery")
    _describe_interval(reduced, "probability", method)
    return reduced


def half_recovery(cube: xr.Dataset, *, resamples: int = 1000) -> xr.Dataset:
    """Control parameter at which half of the runs recover, for each N and init.

    From a curve logistic in the log of the control parameter c, logit p = b0 + b1 log c, fitted to
    the counts; see `pipeline.transition.locate_half`. In log c, because that law misses measured
    curves less: over the nine curves of the quickstart campaign (48 seeds, N = 64, 128, 256) the
    deviance is 91.5 on 72 degrees of freedom, against 149.2 of a law logistic in c itself.

    Parameters
    ----------
    cube : Dataset
        As for `count_outcomes`, with all the seeds of the sizes it has, and labels c > 0.
    resamples : int
        Number of resamples of whole seeds behind each interval.

    Returns
    -------
    Dataset [N, init]
        With c the control parameter's name: ``c_half`` and ``c_width``, c(p = 0.9) - c(p = 0.1) of
        the curve, each with ``_low`` and ``_high``; ``logit_intercept`` b0 and ``logit_slope`` b1,
        which refer to log c; ``deviance`` of the fit and number of ``points``; ``crossing``, a
        `Crossing` code that says whether c_half was found or why not. Resamples depend on N and on
        the cube alone: the same cube gives the same numbers, in whatever order its labels are
        stored.

    Raises
    ------
    ReductionError
        As for `count_outcomes`, or if a label of c is not above 0.
    """
    control = control_name(cube)
    cube = _load_sorted(cube, control)
    finished, recovered, _ = _outcomes(cube)
    if "replica" in finished.dims:
        finished, recovered = finished.sum("replica"), recovered.sum("replica")
    order = ("N", "init", "seed", control)
    trials = finished.astype(np.int64).transpose(*order).to_numpy()
    successes = recovered.astype(np.int64).transpose(*order).to_numpy()
    x = cube[control].to_numpy().astype(np.float64)
    refused = x[~(x > 0)].tolist()
    if refused:
        raise ReductionError(
            f"half_recovery: expected labels of {control!r} above 0, since the fit is logistic in "
            f"log({control}), got {refused!r}; leave them out with cube.sel({control}=[…])"
        )
    # The same draws for every init, so that their differences on shared seeds stay paired.
    streams = [np.random.SeedSequence((crc32(b"half_recovery"), int(N))) for N in cube["N"]]
    found = [
        [
            locate_half(x, successes[i, j], trials[i, j], stream, resamples=resamples)
            for j in range(cube.sizes["init"])
        ]
        for i, stream in enumerate(streams)
    ]
    return _half_dataset(found, cube, control)


def reduce_size(cube: xr.Dataset, *, resamples: int = 1000) -> xr.Dataset:
    """All reductions of the cube of one size N: counts, probabilities and half-recovery points.

    Parameters
    ----------
    cube : Dataset
        One N of a store's cube, its N axis kept (``cube.sel(N=[128])``); it may be lazy, and only
        `status` and `recovered` are read.
    resamples : int
        As for `half_recovery`.

    Raises
    ------
    ReductionError
        If there is not exactly one N, or as for `count_outcomes`.
    """
    control = control_name(cube)
    if cube.sizes["N"] != 1:
        raise ReductionError(
            f"reduce_size: expected one N, got {cube['N'].to_numpy().tolist()!r}; "
            "select one with cube.sel(N=[…]), or call reduce_cube"
        )
    cube = _load_sorted(cube, control)
    reduced = recovery_probability(count_outcomes(cube))
    return reduced.merge(half_recovery(cube, resamples=resamples), compat="identical")


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
    for dim in (control, "init"):
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
    return whole.transpose(control, "N", "init").sortby([control, "N"])


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


def describe_runs(reduced: xr.Dataset) -> str:
    """How many runs stand behind a point, such as ``38–40 runs`` or ``48 seeds × 8 replicas``."""
    with_replicas = "replicas" in reduced.coords
    counts = reduced["seeds" if with_replicas else "runs"].to_numpy()
    started = counts[counts > 0].tolist() or [0]
    spread = "–".join(map(str, sorted({min(started), max(started)})))
    if with_replicas:
        return f"{spread} seeds × {int(reduced['replicas'])} replicas"
    return f"{spread} runs"


def _outcomes(cube: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Whether each run ended with a known outcome, recovered, or ended without an outcome.

    The one place that reads codes: what else may end a run (a horizon before T) belongs here.
    """
    absent = [name for name in ("status", "recovered") if name not in cube]
    if absent:
        raise ReductionError(
            f"cube: expected the variables status and recovered, got none named {absent!r}; "
            "pass the root group of a store"
        )
    done, known = cube["status"] == Status.DONE, cube["recovered"] >= 0
    finished = done & known
    failed = (cube["status"] == Status.FAILED) | (done & ~known)
    return finished, finished & (cube["recovered"] == 1), failed


def _load_sorted(cube: xr.Dataset, control: str) -> xr.Dataset:
    """The variables that are reduced, in memory, sorted by number; inits keep the store's order."""
    wanted = [name for name in ("status", "recovered") if name in cube]
    return cube[wanted].compute().sortby([control, "N", "seed"])


def _half_dataset(found: list[list[Transition]], cube: xr.Dataset, control: str) -> xr.Dataset:
    """Transitions [N, init] as labelled variables."""

    def column(name: str, dtype: type = np.float64) -> tuple[tuple[str, str], NDArray[Any]]:
        values = [[getattr(one, name) for one in row] for row in found]
        return ("N", "init"), np.array(values, dtype=dtype)

    halves = {
        f"{control}_{name}": column(name)
        for name in ("half", "half_low", "half_high", "width", "width_low", "width_high")
    }
    fits = {
        "logit_intercept": column("intercept"),
        "logit_slope": column("slope"),
        "deviance": column("deviance"),
        "points": column("points", np.int64),
        "crossing": column("crossing", np.int8),
    }
    reduced = xr.Dataset({**halves, **fits}, coords={"N": cube["N"], "init": cube["init"]})
    _describe(reduced, f"{control}_half", f"{control} at which half of the runs recover")
    _describe_interval(reduced, f"{control}_half", "resampled seeds")
    _describe(reduced, f"{control}_width", f"{control} from probability 0.1 to 0.9 of the fit")
    _describe_interval(reduced, f"{control}_width", "resampled seeds")
    _describe(reduced, "logit_intercept", f"b0 of logit p = b0 + b1 log({control})")
    _describe(reduced, "logit_slope", f"b1 of logit p = b0 + b1 log({control})")
    meaning = f"deviance of the fit, about points - 2 if the curve is logistic in log({control})"
    _describe(reduced, "deviance", meaning)
    _describe(reduced, "points", f"values of {control} that have runs")
    _describe(reduced, "crossing", "how the half-recovery point was found, or why it was not")
    reduced["crossing"].attrs["flag_values"] = [int(code) for code in Crossing]
    reduced["crossing"].attrs["flag_meanings"] = " ".join(code.name.lower() for code in Crossing)
    return reduced


def _describe(dataset: xr.Dataset, name: str, long_name: str) -> None:
    dataset[name].attrs = {"units": "1", "long_name": long_name}


def _describe_interval(dataset: xr.Dataset, name: str, method: str) -> None:
    for end, word in (("low", "lower"), ("high", "upper")):
        meaning = f"{word} end of the {LEVEL:.0%} interval of {name} ({method})"
        _describe(dataset, f"{name}_{end}", meaning)
