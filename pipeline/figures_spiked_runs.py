"""Runs of the spiked matrix-tensor model on the closed equations of N → ∞."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.figures_style import THEORY_COLOUR, figure_style, size_colours
from pipeline.results import Results
from pipeline.spiked_hessian import lowest_eigenvalue
from pipeline.theory.spiked_descent import Dynamics, descend
from pipeline.theory.spiked_flow import follow_flow
from pipeline.theory.spiked_landscape import (
    gradient_flow_line,
    hessian_edges,
    hessian_outlier,
    message_passing_line,
    triviality_line,
)
from pipeline.theory.spiked_model import SpikedModel, make_spiked_model

_INIT: Final = "overlap"
_ROWS: Final = {
    "overlap $m$": ("overlap",),
    r"multiplier $\mu$": ("multiplier",),
    "energies per $N$": ("matrix_energy", "tensor_energy"),
    r"lowest eigenvalue $\lambda_1$": ("lambda1",),
}
_SYMBOLS: Final = {"matrix_energy": "$e_2$", "tensor_energy": "$e_p$"}
_MOST_COLUMNS: Final = 3
_FLOW_STEPS: Final = 400
_HESSIANS: Final = 150  # times at which λ₁ is worked out for the curve
_LONGEST: Final = 60.0


def spiked_lines(results: Results) -> dict[str, float]:
    """Label → 1/Δ₂ of the lines of the phase diagram at the Δ_p of a store."""
    delta_p, p = _constants(results)
    return {
        "AMP": message_passing_line(delta_p, p),
        "flow": gradient_flow_line(delta_p, p),
        "trivial": triviality_line(delta_p, p),
    }


def has_spiked_runs(results: Results) -> bool:
    """Whether a store has runs of the spiked model from a given overlap, followed in time."""
    return (
        results.model == "spiked_matrix_tensor"
        and results.trajectory is not None
        and _INIT in results.cube["init"].to_numpy()
    )


def spiked_dynamics_figure(results: Results) -> Figure:
    """m, μ, energies, λ₁ against time, for up to three 1/Δ₂: means over seeds on theory's curves.

    Bars are standard errors. Solid: closed equations for N → ∞, for λ₁ of descents what an instance
    without fluctuations has; dotted: the edge of the bulk; dashed: the outlier if the noise did not
    know of the descent.
    """
    if results.trajectory is None:
        raise ValueError("expected a store with the group `trajectory`, got one without")
    runs = results.finished(results.trajectory).sel(init=_INIT)
    snrs = runs["snr"].to_numpy()[:_MOST_COLUMNS]
    with figure_style():
        figure = Figure(figsize=(7.0, 7.4), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(_ROWS), len(snrs), squeeze=False, sharex=True)
        for column, snr in zip(grid.T, snrs, strict=True):
            curves = _theory(results, float(snr), float(runs["time"].max()))
            observed = _observe(runs.sel(snr=snr), _constants(results)[1])
            for ax, names in zip(column, _ROWS.values(), strict=True):
                for name in names:
                    _draw_theory(ax, curves, name)
                    _draw_means(ax, observed[name], labelled=name == names[0])
            column[0].set_title(rf"$1/\Delta_2 = {snr:g}$", loc="left")
            column[-1].set_xlabel("time")
        for ax, label in zip(grid[:, 0], _ROWS, strict=True):
            ax.set_ylabel(label)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False)
    return figure


def _constants(results: Results) -> tuple[float, int]:
    physics = results.physics
    return float(physics["parameters.delta_p"]), int(physics["parameters.p"])


def _theory(results: Results, snr: float, duration: float) -> Mapping[str, np.ndarray]:
    """Curves by name, and their times."""
    delta_p, p = _constants(results)
    model = make_spiked_model(snr, delta_p, p)
    overlap = float(results.physics["parameters.m0"])
    found = _follow(results, model, overlap, duration)
    edge, _ = hessian_edges(model, found.multiplier)
    outlier, _ = hessian_outlier(model, found.multiplier, found.overlap)
    return {
        "time": found.time,
        "overlap": found.overlap,
        "multiplier": found.multiplier,
        "matrix_energy": found.matrix_energy,
        "tensor_energy": found.tensor_energy,
        "lambda1": _lowest(results, model, overlap, found.time),
        "edge": edge,
        "outlier": outlier,
    }


def _lowest(results: Results, model: SpikedModel, overlap: float, time: np.ndarray) -> np.ndarray:
    """λ₁ at the times of a descent; NaN where it is not worked out: flows, p > 3, long runs."""
    rate, lowest = results.physics.get("dynamics.learning_rate"), np.full(len(time), np.nan)
    if rate is not None and model.order == 3 and time[-1] <= _LONGEST:
        some = np.unique(np.geomspace(1, len(time), _HESSIANS).astype(int) - 1)
        at = lowest_eigenvalue(model, overlap, time[some], float(rate))
        lowest = np.interp(time, time[some], at)
    return lowest


def _follow(results: Results, model: SpikedModel, overlap: float, duration: float) -> Dynamics:
    rate = results.physics.get("dynamics.learning_rate")
    if rate is None:
        return follow_flow(model, overlap, duration=duration, step=duration / _FLOW_STEPS)
    step = float(rate)
    return descend(model, overlap, duration=np.ceil(duration / step - 1e-9) * step, step=step)


def _observe(runs: xr.Dataset, p: int) -> dict[str, xr.DataArray]:
    """What is drawn of the runs, each [N, seed, time]: e₂ and e_p from e and μ = −2e₂ − p e_p."""
    mu = -runs["multiplier"]  # the store has the kernel's sign, w·∇H/N
    tensor = -(mu + 2 * runs["loss"]) / (p - 2)
    return {
        "overlap": runs["overlap"],
        "multiplier": mu,
        "matrix_energy": runs["loss"] - tensor,
        "tensor_energy": tensor,
        "lambda1": runs["lambda1"],
    }


def _draw_theory(ax: Axes, curves: Mapping[str, np.ndarray], name: str) -> None:
    ax.plot(curves["time"], curves[name], color=THEORY_COLOUR, linewidth=1.0, zorder=1)
    if name == "lambda1":
        ax.plot(curves["time"], curves["outlier"], "--", color=THEORY_COLOUR, linewidth=1.0)
        ax.plot(curves["time"], curves["edge"], ":", color=THEORY_COLOUR, linewidth=1.0)
    if name in _SYMBOLS:
        end = (1.0, float(curves[name][-1]))
        ax.annotate(
            _SYMBOLS[name],
            end,
            xycoords=ax.get_yaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    last = float(curves["time"][-1])
    ax.set_xscale("symlog", linthresh=0.5, linscale=0.4)
    ax.set_xlim(0, 1.05 * last)
    ticks = [0.0, *(10.0**k for k in range(6) if 10.0**k <= last)]
    ax.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])


def _draw_means(ax: Axes, observed: xr.DataArray, *, labelled: bool) -> None:
    sizes = observed["N"].to_numpy()
    for N, colour in zip(sizes, size_colours(sizes), strict=True):
        values = observed.sel(N=N)
        over = [dim for dim in values.dims if dim != "time"]
        count = values.notnull().sum(over)
        mean, error = values.mean(over), values.std(over, ddof=1) / np.sqrt(count)
        ax.errorbar(
            values["time"],
            mean,
            yerr=error,
            fmt="o",
            color=colour,
            markersize=2.8,
            elinewidth=0.8,
            label=f"$N = {N}$" if labelled else None,
            zorder=3,
        )
