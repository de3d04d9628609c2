"""Hitting times against ln(1/m0): known rates are found, and a real store has its figure."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from pipeline.campaign import parse_campaign
from pipeline.figures import draw_figures
from pipeline.figures_spiked_hitting import has_hitting_times
from pipeline.launch import Resources, launch
from pipeline.results import read_results
from pipeline.spiked_hitting import growth_rates, mean_hitting_times, small_starts

M0 = np.geomspace(0.04, 1e-4, 8)
SNR = np.array([1.2, 1.8, 2.2, 2.6])
LINE = 1.4

REAL = """
name = "hits"
model = "spiked_matrix_tensor"
entropy = 3

[parameters]
delta_p = 4.0
m0 = [0.1, 0.05, 0.02, 0.005, 0.001, 0.0003]

[grid]
snr = [2.2, 2.7]
N = [1000000000]
seeds = 4
inits = ["overlap"]

[dynamics]
method = "descent"
learning_rate = 0.2
T = 30.0
"""


def make_cube(rng: np.random.Generator, scatter: float) -> xr.Dataset:
    """Hitting times T with r T + T^(1/3) = ln(1/m0), r = (1/Δ₂ − line)²/Δ₂; none up to the line."""
    log = np.log(1 / M0)
    time = np.full((len(M0), len(SNR), 1, 12), np.inf)
    for k, snr in enumerate(SNR):
        if snr > LINE:
            dense = np.linspace(0, 1000, 200001)
            reached = (snr - LINE) ** 2 / snr * dense + np.cbrt(dense)
            exact = np.interp(log, reached, dense)
            time[:, k, 0] = exact[:, None] + scatter * rng.standard_normal((len(M0), 12))
    recovered = np.isfinite(time).astype(np.int8)
    dims = ("m0", "snr", "N", "seed")
    return xr.Dataset(
        {
            "hit_time": (dims, time),
            "recovered": (dims, recovered),
            "status": (dims, np.ones_like(recovered)),
        },
        coords={"m0": M0, "snr": SNR, "N": [10**10], "seed": np.arange(12)},
    )


def test_means_are_of_cells_in_which_all_runs_arrived() -> None:
    cube = make_cube(np.random.default_rng(0), 0.1)
    cube["recovered"][0, 2, 0, 3] = 0
    cube["status"][1, 2, 0, 3] = 3  # quarantined: no outcome, the others count
    means = mean_hitting_times(cube)
    assert means["time"].dims == ("m0", "snr", "N")
    assert means["time"].sel(snr=1.2).isnull().all()
    assert np.isnan(means["time"][0, 2, 0])
    rest = np.delete(cube["hit_time"].to_numpy()[1, 2, 0], 3)
    assert means["time"][1, 2, 0] == pytest.approx(rest.mean())
    assert means["error"][1, 2, 0] == pytest.approx(rest.std(ddof=1) / np.sqrt(11), rel=0.1)


def test_rates_and_their_line_are_found_with_honest_errors() -> None:
    rng = np.random.default_rng(1)
    exact = growth_rates(make_cube(rng, 0.0).isel(N=0), 0.2)
    assert exact.snr.tolist() == [1.8, 2.2, 2.6]
    assert exact.rate == pytest.approx((exact.snr - LINE) ** 2 / exact.snr, rel=1e-3)
    assert (exact.line, exact.line_error) == pytest.approx((LINE, 0.0), abs=1e-3)
    found = [growth_rates(make_cube(rng, 0.3).isel(N=0), 0.2) for _ in range(12)]
    scores = [(one.line - LINE) / one.line_error for one in found]
    assert np.mean(scores) == pytest.approx(0, abs=1.0)
    assert 0.4 < np.std(scores) < 2.2
    replicas = make_cube(rng, 0.0).isel(N=0).expand_dims(replica=2)
    assert growth_rates(replicas, 0.2).rate == pytest.approx(exact.rate)


def test_starts_buried_in_the_noise_or_not_small_are_not_fitted() -> None:
    cube = make_cube(np.random.default_rng(3), 0.0).isel(N=0)
    assert small_starts(cube, 0.2).m0.to_numpy() == pytest.approx(M0[::-1])
    fewer = small_starts(cube.assign_coords(N=10**8), 0.1).m0.to_numpy()
    assert fewer == pytest.approx([m0 for m0 in M0[::-1] if 8e-4 <= m0 <= 0.025])


def test_without_two_growing_rates_there_is_no_line() -> None:
    cube = make_cube(np.random.default_rng(2), 0.0).isel(N=0)
    alone = growth_rates(cube.sel(snr=[1.2, 2.2]), 0.2)
    assert len(alone.rate) == 1
    assert np.isnan(alone.line)


def test_the_figure_of_a_real_store(tmp_path: Path) -> None:
    path = tmp_path / "hits.zarr"
    campaign = parse_campaign(REAL, source="hits")
    launch(campaign, path, console=Console(quiet=True), resources=Resources("synchronous"))
    results = read_results(path)
    assert has_hitting_times(results)
    (drawn,) = draw_figures(results)
    assert drawn.name == "spiked_hitting_times"
    figure = drawn.figure
    curves, rates = figure.axes
    lines = [line.get_xydata() for line in curves.lines]
    for curve, points in (lines[0:2], lines[2:4]):
        known = np.isfinite(points[:, 1])
        theory = np.interp(points[known, 0], curve[::-1, 0], curve[::-1, 1])
        np.testing.assert_allclose(points[known, 1], theory, rtol=0.06, atol=0.1)
        assert known.sum() >= 5
    (words,) = (text.get_text() for text in rates.texts)
    simulated = float(words.split("line ")[1].split(" ")[0])
    assert simulated == pytest.approx(1.366, rel=0.05)
