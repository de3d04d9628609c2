"""The figure of the window on the equator, of made-up stores."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from pipeline.figures_window import has_window, window_figure
from pipeline.reductions import reduce_cube
from pipeline.results import Results
from store.schema import Status

ALPHA = np.linspace(1.0, 4.5, 8)
SIZES = np.array([64, 128, 256])
TIMES = np.array([0.0, 0.1, 1.0, 10.0, 100.0])
DIMS = ("alpha", "N", "seed", "init")


def make_results(inits: tuple[str, ...] = ("random",)) -> Results:
    """The outlier is lost at t = 10^(α − 2), G_max = exp(α), half points at 2 α = log N − 1."""
    shape = (len(ALPHA), len(SIZES), 30, len(inits))
    rng = np.random.default_rng(0)
    half = (np.log(SIZES)[None, :, None, None] - 1) / 2
    p = 1 / (1 + np.exp(-4 * (ALPHA[:, None, None, None] - half)))
    coords = {"alpha": ALPHA, "N": SIZES, "seed": np.arange(30), "init": list(inits)}
    cube = xr.Dataset(
        {
            "status": (DIMS, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (DIMS, (rng.random(shape) < p).astype(np.int8)),
            "overlap": (DIMS, np.full(shape, 0.5)),
        },
        coords=coords,
    )
    full = (*shape, len(TIMES))
    lines = ALPHA[:, None] - 2 - np.log10(np.maximum(TIMES, 1e-3))
    margin = np.broadcast_to(lines[:, None, None, None], full) + 0.01 * rng.normal(size=full)
    gain = np.exp(ALPHA[:, None] * TIMES / 100)[:, None, None, None] * np.ones(full)
    along = xr.Dataset(
        {
            "overlap": ((*DIMS, "time"), 0.1 * np.ones(full)),
            "bbp_margin_equator": ((*DIMS, "time"), margin),
            "gain": ((*DIMS, "time"), gain),
        },
        coords={**coords, "time": TIMES},
    )
    return Results(
        cube, reduce_cube(cube, resamples=50), {"model": "phase_retrieval"}, trajectory=along
    )


def test_the_panels_show_what_was_reduced() -> None:
    results = make_results()
    figure = window_figure(results)
    margin, gain, lost, half = figure.axes
    assert len(margin.lines) == 7  # six control values and 0
    assert gain.lines[0].get_ydata() == pytest.approx(np.exp(TIMES[1:] / 100), rel=1e-3)
    points = lost.containers[0].lines[0]
    seen = np.isfinite(points.get_ydata())
    expected = 10 ** (ALPHA - 2)
    inside = (expected > 0.1) & (expected < 100)
    assert np.asarray(points.get_ydata())[inside] == pytest.approx(expected[inside], rel=0.1)
    assert not seen[expected > 100].any()
    measured = half.containers[0].lines[0]
    assert measured.get_ydata() == pytest.approx(
        results.reduced["alpha_half"].sel(init="random").to_numpy()
    )
    (predicted,) = (line for line in half.lines if line.get_label() == "from the gain")
    assert predicted.get_ydata() == pytest.approx((np.log(SIZES) - 1) / 2, abs=0.15)


def test_no_text_lies_on_another(
    overlapping_texts: Callable[[Figure], list[tuple[str, str]]],
) -> None:
    assert overlapping_texts(window_figure(make_results())) == []


def test_it_wants_random_starts_on_the_equator() -> None:
    results = make_results()
    assert has_window(results)
    assert not has_window(make_results(("spectral",)))
    assert not has_window(Results(results.cube, results.reduced, {}))
    assert results.trajectory is not None
    without = results.trajectory.drop_vars("bbp_margin_equator")
    assert not has_window(Results(results.cube, results.reduced, {}, trajectory=without))
    results.trajectory["bbp_margin_equator"][:] = np.nan
    assert not has_window(results)
