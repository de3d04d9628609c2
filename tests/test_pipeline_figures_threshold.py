"""The figure of threshold states, of made-up stores."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from pipeline.figures_threshold import has_threshold_states, threshold_figure
from pipeline.reductions import reduce_cube
from pipeline.results import Results
from store.schema import Status

ALPHA = np.array([3.0, 6.0])
SIZES = np.array([64, 128, 256])
TIMES = np.geomspace(0.1, 300.0, 12)
DIMS = ("alpha", "N", "seed", "init")


def make_results(inits: tuple[str, ...] = ("random", "constrained")) -> Results:
    """Energy 0.04 + 1/N + 0.2/t, edge −2/t, λ₁ = 1/N at release; a little noise."""
    shape = (len(ALPHA), len(SIZES), 6, len(inits))
    rng = np.random.default_rng(0)
    inverse = 1 / SIZES[:, None, None]
    coords = {"alpha": ALPHA, "N": SIZES, "seed": np.arange(6), "init": list(inits)}
    cube = xr.Dataset(
        {
            "status": (DIMS, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (DIMS, np.zeros(shape, dtype=np.int8)),
            "overlap": (DIMS, np.full(shape, 0.5)),
            "lambda1_start": (DIMS, inverse + 1e-4 * rng.normal(size=shape)),
        },
        coords=coords,
    )
    full = (*shape, len(TIMES))
    noise = 1e-4 * rng.normal(size=(*shape, 1))
    along = {
        "overlap": np.full(full, 0.1),
        "loss_equator": 0.04 + inverse[..., None] + 0.2 / TIMES + noise,
        "bulk_edge_equator": -2 / TIMES + noise,
    }
    trajectory = xr.Dataset(
        {name: ((*DIMS, "time"), values) for name, values in along.items()},
        coords={**coords, "time": TIMES},
    )
    physics = {"model": "phase_retrieval", "parameters.a": 1.0}
    return Results(cube, reduce_cube(cube, resamples=50), physics, trajectory=trajectory)


def test_means_limits_and_theory() -> None:
    results = make_results()
    figure = threshold_figure(results)
    assert len(figure.axes) == 6
    energy, edge, released = figure.axes[3:]  # α = 6
    assert results.trajectory is not None
    mean = results.trajectory["loss_equator"].sel(alpha=6.0, N=128, init="random").mean("seed")
    assert energy.lines[1].get_ydata() == pytest.approx(mean.to_numpy())
    limit = energy.containers[0].lines[0]
    assert limit.get_ydata() == pytest.approx([0.04], abs=2e-4)
    assert edge.containers[0].lines[0].get_ydata() == pytest.approx([0], abs=2e-3)
    # energy of the specification, and marginal states
    assert energy.lines[-1].get_ydata()[0] == pytest.approx(0.080, abs=5e-4)
    assert edge.lines[-1].get_ydata()[0] == pytest.approx(0, abs=1e-8)
    points = [container.lines[0].get_ydata()[0] for container in released.containers]
    assert points == pytest.approx(1 / SIZES, abs=2e-4)
    low, high = energy.get_ylim()
    assert low < 0.04
    assert high > 0.08


def test_no_text_lies_on_another(
    overlapping_texts: Callable[[Figure], list[tuple[str, str]]],
) -> None:
    assert overlapping_texts(threshold_figure(make_results())) == []


def test_it_wants_both_starts_and_the_equator() -> None:
    results = make_results()
    assert has_threshold_states(results)
    assert not has_threshold_states(make_results(("random",)))
    assert not has_threshold_states(Results(results.cube, results.reduced, {}))
    assert results.trajectory is not None
    without = results.trajectory.drop_vars("loss_equator")
    assert not has_threshold_states(Results(results.cube, results.reduced, {}, trajectory=without))
    results.trajectory["loss_equator"][:] = np.nan
    assert not has_threshold_states(results)
