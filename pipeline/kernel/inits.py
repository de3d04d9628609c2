"""Where descents start: random, spectral, constrained (spec, section 3).

All starts of one seed share X, w* and the draw of w(0), so initialisations are compared in pairs.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel.batch import Array, Rows, on_sphere
from pipeline.kernel.flow import DescentResult, Outcome
from pipeline.kernel.observables import HessianSnapshot

INITS = ("random", "spectral", "constrained")


class Descent(Protocol):
    """A dynamics, ready to run."""

    def run(self, w: Array, owner: Rows) -> DescentResult:
        """Follow it from `w` [trajectories, N]."""


@dataclass(frozen=True)
class Starts:
    """Starting point of one initialisation on each instance.

    Parameters
    ----------
    w : float array [instances, N]
    gradients : float array [instances]
        Gradient-equivalent passes spent on finding it.
    outcome : int array [instances]
        RUNNING where the descent can start, else the `Outcome` of what failed.
    """

    w: Array
    gradients: NDArray[np.float64]
    outcome: NDArray[np.int8]


def random_starts(w0: Array) -> Starts:
    """w(0) itself, uniform on the sphere [instances, N]."""
    return Starts(w0, np.zeros(len(w0)), np.full(len(w0), Outcome.RUNNING, dtype=np.int8))


def spectral_starts(at_w0: HessianSnapshot) -> Starts:
    """√N v₁, v₁ the eigenvector of the smallest eigenvalue of H at w(0)."""
    return Starts(
        on_sphere(at_w0.lowest),
        at_w0.products.astype(np.float64),
        np.full(len(at_w0.lowest), Outcome.RUNNING, dtype=np.int8),
    )


def constrained_starts(w0: Array, on_equator: Descent, owner: Rows | None = None) -> Starts:
    """Threshold states: w(0) projected onto m = 0 and relaxed there by `on_equator` for T_c.

    The instance of each row is in `owner`; without it, each row has one of its own.
    """
    relaxed = on_equator.run(w0, np.arange(len(w0)) if owner is None else owner)
    arrived = relaxed.outcome == Outcome.NOT_RECOVERED
    return Starts(
        relaxed.w,
        relaxed.gradients.astype(np.float64),
        np.where(arrived, Outcome.RUNNING, relaxed.outcome).astype(np.int8),
    )
