"""Along the descents: averages of what is seen of the runs, and what closes their window.

On the equator m = 0 the labels of a run give the bulk's edge and the signal's outlier at each time
(spec, sections 5 and 8): the outlier is lost at t_BBP, and the gain G of a small overlap stops
rising. G_max(α) predicts the half-recovery point: 2 log G_max(α_½) = log N + const.
"""

from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.averages import average_seeds
from pipeline.intervals import LEVEL
from pipeline.outcomes import control_name, describe, describe_interval, outcomes

Floats = NDArray[np.float64]

RUNS: Final = ("lambda1", "lambda2", "alignment", "loss", "bulk_edge", "outlier")
"""Observables of runs under way."""

EQUATOR: Final = (
    "loss_equator",
    "bulk_edge_equator",
    "outlier_equator",
    "bbp_margin_equator",
    "gain",
)
"""Observables of the trajectory that is held at m = 0; it does not end with the run."""


def follow_runs(cube: xr.Dataset, trajectory: xr.Dataset) -> xr.Dataset:
    """What `average_runs` averages, of each run: [control, N, seed, init, time], NaN if it failed.

    Parameters
    ----------
    cube, trajectory : Dataset
        As for `average_runs`.
    """
    finished = outcomes(cube[["status", "recovered"]].load()).finished
    wanted = [name for name in (*RUNS, *EQUATOR) if name in trajectory]
    runs = trajectory[["overlap", *wanted]].load().where(finished)
    under_way = runs["overlap"].notnull()
    final = cube["overlap"].load().where(finished)
    runs["overlap"] = abs(runs["overlap"]).where(under_way, final)
    runs["overlap"].attrs["long_name"] = "|m|, after the end of a run its last value"
    if "gain" in runs:
        runs["log_gain"] = xr.apply_ufunc(np.log, abs(runs["gain"]))
        runs["log_gain"].attrs["long_name"] = "log |G|, G the signal gain"
    for name in (*EQUATOR, "log_gain"):
        if name in runs and not bool(runs[name].notnull().any()):
            runs = runs.drop_vars(name)
    return runs


def average_runs(cube: xr.Dataset, trajectory: xr.Dataset) -> xr.Dataset:
    """Means over seeds along the runs, each with its 95 % interval.

    Parameters
    ----------
    cube : Dataset
        Root group of a store.
    trajectory : Dataset
        Its group of that name.

    Returns
    -------
    Dataset [control, N, init, time]
        ``under_way``: share of the runs that have not ended. ``overlap``: |m|, of an ended run what
        it ended with. `RUNS`, as far as the store has them: over the runs under way; `EQUATOR`, and
        ``log_gain``, log |G|: the gain of the typical run, since few runs make its mean.
    """
    runs = follow_runs(cube, trajectory)
    finished = runs["overlap"].notnull()
    under_way = trajectory["overlap"].load().notnull() & finished
    averaged = average_seeds(runs)
    inside = [dim for dim in ("seed", "replica") if dim in under_way.dims]
    averaged["under_way"] = under_way.sum(inside) / finished.sum(inside)
    describe(averaged, "under_way", "share of the runs that have not ended")
    return averaged


def window(cube: xr.Dataset, trajectory: xr.Dataset, *, resamples: int = 400) -> xr.Dataset:
    """How long the signal's outlier lives on the equator, and how far it amplifies an overlap.

    Of the runs that start at random; a store that followed their gain has them.

    Parameters
    ----------
    cube, trajectory : Dataset
        As for `average_runs`.
    resamples : int
        Number of resamples of whole seeds behind the interval of t_BBP.

    Returns
    -------
    Dataset [control, N]
        ``t_bbp``: time at which the margin between outlier and edge, averaged over seeds, vanishes,
        with its interval; 0 where there is no outlier at the first time, infinite where there is
        one at the last. ``log_gain``: mean over seeds of log max_t |G(t)|, with its interval: the
        gain of the typical run, since half recovery is a median. ``rising``: share of the runs
        whose gain is largest at the last time, so that a longer run would have more.
    """
    finished = outcomes(cube[["status", "recovered"]].load()).finished
    runs = trajectory[["bbp_margin_equator", "gain"]].where(finished).sel(init="random", drop=True)
    runs = runs.load()
    size = abs(runs["gain"])
    log_gain: xr.DataArray = xr.apply_ufunc(np.log, size.max("time"))
    found = average_seeds(xr.Dataset({"log_gain": log_gain}))
    describe(found, "log_gain", "mean over seeds of log max_t |G(t)|, G the signal gain")
    last = size.isel(time=-1) >= size.max("time")
    known = log_gain.notnull()
    inside = [dim for dim in ("seed", "replica") if dim in known.dims]
    found["rising"] = last.where(known).mean(inside)
    describe(found, "rising", "share of the runs whose gain is largest at the last time")

    margin = runs["bbp_margin_equator"]
    if "replica" in margin.dims:
        margin = margin.mean("replica")
    times = margin["time"].to_numpy()
    ends = xr.apply_ufunc(
        lambda part: _loss_times(times, part, resamples),
        margin,
        input_core_dims=[["seed", "time"]],
        output_core_dims=[["end"]],
        vectorize=True,
    )
    for k, name in enumerate(("t_bbp", "t_bbp_low", "t_bbp_high")):
        found[name] = ends.isel(end=k)
    describe(found, "t_bbp", "time at which the outlier on the equator is lost")
    describe_interval(found, "t_bbp", "resampled seeds", LEVEL)
    return found


