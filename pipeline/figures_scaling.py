"""Half-recovery points against log N with their laws, data collapse, and recovery against time."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

from pipeline.figures_style import (
    INIT_STYLES,
    axis_labels,
    draw_band,
    figure_legend,
    figure_style,
    new_figure,
    pick,
    set_title,
    size_colours,
)
from pipeline.recovery_curve import probability
from pipeline.reductions import control_name
from pipeline.results import Results

_LAW_STYLES = {
    "constant": ("#7F7F7F", (0, (1, 1))),
    "logarithm": ("#D55E00", "-"),
    "inverse": ("#0072B2", (0, (5, 2))),
    "approach": ("#009E73", (0, (5, 1, 1, 1))),
    "gain": ("#CC79A7", (0, (3, 1, 1, 1, 1, 1))),
}
_CURVES = 6  # control values whose recovery is shown against time
_LABELS = 4  # of times that fit below a panel


def has_laws(results: Results) -> bool:
    """Whether a law of the half-recovery points was fitted."""
    reduced = results.reduced
    return "law_standing" in reduced and bool(reduced["law_aic"].notnull().any())


def has_horizons(results: Results) -> bool:
    """Whether runs recovered, and when is known."""
    reduced = results.reduced
    return "probability_by" in reduced and bool((reduced["recovered"] > 0).any())


def scaling_figure(results: Results) -> Figure:
    """Half-recovery points against log N, with the laws that the data do not exclude.

    A panel for each initialisation, followed to a hundred times the largest size. Laws that are
    excluded are left out.
    """
    reduced = results.reduced
    control, inits = control_name(reduced), _inits(reduced)
    with figure_style():
        figure, axes = _panels(len(inits))
        for i, (ax, init) in enumerate(zip(axes, inits, strict=False)):
            part = reduced.sel(init=init)
            sizes = part["N"].to_numpy().astype(float)
            reach = 100 * sizes.max()
            for law, (colour, dashes) in _LAW_STYLES.items():
                one = part.sel(law=law).sel(size=slice(None, reach))
                if bool(one["law_standing"]):
                    draw_band(ax, one["size"].to_numpy(), one, "law_half", color=colour, ls=dashes)
            _draw_halves(ax, part, control)
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(10.0, numticks=8))
            ax.set_xlim(sizes.min() / 1.35, reach)
            ax.set_xlabel("dimension $N$ (logarithmic)")
            ax.set_ylabel(axis_labels(control)[1])
            set_title(ax, i, init)
        for law, (colour, dashes) in _LAW_STYLES.items():
            if bool(reduced["law_standing"].sel(law=law).any()):
                axes[0].plot([], [], color=colour, ls=dashes, label=law)
        figure_legend(figure, axes[0])
    return figure


def collapse_figure(results: Results) -> Figure:
    """Recovery probabilities of all sizes, shifted by their own half-recovery points.

    A panel for each initialisation; the line is the law of the curves with the steepness of their
    mean.
    """
    reduced = results.reduced
    control, inits = control_name(reduced), _inits(reduced)
    sizes = reduced["N"].to_numpy()
    with figure_style():
        figure, axes = _panels(len(inits))
        for i, (ax, init) in enumerate(zip(axes, inits, strict=False)):
            part = reduced.sel(init=init)
            for N, colour in zip(sizes, size_colours(sizes), strict=True):
                one = part.sel(N=N)
                shifted = one[control].to_numpy() - float(one[f"{control}_half"])
                p, low, high = (one[f"probability{e}"].to_numpy() for e in ("", "_low", "_high"))
                ends = np.maximum(np.nan_to_num([p - low, high - p]), 0.0)
                ax.errorbar(
                    shifted, p, yerr=ends, fmt="o", ms=3.0, lw=0.8, color=colour, label=f"$N = {N}$"
                )
            steepness = float(part["curve_slope"].mean())
            if np.isfinite(steepness):
                x = np.linspace(*ax.get_xlim(), 300)
                ax.plot(x, probability(steepness * x), color="0.4", lw=0.8, zorder=1)
            ax.set_ylim(0.0, 1.0)
            symbol = {"alpha": r"\alpha"}.get(control, rf"\mathrm{{{control}}}")
            ax.set_xlabel(rf"${symbol} - {symbol}_{{1/2}}(N)$")
            ax.set_ylabel("recovery probability")
            set_title(ax, i, f"{init}, S = {float(part['collapse']):.2f}")
        figure_legend(figure, axes[0])
    return figure


def survival_figure(results: Results) -> Figure:
    """Probability of recovery by a time, up to T, at the largest size.

    A panel for each initialisation, lines for values of the control parameter.
    """
    reduced = results.reduced
    control, inits = control_name(reduced), _inits(reduced)
    sizes = reduced["N"].to_numpy()
    with figure_style():
        figure, axes = _panels(len(inits))
        for i, (ax, init) in enumerate(zip(axes, inits, strict=False)):
            part = reduced.sel(init=init, N=sizes.max())
            for value in pick(part[control].to_numpy().tolist(), _CURVES):
                one = part.sel({control: value})
                p, low, high = (
                    one[f"probability_by{end}"].to_numpy() for end in ("", "_low", "_high")
                )
                ax.errorbar(
                    one["horizon"].to_numpy(),
                    p,
                    yerr=np.maximum(np.nan_to_num([p - low, high - p]), 0.0),
                    marker="o",
                    ms=2.5,
                    lw=0.9,
                    label=f"{value:g}",
                )
            ax.set_xscale("log")
            horizons = part["horizon"].to_numpy()
            every = 1 if len(horizons) <= _LABELS else 2  # of the horizons has room for its label
            ax.xaxis.set_major_locator(FixedLocator(horizons[::every].tolist()))
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_ylim(0.0, 1.0)
            ax.set_xlabel("time $t$ (units of the flow)")
            ax.set_ylabel("recovered by $t$")
            set_title(ax, i, f"{init}, $N = {sizes.max()}$")
        figure_legend(figure, axes[0], title=axis_labels(control)[0])
    return figure


def _inits(reduced: xr.Dataset) -> list[str]:
    return [str(init) for init in reduced["init"].to_numpy()]


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """So many panels, at most three in a row."""
    columns = min(count, 3)
    figure, axes = new_figure(-(-count // columns), columns, height=2.6)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _draw_halves(ax: Axes, part: xr.Dataset, control: str) -> None:
    half, low, high = (part[f"{control}_half{end}"].to_numpy() for end in ("", "_low", "_high"))
    ends = np.nan_to_num([half - low, high - half], nan=0.0, posinf=0.0)
    colour, marker = INIT_STYLES[-1]
    ax.errorbar(
        part["N"].to_numpy(), half, yerr=np.maximum(ends, 0.0), fmt=marker, color=colour, ms=3.5,
        lw=0.9, zorder=4,
    )  # fmt: skip
