"""The window of the signal on the equator: how long its outlier lives, and how far it amplifies."""

from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.along import average_runs, predict_half, window
from pipeline.figures_style import (
    INIT_STYLES,
    THEORY_COLOUR,
    axis_labels,
    draw_band,
    draw_points,
    figure_style,
    line_legend,
    name_value,
    new_figure,
    pick,
    set_title,
    side_by_side,
    size_axis,
    size_colours,
    value_colours,
)
from pipeline.reductions import control_name
from pipeline.results import Results

_TIME: Final = "time $t$ (units of the flow)"
_MOST_CURVES: Final = 6


def has_window(results: Results) -> bool:
    """Whether runs that start at random were followed on the equator."""
    along = results.trajectory
    if along is None or "random" not in along["init"].to_numpy().tolist():
        return False
    if "bbp_margin_equator" not in along or along.sizes["time"] < 2:
        return False
    return bool(along["bbp_margin_equator"].sel(init="random").notnull().any())


def window_figure(results: Results) -> Figure:
    """Depth of the outlier and gain against time, when the outlier is lost, half points predicted.

    On the equator m = 0, from random starts: (a) how far the outlier lies below the bulk and (b)
    the signal gain, of the largest N, for at most six control values; (c) the time at which the
    outlier is lost, for each N; (d) the half-recovery points from 2 log G_max = log N + const.
    """
    assert results.trajectory is not None
    control = control_name(results.reduced)
    means = average_runs(results.cube, results.trajectory).sel(init="random")
    found = window(results.cube, results.trajectory)
    values = pick(means[control].to_numpy().tolist(), _MOST_CURVES)
    colours = value_colours(np.array(values))
    with figure_style():
        figure, axes = new_figure(2, 2, height=2.3)
        for value, colour in zip(values, colours, strict=True):
            part = means.sel({control: value}).isel(N=-1)
            part = part.sel(time=part["time"] > 0)
            times = part["time"].to_numpy()
            draw_band(axes[0], times, part, "bbp_margin_equator", color=colour)
            draw_band(axes[1], times, _exponential(part, "log_gain"), "log_gain", color=colour)
        axes[0].axhline(0, color="0.8", linewidth=0.6, zorder=0)
        axes[0].set_ylabel("margin of the outlier")
        axes[1].set_yscale("log")
        axes[1].set_ylabel(r"typical gain $e^{\langle\log|G|\rangle}$")
        for ax in axes[:2]:
            ax.set_xscale("log")
            ax.set_xlabel(_TIME)
        _draw_loss_times(axes[2], found, control)
        _draw_prediction(axes[3], found, results.reduced, control)
        titles = ("outlier at $m = 0$", "amplification at $m = 0$", "outlier lost", "half recovery")
        for k, (ax, title) in enumerate(zip(axes, titles, strict=True)):
            set_title(ax, k, title, pad=4)
        line_legend(figure, _entries(control, values, colours))
    return figure


def _entries(
    control: str, values: list[float], colours: list[Any]
) -> list[tuple[str, dict[str, Any]]]:
    return [
        (name_value(control, value), {"color": colour})
        for value, colour in zip(values, colours, strict=True)
    ]


def _exponential(part: xr.Dataset, name: str) -> xr.Dataset:
    """A mean of logarithms and its interval, as numbers again."""
    return xr.Dataset(
        {f"{name}{end}": np.exp(part[f"{name}{end}"]) for end in ("", "_low", "_high")}
    )


def _draw_loss_times(ax: Axes, found: xr.Dataset, control: str) -> None:
    """t_BBP against the control parameter, where the outlier was there and was lost."""
    x, sizes = found[control].to_numpy(), found["N"].to_numpy()
    aside = side_by_side(len(sizes), 0.008 * float(np.ptp(x)))
    seen = found.where((found["t_bbp"] > 0) & np.isfinite(found["t_bbp"]))
    seen["t_bbp_high"] = seen["t_bbp_high"].where(np.isfinite(seen["t_bbp_high"]), seen["t_bbp"])
    for N, colour, shift in zip(sizes, size_colours(sizes), aside, strict=True):
        draw_points(ax, x + shift, seen.sel(N=N), "t_bbp", color=colour, label=f"$N = {N}$")
    ax.set_yscale("log")
    ax.set_xlabel(axis_labels(control)[0])
    ax.set_ylabel(r"time $t_\mathrm{BBP}$")
    ax.legend(frameon=False, handletextpad=0.2)


def _draw_prediction(ax: Axes, found: xr.Dataset, reduced: xr.Dataset, control: str) -> None:
    """Half-recovery points as measured, and as the gain predicts them."""
    colour, marker = INIT_STYLES[0]
    names = [f"{control}_half{end}" for end in ("", "_low", "_high")]
    half = reduced[names].sel(init="random")
    N = reduced["N"].to_numpy()
    half = half.where(np.isfinite(half), half[names[0]])
    draw_points(ax, N, half, names[0], color=colour, fmt=marker, label="measured")
    predicted = predict_half(found, reduced)
    ax.plot(N, predicted["predicted"], color=THEORY_COLOUR, linewidth=1.0, label="from the gain")
    size_axis(ax, N)
    ax.set_ylabel(axis_labels(control)[1])
    ax.legend(frameon=False, handletextpad=0.4)
