"""What all figures share: how they look, how they name and mark things, how they are written.

Object interface of matplotlib only: no pyplot, no state, no display.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeVar

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

Colour = tuple[float, float, float, float] | str
Label = TypeVar("Label")

_AXIS_LABELS: Final[Mapping[str, tuple[str, str]]] = {
    "alpha": (r"signal-to-noise ratio $\alpha = M/N$", r"half-recovery point $\alpha_{1/2}$"),
    "snr": (r"signal-to-noise ratio $1/\Delta_2$", r"half-recovery point of $1/\Delta_2$"),
}
# Okabe and Ito's palette, and shapes, so that colour is never the only sign.
INIT_STYLES: Final = (
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
THEORY_COLOUR: Final = "#595959"


@contextmanager
def figure_style() -> Iterator[None]:
    """The user's matplotlib settings stay out, and stay as they were."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def save_figure(figure: Figure, stem: str | PathLike[str]) -> tuple[Path, Path]:
    """PNG (200 dots per inch) and PDF of a figure; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
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
    with figure_style():
        figure.savefig(png, dpi=200, metadata={"Software": None})
        figure.savefig(pdf, metadata={"Creator": None, "Producer": None, "CreationDate": None})
    return png, pdf


def new_figure(
    rows: int, columns: int, *, height: float, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure 7 inches wide with its panels, row by row; `height` of a row in inches.

    Shared are all horizontal axes, and the vertical ones of each row.
    """
    figure = Figure(figsize=(7.0, 0.35 + height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        rows, columns, squeeze=False, sharex=share, sharey="row" if share else False
    )
    return figure, list(axes.flat)


def figure_legend(figure: Figure, ax: Axes, **settings: Any) -> None:
    """What is labelled in one panel, explained once above all of them."""
    handles, labels = ax.get_legend_handles_labels()
    _legend_above(figure, handles, labels, **settings)


def line_legend(figure: Figure, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Labels and looks of lines, explained once above all panels."""
    _legend_above(figure, [Line2D([], [], **look) for _, look in entries], [e[0] for e in entries])


def _legend_above(
    figure: Figure, handles: Sequence[Artist], labels: Sequence[str], **settings: Any
) -> None:
    """With the columns asked for, else in as few rows as the width of the figure allows."""
    look: dict[str, Any] = {
        "loc": "outside upper center",
        "frameon": False,
        "handletextpad": 0.4,
        "columnspacing": 1.5,
        "ncols": len(labels),
        **settings,
    }
    legend = figure.legend(handles, labels, **look)
    rows = 1
    while "ncols" not in settings and rows < len(labels):
        if legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
        rows += 1
        legend = figure.legend(handles, labels, **{**look, "ncols": -(-len(labels) // rows)})


def pick(labels: Sequence[Label], most: int) -> list[Label]:
    """At most so many of the labels, evenly spread, with the first and the last."""
    if len(labels) <= most:
        return list(labels)
    return [labels[int(k)] for k in np.linspace(0, len(labels) - 1, most).round()]


def draw_points(ax: Axes, x: np.ndarray, means: xr.Dataset, name: str, **settings: Any) -> None:
    """Means with their intervals, NAME_low to NAME_high, as points with bars."""
    y, low, high = (means[f"{name}{end}"].to_numpy() for end in ("", "_low", "_high"))
    ax.errorbar(
        x,
        y,
        yerr=np.maximum(np.nan_to_num([y - low, high - y]), 0.0),
        **{"fmt": "o", "markersize": 3.0, "elinewidth": 0.8, "zorder": 3, **settings},
    )


def draw_band(ax: Axes, x: np.ndarray, means: xr.Dataset, name: str, **settings: Any) -> None:
    """Means with their intervals, NAME_low to NAME_high, as a line in a band."""
    y, low, high = (means[f"{name}{end}"].to_numpy() for end in ("", "_low", "_high"))
    (line,) = ax.plot(x, y, **{"linewidth": 1.1, "zorder": 3, **settings})
    ax.fill_between(x, low, high, color=line.get_color(), alpha=0.18, linewidth=0, zorder=2)


def name_value(control: str, value: float) -> str:
    """A value of the control parameter as a title or a legend gives it."""
    symbol = {"alpha": r"\alpha", "snr": r"1/\Delta_2"}.get(control, rf"\mathrm{{{control}}}")
    return f"${symbol} = {value:g}$"


def axis_labels(control: str) -> tuple[str, str]:
    """Names of the control parameter and of its half-recovery point."""
    return _AXIS_LABELS.get(control, (control, f"half-recovery point of {control}"))


def side_by_side(count: int, spacing: float) -> list[float]:
    """Small shifts that put points of equal abscissa side by side, not on each other."""
    return [spacing * (i - (count - 1) / 2) for i in range(count)]


def _spaced_sizes(sizes: np.ndarray, gap: float) -> list[float]:
    """Sizes to label: those at least `gap` of the logarithmic range after the last one labelled."""
    least = gap * np.log(sizes.max() / sizes.min())
    kept: list[float] = []
    for size in sizes.tolist():
        if not kept or np.log(size / kept[-1]) >= least:
            kept.append(size)
    return kept


def size_axis(ax: Axes, sizes: np.ndarray) -> None:
    """N on a logarithmic axis, its values written out."""
    ax.set_xscale("log")
    ax.set_xlim(sizes.min() / 1.35, sizes.max() * 1.35)
    ax.xaxis.set_major_locator(FixedLocator(_spaced_sizes(sizes.astype(float), 0.12)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("dimension $N$ (logarithmic)")


def size_colours(sizes: np.ndarray) -> list[Colour]:
    """Viridis from light to dark in log N, without its ends that vanish on paper."""
    logs = np.log(sizes.astype(float))
    position = (logs - logs.min()) / np.ptp(logs) if len(sizes) > 1 else np.array([0.5])
    return [tuple(rgba) for rgba in mpl.colormaps["viridis"](0.78 - 0.73 * position)]


def value_colours(values: np.ndarray) -> list[Colour]:
    """Plasma from dark to light along values other than N, without its light end."""
    position = (values - values.min()) / (np.ptp(values) or 1.0)
    return [tuple(rgba) for rgba in mpl.colormaps["plasma"](0.8 * position)]


def lines_near(values: np.ndarray, lines: Mapping[str, float]) -> dict[str, float]:
    """Lines in order of value, without those that would squeeze the grid into a corner."""
    low, high = values.min() / 2, values.max() * 2
    return {label: x for label, x in sorted(lines.items(), key=lambda v: v[1]) if low <= x <= high}


def limits_with(values: np.ndarray, lines: list[float]) -> tuple[float, float]:
    """Range that shows all values and lines, with a margin."""
    shown = [*values.tolist(), *lines]
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def mark_vertical(ax: Axes, lines: Mapping[str, float]) -> None:
    """Dashed lines, labelled just above the panel."""
    for (label, value), align in zip(lines.items(), _alignments(ax.get_xlim(), lines), strict=True):
        ax.axvline(value, color=THEORY_COLOUR, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
        ax.annotate(
            label,
            (value, 1.0),
            xycoords=ax.get_xaxis_transform(),
            xytext=(0, 2),
            textcoords="offset points",
            ha=align,
            va="bottom",
            color=THEORY_COLOUR,
        )


def mark_horizontal(ax: Axes, lines: Mapping[str, float]) -> None:
    """Dashed lines, labelled at the right of the panel."""
    for label, value in lines.items():
        ax.axhline(value, color=THEORY_COLOUR, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
        ax.annotate(
            label,
            (1.0, value),
            xycoords=ax.get_yaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            color=THEORY_COLOUR,
            annotation_clip=False,
        )


def set_title(ax: Axes, index: int, text: str = "", *, pad: float = 17) -> None:
    """Letter and name of a panel, `pad` points above it: room for labels of lines."""
    ax.set_title(f"({'abcdefghijkl'[index]}) {text}", loc="left", pad=pad)


def _alignments(limits: tuple[float, float], lines: Mapping[str, float]) -> list[str]:
    """Labels centred on their lines; two close ones lean away from each other."""
    values = list(lines.values())
    close = 0.16 * (limits[1] - limits[0])
    leans = ["center"] * len(values)
    for i, (left, right) in enumerate(pairwise(values)):
        if right - left < close:
            leans[i], leans[i + 1] = "right", "left"
    return leans
