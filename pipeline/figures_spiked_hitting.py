"""Hitting times of the spiked model against ln(1/m(0)), and the growth rates that follow."""

from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.figures_style import (
    THEORY_COLOUR,
    Colour,
    figure_legend,
    figure_style,
    name_value,
    new_figure,
    set_title,
    value_colours,
)
from pipeline.outcomes import END_OF_RUNS
from pipeline.results import Results
from pipeline.spiked_hitting import growth_rates, mean_hitting_times, small_starts
from pipeline.theory.spiked_growth import fit_growth_rate, hitting_time
from pipeline.theory.spiked_landscape import gradient_flow_line
from pipeline.theory.spiked_model import make_spiked_model

_INIT: Final = "overlap"
_CURVE_POINTS: Final = 24
_FEWEST: Final = 4


def has_hitting_times(results: Results) -> bool:
    """Whether a store has descents of the spiked model from several overlaps that end in time."""
    return (
        results.model == "spiked_matrix_tensor"
        and "delta_p" not in results.cube.dims
        and "dynamics.learning_rate" in results.physics
        and results.cube.sizes.get("m0", 1) >= _FEWEST
        and _INIT in results.cube["init"].to_numpy()
        and float(results.physics["parameters.recovered"]) < 1
    )


def spiked_hitting_figure(results: Results) -> Figure:
    """Mean hitting times on the closed equations of the same descent, and √(r/Δ₂) against 1/Δ₂.

    Filled: the largest N, open: the others; a point where all seeds arrived by T. The rates r of
    the largest N are from `fit_growth_rate`, as those of the closed equations beside them (crosses,
    the same starts); dashed: 1/Δ₂ − σ, their limit for m(0) → 0, zero on the gradient-flow line.
    """
    cube = results.cube.sel(init=_INIT).load()
    cube = cube.sel(m0=cube["m0"] > 0).sortby(["m0", "snr", "N"])
    snrs = cube["snr"].to_numpy()
    with figure_style():
        figure, axes = new_figure(1, 2, height=3.4)
        for snr, colour in zip(snrs, value_colours(snrs), strict=True):
            _draw_times(axes[0], cube.sel(snr=snr), results, colour)
        axes[0].axhline(float(results.physics[END_OF_RUNS]), color="0.8", linewidth=0.6, zorder=0)
        axes[0].set_xlabel(r"$\ln(1/m(0))$")
        axes[0].set_ylabel("hitting time")
        axes[0].set_ylim(bottom=0)
        set_title(axes[0], 0, "hitting times", pad=4)
        _explain_sizes(axes[0], cube["N"].to_numpy())
        _draw_rates(axes[1], cube.isel(N=-1), results)
        set_title(axes[1], 1, "rates of growth", pad=4)
        figure_legend(figure, axes[0])
    return figure


def _step(results: Results) -> float:
    return float(results.physics["dynamics.learning_rate"])


def _hit(results: Results, snr: float, m0: float) -> float:
    """On the closed equations; NaN beyond T."""
    physics = results.physics
    model = make_spiked_model(
        snr, float(physics["parameters.delta_p"]), int(physics["parameters.p"])
    )
    step, level = _step(results), float(physics["parameters.recovered"])
    duration = np.ceil(float(physics[END_OF_RUNS]) / step - 1e-9) * step
    found = hitting_time(model, m0, level, duration=duration, step=step)
    return found if np.isfinite(found) else np.nan


def _draw_times(ax: Axes, cube: xr.Dataset, results: Results, colour: Colour) -> None:
    m0 = cube["m0"].to_numpy()
    snr = float(cube["snr"])
    dense = np.union1d(m0, np.geomspace(m0.min(), m0.max(), _CURVE_POINTS))
    curve = [_hit(results, snr, float(x)) for x in dense]
    ax.plot(-np.log(dense), curve, color=colour, linewidth=1.0, zorder=1)
    means = mean_hitting_times(cube, _step(results))
    for k in range(cube.sizes["N"]):
        one, largest = means.isel(N=k), k == cube.sizes["N"] - 1
        ax.errorbar(
            -np.log(m0),
            one["time"].to_numpy(),
            yerr=one["error"].to_numpy(),
            fmt="o",
            color=colour,
            markersize=3.2,
            markerfacecolor=colour if largest else "white",
            elinewidth=0.8,
            label=name_value("snr", snr) if largest else None,
            zorder=3 if largest else 2,
        )


def _explain_sizes(ax: Axes, sizes: np.ndarray) -> None:
    """Legend of filled and open points, without an entry for the colours."""
    handles = [
        Line2D([], [], marker="o", linestyle="", color="0.3", markersize=3.2, markerfacecolor=face)
        for face in ["white"] * (len(sizes) - 1) + ["0.3"]
    ]
    labels = [f"$N = {N}$" for N in sizes]
    ax.legend(handles, labels, frameon=False, loc="upper left")


def _draw_rates(ax: Axes, cube: xr.Dataset, results: Results) -> None:
    physics = results.physics
    delta_p, p = float(physics["parameters.delta_p"]), int(physics["parameters.p"])
    level, snrs = float(physics["parameters.recovered"]), cube["snr"].to_numpy()
    dense = np.linspace(snrs.min(), snrs.max(), 200)
    limit = [max(x - make_spiked_model(x, delta_p, p).sigma, 0.0) for x in dense.tolist()]
    ax.plot(dense, limit, color=THEORY_COLOUR, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    exact = gradient_flow_line(delta_p, p)
    found = growth_rates(cube, level, step=_step(results))
    root = np.sqrt(np.maximum(found.rate, 0) * found.snr)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(root > 0, found.error * found.snr / (2 * root), 0.0)
    ax.errorbar(
        found.snr, root, yerr=error, fmt="o", color="black", markersize=3.4, label="simulated"
    )
    means = mean_hitting_times(small_starts(cube, level))["time"]
    theory = []
    for snr in found.snr.tolist():
        m0 = means.sel(snr=snr).dropna("m0")["m0"].to_numpy()
        hits = np.array([_hit(results, snr, float(x)) for x in m0])
        arrived = np.isfinite(hits)
        theory.append(fit_growth_rate(-np.log(m0[arrived]), hits[arrived]))
    ax.plot(
        found.snr,
        np.sqrt(np.maximum(theory, 0) * found.snr),
        "x",
        color=THEORY_COLOUR,
        markersize=5,
        label="closed equations",
    )
    if np.isfinite(found.line):
        slope = np.polynomial.Polynomial.fit(found.snr, root, 1)
        along = np.array([found.line, found.snr.max()])
        ax.plot(along, slope(along), color="black", linewidth=0.7, zorder=2)
        ax.annotate(
            f"simulated line {found.line:.3f} ± {found.line_error:.3f}\ntheory {exact:.4f}",
            (0.04, 0.96),
            xycoords="axes fraction",
            va="top",
        )
    ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    ax.set_xlabel(r"$1/\Delta_2$")
    ax.set_ylabel(r"$\sqrt{r/\Delta_2}$")
    ax.legend(frameon=False, loc="lower right")
