"""Recovery probabilities and half-recovery points."""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures_style import (
    INIT_STYLES,
    THEORY_COLOUR,
    axis_labels,
    draw_points,
    figure_legend,
    figure_style,
    limits_with,
    lines_near,
    mark_horizontal,
    mark_vertical,
    new_figure,
    set_title,
    side_by_side,
    size_axis,
    size_colours,
)
from pipeline.recovery_curve import probability
from pipeline.reductions import control_name, describe_runs
from pipeline.transition import Crossing


def recovery_figure(
    reduced: xr.Dataset,
    *,
    theory: Mapping[str, float] | None = None,
    predict_half: Callable[[np.ndarray], np.ndarray | None] | None = None,
) -> Figure:
    """Recovery probability against the control parameter, and its half point against log N.

    One panel for each init: points with Wilson intervals and fitted curves,
    darker for larger N. Last panel: half-recovery points with intervals; an
    arrow from the bound where the curves do not reach one half within the grid. The legend says how
    many seeds and replicas a point has, where there are replicas.

    Parameters
    ----------
    reduced : Dataset
        From `pipeline.reductions.reduce_cube`.
    theory : mapping of str to float, optional
        Label → control parameter of the lines to mark, as from `phase_retrieval_thresholds`. Those
        further than a factor of 2 beyond the grid are left out.
    predict_half : callable, optional
        N [sizes] → half-recovery point of random starts that theory predicts at the end of the
        runs, a line in the last panel; None where it predicts nothing.

    Returns
    -------
    Figure
        7 inches wide.
    """
    control = control_name(reduced)
    lines = lines_near(reduced[control].to_numpy(), theory or {})
    inits = [str(init) for init in reduced["init"].to_numpy()]
    rows = (len(inits) + 2) // 2
    with figure_style():
        figure, axes = new_figure(rows, 2, height=2.65)
        for spare in axes[len(inits) + 1 :]:
            spare.remove()
        limits = limits_with(reduced[control].to_numpy(), list(lines.values()))
        for i, (ax, init) in enumerate(zip(axes, inits, strict=False)):
            ax.set_xlim(*limits)
            _draw_curves(ax, reduced.sel(init=init), control)
            mark_vertical(ax, lines)
            set_title(ax, i, init)
        last = axes[len(inits)]
        last.set_ylim(*_make_room(limits, reduced))
        if predict_half is not None:
            _draw_prediction(last, reduced["N"].to_numpy(), predict_half)
        _draw_half_points(last, reduced, control)
        mark_horizontal(last, lines)
        set_title(last, len(inits), "half-recovery point")
        # where a point is not simply so many runs
        title = f"{describe_runs(reduced)} a point" if "replicas" in reduced.coords else None
        figure_legend(figure, axes[0], title=title)
    return figure


def paired_figure(reduced: xr.Dataset) -> Figure:
    """Difference of recovery probabilities of each two initialisations, on the same seeds.

    A panel for each pair, with 95 % intervals, darker for larger N.

    Parameters
    ----------
    reduced : Dataset
        From `pipeline.reductions.reduce_cube`, with two initialisations or three.
    """
    control = control_name(reduced)
    x, sizes = reduced[control].to_numpy(), reduced["N"].to_numpy()
    aside = side_by_side(len(sizes), min(0.006, 0.02 / len(sizes)) * float(np.ptp(x)))
    pairs = reduced["pair"].to_numpy().tolist()
    with figure_style():
        figure, axes = new_figure(1, len(pairs), height=2.4, share=True)
        for k, (ax, pair) in enumerate(zip(axes, pairs, strict=True)):
            for N, colour, shift in zip(sizes, size_colours(sizes), aside, strict=True):
                part = reduced.sel(N=N, pair=pair)
                look = {"color": colour, "label": f"$N = {N}$", "linestyle": "-", "linewidth": 0.5}
                draw_points(ax, x + shift, part, "gain", **look)
            ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
            ax.set_xlabel(axis_labels(control)[0])
            set_title(ax, k, str(pair).replace("-", " − "), pad=4)
        axes[0].set_ylabel("difference of recovery probabilities")
        figure_legend(figure, axes[0])
    return figure


