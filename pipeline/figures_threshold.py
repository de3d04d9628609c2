"""Threshold states: their energy and the edge of their Hessian, against the 1RSB solution."""

from contextlib import suppress
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.along import average_runs
from pipeline.averages import average_seeds
from pipeline.figures_style import (
    THEORY_COLOUR,
    draw_band,
    draw_points,
    figure_style,
    line_legend,
    name_value,
    new_figure,
    pick,
    set_title,
    size_axis,
    size_colours,
)
from pipeline.reductions import control_name
from pipeline.results import Results
from pipeline.theory.bulk import find_edge
from pipeline.theory.threshold_states import ThresholdStateError, find_state, follow_branch
from pipeline.threshold_fit import QUANTITIES, extrapolate_threshold

_MOST_ROWS: Final = 3
_LIMIT_LOOK: Final[Any] = {"color": "#D55E00", "marker": "D", "markersize": 4, "zorder": 6}


def has_threshold_states(results: Results) -> bool:
    """Whether random starts were followed on the equator, and constrained ones released."""
    along = results.trajectory
    if along is None or not {"random", "constrained"} <= set(along["init"].to_numpy().tolist()):
        return False
    if "loss_equator" not in along:
        return False
    return bool(along["loss_equator"].sel(init="random").notnull().any())


def threshold_figure(results: Results) -> Figure:
    """Energy and edge on the equator against time, and λ₁ of the states that are released.

    A row for each of at most three control values; means over seeds with 95 % intervals for each N,
    and the limits N, t → ∞ (diamonds, at the right). Dashed: the 1RSB solution.
    """
    assert results.trajectory is not None
    control = control_name(results.cube)
    means = average_runs(results.cube, results.trajectory).sel(init="random")
    limits = extrapolate_threshold(results.cube, results.trajectory)
    released = results.finished(results.cube[["lambda1_start"]]).sel(init="constrained").load()
    lowest = average_seeds(released)
    values = pick(means[control].to_numpy().tolist(), _MOST_ROWS)
    sizes = means["N"].to_numpy()
    with figure_style():
        figure, axes = new_figure(len(values), 3, height=2.2)
        for row, value in enumerate(values):
            panels = axes[3 * row : 3 * row + 3]
            _draw_relaxation(panels, means.sel({control: value}), limits.sel({control: value}))
            _draw_released(panels[2], lowest.sel({control: value}))
            if results.model == "phase_retrieval" and results.a is not None:
                _draw_theory(panels, results.a, value)
            titles = (name_value(control, value), "marginality", "released states")
            for k, (ax, title) in enumerate(zip(panels, titles, strict=True)):
                set_title(ax, 3 * row + k, title, pad=4)
        entries = [
            (f"$N = {N}$", {"color": colour})
            for N, colour in zip(sizes, size_colours(sizes), strict=True)
        ]
        entries.append((r"$N, t \to \infty$", {**_LIMIT_LOOK, "linestyle": "none"}))
        if results.model == "phase_retrieval":
            entries.append(("1RSB", {"color": THEORY_COLOUR, "linestyle": "--"}))
        line_legend(figure, entries)
    return figure


def _draw_relaxation(panels: list[Axes], part: xr.Dataset, limits: xr.Dataset) -> None:
    """Energy and edge against time for each N, with their limits beyond the last time."""
    later = part.sel(time=part["time"] > 0)
    times, sizes = later["time"].to_numpy(), later["N"].to_numpy()
    labels = ("energy per measurement", r"edge $\lambda_\mathrm{edge}$ of the labels")
    for ax, (name, short), label in zip(panels, QUANTITIES.items(), labels, strict=False):
        for N, colour in zip(sizes, size_colours(sizes), strict=True):
            draw_band(ax, times, later.sel(N=N), name, color=colour)
        draw_points(ax, times[-1:] * 2, limits.expand_dims("x"), short, fmt="D", **_points_look())
        ax.set_xscale("log")
        ax.set_xlabel("time on the equator")
        ax.set_ylabel(label)
        # the last two decades: what comes before is the way there
        late = later[name].where(later["time"] >= times[-1] / 100)
        low, high = float(late.min()), float(late.max())
        low = min(low, float(limits[short]) if np.isfinite(limits[short]) else low)
        ax.set_ylim(low - 0.25 * (high - low), high + 0.1 * (high - low))


def _draw_released(ax: Axes, part: xr.Dataset) -> None:
    sizes = part["N"].to_numpy()
    for N, colour in zip(sizes, size_colours(sizes), strict=True):
        draw_points(ax, np.array([N]), part.sel(N=[N]), "lambda1_start", color=colour)
    size_axis(ax, sizes)
    ax.set_ylabel(r"$\lambda_1$ at release")


def _draw_theory(panels: list[Axes], a: float, alpha: float) -> None:
    with suppress(ThresholdStateError):
        state = find_state(follow_branch(a), alpha)
        edge = float(find_edge(state.law, alpha).eigenvalue)
        for ax, value in zip(panels, (state.energy, edge, edge), strict=True):
            ax.axhline(value, color=THEORY_COLOUR, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
            low, high = ax.get_ylim()
            reach = 0.05 * (high - low)
            ax.set_ylim(min(low, value - reach), max(high, value + reach))


def _points_look() -> dict[str, Any]:
    return {name: look for name, look in _LIMIT_LOOK.items() if name != "marker"}
