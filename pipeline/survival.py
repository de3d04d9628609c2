"""Recovery by earlier times than T: what the hitting times say, and whether T was long enough.

A run that has not recovered is censored at T, which is common to all runs of a store. Up to any
horizon t ≤ T therefore every run is under observation, the estimate of Kaplan and Meier (J. Am.
Stat. Assoc. 53, 1958) is the proportion recovered by t, and its interval that of a proportion. Runs
that failed numerically have no time at which they were last seen, and are counted apart.
"""

from collections.abc import Sequence
from typing import Final

import xarray as xr

from pipeline.intervals import LEVEL
from pipeline.outcomes import (
    control_name,
    describe,
    describe_interval,
    end_of_minima,
    end_of_runs,
)
from pipeline.recovery import count_outcomes, half_recovery, recovery_probability

DIVISORS: Final = (8, 4, 2, 1)
"""T over the horizons of the reductions."""

DIVISORS_TO_MINIMA: Final = (300, 100, 30, 10, 3, 1)
"""The same where runs stop at minima: T is then far beyond the time at which most have ended."""


def survival(
    cube: xr.Dataset, horizons: Sequence[float] | None = None, *, resamples: int = 1000
) -> xr.Dataset:
    """Probability of recovery by a horizon t and half-recovery point at it, for t up to T.

    Parameters
    ----------
    cube : Dataset
        `status`, `recovered` and `hit_time`, with all the seeds of the sizes it has, and the time T
        of its runs among its attributes, as `store.cube.open_store` gives it.
    horizons : sequence of float, optional
        Times in units of the flow, ascending, up to T; by default T over `DIVISORS`, or over
        `DIVISORS_TO_MINIMA`.
    resamples : int
        As for `pipeline.recovery.half_recovery`; the resampled seeds are the same at all horizons.

    Returns
    -------
    Dataset [control, N, init, horizon]
        ``recovered_by``, ``probability_by`` with ``_low`` and ``_high``; with c the control
        parameter's name, ``c_half_by`` [N, init, horizon] with ``_low`` and ``_high``. Where c_half
        still falls between the last two, longer runs would move it on. Empty if the cube has no
        hitting times or does not say when its runs end.

    Raises
    ------
    ReductionError
        If a horizon is not between 0 and T, or as for `half_recovery`.
    """
    last = end_of_runs(cube)
    if last is None or "hit_time" not in cube:
        return xr.Dataset()
    control = control_name(cube)
    divisors = DIVISORS if end_of_minima(cube) is None else DIVISORS_TO_MINIMA
    times = list(horizons) if horizons is not None else [last / by for by in divisors]
    parts = []
    for time in times:
        by = recovery_probability(count_outcomes(cube, time))
        half = half_recovery(cube, horizon=time, resamples=resamples)
        names = {"recovered": "recovered_by"}
        names |= {f"probability{end}": f"probability_by{end}" for end in ("", "_low", "_high")}
        names |= {
            f"{control}_half{end}": f"{control}_half_by{end}" for end in ("", "_low", "_high")
        }
        both = by.merge(half)
        parts.append(both[list(names)].rename(names).drop_vars("replicas", errors="ignore"))
    axis = xr.Variable("horizon", times, {"units": "1", "long_name": "time in units of the flow"})
    curve = xr.concat(parts, dim=axis).transpose(..., "horizon")
    describe(curve, "recovered_by", "runs that recovered the signal by the horizon")
    describe(curve, "probability_by", "probability of recovery by the horizon")
    describe_interval(curve, "probability_by", "Wilson", LEVEL)
    describe(curve, f"{control}_half_by", f"{control} at which half recover by the horizon")
    describe_interval(curve, f"{control}_half_by", "resampled seeds", LEVEL)
    return curve
