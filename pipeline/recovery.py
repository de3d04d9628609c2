"""From the cube of runs to recovery probabilities and half-recovery points, by sums that add.

Counts are made first and add over any split of the cube; the nonlinear part (intervals, fits)
comes once at the end.
"""

from dataclasses import fields
from typing import Any
from zlib import crc32

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.intervals import LEVEL, SeedSums, effective_runs, wilson_interval
from pipeline.outcomes import (
    control_name,
    describe,
    describe_interval,
    end_of_minima,
    outcomes,
)
from pipeline.transition import Crossing, Transition, locate_half


def count_outcomes(cube: xr.Dataset, horizon: float | None = None) -> xr.Dataset:
    """Numbers of runs, of recovered runs and of failed runs: sums, which add over blocks.

    Parameters
    ----------
    cube : Dataset
        `status` and `recovered` of any part of a store; other variables are not read. Pending and
        quarantined cells do not count.
    horizon : float, optional
        Time up to which a recovery counts, by default that of the runs; reads `hit_time` as well.

    Returns
    -------
    Dataset [control, N, init]
        ``runs``, ended with a known outcome; ``recovered`` of these; ``failed``, ended without one
        (numerical failure). Failed runs are counted apart: they are not among the runs. Where runs
        stop at minima, ``at_minimum``, those of the runs that did. Labels keep the cube's order.
        From a cube with replicas, whose runs are not independent, also the
        other sums of `pipeline.intervals.SeedSums`, which add over parts of the cube that do not
        split the replicas of a seed; and their number as the coordinate ``replicas``.

    Raises
    ------
    ReductionError
        If a variable is absent, the axes are not those of a cube, or the horizon is beyond T.
    """
    control = control_name(cube)
    found = outcomes(cube, horizon)
    finished, recovered, failed = found.finished, found.recovered, found.failed
    meanings = {
        "runs": (finished, "runs that ended with a known outcome"),
        "recovered": (recovered, "runs that recovered the signal"),
        "failed": (failed, "runs that failed numerically, not counted among the runs"),
    }
    if (last := end_of_minima(cube)) is not None:
        there = finished & (cube["recovered"] == 0) & (cube["time_end"] < last)
        meaning = "runs that ended before T, at a local minimum of the loss: they never recover"
        meanings["at_minimum"] = (there, meaning)
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
        describe(counts, name, meaning)
    if "replica" in cube.dims:
        counts = counts.assign_coords(replicas=cube.sizes["replica"])
        describe(counts, "replicas", "starts w(0) on each instance")
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
        describe(counts, "effective_runs", meaning)
    low, high = wilson_interval(recovered, runs, worth)
    estimate = recovered / np.where(runs > 0, runs, np.nan)
    reduced = counts.assign(
        probability=(dims, estimate), probability_low=(dims, low), probability_high=(dims, high)
    )
    describe(reduced, "probability", "probability of recovery")
    describe_interval(reduced, "probability", method, LEVEL)
    return reduced


