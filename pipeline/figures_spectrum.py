"""The density of the Hessian's eigenvalues at chosen times."""

from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.averages import average_seeds
from pipeline.figures_style import (
    THEORY_COLOUR,
    draw_band,
    figure_style,
    line_legend,
    name_value,
    new_figure,
    pick,
    set_title,
    value_colours,
)
from pipeline.reductions import control_name
from pipeline.results import Results
from pipeline.theory.density import spectral_density
from pipeline.theory.laws import gaussian_law

_MOST_PANELS: Final = 4
_MOST_TIMES: Final = 4
_SHOWN: Final = 0.9  # of the eigenvalues: a few large ones would take half of the panel
_FLOOR: Final = 1e-3


def has_spectrum(results: Results) -> bool:
    """Whether the store has spectra of runs that start at random."""
    spectrum = results.spectrum
    if spectrum is None or "random" not in spectrum["init"].to_numpy().tolist():
        return False
    return bool(spectrum["density"].sel(init="random").notnull().any())


def spectrum_figure(results: Results) -> Figure:
    """Density of the Hessian's eigenvalues of the largest N, a panel for each control value.

    Of runs that start at random, mean over seeds with 95 % intervals; below on a logarithmic axis.
    For phase retrieval, the density at w(0) for N → ∞ as well.
    """
    assert results.spectrum is not None
    spectrum = results.finished(results.spectrum[["density"]]).sel(init=["random"]).isel(N=-1)
    control = control_name(results.cube)
    means = average_seeds(spectrum.squeeze("init", drop=True).load())
    values = pick(means[control].to_numpy().tolist(), _MOST_PANELS)
    times = pick(means["snapshot"].to_numpy().tolist(), _MOST_TIMES)
    colours = value_colours(np.arange(len(times)))
    x = means["eigenvalue"].to_numpy()
    entries: list[tuple[str, dict[str, Any]]] = [
        (f"$t = {time:g}$", {"color": colour}) for time, colour in zip(times, colours, strict=True)
    ]
    with figure_style():
        figure, axes = new_figure(2, len(values), height=1.9)
        for k, value in enumerate(values):
            upper, lower = axes[k], axes[len(values) + k]
            at_value = means.sel({control: value})
            for ax in (upper, lower):
                for time, colour in zip(times, colours, strict=True):
                    draw_band(ax, x, at_value.sel(snapshot=time), "density", color=colour)
                _limit(ax, x, at_value["density"].sel(snapshot=times).to_numpy())
            if results.model == "phase_retrieval" and results.a is not None and times[0] == 0:
                look = _draw_start([upper, lower], x, results.a, value)
                if not k:
                    entries.append((r"$t = 0$, $N \to \infty$", look))
            set_title(upper, k, name_value(control, value), pad=4)
            set_title(lower, len(values) + k, pad=4)
            upper.set_ylim(bottom=0)
            lower.set_yscale("log")
            largest = float(at_value["density"].max())
            lower.set_ylim(largest * _FLOOR, 2 * largest)
            lower.set_xlabel(r"eigenvalue $\lambda$")
        axes[0].set_ylabel("density of eigenvalues")
        axes[len(values)].set_ylabel("density (logarithmic)")
        line_legend(figure, entries)
    return figure


def _draw_start(axes: list[Axes], x: np.ndarray, a: float, alpha: float) -> dict[str, Any]:
    """The density at a random w(0) for N → ∞, and how it looks."""
    dense = np.linspace(x.min(), x.max(), 400)
    density = spectral_density(gaussian_law(a), alpha, dense)
    look: dict[str, Any] = {"color": THEORY_COLOUR, "linestyle": "--", "zorder": 4}
    for ax in axes:
        ax.plot(dense, density, **look)
    return look


def _limit(ax: Axes, x: np.ndarray, densities: np.ndarray) -> None:
    """From where the first density begins to where nine tenths of all of them lie below."""
    mean = np.nan_to_num(np.nanmean(densities, axis=0))
    share = np.cumsum(mean) / mean.sum()
    low, high = x[np.argmax(mean > 0)], x[np.argmax(share >= _SHOWN)]
    ax.set_xlim(low - 0.05 * (high - low), high)