def predict_half(window: xr.Dataset, reduced: xr.Dataset) -> xr.Dataset:
    """Half-recovery points of random starts that the gain predicts: 2 log G_max = log N + const.

    G_max(α) is that of the largest N followed, made to ascend. The constant is the mean over the
    sizes whose half-recovery point was found; held out, over the other ones.

    Parameters
    ----------
    window : Dataset
        From `window`.
    reduced : Dataset
        From `pipeline.reductions.reduce_cube`, of the same store or another one.

    Returns
    -------
    Dataset [N]
        ``constant`` of each size, ``predicted`` and ``held_out`` half-recovery points; NaN where
        nothing was found, or beyond the values of the control parameter that were followed.
    """
    control = control_name(reduced)
    gain = 2 * window["log_gain"].isel(N=-1).dropna(control)
    doubled = np.maximum.accumulate(gain.to_numpy())
    values = gain[control].to_numpy()
    half = reduced[f"{control}_half"].sel(init="random").to_numpy()
    logs = np.log(reduced["N"].to_numpy().astype(float))
    constants = np.interp(half, values, doubled, left=np.nan, right=np.nan) - logs
    known = np.isfinite(constants)

    def invert(level: Floats) -> Floats:
        # the least value at which the gain suffices, where it stays level for a while
        first = np.concatenate([[True], np.diff(doubled) > 0])
        return np.asarray(
            np.interp(level, doubled[first], values[first], left=np.nan, right=np.nan)
        )

    everywhere = np.full(len(logs), constants[known].mean() if known.any() else np.nan)
    others = [
        constants[known & (np.arange(len(logs)) != k)].mean() if known.sum() > known[k] else np.nan
        for k in range(len(logs))
    ]
    predicted = xr.Dataset(
        {
            "constant": ("N", constants),
            "predicted": ("N", invert(logs + everywhere)),
            "held_out": ("N", invert(logs + np.array(others))),
        },
        coords={"N": reduced["N"]},
    )
    describe(predicted, "constant", f"2 log G_max - log N at {control}_half")
    describe(predicted, "predicted", f"{control}_half from the mean constant")
    describe(predicted, "held_out", f"{control}_half from the mean constant of the other sizes")
    return predicted


def _loss_times(times: Floats, margin: Floats, resamples: int) -> Floats:
    """Time at which the mean margin vanishes, and the ends of its interval; margin [seeds, times].

    Percentiles of resampled seeds, see `pipeline.transition.locate_half`.
    """
    margin = margin[np.isfinite(margin).all(axis=1)]
    seeds = len(margin)
    if not seeds:
        return np.full(3, np.nan)
    found = _first_loss(times, margin.mean(axis=0))
    if seeds == 1:
        return np.array([found, np.nan, np.nan])
    random = np.random.Generator(np.random.Philox(len(margin)))
    draws = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    resampled = [_first_loss(times, mean) for mean in draws @ margin]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return np.array([found, min(low, found), max(high, found)])


def _first_loss(times: Floats, margin: Floats) -> float:
    """Time at which the margin falls to 0 first, between times on a log axis (from 0 on a line)."""
    if margin[0] <= 0:
        return 0.0
    lost = np.flatnonzero(margin <= 0)
    if not lost.size:
        return np.inf
    after = int(lost[0])
    share = margin[after - 1] / (margin[after - 1] - margin[after])
    before, then = times[after - 1], times[after]
    if before == 0:
        return float(share * then)
    return float(before * (then / before) ** share)
