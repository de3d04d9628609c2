"""The figure of the Hessian at random starts, of made-up cubes."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from pipeline.figures_start import has_random_starts, start_figure
from pipeline.figures_theory import spectrum_at_start, spiked_spectrum_at_start
from pipeline.reductions import reduce_cube
from pipeline.results import Results
from store.schema import Status

ALPHA = np.array([0.5, 1.0, 2.0, 4.0])
DIMS = ("alpha", "N", "seed", "init")


def make_results(model: str = "phase_retrieval", inits: tuple[str, ...] = ("random",)) -> Results:
    """λ₁ = −α − noise, λ₂ = λ₁ + 0.5, alignment α/8."""
    shape = (len(ALPHA), 2, 5, len(inits))
    noise = np.random.default_rng(0).random(shape)
    lambda1 = -ALPHA[:, None, None, None] - noise
    alignment = np.broadcast_to(ALPHA[:, None, None, None] / 8, shape)
    cube = xr.Dataset(
        {
            "status": (DIMS, np.full(shape, int(Status.DONE), dtype=np.int8)),
            "recovered": (DIMS, np.zeros(shape, dtype=np.int8)),
            "lambda1_start": (DIMS, lambda1),
            "lambda2_start": (DIMS, lambda1 + 0.5),
            "alignment_start": (DIMS, alignment.copy()),
        },
        coords={"alpha": ALPHA, "N": [64, 128], "seed": np.arange(5), "init": list(inits)},
    )
    physics = {"model": model} | ({"parameters.a": 1.0} if model == "phase_retrieval" else {})
    return Results(cube, reduce_cube(cube), physics)


def test_means_and_intervals_are_those_of_the_cube() -> None:
    results = make_results()
    figure = start_figure(results)
    assert len(figure.axes) == 3
    points, _, (bars,) = figure.axes[0].containers[1].lines
    lambda1 = results.cube["lambda1_start"].sel(N=128, init="random")
    assert points.get_ydata() == pytest.approx(lambda1.mean("seed").to_numpy())
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    reach = 2.7764 * lambda1.std("seed", ddof=1).to_numpy() / np.sqrt(5)
    assert ends[:, 1] - ends[:, 0] == pytest.approx(2 * reach, rel=1e-4)
    assert figure.axes[1].containers[0].lines[0].get_ydata() == pytest.approx(ALPHA / 8)
    assert figure.axes[2].containers[0].lines[0].get_ydata() == pytest.approx(0.5)


def test_theory_is_drawn_where_there_is_one() -> None:
    figure = start_figure(make_results())
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    x, y = lines[r"edge, $N \to \infty$"].get_data()
    theory = spectrum_at_start(1.0, np.array([1.0, 3.0]))
    assert np.interp([1.0, 3.0], x, y) == pytest.approx(theory.edge, abs=1e-3)
    assert theory.outlier == pytest.approx([np.nan, -5.624], abs=5e-4, nan_ok=True)
    assert theory.gap == pytest.approx([0, 0.0711], abs=5e-4)
    assert theory.threshold == pytest.approx(1.1349, abs=5e-5)
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert texts == [r"$\alpha_\mathrm{BBP}^\mathrm{init}$"] * 3
    other = start_figure(make_results("another_model"))
    assert not any(ax.texts for ax in other.axes)


def test_the_spectrum_of_the_spiked_model_at_a_random_start() -> None:
    theory = spiked_spectrum_at_start(1.0, 3, np.array([1.5, 2.5]))
    assert theory.edge == pytest.approx([-2 * np.sqrt(3.5), -2 * np.sqrt(4.5)])
    assert theory.outlier == pytest.approx([np.nan, -2.5 - 4.5 / 2.5], nan_ok=True)
    assert theory.gap == pytest.approx([0, 4.3 - 2 * np.sqrt(4.5)])
    assert theory.overlap2 == pytest.approx([0, 1 - 4.5 / 2.5**2])
    assert theory.threshold == pytest.approx(2.0)


def test_a_row_for_each_of_three_parameters_at_most() -> None:
    one = make_results()
    wide = one.cube.expand_dims(a=[0.01, 0.1, 1.0, 10.0])
    several = Results(wide, reduce_cube(wide), {"model": "phase_retrieval"})
    assert has_random_starts(several)
    figure = start_figure(several)
    titles = [ax.get_title(loc="left") for ax in figure.axes[::3]]
    assert titles == ["(a) $a = 0.01$", "(d) $a = 1$", "(g) $a = 10$"]


def test_no_text_lies_on_another(
    overlapping_texts: Callable[[Figure], list[tuple[str, str]]],
) -> None:
    assert overlapping_texts(start_figure(make_results())) == []


def test_it_wants_random_starts() -> None:
    assert has_random_starts(make_results())
    assert not has_random_starts(make_results(inits=("spectral",)))
    one = make_results()
    several = one.cube.expand_dims(delta_p=[1.0, 4.0])
    assert not has_random_starts(Results(several, reduce_cube(several), {}))
