"""The phase diagram, of made-up cubes."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from pipeline.figures_phase_diagram import has_loss_axis, phase_diagram
from pipeline.reductions import reduce_cube
from pipeline.results import Results
from store.schema import Status

ALPHA = np.array([2.0, 3.0, 5.0, 9.0])
CONSTANTS = np.array([0.1, 1.0, 10.0])
DIMS = ("a", "alpha", "N", "seed", "init")


def make_results(constants: np.ndarray = CONSTANTS, model: str = "phase_retrieval") -> Results:
    shape = (len(constants), len(ALPHA), 2, 20, 3)
    rng = np.random.default_rng(0)
    half = 3.0 + np.log10(constants)[:, None, None, None, None] + np.arange(3)
    p = 1 / (1 + np.exp(-3 * (ALPHA[:, None, None, None] - half)))
    cube = xr.Dataset(
        {
            "status": (DIMS, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (DIMS, (rng.random(shape) < p).astype(np.int8)),
        },
        coords={
            "a": constants,
            "alpha": ALPHA,
            "N": [64, 128],
            "seed": np.arange(20),
            "init": ["random", "spectral", "constrained"],
        },
    )
    return Results(cube, reduce_cube(cube, resamples=50), {"model": model})


def test_probabilities_of_the_largest_size_with_half_points() -> None:
    results = make_results()
    figure = phase_diagram(results)
    assert len(figure.axes) == 4  # three initialisations and the colours
    part = results.reduced.sel(N=128, init="spectral")
    (cells,) = figure.axes[1].collections[:1]
    expected = part["probability"].transpose("a", "alpha").to_numpy()
    assert np.asarray(cells.get_array()) == pytest.approx(expected)
    points = figure.axes[1].containers[0].lines[0]
    assert points.get_xdata() == pytest.approx(part["alpha_half"].to_numpy())
    assert points.get_ydata() == pytest.approx(CONSTANTS)
    low, high = figure.axes[0].get_xlim()
    assert (low, high) == (1.5, 11.0)


def test_thresholds_are_those_of_theory() -> None:
    figure = phase_diagram(make_results())
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    for label, at_one in (("init", 1.1349), ("TS", 7.094)):
        x, y = map(np.asarray, lines[rf"$\alpha_\mathrm{{BBP}}^\mathrm{{{label}}}$"].get_data())
        assert np.interp(0.0, np.log(y), x) == pytest.approx(at_one, rel=0.01)
    other = phase_diagram(make_results(model="another_model"))
    assert not [line for line in other.axes[0].lines if "BBP" in str(line.get_label())]


def test_threshold_states_that_are_not_found_leave_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.theory.threshold_states._LARGEST", 0.2)
    figure = phase_diagram(make_results())
    (line,) = (line for line in figure.axes[0].lines if "TS" in str(line.get_label()))
    assert np.isnan(line.get_xdata()).any()


def test_no_text_lies_on_another(
    overlapping_texts: Callable[[Figure], list[tuple[str, str]]],
) -> None:
    assert overlapping_texts(phase_diagram(make_results())) == []


def test_it_wants_several_constants() -> None:
    assert has_loss_axis(make_results())
    assert not has_loss_axis(make_results(CONSTANTS[:1]))
    one = make_results()
    assert not has_loss_axis(Results(one.cube.isel(a=0), one.reduced.isel(a=0), {}))
