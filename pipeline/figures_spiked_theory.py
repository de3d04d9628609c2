"""What theory says of the spiked matrix-tensor model: phase diagram, complexity, hitting times."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.figures_style import INIT_STYLES, figure_style
from pipeline.theory.spiked_complexity import complexity
from pipeline.theory.spiked_descent import descend_from_equator
from pipeline.theory.spiked_growth import hitting_times, threshold_growth_rate
from pipeline.theory.spiked_landscape import (
    SNR_BAYES,
    gradient_flow_line,
    message_passing_line,
    signal_states,
    triviality_line,
)
from pipeline.theory.spiked_model import SpikedModel, make_spiked_model


def _bayes_line(delta_p: float, order: int) -> float:  # noqa: ARG001  as the other lines
    return SNR_BAYES


LINES: Final[Mapping[str, Callable[[float, int], float]]] = {
    "Bayes-optimal message passing": _bayes_line,
    "maximum-likelihood message passing": message_passing_line,
    "gradient flow (BBP)": gradient_flow_line,
    "no minima on the equator": triviality_line,
}
"""Line of the phase diagram → function of Δ_p and p that gives its 1/Δ₂."""

_DURATION, _STEP = 120.0, 0.1  # of the descents that hitting times are read off


def spiked_figures(
    delta_p: float, snrs: Sequence[float], order: int = 3
) -> Iterator[tuple[str, Figure]]:
    """Names and figures: the phase diagram and, where there are any 1/Δ₂, what holds at them.

    Raises
    ------
    SpikedModelError
        If Δ_p or an snr is not a positive number, or p < 3.
    """
    models = [make_spiked_model(snr, delta_p, order) for snr in sorted(set(snrs))]
    yield "phase_diagram", phase_diagram(delta_p, snrs, order)
    if models:
        yield "complexity", complexity_figure(models)
        yield "hitting_times", hitting_time_figure(models)


def phase_diagram(delta_p: float, snrs: Sequence[float], order: int = 3) -> Figure:
    """Lines in the plane of Δ_p and Δ₂, below which each thing happens; crosses at given 1/Δ₂."""
    noise = np.geomspace(min(0.2, delta_p / 2), max(10.0, 2 * delta_p), 160)
    with figure_style():
        figure, (ax,) = _panels(1, 3.9)
        for (label, line), (colour, _), dash in zip(
            LINES.items(), INIT_STYLES[::-1][1:], ("-", "--", "-", ":"), strict=True
        ):
            curve = [1 / line(float(value), order) for value in noise]
            ax.plot(noise, curve, dash, color=colour, linewidth=1.3, label=label)
        if snrs:
            ax.plot([delta_p] * len(snrs), 1 / np.array(snrs), "x", color="black", markersize=5)
        ax.set_xscale("log")
        ax.set_xlim(noise[0], noise[-1])
        ax.set_ylim(0, 1.1)
        ax.set_xlabel(r"noise of the tensor $\Delta_p$")
        ax.set_ylabel(r"noise of the matrix $\Delta_2$")
        ax.set_title(f"$p = {order}$: each happens below its line", loc="left")
        ax.legend(loc="lower right", frameon=False)
    return figure


def complexity_figure(models: Sequence[SpikedModel]) -> Figure:
    """Σ(m) of minima for each 1/Δ₂, with the stable states along the signal, where it is zero."""
    m = np.concatenate([np.linspace(-0.95, 0.95, 800), np.linspace(0.95, 0.9999, 60)[1:]])
    with figure_style():
        figure, axes = _panels(2, 3.0)
        for index, model in enumerate(models):
            colour, marker = INIT_STYLES[index % len(INIT_STYLES)]
            value = complexity(model, m).value
            states = [state.overlap for state in signal_states(model)]
            for ax in axes:
                ax.plot(m, value, color=colour, label=_name(model), linewidth=1.1)
                ax.plot(states, np.zeros(len(states)), marker, color=colour, markersize=4)
        top = max(float(np.nanmax(complexity(model, m).value)) for model in models)
        top = max(top, 1e-4)
        axes[0].set_ylim(-30 * top, 6 * top)
        axes[1].set_ylim(-1.2 * top, 1.4 * top)
        near = [abs(x) for model in models for x in m[complexity(model, m).value > -top].tolist()]
        axes[1].set_xlim(
            -min(1.2 * max(near, default=0.3), 1), min(1.2 * max(near, default=0.3), 1)
        )
        for ax, title in zip(axes, ("(a) all overlaps", "(b) where minima are many"), strict=True):
            ax.axhline(0, color="0.7", linewidth=0.6, zorder=0)
            ax.set_xlabel("overlap $m$")
            ax.set_title(title, loc="left")
        axes[0].set_ylabel(r"complexity of minima $\Sigma(m)$")
        axes[0].legend(frameon=False, loc="lower center")
    return figure


def hitting_time_figure(models: Sequence[SpikedModel]) -> Figure:
    """Time to reach m of order 1, against ln(1/m(0)), and growth rates: constant above the line."""
    with figure_style():
        figure, axes = _panels(2, 3.0)
        for index, model in enumerate(models):
            colour, _ = INIT_STYLES[index % len(INIT_STYLES)]
            gain = descend_from_equator(model, duration=_DURATION, step=_STEP)
            wanted = np.linspace(0, float(np.log(gain.overlap[-1])), 300)
            axes[0].plot(wanted, hitting_times(gain, wanted), color=colour, label=_name(model))
            rate = np.gradient(np.log(gain.overlap), gain.time)
            axes[1].plot(gain.time[1:], rate[1:], color=colour)
            limit = threshold_growth_rate(model)
            if limit > 0:
                axes[1].axhline(limit, color=colour, linewidth=0.8, linestyle=(0, (4, 2)))
        axes[0].set_xlabel(r"$\ln(1/m(0))$")
        axes[0].set_ylabel("hitting time")
        axes[0].set_title("(a) hitting times", loc="left")
        axes[0].legend(frameon=False)
        axes[1].set_xscale("log")
        axes[1].set_yscale("log")
        axes[1].set_xlim(1, _DURATION)
        axes[1].set_ylim(3e-3, 3)
        axes[1].set_xlabel("time")
        axes[1].set_ylabel(r"growth rate $d\ln m/dt$")
        axes[1].set_title("(b) dashed: rate at threshold states", loc="left")
    return figure


def _name(model: SpikedModel) -> str:
    return rf"$1/\Delta_2 = {model.matrix:g}$"


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(7.0 if count > 1 else 4.6, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False).flat)
