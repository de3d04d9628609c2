"""Averages along the runs, the time the outlier is lost, and what the gain predicts."""

import numpy as np
import pytest
import xarray as xr

from pipeline.along import average_runs, predict_half, window
from pipeline.averages import average_seeds
from store.schema import Status

TIMES = np.array([0.0, 1.0, 10.0, 100.0])
DIMS = ("alpha", "N", "seed", "init")


def make_store(
    margin: np.ndarray, gain: np.ndarray, alpha: tuple[float, ...] = (2.0, 3.0)
) -> tuple[xr.Dataset, xr.Dataset]:
    """Cube and trajectory of one N and init from margin and gain [alpha, seed, time]."""
    shape = (len(alpha), 1, margin.shape[1], 1)
    coords = {
        "alpha": list(alpha),
        "N": [64],
        "seed": np.arange(margin.shape[1]),
        "init": ["random"],
    }
    cube = xr.Dataset(
        {
            "status": (DIMS, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (DIMS, np.zeros(shape, dtype=np.int8)),
            "overlap": (DIMS, np.full(shape, 0.5)),
        },
        coords=coords,
    )
    along = {
        name: ((*DIMS, "time"), values[:, None, :, None, :])
        for name, values in {
            "bbp_margin_equator": margin,
            "gain": gain,
            "overlap": -0.1 * np.ones_like(margin),
            "lambda1": margin - 1,
        }.items()
    }
    return cube, xr.Dataset(along, coords={**coords, "time": TIMES})


def test_mean_of_seeds_has_the_interval_of_student() -> None:
    values = np.array([[1.0, 2.0, 4.0, np.nan], [3.0, np.nan, np.nan, np.nan]])
    averaged = average_seeds(xr.Dataset({"x": (("alpha", "seed"), values)}))
    assert averaged["x"].to_numpy() == pytest.approx([7 / 3, 3.0])
    # standard error 0.8819, quantile 4.3027 of two degrees of freedom
    assert float(averaged["x_high"][0] - averaged["x"][0]) == pytest.approx(3.7948, abs=1e-3)
    assert np.isnan(averaged["x_low"][1])


def test_replicas_of_a_seed_count_as_one() -> None:
    values = np.random.default_rng(0).normal(size=(1, 6))
    seeds = xr.Dataset({"x": (("alpha", "seed"), values)})
    replicas = xr.Dataset(
        {"x": (("alpha", "seed", "replica"), np.repeat(values[..., None], 5, -1))}
    )
    for name in ("x", "x_low", "x_high"):
        expected = average_seeds(seeds)[name].to_numpy()
        assert average_seeds(replicas)[name].to_numpy() == pytest.approx(expected)


def test_intervals_cover_at_their_level() -> None:
    values = np.random.default_rng(1).normal(size=(4000, 5))
    averaged = average_seeds(xr.Dataset({"x": (("alpha", "seed"), values)}))
    covered = (averaged["x_low"] < 0) & (averaged["x_high"] > 0)
    assert float(covered.mean()) == pytest.approx(0.95, abs=0.01)


def test_ended_runs_keep_their_overlap_and_leave_the_other_means() -> None:
    ones = np.ones((2, 4, 4))
    cube, along = make_store(ones, ones)
    for name in ("overlap", "lambda1"):
        along[name][0, 0, 0, 0, 2:] = np.nan
    cube["overlap"][0, 0, 0, 0] = 0.99
    cube["status"][1, 0, 0, 0] = Status.FAILED
    along["lambda1"][0, 0, 1, 0, 3] = 3.0
    mean = average_runs(cube, along).sel(N=64, init="random")
    assert mean["under_way"].sel(alpha=2.0).to_numpy() == pytest.approx([1, 1, 0.75, 0.75])
    assert mean["overlap"].sel(alpha=2.0).to_numpy() == pytest.approx([0.1, 0.1, 0.3225, 0.3225])
    assert mean["lambda1"].sel(alpha=2.0).to_numpy() == pytest.approx([0, 0, 0, 1])
    assert mean["under_way"].sel(alpha=3.0).to_numpy() == pytest.approx(1)
    assert "bulk_edge" not in mean


def test_the_outlier_is_lost_where_the_mean_margin_vanishes() -> None:
    margin = np.empty((2, 4, 4))
    margin[0] = [1.0, 0.5, -0.5, 0.2]
    margin[1] = [1.0, -1.0, -1.0, -1.0]
    found = window(*make_store(margin, np.ones_like(margin)))
    # halfway between 1 and 10 on a logarithmic axis, between 0 and 1 on a line
    assert found["t_bbp"].to_numpy().ravel() == pytest.approx([np.sqrt(10), 0.5])
    assert found["t_bbp_low"].to_numpy() == pytest.approx(found["t_bbp"].to_numpy())
    margin[0], margin[1] = 1.0, -1.0
    found = window(*make_store(margin, np.ones_like(margin)))
    assert found["t_bbp"].to_numpy().ravel().tolist() == [np.inf, 0.0]


def test_the_interval_of_the_loss_covers_at_its_level() -> None:
    rng = np.random.default_rng(2)
    line = np.log(10) - np.log(np.maximum(TIMES, 0.1))  # vanishes at t = 10
    hits = []
    for _ in range(200):
        margin = np.broadcast_to(line, (1, 20, 4)) + rng.normal(size=(1, 20, 1))
        found = window(*make_store(margin, np.ones_like(margin), alpha=(2.0,)), resamples=200)
        hits.append(bool((found["t_bbp_low"] <= 10) & (found["t_bbp_high"] >= 10)))
    assert np.mean(hits) == pytest.approx(0.93, abs=0.045)


def test_the_gain_is_that_of_the_typical_run() -> None:
    gain = np.exp(np.array([[[0.0, 1.0, 2.0, 1.0], [0.0, 1.0, 3.0, 4.0]]]))
    gain[0, 1] *= -1
    found = window(*make_store(np.ones_like(gain), gain, alpha=(2.0,)))
    assert float(found["log_gain"].squeeze()) == pytest.approx(3.0)
    assert float(found["rising"].squeeze()) == pytest.approx(0.5)


def test_a_seed_without_a_trajectory_does_not_count() -> None:
    margin = np.ones((1, 2, 4))
    margin[0, 1] = np.nan
    found = window(*make_store(margin, np.ones_like(margin), alpha=(2.0,)))
    assert float(found["t_bbp"].squeeze()) == np.inf
    assert np.isnan(float(found["t_bbp_low"].squeeze()))
    margin[:] = np.nan
    assert np.isnan(float(window(*make_store(margin, margin, alpha=(2.0,)))["t_bbp"].squeeze()))


def test_half_points_follow_from_the_gain() -> None:
    alpha = np.linspace(1.0, 5.0, 9)
    sizes = np.array([64, 256, 1024, 4096])
    found = xr.Dataset(
        {"log_gain": (("alpha", "N"), np.stack([np.zeros(9), 2 * alpha], axis=1))},
        coords={"alpha": alpha, "N": [64, 1024]},
    )
    # 4 α = log N + 2, but for one size; the largest is beyond the values followed
    half = (np.log(sizes) + 2) / 4
    half[1] += 0.3
    half[3] = 6.0
    reduced = xr.Dataset(
        {"alpha_half": (("N", "init"), half[:, None]), "x": ("alpha", alpha)},
        coords={"alpha": alpha, "N": sizes, "init": ["random"]},
    )
    predicted = predict_half(found, reduced)
    assert predicted["constant"].to_numpy() == pytest.approx([2, 3.2, 2, np.nan], nan_ok=True)
    assert predicted["predicted"].to_numpy() == pytest.approx((np.log(sizes) + 2.4) / 4)
    held_out = np.array([2.6, 2.0, 2.6, 2.4])
    assert predicted["held_out"].to_numpy() == pytest.approx((np.log(sizes) + held_out) / 4)


def test_a_gain_that_dips_is_made_to_ascend() -> None:
    found = xr.Dataset(
        {"log_gain": (("alpha", "N"), np.array([[1.0], [3.0], [2.9], [5.0]]))},
        coords={"alpha": [1.0, 2.0, 3.0, 4.0], "N": [64]},
    )
    reduced = xr.Dataset(
        {"alpha_half": (("N", "init"), [[3.5]]), "x": ("alpha", [1.0, 2.0, 3.0, 4.0])},
        coords={"alpha": [1.0, 2.0, 3.0, 4.0], "N": [64], "init": ["random"]},
    )
    assert float(predict_half(found, reduced)["predicted"][0]) == pytest.approx(3.0)
