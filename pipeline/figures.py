"""Which figures a store gives: one table, each figure with what it needs of the store."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from matplotlib.figure import Figure

from pipeline.figures_recovery import recovery_figure
from pipeline.figures_style import save_figure
from pipeline.figures_theory import theory_lines
from pipeline.results import Results

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
    """

    name: str
    caption: str
    applies: Callable[[Results], bool]
    draw: Callable[[Results], Figure]


@dataclass(frozen=True)
class DrawnFigure:
    """A figure of one store."""

    name: str
    caption: str
    figure: Figure


def _has_ended_runs(results: Results) -> bool:
    return bool((results.reduced["runs"] > 0).any())


def _draw_recovery(results: Results) -> Figure:
    return recovery_figure(results.reduced, theory=theory_lines(results))


FIGURES: Final = (
    FigureKind(
        "recovery",
        "Probability of recovery against the signal-to-noise ratio, with 95 % intervals and "
        "logistic fits, and the half-recovery point against log N. Dashed: theory for N → ∞.",
        applies=_has_ended_runs,
        draw=_draw_recovery,
    ),
)


def draw_figures(results: Results) -> Iterator[DrawnFigure]:
    """The figures for which a store has what they show, in the order of the table.

    One for each value of a constant of the model that is an axis, which its name ends with.
    """
    for kind in FIGURES:
        for constants, part in results.split():
            if kind.applies(part):
                values = [f"{name}={value:g}" for name, value in constants.items()]
                name = "-".join([kind.name, *values])
                caption = " ".join([kind.caption, *(f"Here {value}." for value in values)])
                yield DrawnFigure(name, caption, kind.draw(part))
