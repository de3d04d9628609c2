"""The figures along the runs, of made-up stores."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from pipeline.figures_trajectory import (
    has_hessian_along,
    has_trajectory,
    hessian_figure,
    overlap_figure,
)
from pipeline.reductions import reduce_cube
from pipeline.results import Results
from store.schema import Status

TIMES = np.array([0.0, 0.1, 1.0, 10.0, 100.0])
INITS = ("random", "spectral", "constrained")
DIMS = ("alpha", "N", "seed", "init")


def make_results(
    alphas: int = 4,
    sizes: tuple[int, ...] = (64, 128),
    inits: tuple[str, ...] = INITS,
    *,
    labels: bool = True,
) -> Results:
    """All runs of the first α end between t = 1 and 10, the others stay."""
    alpha = np.linspace(2, 5, alphas)
    shape = (alphas, len(sizes), 3, len(inits))
    coords = {"alpha": alpha, "N": list(sizes), "seed": np.arange(3), "init": list(inits)}
    cube = xr.Dataset(
        {
            "status": (DIMS, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (DIMS, np.zeros(shape, dtype=np.int8)),
            "overlap": (DIMS, np.full(shape, 0.99)),
        },
        coords=coords,
    )
    rng = np.random.default_rng(0)
    names = ["overlap", "loss", "lambda1", "lambda2", "alignment"]
    names += ["bulk_edge", "outlier"] if labels else []
    values = {name: rng.random((*shape, len(TIMES))) for name in names}
    values["lambda1"] -= 2
    for name in names:
        values[name][0, ..., 3:] = np.nan
    along = xr.Dataset(
        {name: ((*DIMS, "time"), array) for name, array in values.items()},
        coords={**coords, "time": TIMES},
    )
    return Results(cube, reduce_cube(cube), {"model": "phase_retrieval"}, trajectory=along)


def test_overlap_of_every_size_and_init() -> None:
    results = make_results()
    figure = overlap_figure(results)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        rf"({letter}) $\alpha = {value:g}$"
        for letter, value in zip("abcd", range(2, 6), strict=True)
    ]
    lines = figure.axes[0].lines
    assert len(lines) == 6
    assert lines[0].get_xdata().tolist() == TIMES[1:].tolist()
    assert results.trajectory is not None
    mean = results.trajectory["overlap"].isel(alpha=0, N=0, init=0).mean("seed").to_numpy()
    # ended runs count with their last overlap
    assert lines[0].get_ydata() == pytest.approx([*mean[1:3], 0.99, 0.99])
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == ["$N = 64$", "$N = 128$", *INITS]


def test_at_most_four_panels() -> None:
    titles = [ax.get_title(loc="left") for ax in overlap_figure(make_results(9)).axes]
    assert len(titles) == 4
    assert titles[0].endswith("= 2$")
    assert titles[-1].endswith("= 5$")


def test_eigenvalues_end_where_half_of_the_runs_have() -> None:
    results = make_results()
    figure = hessian_figure(results, "random")
    assert len(figure.axes) == 8
    # two sizes with λ₁ and λ₂, edge and outlier of the labels, the line at 0
    assert len(figure.axes[0].lines) == 7
    ended, stay = (figure.axes[k].lines[0].get_ydata() for k in (0, 1))
    assert np.isfinite(ended).tolist() == [True, True, False, False]
    assert np.isfinite(stay).all()
    assert results.trajectory is not None
    edge = results.trajectory["bulk_edge"].sel(N=128, init="random").isel(alpha=1).mean("seed")
    assert figure.axes[1].lines[4].get_ydata() == pytest.approx(edge.to_numpy()[1:])
    assert len(hessian_figure(make_results(labels=False), "random").axes[0].lines) == 5


def test_no_text_lies_on_another(
    overlapping_texts: Callable[[Figure], list[tuple[str, str]]],
) -> None:
    many = make_results(4, (64, 256, 1024, 4096, 100_000))
    for figure in (overlap_figure(many), hessian_figure(many, "random")):
        assert overlapping_texts(figure) == []


def test_a_wide_legend_takes_more_rows() -> None:
    figure = hessian_figure(make_results(4, (1000, 4000, 20_000, 100_000)), "random")
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_of_two_seeds_each_run_is_drawn() -> None:
    three = make_results(inits=("random",))
    two = slice(0, 2)
    assert three.trajectory is not None
    results = replace(
        three, cube=three.cube.isel(seed=two), trajectory=three.trajectory.isel(seed=two)
    )
    lines = overlap_figure(results).axes[1].lines
    assert len(lines) == 4  # of two sizes
    run = three.trajectory["overlap"].isel(alpha=1, N=0, seed=1, init=0, time=slice(1, None))
    assert lines[1].get_ydata() == pytest.approx(run.to_numpy())
    figure = hessian_figure(results, "random")
    ended = [line.get_ydata() for line in figure.axes[4].lines]
    assert [np.isfinite(y).tolist() for y in ended] == [[True, True, False, False]] * 4


def test_they_want_times_and_eigenvalues() -> None:
    results = make_results(inits=("random",))
    assert has_trajectory(results)
    assert has_hessian_along(results, "random")
    assert not has_hessian_along(results, "spectral")
    assert results.trajectory is not None
    results.trajectory["lambda1"][:] = np.nan
    assert not has_hessian_along(results, "random")
    nothing = Results(results.cube, results.reduced, {})
    assert not has_trajectory(nothing)
    assert not has_hessian_along(nothing, "random")
