"""Recovery by earlier horizons, against Kaplan and Meier and a known law of hitting times."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import CensoredData, ecdf, norm

from pipeline.outcomes import ReductionError, outcomes
from pipeline.recovery import half_recovery
from pipeline.recovery_curve import probability
from pipeline.reductions import reduce_cube
from pipeline.survival import survival
from store.schema import Status

T = 100.0
ALPHA = (1.5, 2.0, 2.5, 3.0, 4.0, 6.0)


HALF_AT_T = 1.6


def predictor(alpha: np.ndarray, time: float) -> np.ndarray:
    """η of the recovery by a time: a start |Z| is amplified at the rate 0.05 (α - 1)."""
    return 0.05 * (alpha - 1) * time - 5 * (HALF_AT_T - 1)


def make_cube(seeds: int = 40, *, seed: int = 0) -> xr.Dataset:
    """Runs of |Z| exp(0.05 (α - 1) t) up to a bound that half of them pass by T at α = 1.6."""
    rng = np.random.default_rng(seed)
    dims = ("alpha", "N", "seed", "init")
    start = np.abs(rng.standard_normal((len(ALPHA), 2, seeds, 2)))
    to_grow = np.maximum(np.log(norm.ppf(0.75) / start) + 5 * (HALF_AT_T - 1), 0)
    hit = to_grow / (0.05 * (np.array(ALPHA) - 1)).reshape(-1, 1, 1, 1)
    recovered = (hit <= T).astype(np.int8)
    return xr.Dataset(
        {
            "status": (dims, np.full(hit.shape, int(Status.DONE), np.int8)),
            "recovered": (dims, recovered),
            "hit_time": (dims, np.where(recovered == 1, hit, np.inf)),
        },
        coords={
            "alpha": np.array(ALPHA),
            "N": [64, 128],
            "seed": range(seeds),
            "init": np.array(["random", "spectral"], dtype=np.dtypes.StringDType()),
        },
        attrs={"physics": {"dynamics.T": T}},
    )


def test_survival_is_that_of_kaplan_and_meier() -> None:
    cube = make_cube()
    times = [3.0, 10.0, 30.0, 99.0, T]
    curve = survival(cube, times, resamples=1)
    for alpha in (2.0, 4.0):
        cell = cube.sel(alpha=alpha, N=128, init="spectral")
        hit = cell["hit_time"].to_numpy()
        censored = CensoredData.right_censored(np.minimum(hit, T), hit > T)
        expected = ecdf(censored).cdf.evaluate(times)
        found = curve["probability_by"].sel(alpha=alpha, N=128, init="spectral")
        assert found.to_numpy() == pytest.approx(expected, abs=1e-12)


def test_the_last_horizon_is_the_whole_run_and_halves_fall_with_time() -> None:
    reduced = reduce_cube(make_cube(100), resamples=100)
    assert reduced["horizon"].to_numpy().tolist() == [T / 8, T / 4, T / 2, T]
    at_end = reduced.sel(horizon=T)
    for name in ("probability", "probability_low", "alpha_half", "alpha_half_high"):
        by = name.replace("probability", "probability_by").replace("half", "half_by")
        np.testing.assert_array_equal(at_end[by], reduced[name])
    halves = reduced["alpha_half_by"]
    assert halves.notnull().all()
    assert (halves.diff("horizon") < 0).all()
    truth = 1 + (HALF_AT_T - 1) * T / halves["horizon"].to_numpy()
    assert halves.mean(["N", "init"]).to_numpy() == pytest.approx(truth, rel=0.05)


def test_intervals_at_a_horizon_hold_the_truth() -> None:
    held = []
    for seed in range(20):
        curve = survival(make_cube(30, seed=seed), [20.0], resamples=2).isel(horizon=0)
        truth = curve["alpha"].copy(data=probability(predictor(np.array(ALPHA), 20.0)))
        held.append(
            (curve["probability_by_low"] <= truth) & (truth <= curve["probability_by_high"])
        )
    share = float(np.mean([np.mean(one) for one in held]))
    assert 0.92 < share < 0.99


def test_failed_runs_are_not_censored_runs() -> None:
    cube = make_cube()
    cube["status"].loc[{"seed": slice(0, 9)}] = int(Status.FAILED)
    cube["recovered"].loc[{"seed": slice(0, 9)}] = -1
    cube["hit_time"].loc[{"seed": slice(0, 9)}] = np.nan
    rest = cube.sel(seed=slice(10, None))
    xr.testing.assert_identical(survival(cube, [20.0]), survival(rest, [20.0]))


@pytest.mark.parametrize("horizon", [0.0, -1.0, 100.5, float("nan")])
def test_a_horizon_beyond_the_runs_is_refused(horizon: float) -> None:
    with pytest.raises(ReductionError, match=r"above 0 and up to T = 100\.0, got"):
        half_recovery(make_cube(5), horizon=horizon)


def test_a_horizon_needs_hitting_times() -> None:
    with pytest.raises(ReductionError, match=r"got none named \['hit_time'\]"):
        outcomes(make_cube(3).drop_vars("hit_time"), 10.0)


def test_a_cube_that_does_not_say_when_its_runs_end_has_no_survival() -> None:
    assert not survival(make_cube(3).drop_attrs())
    assert not survival(make_cube(3).drop_vars("hit_time"))
