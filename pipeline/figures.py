"""Reduced datasets as figures of publication quality, legible at the width of two columns.

Object interface of matplotlib only: no pyplot, no state, no display.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter
from scipy.special import expit

from pipeline.reductions import control_name, describe_runs
from pipeline.theory.bbp import bbp_at_initialisation
from pipeline.theory.threshold_states import ThresholdStateError, bbp_at_threshold
from pipeline.transition import Crossing

_AXIS_LABELS: Final[Mapping[str, tuple[str, str]]] = {
    "alpha": (r"signal-to-noise ratio $\alpha = M/N$", r"half-recovery point $\alpha_{1/2}$"),
    "snr": (r"signal-to-noise ratio $1/\Delta_2$", r"half-recovery point of $1/\Delta_2$"),
}
# Okabe and Ito's palette, and shapes, so that colour is never the only sign.
_INIT_STYLES: Final = (
    ("#D55E00", "o"),
    ("#0072B2", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#000000", "v"),
)
_STYLE: Final[Any] = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "mathtext.fontset": "dejavusans",
    "pdf.fonttype": 42,
    "svg.hashsalt": "hesscape",
}
_THEORY_COLOUR: Final = "#595959"


def phase_retrieval_thresholds(a: float) -> dict[str, float]:
    """Label → α of the N → ∞ BBP thresholds, at the start and of threshold states; 0.15 s.

    The second is left out where the threshold states of this a are not found.

    Parameters
    ----------
    a : float
        Parameter of the loss, > 0.

    Raises
    ------
    LawError
        If a is not positive.
    """
    thresholds = {r"$\alpha_\mathrm{BBP}^\mathrm{init}$": bbp_at_initialisation(a)}
    with suppress(ThresholdStateError):
        thresholds[r"$\alpha_\mathrm{BBP}^\mathrm{TS}$"] = bbp_at_threshold(a)
    return thresholds


def recovery_figure(reduced: xr.Dataset, *, theory: Mapping[str, float] | None = None) -> Figure:
    """Recovery probability against the control parameter, and its half point against log N.

    One panel for each init: points with Wilson intervals and fitted curves, logistic in the log of
    the control parameter, darker for larger N. Last panel: half-recovery points with intervals; an
    arrow from the bound where the curves do not reach one half within the grid. The legend says how
    many seeds and replicas a point has, where there are replicas.

    Parameters
    ----------
    reduced : Dataset
        From `pipeline.reductions.reduce_cube`.
    theory : mapping of str to float, optional
        Label → control parameter of the lines to mark, as from `phase_retrieval_thresholds`. Those
        further than a factor of 2 beyond the grid are left out.

    Returns
    -------
    Figure
        7 inches wide; write it with `save_figure`.
    """
    control = control_name(reduced)
    lines = _lines_near(reduced[control].to_numpy(), theory or {})
    inits = [str(init) for init in reduced["init"].to_numpy()]
    rows = (len(inits) + 2) // 2
    with _style():
        figure = Figure(figsize=(7.0, 0.35 + 2.65 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(rows, 2, squeeze=False).flat)
        for spare in axes[len(inits) + 1 :]:
            spare.remove()
        limits = _limits(reduced[control].to_numpy(), list(lines.values()))
        for i, (ax, init) in enumerate(zip(axes, inits, strict=False)):
            ax.set_xlim(*limits)
            _draw_curves(ax, reduced.sel(init=init), control)
            _mark_vertical(ax, lines)
            _set_title(ax, i, init)
        last = axes[len(inits)]
        last.set_ylim(*_make_room(limits, reduced))
        _draw_half_points(last, reduced, control)
        _mark_horizontal(last, lines)
        _set_title(last, len(inits), "half-recovery point")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside upper center",
            ncols=min(len(labels), 8),
            frameon=False,
            handletextpad=0.2,
            columnspacing=1.5,
            # where a point is not simply so many runs
            title=f"{describe_runs(reduced)} a point" if "replicas" in reduced.coords else None,
        )
    return figure


def save_figure(figure: Figure, stem: str | PathLike[str]) -> tuple[Path, Path]:
    """PNG (200 dots per inch) and PDF of a figure; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
        From this module.
    stem : path
        Path without suffix; folders are made as needed.

    Returns
    -------
    png, pdf : Path
        The files written.
    """
    # Not with_suffix: a stem such as "a=0.5" has no suffix.
    png, pdf = (Path(f"{Path(stem)}{suffix}") for suffix in (".png", ".pdf"))
    png.parent.mkdir(parents=True, exist_ok=True)
    with _style():
        figure.savefig(png, dpi=200, metadata={"Software": None})
        figure.savefig(pdf, metadata={"Creator": None, "Producer": None, "CreationDate": None})
    return png, pdf


@contextmanager
def _style() -> Iterator[None]:
    """The user's matplotlib settings stay out, and stay as they were."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def _draw_curves(ax: Axes, part: xr.Dataset, control: str) -> None:
    """Points, intervals and fitted curves of one init, for each N."""
    x = part[control].to_numpy()
    dense = np.linspace(x.min(), x.max(), 400)
    sizes = part["N"].to_numpy()
    aside = _offsets(len(sizes), min(0.006, 0.02 / len(sizes)) * float(np.ptp(ax.get_xlim())))
    for N, colour, offset in zip(sizes, _size_colours(sizes), aside, strict=True):
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
        b0, b1 = float(one["logit_intercept"]), float(one["logit_slope"])
        ax.plot(dense, expit(b0 + b1 * np.log(dense)), color=colour, linewidth=0.9, zorder=2)
    ax.axhline(0.5, color="0.8", linewidth=0.6, zorder=0)
    ax.set_ylim(0.0, 1.0)
    ax.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], labels=["0", "", "0.5", "", "1"])
    ax.set_xlabel(_axis_labels(control)[0])
    ax.set_ylabel("recovery probability")


