"""Recovery over two parameters: the signal-to-noise ratio and the constant of the loss."""

from contextlib import suppress
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from pipeline.figures_style import axis_labels, figure_legend, figure_style, new_figure, set_title
from pipeline.reductions import control_name
from pipeline.results import Results
from pipeline.theory.bbp import bbp_at_initialisation
from pipeline.theory.laws import Array
from pipeline.theory.threshold_states import ThresholdStateError, bbp_at_threshold

_CURVE_POINTS: Final = 30
_LINES: Final = {
    r"$\alpha_\mathrm{BBP}^\mathrm{init}$": ("--", bbp_at_initialisation),
    r"$\alpha_\mathrm{BBP}^\mathrm{TS}$": ("-", bbp_at_threshold),
}


def has_loss_axis(results: Results) -> bool:
    """Whether the store has several constants of the loss."""
    return "a" in results.cube.dims and results.cube.sizes["a"] > 1


def phase_diagram(results: Results) -> Figure:
    """Recovery probability over (control parameter, a) at the largest N, a panel for each init.

    With the half-recovery points and their 95 % intervals, and the BBP thresholds of theory.
    """
    reduced = results.reduced.isel(N=-1)
    control = control_name(results.reduced)
    inits = reduced["init"].to_numpy().tolist()
    curves: dict[str, Array] = {}
    with figure_style():
        figure, axes = new_figure(1, len(inits), height=2.7, share=True)
        for k, (ax, init) in enumerate(zip(axes, inits, strict=True)):
            colours = _draw_cells(ax, reduced.sel(init=init), control)
            if results.model == "phase_retrieval":
                constants = np.geomspace(*ax.get_ylim(), _CURVE_POINTS)
                curves = curves or _threshold_curves(constants)
                _draw_thresholds(ax, constants, curves)
            _draw_half_points(ax, reduced.sel(init=init), control)
            set_title(ax, k, init, pad=4)
            ax.set_xlabel(axis_labels(control)[0])
        axes[0].set_ylabel("constant $a$ of the loss")
        figure.colorbar(colours, ax=axes, label=f"recovery probability, $N = {int(reduced['N'])}$")
        figure_legend(figure, axes[0])
    return figure


def _draw_cells(ax: Axes, part: xr.Dataset, control: str) -> QuadMesh:
    """Probability of each cell, in the colours of cividis."""
    x, y = part[control].to_numpy(), part["a"].to_numpy()
    edges = (_cell_edges(x), np.exp(_cell_edges(np.log(y))))
    probability = part["probability"].transpose("a", control).to_numpy()
    ax.set_yscale("log")
    return ax.pcolormesh(*edges, probability, cmap="cividis", vmin=0, vmax=1, rasterized=True)


def _cell_edges(labels: Array) -> Array:
    """Halfway between labels, and as far beyond the first and the last."""
    middle = (labels[1:] + labels[:-1]) / 2
    if not middle.size:
        return np.array([labels[0] - 0.5, labels[0] + 0.5])
    return np.concatenate([[2 * labels[0] - middle[0]], middle, [2 * labels[-1] - middle[-1]]])


def _threshold_curves(constants: Array) -> dict[str, Array]:
    """Label → control parameter of both BBP thresholds for each a; NaN where none is found."""
    curves = {}
    for label, (_, threshold) in _LINES.items():
        curves[label] = np.full(len(constants), np.nan)
        for k, a in enumerate(constants):
            with suppress(ThresholdStateError):
                curves[label][k] = threshold(float(a))
    return curves


def _draw_thresholds(ax: Axes, constants: Array, curves: dict[str, Array]) -> None:
    """The curves as far as they lie within the panel."""
    limits = ax.get_xlim()
    for label, found in curves.items():
        line, _ = _LINES[label]
        ax.plot(found, constants, color="white", linestyle=line, linewidth=2.6, zorder=3)
        look: Any = {"color": "#D55E00", "linestyle": line, "linewidth": 1.4, "zorder": 4}
        ax.plot(found, constants, label=label, **look)
    ax.set_xlim(*limits)


def _draw_half_points(ax: Axes, part: xr.Dataset, control: str) -> None:
    half, low, high = (part[f"{control}_half{end}"].to_numpy() for end in ("", "_low", "_high"))
    ends = np.nan_to_num([half - low, high - half], nan=0.0, posinf=0.0)
    ax.errorbar(
        half,
        part["a"].to_numpy(),
        xerr=np.maximum(ends, 0.0),
        fmt="o",
        color="white",
        markeredgecolor="black",
        ecolor="white",
        markersize=3.6,
        elinewidth=1.0,
        zorder=5,
        label=axis_labels(control)[1],
    )
