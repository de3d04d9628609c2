"""Where the next seeds are worth most: decisions of an adaptive campaign. NumPy and SciPy only.

A size is decided in rounds. A round asks for seeds 0 … n - 1 at some (control value,
initialisation); when all of them have ended, `next_round` asks for more, from these results alone:
who computed them, in which order, and what else the store holds does not matter. The rounds are
therefore not recorded anywhere, they are found again from the results.

Each recovery probability is estimated from all the seeds of its cell, taken in order, and the rule
that stops does not look at single cells but at the curve; it stops where the information is enough,
which hardly depends on which half of the runs recovered. What bias and coverage are left after that
is measured in `tests/test_pipeline_sampling.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pipeline.intervals import LEVEL, SeedSums, effective_runs, wilson_interval
from pipeline.recovery_curve import predictor_at, probability, slopes
from pipeline.transition import Floats, fit_curve

Cell = tuple[float, str]
"""Control value and initialisation."""

Asked = Mapping[Cell, int]
"""Seeds asked for in each cell of one size."""

_GROWTH: Final = 2.0  # most by which a cell's seeds grow in a round
_COARSE: Final = 0.25, 0.75  # probabilities beyond which both neighbours of one half are too far
_NEAR: Final = 0.15, 0.85  # cells between them take part in the next round
_Z: Final = float(ndtri((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Rule:
    """What an adaptive campaign wants.

    Parameters
    ----------
    target_halfwidth : float
        Half-width of a 95 % interval of a recovery probability: with `transition`, of the fitted
        curve at its half-recovery point; with `everywhere`, of each cell.
    max_seeds : int
        Most seeds of a cell.
    focus : str
    first_seeds : int
        Seeds of a cell when it is first asked for.
    block_seeds : int
        Seeds of a chunk of the store: cells grow by whole chunks.
    """

    target_halfwidth: float
    max_seeds: int
    focus: Literal["transition", "everywhere"]
    first_seeds: int
    block_seeds: int

    def enlarge(self, seeds: int, factor: float) -> int:
        """More seeds by a factor, at most doubled, up to whole chunks and to `max_seeds`."""
        wished = seeds * min(max(factor, 1.0), _GROWTH)
        chunks = max(int(np.ceil(wished / self.block_seeds)), seeds // self.block_seeds + 1)
        return min(chunks * self.block_seeds, self.max_seeds)


@dataclass(frozen=True)
class Curve:
    """Results of one initialisation at one size.

    Parameters
    ----------
    control : ndarray [points]
        Ascending.
    recovered, runs : ndarray [points]
        Counts, of runs that ended with a known outcome; with replicas what they are worth.
    """

    control: Floats
    recovered: Floats
    runs: Floats

    @classmethod
    def of(cls, control: Floats, recovered: NDArray[np.int64], runs: NDArray[np.int64]) -> "Curve":
        """From counts [seeds, points] of recovered and ended replicas of each seed."""
        sums = SeedSums.of(recovered, runs)
        worth = effective_runs(sums)
        share = worth / np.maximum(sums.runs, 1)
        return cls(control, np.asarray(sums.recovered * share, dtype=np.float64), worth)


def half_width_at_half(curve: Curve) -> tuple[float, float]:
    """Half-recovery point of the fitted curve, and the half-width of its probability there.

    From the information of the fit; both NaN with fewer than two points, infinite width where the
    curve does not rise.
    """
    b0, b1 = map(float, fit_curve(curve.control, curve.recovered, curve.runs))
    if not b1 > 0:
        return np.nan, np.nan if np.isnan(b1) else np.inf
    half = -b0 / b1
    by_p, by_q, _ = slopes(b0 + b1 * curve.control)
    weight = curve.runs * by_p * by_q
    total = max(float(weight.sum()), 1e-150)
    middle = float(weight @ curve.control) / total
    spread = max(float(weight @ (curve.control - middle) ** 2), 1e-150)
    error = np.sqrt(1 / total + (half - middle) ** 2 / spread)
    return half, float(_Z * error * slopes(np.zeros(1))[0][0] / 2)


def next_round(asked: Asked, curves: Mapping[str, Curve], rule: Rule, N: int) -> dict[Cell, int]:
    """Seeds to ask for after a round that has ended; equal to `asked` where all is decided.

    Parameters
    ----------
    asked : mapping of (control value, init) to int
    curves : mapping of init to Curve
        Results of exactly the cells that were asked for.
    rule : Rule
    N : int
        Size, which decides how close control values can be: M = round(αN) must differ.
    """
    wanted = dict(asked)
    for init, curve in curves.items():
        step = _sharpen_everywhere if rule.focus == "everywhere" else _sharpen_transition
        for value, seeds in step(asked, init, curve, rule, N).items():
            wanted[value, init] = max(seeds, wanted.get((value, init), 0))
    return wanted


def _sharpen_everywhere(
    asked: Asked, init: str, curve: Curve, rule: Rule, _: int
) -> dict[float, int]:
    """More seeds for each cell whose own interval is too wide."""
    low, high = wilson_interval(curve.recovered, curve.runs)
    widths = np.where(curve.runs > 0, (high - low) / 2, 1.0)
    return {
        value: rule.enlarge(asked[value, init], (width / rule.target_halfwidth) ** 2)
        for value, width in zip(curve.control.tolist(), widths.tolist(), strict=True)
        if width > rule.target_halfwidth
    }


def _sharpen_transition(
    asked: Asked, init: str, curve: Curve, rule: Rule, N: int
) -> dict[float, int]:
    """A new control value between neighbours of one half that are far apart, or more seeds there.

    Where the curve does not cross one half inside the grid, more seeds at the end until that end's
    own interval says so.
    """
    x = curve.control
    half, width = half_width_at_half(curve)
    if np.isnan(half) or not x[0] < half < x[-1]:
        low, high = wilson_interval(curve.recovered, curve.runs)
        doubtful = ~((low > 0.5) | (high < 0.5))
        if not np.isnan(half):
            doubtful &= x == (x[0] if half <= x[0] else x[-1])
        return _enlarge(asked, init, x[doubtful], rule, _GROWTH)
    if width <= rule.target_halfwidth:
        return {}
    right = int(np.searchsorted(x, half))
    left = right - 1
    slope = -fit_curve(x, curve.recovered, curve.runs)[0] / half
    far = slope * (x[right] - x[left]) > predictor_at(_COARSE[1]) - predictor_at(_COARSE[0])
    middle = float(f"{(x[left] + x[right]) / 2:.10g}")
    apart = len({round(value * N) for value in (float(x[left]), middle, float(x[right]))}) == 3
    if far and apart:
        return {middle: rule.first_seeds}
    p = probability(slope * (x - half))
    near = (p > _NEAR[0]) & (p < _NEAR[1])
    near[[left, right]] = True
    return _enlarge(asked, init, x[near], rule, (width / rule.target_halfwidth) ** 2)


def _enlarge(
    asked: Asked, init: str, values: Floats, rule: Rule, factor: float
) -> dict[float, int]:
    return {value: rule.enlarge(asked[value, init], factor) for value in values.tolist()}
