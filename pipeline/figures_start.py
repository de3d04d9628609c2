"""The Hessian at a random start against the control parameter, beside what theory says of it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.averages import average_seeds
from pipeline.figures_style import (
    THEORY_COLOUR,
    axis_labels,
    draw_points,
    figure_legend,
    figure_style,
    mark_vertical,
    new_figure,
    pick,
    set_title,
    size_colours,
)
from pipeline.figures_theory import StartSpectrum, spectrum_at_start, spiked_spectrum_at_start
from pipeline.reductions import control_name
from pipeline.results import Results

_MOST_ROWS = 3
_IN_A_LINE = 6  # entries of the legend
_BBP = r"$\alpha_\mathrm{BBP}^\mathrm{init}$"
_PANELS = {
    "lambda1_start": ("at a random start", r"lowest eigenvalue $\lambda_1$"),
    "alignment_start": ("towards the signal", r"alignment $(v_1 \cdot w^*)^2 / N$"),
    "gap": ("out of the bulk", r"gap $\lambda_2 - \lambda_1$"),
}


def has_random_starts(results: Results) -> bool:
    """Whether the store has the Hessian at random starts, for one value of the spiked constants."""
    starts = results.cube["init"].to_numpy().tolist()
    if {"delta_p", "m0"} & set(results.cube.dims):
        return False
    return "random" in starts and bool((results.reduced["runs"].sel(init="random") > 0).any())


def start_figure(results: Results) -> Figure:
    """λ₁ of the Hessian at a random w(0), its alignment, and how far λ₂ lies above it.

    Means over seeds with 95 % intervals for each N, and edge, outlier and overlap² of theory. For
    phase retrieval with a row for each loss parameter, at most three of them.
    """
    wanted = ["lambda1_start", "lambda2_start", "alignment_start"]
    cube = results.finished(results.cube[wanted]).sel(init=["random"])
    control = control_name(results.cube)
    cube = cube.load().squeeze("init", drop=True)
    cube = cube.assign(gap=cube["lambda2_start"] - cube["lambda1_start"])
    several = "a" in cube.dims
    values = pick(cube["a"].to_numpy().tolist(), _MOST_ROWS) if several else [results.a]
    with figure_style():
        figure, axes = new_figure(len(values), 3, height=2.2)
        for row, a in enumerate(values):
            panels = axes[3 * row : 3 * row + 3]
            part = cube.sel(a=a) if several else cube
            x = part[control].to_numpy()
            if results.model == "spiked_matrix_tensor":
                _draw_theory(panels, x, "flow", partial(_spiked_spectrum, results))
            elif results.model == "phase_retrieval" and a is not None:
                _draw_theory(panels, x, _BBP, partial(spectrum_at_start, a))
            _draw_means(panels, part, control)
            for k, (ax, (title, label)) in enumerate(zip(panels, _PANELS.values(), strict=True)):
                ax.set_xlabel(axis_labels(control)[0])
                ax.set_ylabel(label)
                set_title(ax, 3 * row + k, f"$a = {a:g}$" if several and not k else title)
            panels[1].set_ylim(0, min(1.0, panels[1].get_ylim()[1]))
            panels[2].set_ylim(bottom=0)
        entries = len(axes[0].get_legend_handles_labels()[1])
        figure_legend(figure, axes[0], ncols=entries if entries <= _IN_A_LINE else 4)
    return figure


def _spiked_spectrum(results: Results, snr: np.ndarray) -> StartSpectrum:
    delta_p, order = results.physics["parameters.delta_p"], results.physics["parameters.p"]
    return spiked_spectrum_at_start(float(delta_p), int(order), snr)


def _draw_theory(
    axes: list[Axes],
    x: np.ndarray,
    threshold: str,
    spectrum: Callable[[np.ndarray], StartSpectrum],
) -> None:
    """Lines for N → ∞, and the one above which there is an outlier, by its name."""
    dense = np.linspace(x.min(), x.max(), 400)
    theory = spectrum(dense)
    grey: Any = {"color": THEORY_COLOUR, "linewidth": 1.0, "zorder": 1}
    axes[0].plot(dense, theory.outlier, **grey, label=r"outlier, $N \to \infty$")
    axes[0].plot(dense, theory.edge, linestyle=":", **grey, label=r"edge, $N \to \infty$")
    axes[1].plot(dense, theory.overlap2, **grey)
    axes[2].plot(dense, theory.gap, **grey)
    if x.min() < theory.threshold < x.max():
        for ax in axes:
            mark_vertical(ax, {threshold: theory.threshold})


def _draw_means(axes: list[Axes], cube: xr.Dataset, control: str) -> None:
    means = average_seeds(cube)
    x, sizes = cube[control].to_numpy(), cube["N"].to_numpy()
    for N, colour in zip(sizes, size_colours(sizes), strict=True):
        for ax, name in zip(axes, _PANELS, strict=True):
            draw_points(ax, x, means.sel(N=N), name, color=colour, label=f"$N = {N}$")
