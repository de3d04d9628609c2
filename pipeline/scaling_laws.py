"""How the half-recovery point may depend on the size N: the candidate laws. NumPy only.

With ℓ = log N, c the control parameter and θ the law's own parameters, at most a level and a rate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """A candidate c_½(N).

    Parameters
    ----------
    name : str
    formula : str
        With A the level and B the rate.
    terms : tuple of str
        The free parameters in the order of θ: ``level``, ``rate``.
    half : callable
        (θ, ℓ [sizes]) → c_½ [sizes].
    start : callable
        (ℓ [sizes], c_½ [sizes]) → θ to start a fit from.
    limit : callable
        θ → what c_½ tends to for N → ∞; infinite if it grows without bound.
    """

    name: str
    formula: str
    terms: tuple[str, ...]
    half: Callable[[Floats, Floats], Floats]
    start: Callable[[Floats, Floats], Floats]
    limit: Callable[[Floats], float]


@dataclass(frozen=True)
class GainTable:
    """Signal gain near the equator: how far a run amplifies a small overlap before it is trapped.

    Parameters
    ----------
    control : ndarray [points]
        Control parameter, ascending.
    doubled_log : ndarray [points]
        2 log max_t G(t) there, made to ascend: an overlap of order N^(-1/2) is amplified to order
        1 where it reaches log N + const (phase retrieval, specification, section 8). Of the spiked
        model, 2 log s(T): `pipeline.spiked_recovery`.
    """

    control: Floats
    doubled_log: Floats

    def __post_init__(self) -> None:
        fits = self.control.ndim == 1 and self.control.shape == self.doubled_log.shape
        rising = fits and bool((np.diff(self.control) > 0).all())
        if not rising or self.control.size < 2:
            raise ValueError(
                "gain: expected two or more ascending values of the control parameter and 2 log G "
                f"at each, got {self.control!r} and {self.doubled_log!r}; sort the table"
            )
        if not (np.diff(self.doubled_log) > 0).all():
            raise ValueError(
                f"gain: expected 2 log G that rises with the control parameter, got "
                f"{self.doubled_log!r}; average over more seeds, or leave out the points beyond"
            )

    def control_at(self, doubled_log: Floats) -> Floats:
        """Where the gain has a value; beyond the table along its last piece."""
        x, y = self.doubled_log, self.control
        inner = np.interp(doubled_log, x, y)
        low = y[0] + (doubled_log - x[0]) * (y[1] - y[0]) / (x[1] - x[0])
        high = y[-1] + (doubled_log - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
        return np.where(doubled_log < x[0], low, np.where(doubled_log > x[-1], high, inner))


def candidate_laws(limit: float | None = None, gain: GainTable | None = None) -> tuple[Law, ...]:
    """The laws that can be asked for with what is known.

    Parameters
    ----------
    limit : float, optional
        Control parameter to which c_½ may tend like 1/log N: the BBP threshold of threshold states.
        Without it the law ``approach`` is left out.
    gain : GainTable, optional
        Without it the law ``gain`` is left out.
    """
    laws = [
        Law(
            "constant",
            "A",
            ("level",),
            lambda t, x: np.full_like(x, t[0]),
            lambda _, half: np.array([half.mean()]),
            lambda t: float(t[0]),
        ),
        Law(
            "logarithm",
            "A + B log N",
            ("level", "rate"),
            lambda t, x: t[0] + t[1] * x,
            _line,
            lambda t: float(t[0]) if t[1] == 0 else float(np.sign(t[1]) * np.inf),
        ),
        Law(
            "inverse",
            "A - B / log N",
            ("level", "rate"),
            lambda t, x: t[0] - t[1] / x,
            lambda x, half: _line(-1 / x, half),
            lambda t: float(t[0]),
        ),
    ]
    if limit is not None and np.isfinite(limit):
        known = limit
        laws.append(
            Law(
                "approach",
                f"{known:.4g} - B / log N",
                ("rate",),
                lambda t, x: known - t[0] / x,
                lambda x, half: np.array([((known - half) * x).mean()]),
                lambda _: known,
            )
        )
    if gain is not None:
        table = gain
        laws.append(
            Law(
                "gain",
                "2 log G_max = log N + A",
                ("level",),
                lambda t, x: table.control_at(x + t[0]),
                lambda x, half: np.array(
                    [(np.interp(half, table.control, table.doubled_log) - x).mean()]
                ),
                lambda _: np.nan,  # the table ends
            )
        )
    return tuple(laws)


def _line(x: Floats, y: Floats) -> Floats:
    """Level and rate of the least-squares line."""
    if len(x) < 2 or np.ptp(x) == 0:
        return np.array([y.mean(), 0.0])
    rate, level = np.polyfit(x, y, 1)
    return np.array([level, rate])