def _draw_half_points(ax: Axes, reduced: xr.Dataset, control: str) -> None:
    """Half-recovery points against N on a logarithmic axis, one colour and shape for each init."""
    sizes = reduced["N"].to_numpy().astype(float)
    inits = reduced["init"].to_numpy()
    bottom, top = ax.get_ylim()
    ax.set_xscale("log")
    ax.set_xlim(sizes.min() / 1.35, sizes.max() * 1.35)
    aside = _offsets(len(inits), 0.015 * float(np.ptp(np.log(ax.get_xlim()))))
    for i, init in enumerate(inits):
        colour, marker = _INIT_STYLES[i % len(_INIT_STYLES)]
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
    ax.xaxis.set_major_locator(FixedLocator(_spaced(sizes, 0.12)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("dimension $N$ (logarithmic)")
    ax.set_ylabel(_axis_labels(control)[1])
    ax.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(inits),
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.2,
        borderaxespad=0.0,
    )


def _axis_labels(control: str) -> tuple[str, str]:
    """Names of the control parameter and of its half-recovery point."""
    return _AXIS_LABELS.get(control, (control, f"half-recovery point of {control}"))


def _offsets(count: int, spacing: float) -> list[float]:
    """Small shifts that put points of equal abscissa side by side, not on each other."""
    return [spacing * (i - (count - 1) / 2) for i in range(count)]


def _spaced(sizes: np.ndarray, gap: float) -> list[float]:
    """Sizes to label: those at least `gap` of the logarithmic range after the last one labelled."""
    least = gap * np.log(sizes.max() / sizes.min())
    kept: list[float] = []
    for size in sizes.tolist():
        if not kept or np.log(size / kept[-1]) >= least:
            kept.append(size)
    return kept


def _size_colours(sizes: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Viridis from light to dark in log N, without its ends that vanish on paper."""
    logs = np.log(sizes.astype(float))
    position = (logs - logs.min()) / np.ptp(logs) if len(sizes) > 1 else np.array([0.5])
    return [tuple(rgba) for rgba in mpl.colormaps["viridis"](0.78 - 0.73 * position)]


def _lines_near(values: np.ndarray, lines: Mapping[str, float]) -> dict[str, float]:
    """Lines in order of value, without those that would squeeze the grid into a corner."""
    low, high = values.min() / 2, values.max() * 2
    return {label: x for label, x in sorted(lines.items(), key=lambda v: v[1]) if low <= x <= high}


def _limits(values: np.ndarray, lines: list[float]) -> tuple[float, float]:
    """Range that shows all values and lines, with a margin."""
    shown = [*values.tolist(), *lines]
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _make_room(limits: tuple[float, float], reduced: xr.Dataset) -> tuple[float, float]:
    """Limits widened where an arrow must leave the grid."""
    crossing = reduced["crossing"]
    room = 0.13 * (limits[1] - limits[0])
    below, above = (
        bool((crossing == code).any()) for code in (Crossing.BELOW_GRID, Crossing.ABOVE_GRID)
    )
    return limits[0] - room * below, limits[1] + room * above


def _mark_vertical(ax: Axes, lines: Mapping[str, float]) -> None:
    """Dashed lines, labelled just above the panel."""
    for (label, value), align in zip(lines.items(), _alignments(ax.get_xlim(), lines), strict=True):
        ax.axvline(value, color=_THEORY_COLOUR, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
        ax.annotate(
            label,
            (value, 1.0),
            xycoords=ax.get_xaxis_transform(),
            xytext=(0, 2),
            textcoords="offset points",
            ha=align,
            va="bottom",
            color=_THEORY_COLOUR,
        )


def _mark_horizontal(ax: Axes, lines: Mapping[str, float]) -> None:
    """Dashed lines, labelled at the right of the panel."""
    for label, value in lines.items():
        ax.axhline(value, color=_THEORY_COLOUR, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
        ax.annotate(
            label,
            (1.0, value),
            xycoords=ax.get_yaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            color=_THEORY_COLOUR,
            annotation_clip=False,
        )


def _alignments(limits: tuple[float, float], lines: Mapping[str, float]) -> list[str]:
    """Labels centred on their lines; two close ones lean away from each other."""
    values = list(lines.values())
    close = 0.16 * (limits[1] - limits[0])
    leans = ["center"] * len(values)
    for i, (left, right) in enumerate(pairwise(values)):
        if right - left < close:
            leans[i], leans[i + 1] = "right", "left"
    return leans


def _set_title(ax: Axes, index: int, text: str) -> None:
    ax.set_title(f"({'abcdefghij'[index]}) {text}", loc="left", pad=17)
