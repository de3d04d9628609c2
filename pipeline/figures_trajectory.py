"""What happens along the runs: the overlap, the lowest Hessian eigenvalues, the signal in them."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.along import average_runs, follow_runs
from pipeline.figures_style import (
    THEORY_COLOUR,
    draw_band,
    figure_style,
    line_legend,
    name_value,
    new_figure,
    pick,
    set_title,
    size_colours,
)
from pipeline.reductions import control_name
from pipeline.results import Results

_TIME: Final = "time $t$ (units of the flow)"
_MOST_PANELS: Final = 4
_LINES: Final = ("-", "--", ":", "-.")
# means over runs under way say little where few are left
_FEWEST_UNDER_WAY: Final = 0.5
_FEWEST_SEEDS: Final = 3  # with fewer each run is drawn: their intervals would fill the panels


def has_trajectory(results: Results) -> bool:
    """Whether the store shows runs at two times or more."""
    along = results.trajectory
    return along is not None and along.sizes["time"] > 1


def has_hessian_along(results: Results, init: str) -> bool:
    """Whether it also has the Hessian's lowest eigenvalues there, for this initialisation."""
    along = results.trajectory
    if along is None or along.sizes["time"] < 2 or init not in along["init"].to_numpy().tolist():
        return False
    return bool(along["lambda1"].sel(init=init).notnull().any())


def overlap_figure(results: Results) -> Figure:
    """|m| against time, a panel for each of at most four control values, a line for N and init.

    Means over seeds in bands of their intervals; of one or two seeds, each run.
    """
    means, draw = _average(results), _drawing(results)
    control = control_name(results.cube)
    values = pick(means[control].to_numpy().tolist(), _MOST_PANELS)
    sizes, inits = means["N"].to_numpy(), means["init"].to_numpy().tolist()
    with figure_style():
        figure, axes = new_figure(1, len(values), height=2.4, share=True)
        for k, (ax, value) in enumerate(zip(axes, values, strict=True)):
            for N, colour in zip(sizes, size_colours(sizes), strict=True):
                for init, line in zip(inits, _LINES, strict=False):
                    part = means.sel({control: value, "N": N, "init": init})
                    draw(ax, part, "overlap", color=colour, linestyle=line)
            _set_heading(ax, k, control, value)
            ax.set_xlabel(_TIME)
            ax.set_yscale("log")
        lowest = float(means["overlap"].where(means["overlap"] > 0).min())
        axes[0].set_ylim(max(lowest, 0.1 / np.sqrt(sizes.max())) / 1.3, 1.3)
        axes[0].set_ylabel("overlap $|m|$")
        several = [
            (init, {"color": "0.2", "linestyle": line})
            for init, line in zip(inits, _LINES, strict=False)
        ]
        line_legend(figure, [*_size_entries(sizes), *(several if len(inits) > 1 else [])])
    return figure


def hessian_figure(results: Results, init: str) -> Figure:
    """λ₁ and λ₂ against time above the signal's alignment, of runs of one initialisation.

    Means over the runs under way, up to where half of them have ended, in bands of their intervals;
    of one or two seeds, each run. With the bulk's edge and the
    outlier that the labels of the runs give, of the largest N, where the store has them.
    """
    means, draw = _average(results).sel(init=init), _drawing(results)
    means = means.where(means["under_way"] >= _FEWEST_UNDER_WAY)
    control = control_name(results.cube)
    values = pick(means[control].to_numpy().tolist(), _MOST_PANELS)
    sizes = means["N"].to_numpy()
    entries = [*_size_entries(sizes), (r"$\lambda_1$", {"color": "0.2"})]
    entries += [(r"$\lambda_2$", {"color": "0.2", "linestyle": "--"})]
    with figure_style():
        figure, axes = new_figure(2, len(values), height=2.0, share=True)
        for k, value in enumerate(values):
            upper, lower = axes[k], axes[len(values) + k]
            for N, colour in zip(sizes, size_colours(sizes), strict=True):
                part = means.sel({control: value, "N": N})
                draw(upper, part, "lambda1", color=colour)
                draw(upper, part, "lambda2", color=colour, linestyle="--")
                draw(lower, part, "alignment", color=colour)
            largest = means.sel({control: value}).isel(N=-1)
            marks = _draw_labels_spectrum(upper, largest)
            upper.axhline(0, color="0.8", linewidth=0.6, zorder=0)
            upper.set_yscale("symlog", linthresh=0.1, linscale=0.5)
            _set_heading(upper, k, control, value)
            set_title(lower, len(values) + k, pad=4)
            lower.set_xlabel(_TIME)
        upper.set_ylim(top=max(0.1, 1.5 * float(means["lambda2"].max())))
        axes[len(values)].set_ylim(bottom=0)
        axes[0].set_ylabel("lowest eigenvalues")
        axes[len(values)].set_ylabel(r"alignment $(v_1 \cdot w^*)^2 / N$")
        line_legend(figure, [*entries, *marks])
    return figure


def _average(results: Results) -> xr.Dataset:
    assert results.trajectory is not None
    return average_runs(results.cube, results.trajectory)


def _drawing(results: Results) -> Callable[..., None]:
    """Draws NAME of a part of the means on an axis: as a band, or the runs that are behind it."""
    assert results.trajectory is not None
    if results.cube.sizes["seed"] >= _FEWEST_SEEDS:
        return lambda ax, part, name, **look: draw_band(ax, *_since_start(part), name, **look)
    runs, control = follow_runs(results.cube, results.trajectory), control_name(results.cube)

    def draw_runs(ax: Axes, part: xr.Dataset, name: str, **look: Any) -> None:
        place = {axis: part[axis].item() for axis in (control, "N", "init")}
        times, later = _since_start(runs[[name]].sel(place))
        each = later[name].transpose("time", ...).to_numpy().reshape(len(times), -1)
        ax.plot(times, each, linewidth=0.9, **look)

    return draw_runs


def _since_start(part: xr.Dataset) -> tuple[np.ndarray, xr.Dataset]:
    """Times and means without t = 0, which has no place on a logarithmic axis."""
    later = part.sel(time=part["time"] > 0)
    return later["time"].to_numpy(), later


def _draw_labels_spectrum(ax: Axes, part: xr.Dataset) -> list[tuple[str, dict[str, Any]]]:
    """Edge and outlier from the labels of the runs, and what the legend says of them."""
    marks = []
    for name, line in (("bulk_edge", ":"), ("outlier", "-.")):
        if name in part:
            look: dict[str, Any] = {
                "color": THEORY_COLOUR,
                "linestyle": line,
                "linewidth": 1.2,
                "zorder": 4,
            }
            times, later = _since_start(part)
            ax.plot(times, later[name].to_numpy(), **look)
            marks.append((f"{name.replace('_', ' ')} of the labels", look))
    return marks


def _size_entries(sizes: np.ndarray) -> list[tuple[str, dict[str, Any]]]:
    colours = size_colours(sizes)
    return [(f"$N = {N}$", {"color": c}) for N, c in zip(sizes, colours, strict=True)]


def _set_heading(ax: Axes, index: int, control: str, value: float) -> None:
    ax.set_xscale("log")
    set_title(ax, index, name_value(control, value), pad=4)