def half_recovery(
    cube: xr.Dataset, *, horizon: float | None = None, resamples: int = 1000
) -> xr.Dataset:
    """Control parameter at which half of the runs recover, for each N and init.

    From a curve p = P(b0 + b1 c), c the control parameter, fitted to the counts; see
    `pipeline.recovery_curve` for the law and `pipeline.transition.locate_half` for the fit.

    Parameters
    ----------
    cube : Dataset
        As for `count_outcomes`, with all the seeds of the sizes it has.
    horizon : float, optional
        As for `count_outcomes`.
    resamples : int
        Number of resamples of whole seeds behind each interval.

    Returns
    -------
    Dataset [N, init]
        With c the control parameter's name: ``c_half`` and ``c_width``, c(p = 0.9) - c(p = 0.1) of
        the curve, each with ``_low`` and ``_high``; ``curve_intercept`` b0 and ``curve_slope`` b1;
        ``deviance`` of the fit and number of ``points``; ``crossing``, a `Crossing` code that says
        whether c_half was found or why not. Resamples depend on N and on the cube alone: the same
        cube gives the same numbers, in whatever order its labels are stored.

    Raises
    ------
    ReductionError
        As for `count_outcomes`.
    """
    control = control_name(cube)
    cube = load_sorted(cube)
    found = outcomes(cube, horizon)
    finished, recovered = found.finished, found.recovered
    if "replica" in finished.dims:
        finished, recovered = finished.sum("replica"), recovered.sum("replica")
    order = ("N", "init", "seed", control)
    trials = finished.astype(np.int64).transpose(*order).to_numpy()
    successes = recovered.astype(np.int64).transpose(*order).to_numpy()
    x = cube[control].to_numpy().astype(np.float64)
    # The same draws for every init, so that their differences on shared seeds stay paired.
    streams = [np.random.SeedSequence((crc32(b"half_recovery"), int(N))) for N in cube["N"]]
    halves = [
        [
            locate_half(x, successes[i, j], trials[i, j], stream, resamples=resamples)
            for j in range(cube.sizes["init"])
        ]
        for i, stream in enumerate(streams)
    ]
    return _half_dataset(halves, cube, control)


def describe_runs(reduced: xr.Dataset) -> str:
    """How many runs stand behind a point, such as ``38–40 runs`` or ``48 seeds × 8 replicas``."""
    with_replicas = "replicas" in reduced.coords
    counts = reduced["seeds" if with_replicas else "runs"].to_numpy()
    started = counts[counts > 0].tolist() or [0]
    spread = "–".join(map(str, sorted({min(started), max(started)})))
    if with_replicas:
        return f"{spread} seeds × {int(reduced['replicas'])} replicas"
    return f"{spread} runs"


def describe_ends(reduced: xr.Dataset) -> str:
    """How the runs ended that did not recover, in words; empty where none stop at minima."""
    if "at_minimum" not in reduced:
        return ""
    lost = int((reduced["runs"] - reduced["recovered"]).sum())
    there = int(reduced["at_minimum"].sum())
    left = f"{lost - there} had not by T" if lost > there else "so that no later time adds to them"
    return (
        f"of {lost} runs that did not recover {there} ended at a local minimum of the loss, where "
        f"the flow stays; {left}"
    )


def load_sorted(cube: xr.Dataset) -> xr.Dataset:
    """What is reduced, in memory, sorted by number; initialisations keep the store's order."""
    names = ("status", "recovered", "hit_time", "time_end")
    wanted = [name for name in names if name in cube]
    return cube[wanted].compute().sortby([control_name(cube), "N", "seed"])


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
        "curve_intercept": column("intercept"),
        "curve_slope": column("slope"),
        "deviance": column("deviance"),
        "points": column("points", np.int64),
        "crossing": column("crossing", np.int8),
    }
    reduced = xr.Dataset({**halves, **fits}, coords={"N": cube["N"], "init": cube["init"]})
    describe(reduced, f"{control}_half", f"{control} at which half of the runs recover")
    describe_interval(reduced, f"{control}_half", "resampled seeds", LEVEL)
    describe(reduced, f"{control}_width", f"{control} from probability 0.1 to 0.9 of the fit")
    describe_interval(reduced, f"{control}_width", "resampled seeds", LEVEL)
    describe(reduced, "curve_intercept", f"b0 of the predictor b0 + b1 {control}, 0 at one half")
    describe(reduced, "curve_slope", f"b1 of the predictor b0 + b1 {control}, 0 at one half")
    meaning = "deviance of the fit, about points - 2 if the curve has the law"
    describe(reduced, "deviance", meaning)
    describe(reduced, "points", f"values of {control} that have runs")
    describe(reduced, "crossing", "how the half-recovery point was found, or why it was not")
    reduced["crossing"].attrs["flag_values"] = [int(code) for code in Crossing]
    reduced["crossing"].attrs["flag_meanings"] = " ".join(code.name.lower() for code in Crossing)
    return reduced