def _draw_curves(ax: Axes, part: xr.Dataset, control: str) -> None:
    """Points, intervals and fitted curves of one init, for each N."""
    x = part[control].to_numpy()
    dense = np.linspace(x.min(), x.max(), 400)
    sizes = part["N"].to_numpy()
    aside = side_by_side(len(sizes), min(0.006, 0.02 / len(sizes)) * float(np.ptp(ax.get_xlim())))
    for N, colour, offset in zip(sizes, size_colours(sizes), aside, strict=True):
        one = part.sel(N=N)
        p, low, high = (one[f"probability{end}"].to_numpy() for end in ("", "_low", "_high"))
        ax.errorbar(
            x + offset,
            p,
            yerr=np.maximum([p - low, high - p], 0.0),
            fmt="o",
            color=colour,
            markersize=3.4,
            markeredgecolor="white",
            markeredgewidth=0.3,
            elinewidth=0.8,
            label=f"$N = {N}$",
            clip_on=False,
            zorder=3,
        )
        b0, b1 = float(one["curve_intercept"]), float(one["curve_slope"])
        ax.plot(dense, probability(b0 + b1 * dense), color=colour, linewidth=0.9, zorder=2)
    ax.axhline(0.5, color="0.8", linewidth=0.6, zorder=0)
    ax.set_ylim(0.0, 1.0)
    ax.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], labels=["0", "", "0.5", "", "1"])
    ax.set_xlabel(axis_labels(control)[0])
    ax.set_ylabel("recovery probability")


def _draw_half_points(ax: Axes, reduced: xr.Dataset, control: str) -> None:
    """Half-recovery points against N on a logarithmic axis, one colour and shape for each init."""
    sizes = reduced["N"].to_numpy().astype(float)
    inits = reduced["init"].to_numpy()
    bottom, top = ax.get_ylim()
    size_axis(ax, sizes)
    aside = side_by_side(len(inits), 0.015 * float(np.ptp(np.log(ax.get_xlim()))))
    for i, init in enumerate(inits):
        colour, marker = INIT_STYLES[i % len(INIT_STYLES)]
        part = reduced.sel(init=init)
        half, low, high = (part[f"{control}_half{end}"].to_numpy() for end in ("", "_low", "_high"))
        shifted = sizes * np.exp(aside[i])
        ends = np.nan_to_num([half - low, high - half], nan=0.0, posinf=top - bottom)
        ax.errorbar(
            shifted,
            half,
            yerr=ends,
            fmt=marker,
            color=colour,
            markersize=3.6,
            elinewidth=1.1,
            label=str(init),
        )
        ax.plot(shifted, half, color=colour, linewidth=0.6, alpha=0.5, zorder=1)
        crossing = part["crossing"].to_numpy()
        for code, bound, sign in ((Crossing.ABOVE_GRID, low, 1), (Crossing.BELOW_GRID, high, -1)):
            for where in np.flatnonzero((crossing == code) & np.isfinite(bound)):
                start = (shifted[where], bound[where])
                ax.plot(*start, marker="_", color=colour, markersize=5.0)
                ax.annotate(
                    "",
                    xy=(start[0], start[1] + sign * 0.1 * (top - bottom)),
                    xytext=start,
                    arrowprops={
                        "arrowstyle": "-|>,head_length=0.3,head_width=0.15",
                        "color": colour,
                        "linewidth": 1.0,
                        "shrinkA": 0.0,
                        "shrinkB": 0.0,
                    },
                )
    ax.set_ylabel(axis_labels(control)[1])
    ax.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(ax.get_legend_handles_labels()[1]),
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.2,
        borderaxespad=0.0,
    )


def _draw_prediction(
    ax: Axes, sizes: np.ndarray, predict: Callable[[np.ndarray], np.ndarray | None]
) -> None:
    dense = np.geomspace(sizes.min() / 1.35, sizes.max() * 1.35, 200)
    half = predict(dense)
    if half is not None:
        ax.plot(dense, half, color=THEORY_COLOUR, linewidth=1.0, label="theory at $T$", zorder=1)


def _make_room(limits: tuple[float, float], reduced: xr.Dataset) -> tuple[float, float]:
    """Limits widened where an arrow must leave the grid."""
    crossing = reduced["crossing"]
    room = 0.13 * (limits[1] - limits[0])
    below, above = (
        bool((crossing == code).any()) for code in (Crossing.BELOW_GRID, Crossing.ABOVE_GRID)
    )
    return limits[0] - room * below, limits[1] + room * above
