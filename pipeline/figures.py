"""Which figures a store gives: one table, each figure with what it needs of the store."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from pipeline.figures_phase_diagram import has_loss_axis, phase_diagram
from pipeline.figures_recovery import paired_figure, recovery_figure
from pipeline.figures_scaling import (
    collapse_figure,
    has_horizons,
    has_laws,
    scaling_figure,
    survival_figure,
)
from pipeline.figures_spectrum import has_spectrum, spectrum_figure
from pipeline.figures_spiked_hitting import has_hitting_times, spiked_hitting_figure
from pipeline.figures_spiked_runs import has_spiked_runs, spiked_dynamics_figure
from pipeline.figures_start import has_random_starts, start_figure
from pipeline.figures_style import save_figure
from pipeline.figures_theory import theory_lines
from pipeline.figures_threshold import has_threshold_states, threshold_figure
from pipeline.figures_trajectory import (
    has_hessian_along,
    has_trajectory,
    hessian_figure,
    overlap_figure,
)
from pipeline.figures_window import has_window, window_figure
from pipeline.outcomes import control_name
from pipeline.results import Results
from pipeline.spiked_recovery import predict_half_points

__all__ = ["FIGURES", "DrawnFigure", "FigureKind", "draw_figures", "save_figure"]


@dataclass(frozen=True)
class FigureKind:
    """A row of the table.

    Parameters
    ----------
    name : str
        Stem of its files.
    caption : str
        What is seen, in a sentence or two.
    applies : callable
        Whether the store holds what the figure shows.
    draw : callable
    whole : bool
        Whether it shows all values of a constant of the model that is an axis; else there is one
        for each.
    """

    name: str
    caption: str
    applies: Callable[[Results], bool]
    draw: Callable[[Results], Figure]
    whole: bool = False


@dataclass(frozen=True)
class DrawnFigure:
    """A figure of one store."""

    name: str
    caption: str
    figure: Figure


def _has_recoveries(results: Results) -> bool:
    """Whether some run recovered; else the curves are all 0, drawn if nothing else is."""
    return bool((results.reduced["recovered"] > 0).any()) or not has_random_starts(results)


def _has_pairs(results: Results) -> bool:
    """Whether several initialisations ended on the same seeds, and did not all end alike."""
    reduced = results.reduced
    return "gained" in reduced and bool((reduced["gained"] + reduced["lost"] > 0).any())


def _draw_pairs(results: Results) -> Figure:
    return paired_figure(results.reduced)


def _draw_recovery(results: Results) -> Figure:
    def predict_half(sizes: np.ndarray) -> np.ndarray | None:
        values = results.reduced[control_name(results.reduced)].to_numpy().tolist()
        return predict_half_points(results.physics, values, sizes)

    random = "random" in results.reduced["init"].to_numpy()
    return recovery_figure(
        results.reduced,
        theory=theory_lines(results),
        predict_half=predict_half if random else None,
    )


FIGURES: Final = (
    FigureKind(
        "recovery",
        "Probability of recovery against the signal-to-noise ratio, with 95 % intervals and "
        "fitted curves, and the half-recovery point against log N. Dashed: theory for N → ∞; solid "
        "grey, of the spiked model: the half points that it predicts of random starts at this T.",
        applies=_has_recoveries,
        draw=_draw_recovery,
    ),
    FigureKind(
        "half_recovery_laws",
        "Half-recovery points against log N with 95 % intervals, and the laws that the data do not "
        "exclude, with bands of 95 %, followed to a hundred times the largest size.",
        applies=has_laws,
        draw=scaling_figure,
    ),
    FigureKind(
        "collapse",
        "Recovery probabilities of all sizes, each shifted by its half-recovery point, with 95 % "
        "intervals; S is their mean squared distance in standard errors, near 1 if they collapse.",
        applies=has_laws,
        draw=collapse_figure,
    ),
    FigureKind(
        "recovery_by_time",
        "Probability of recovery by a time t up to the end of the runs, at the largest size, with "
        "95 % intervals: where curves still rise at T, longer runs would recover more.",
        applies=has_horizons,
        draw=survival_figure,
    ),
    FigureKind(
        "paired_inits",
        "Recovery probability of one initialisation minus that of another, on the same seeds: the "
        "same instances and draws, with 95 % intervals.",
        applies=_has_pairs,
        draw=_draw_pairs,
    ),
    FigureKind(
        "phase_diagram",
        "Probability of recovery over the signal-to-noise ratio and the constant of the loss, of "
        "the largest size, with the half-recovery points. Lines: the BBP thresholds of theory.",
        applies=has_loss_axis,
        draw=phase_diagram,
        whole=True,
    ),
    FigureKind(
        "hessian_at_start",
        "The lowest eigenvalue of the Hessian at a random start, the alignment of its eigenvector "
        "with the signal, and its distance from the second eigenvalue: means over seeds with 95 % "
        "intervals. Lines: theory for N → ∞.",
        applies=has_random_starts,
        draw=start_figure,
        whole=True,
    ),
    FigureKind(
        "spiked_dynamics",
        "Overlap, multiplier, energies and lowest eigenvalue of the Hessian along runs of the "
        "spiked model from a given overlap: means over seeds with standard errors. Lines: the "
        "closed equations for N → ∞; for the eigenvalue that of an instance without fluctuations, "
        "dotted the edge of the bulk and dashed the outlier if the noise did not know of the "
        "descent.",
        applies=has_spiked_runs,
        draw=spiked_dynamics_figure,
    ),
    FigureKind(
        "spiked_hitting_times",
        "When runs of the spiked model reach an overlap of order 1, against ln(1/m(0)): means over "
        "seeds with standard errors on the closed equations for N → ∞; and the growth rates that "
        "follow from how these times scale, which vanish on the line of gradient flow.",
        applies=has_hitting_times,
        draw=spiked_hitting_figure,
        whole=True,
    ),
    FigureKind(
        "overlap_along_descent",
        "The overlap with the signal against time: means over seeds, bands of 95 % intervals (of "
        "one or two seeds, each run); a run that has ended counts with its last overlap.",
        applies=has_trajectory,
        draw=overlap_figure,
    ),
    *(
        FigureKind(
            f"hessian_along_descent_{init}",
            f"The two lowest eigenvalues of the Hessian along runs that start {start}, and the "
            "alignment of the lowest with the signal: means over the runs under way, up to where "
            "half of them have ended, bands of 95 % intervals (of one or two seeds, each run).",
            applies=partial(has_hessian_along, init=init),
            draw=partial(hessian_figure, init=init),
        )
        for init, start in (
            ("random", "at random"),
            ("spectral", "at the lowest eigenvector of the Hessian"),
            ("constrained", "at threshold states"),
        )
    ),
    FigureKind(
        "spectrum_along_descent",
        "The density of the Hessian's eigenvalues along runs that start at random, of the largest "
        "size, means over seeds, whose multipliers differ and smear it; below on a logarithmic "
        "axis. Dashed: theory at the start.",
        applies=has_spectrum,
        draw=spectrum_figure,
    ),
    FigureKind(
        "window_on_equator",
        "On the equator m = 0: how far the signal's outlier lies below the bulk and how far a "
        "small overlap is amplified, when the outlier is lost, and the half-recovery points "
        "that 2 log G_max = log N + const predicts. Intervals of 95 %.",
        applies=has_window,
        draw=window_figure,
    ),
    FigureKind(
        "threshold_states",
        "Runs held at m = 0: energy and edge of the Hessian against the time on the equator, with "
        "their limits for N and time to infinity, and the lowest eigenvalue of the states that "
        "are released. Intervals of 95 %. Dashed: the 1RSB solution.",
        applies=has_threshold_states,
        draw=threshold_figure,
    ),
)


def draw_figures(results: Results) -> Iterator[DrawnFigure]:
    """The figures for which a store has what they show, in the order of the table.

    Sizes of which no run has ended are left out.

    Of those that show one value of a constant of the model that is an axis, one for each, which
    their names end with; none of them where that constant is the starting overlap and only hitting
    times are asked for.
    """
    results = results.begun()
    # of starts at given overlaps, recovery says less than the times it takes
    whole_only = has_hitting_times(results) and results.trajectory is None
    for kind in FIGURES:
        if whole_only and not kind.whole:
            continue
        for constants, part in [({}, results)] if kind.whole else results.split():
            if kind.applies(part):
                values = [f"{name}={value:g}" for name, value in constants.items()]
                name = "-".join([kind.name, *values])
                caption = " ".join([kind.caption, *(f"Here {value}." for value in values)])
                yield DrawnFigure(name, caption, kind.draw(part))
